#![allow(clippy::unwrap_used)]
use super::budget::{BODIES, Times};
use super::{Budget, Encoding, ReadOptions, Received};
use crate::metrics::Outcome;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::future::FutureExt;
use hyper::body::{Body as HttpBody, Frame};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A client that sends nothing and stays.
struct Silent;

impl HttpBody for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn budget(max_body: u64) -> Budget {
    let soon = Duration::from_millis(20);
    Budget {
        times: Times {
            read: 10 * soon,
            room: soon,
            discard: soon,
        },
        ..Budget::new(max_body)
    }
}

async fn status(budget: &Budget, headers: &HeaderMap, body: Body) -> u16 {
    let error = budget
        .read(headers, body, ReadOptions::default())
        .await
        .map(|received| received.bytes)
        .unwrap_err();
    error.into_response().status().as_u16()
}

#[tokio::test]
async fn a_body_is_not_waited_for_longer_than_its_client_waits() {
    let wanted = ReadOptions {
        deadline: Some(Instant::now()),
        ..ReadOptions::default()
    };
    let late = Budget::new(100);
    let late = late.read(&HeaderMap::new(), Body::new(Silent), wanted).await;
    assert_eq!(late.map(drop).unwrap_err().into_response().status(), 504);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    assert_eq!(
        status(&budget(100), &HeaderMap::new(), Body::new(Silent)).await,
        408
    );
}

/// Without this, a few large uploads would exhaust the memory and kill the server.
#[tokio::test]
async fn bodies_wait_for_room_and_are_turned_away_without_it() {
    let budget = budget(1 << 20);
    let headers = HeaderMap::new();
    let read = || budget.read(&headers, Body::from("x"), ReadOptions::default());
    let mut kept = Vec::new();
    for _ in 0..BODIES {
        let body = Body::from(vec![0; 1 << 20]);
        kept.push(budget.read(&headers, body, ReadOptions::default()).await.unwrap());
    }
    let error = read().await.map(|received| received.bytes).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Rejected);
    let response = error.into_response();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    kept.pop();
    assert_eq!(read().await.unwrap().bytes, "x");
}

/// Otherwise four connections could keep all others out.
#[tokio::test]
async fn who_announces_large_bodies_and_sends_nothing_keeps_nobody_out() {
    let budget = Budget::new(1 << 20);
    let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, (1_u64 << 20).into())]);
    let read = |body| budget.read(&headers, body, ReadOptions::default());
    let mut silent: Vec<_> = (0..2 * BODIES)
        .map(|_| Box::pin(read(Body::new(Silent))))
        .collect();
    for reading in &mut silent {
        assert!(reading.now_or_never().is_none());
    }
    let whole = read(Body::from(vec![7; 1 << 20])).await.unwrap();
    assert_eq!(whole.bytes.len(), 1 << 20);
}

/// Requests that wait for memory must learn that their deadline has passed, too.
#[tokio::test]
async fn nobody_waits_for_room_longer_than_for_the_answer() {
    let budget = Budget::new(10);
    let headers = HeaderMap::new();
    let all = u32::try_from(budget.blocks.available_permits()).unwrap();
    let _all = budget.blocks.acquire_many(all).await.unwrap();
    let wanted = ReadOptions {
        deadline: Some(Instant::now() + Duration::from_millis(20)),
        ..ReadOptions::default()
    };
    let read = budget.read(&headers, Body::from("x"), wanted);
    assert_eq!(read.await.map(|_| ()).unwrap_err().status().as_u16(), 504);
}

/// A client that disconnects must not free the memory of a job that waits in the queue.
#[tokio::test]
async fn room_is_taken_as_long_as_there_is_any_part_of_the_body() {
    let budget = Budget::new(1 << 20);
    let free = budget.blocks.available_permits();
    let headers = HeaderMap::new();
    let read = budget.read(&headers, Body::from("0123456789"), ReadOptions::default());
    let Received { bytes, room } = read.await.unwrap();
    let part = bytes.slice(2..3);
    drop((bytes, room));
    assert!(budget.blocks.available_permits() < free);
    drop(part);
    assert_eq!(budget.blocks.available_permits(), free);
}

/// A small file that unpacks to gigabytes must cost no more than the largest body may.
#[tokio::test]
async fn a_body_that_unpacks_to_more_than_the_limit_is_refused() {
    let zeros = vec![0_u8; 1 << 20];
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let bomb = encoding.compress(&[&zeros]).unwrap();
        assert!(bomb.len() < 100_000);
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding.name().parse().unwrap())]);
        assert_eq!(
            status(&Budget::new(1 << 19), &headers, Body::from(bomb.clone())).await,
            413
        );
        let large = Budget::new(1 << 20);
        let fits = large.read(&headers, Body::from(bomb.clone()), ReadOptions::default());
        assert_eq!(fits.await.unwrap().bytes, zeros);
        let cut = Body::from(bomb[..bomb.len() / 2].to_vec());
        assert_eq!(status(&Budget::new(1 << 20), &headers, cut).await, 400);
        assert_eq!(
            status(&Budget::new(1 << 20), &headers, Body::from("plain")).await,
            400
        );
    }
    let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, "br".parse().unwrap())]);
    assert_eq!(status(&Budget::new(10), &headers, Body::from("x")).await, 415);
}

#[tokio::test]
async fn a_large_body_is_refused_with_and_without_its_length() {
    let mut headers = HeaderMap::new();
    assert_eq!(status(&budget(9), &headers, Body::from("0123456789")).await, 413);
    headers.insert(header::CONTENT_LENGTH, 10.into());
    assert_eq!(status(&budget(9), &headers, Body::from("0123456789")).await, 413);
    assert_eq!(status(&budget(9), &headers, Body::new(Silent)).await, 413);
    assert_eq!(
        budget(10)
            .read(&headers, Body::from("0123456789"), ReadOptions::default())
            .await
            .unwrap()
            .bytes
            .len(),
        10
    );
}
