//! Reads request bodies within limits: on the size of a body, on all bodies in memory together, and on time.

pub(super) mod compression;
mod discard;
mod encoding;
pub(super) mod frames;
mod sink;
pub(super) mod zero_copy;

pub(crate) use discard::{DISCARD_TIME, discard};
pub(super) use encoding::{Decoder, Encoding, Refused};
pub(super) use sink::{Reservation, Sink};
pub(crate) use zero_copy::{ZeroCopyBody, ZeroCopySource};

use crate::protocol::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use sink::{Full, blocks};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};

/// How long to wait.
#[derive(Clone, Copy)]
struct Times {
    /// For a whole body.
    read: Duration,
    /// For memory.
    room: Duration,
    /// While the rest of a rejected body is discarded.
    discard: Duration,
}

const TIMES: Times = Times {
    read: Duration::from_secs(60),
    room: Duration::from_secs(10),
    discard: DISCARD_TIME,
};
/// All bodies in memory together may be this many times as large as the largest single one.
const BODIES: usize = 4;
/// Reservation for a body of unknown length; it grows with the body.
const UNKNOWN: usize = 64 << 10;
/// Largest reservation for a body before any of it has arrived.
const AT_ONCE: usize = 256 << 10;

/// Memory for the bodies of all requests that are in flight or queued.
pub(super) struct Budget {
    blocks: Arc<Semaphore>,
    max_body: usize,
    times: Times,
}

/// A whole body.
pub(super) struct Received {
    /// The bytes; their memory is accounted for as long as any part of them exists.
    pub(super) bytes: Bytes,
    /// Keeps it accounted for longer: as long as what was built from them.
    pub(super) room: Arc<Reservation>,
}

/// How a body is to be read.
#[derive(Default)]
pub(super) struct ReadOptions {
    /// The byte that must be aligned like a tensor.
    pub(super) aligned_at: usize,
    /// When the client stops waiting for the response.
    pub(super) deadline: Option<Instant>,
    /// Reads its bytes without a copy, if that is possible.
    pub(super) zero_copy: Option<ZeroCopyBody>,
}

impl Budget {
    pub(super) fn new(max_body: u64) -> Self {
        let max_body = usize::try_from(max_body.min(u64::from(u32::MAX))).unwrap_or(usize::MAX);
        let all = BODIES.saturating_mul(blocks(max_body) as usize);
        Self {
            blocks: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            max_body,
            times: TIMES,
        }
    }

    /// The same, with another time limit for a whole body.
    pub(super) const fn in_at_most(mut self, time: Duration) -> Self {
        self.times.read = time;
        self
    }

    /// Reads a whole body, and decompresses it.
    ///
    /// # Errors
    /// 413 if it is too large, 415 if it is compressed in another way than gzip or deflate, 408 if it takes too long,
    /// 504 if it takes longer than the client waits, 503 if there is no memory for it, 400 if the client breaks off
    /// or the body is not compressed as its header says.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        wanted: ReadOptions,
    ) -> Result<Received, ApiError> {
        let encoding = Encoding::of_body(headers)
            .map_err(|problem| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem))?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > self.max_body) {
            // A client that asks first (`Expect: 100-continue`) gets its response before it sends anything.
            if !headers.contains_key(header::EXPECT) {
                discard(body, self.times.discard).await;
            }
            return Err(self.too_large());
        }
        let expected = announced.filter(|_| encoding.is_none());
        let reading = async {
            let sink = self.sink(expected, wanted.aligned_at).await?;
            match (wanted.zero_copy, expected) {
                (Some(zero_copy), Some(length)) => self.fill_zero_copy(sink, &zero_copy, length).await,
                _ => self.fill(Decoder::new(encoding, sink), body).await,
            }
        };
        self.in_time(wanted.deadline, reading).await
    }

    async fn fill(&self, mut decoder: Decoder, mut body: Body) -> Result<Received, ApiError> {
        while let Some(data) = next(&mut body).await? {
            if let Err(refused) = self.push(&mut decoder, &data).await {
                drop(decoder);
                discard(body, self.times.discard).await;
                return Err(self.refused(refused));
            }
        }
        let sink = decoder.finish().map_err(|refused| self.refused(refused))?;
        let (bytes, room) = sink.finish();
        Ok(Received { bytes, room })
    }

    /// The connection takes care of what is not read in the end.
    async fn fill_zero_copy(
        &self,
        mut sink: Sink,
        zero_copy: &ZeroCopyBody,
        length: usize,
    ) -> Result<Received, ApiError> {
        while sink.len() < length {
            let room = timeout(self.times.room, sink.reserve(1)).await;
            let room = room.unwrap_or(Err(Full::Memory));
            room.map_err(|full| self.refused(Refused::Full(full)))?;
            if sink.append(zero_copy).await.map_err(|error| broken_off(&error))? == 0 {
                return Err(broken_off(&"it ended early"));
            }
        }
        let (bytes, room) = sink.finish();
        Ok(Received { bytes, room })
    }

    /// Accepts what has arrived, once there is memory for it.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(super) async fn push(&self, decoder: &mut Decoder, data: &[u8]) -> Result<(), Refused> {
        let room = timeout(self.times.room, decoder.reserve(data.len())).await;
        room.unwrap_or(Err(Refused::Full(Full::Memory)))?;
        decoder.push(data)
    }

    /// Largest body, in bytes.
    pub(super) const fn max_body(&self) -> usize {
        self.max_body
    }

    /// A buffer for the expected bytes, once there is memory for the first of them.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(super) async fn sink(&self, expected: Option<usize>, aligned_at: usize) -> Result<Sink, ApiError> {
        let expected = expected.unwrap_or(UNKNOWN).min(self.max_body);
        let permit = Arc::clone(&self.blocks).acquire_many_owned(blocks(expected.min(AT_ONCE)));
        let permit = timeout(self.times.room, permit).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(no_room)?;
        let room = Reservation::new(Arc::clone(&self.blocks), permit);
        Ok(Sink::new(expected, aligned_at, self.max_body, room))
    }

    /// Stops reading when it takes too long.
    ///
    /// # Errors
    /// Those of `reading`, 408, and 504 when the deadline passes.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Option<Instant>,
        reading: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let latest = Instant::now() + self.times.read;
        let end = deadline.map_or(latest, |deadline| deadline.min(latest));
        match timeout_at(end.into(), reading).await {
            Ok(result) => result,
            Err(_) if end < latest => Err(ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "the request's deadline passed before its body had arrived",
            )),
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the body did not arrive within {} seconds",
                    self.times.read.as_secs()
                ),
            )),
        }
    }

    pub(super) fn too_large(&self) -> ApiError {
        let message = format!(
            "the body is larger than {} bytes, the most that this server takes",
            self.max_body
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// Why a body was rejected.
    pub(super) fn refused(&self, refused: Refused) -> ApiError {
        match refused {
            Refused::Full(Full::Limit) => self.too_large(),
            Refused::Full(Full::Memory) => no_room(),
            Refused::Broken(error) => ApiError::bad_request(format!(
                "the body is not compressed as its encoding says: {error}"
            )),
        }
    }
}

/// The next bytes of a body.
///
/// # Errors
/// 400 if the client breaks off.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_off(&error))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn broken_off(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("the body broke off: {error}"))
}

fn no_room() -> ApiError {
    let message = "the bodies of other requests fill the memory: try again later, or run more replicas";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Outcome;
    use axum::response::IntoResponse;
    use futures::future::FutureExt;
    use hyper::body::{Body as HttpBody, Frame};
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

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

    /// Without this, a few large uploads would exhaust the memory and end the server.
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
            let headers =
                HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding.name().parse().unwrap())]);
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
}
