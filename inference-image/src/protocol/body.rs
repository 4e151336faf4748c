//! Reads request bodies within limits: of one body, of all bodies in memory together, and of time.

use super::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// How long is waited.
#[derive(Clone, Copy)]
struct Times {
    /// For a whole body.
    read: Duration,
    /// For room in memory.
    room: Duration,
    /// While what is too large is read on and thrown away: most clients read no answer before they have sent
    /// all, and closing the connection under them would destroy it.
    discard: Duration,
}

const TIMES: Times = Times {
    read: Duration::from_secs(60),
    room: Duration::from_secs(10),
    discard: Duration::from_secs(5),
};
/// Bodies in memory together may have this many times the size of the largest one.
const BODIES: u64 = 4;
/// Permits are for blocks of this size, since a semaphore counts in 32 bits.
const BLOCK: u64 = 4096;

/// Memory for the bodies of all requests that are under way or queued.
pub(super) struct Budget {
    blocks: Arc<Semaphore>,
    max_body: u64,
    times: Times,
}

/// A whole body; its memory is accounted for until this is dropped.
pub(super) struct Received {
    /// The bytes.
    pub(super) bytes: Bytes,
    /// Keeps the room.
    _room: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(max_body: u64) -> Self {
        let max_body = max_body.min(u64::from(u32::MAX));
        let blocks = usize::try_from(BODIES * blocks(max_body)).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            blocks: Arc::new(Semaphore::new(blocks.min(Semaphore::MAX_PERMITS))),
            max_body,
            times: TIMES,
        }
    }

    /// Reads a whole body.
    ///
    /// # Errors
    /// 413 if it is too large, 415 if it is compressed, 408 if it takes too long, 503 if there is no room,
    /// 400 if the client breaks off.
    pub(super) async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Received, ApiError> {
        refuse_encoded(headers)?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let too_large = || {
            let message = format!(
                "the body is larger than {} bytes, the most that this server takes",
                self.max_body
            );
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if announced.is_some_and(|length| length > self.max_body) {
            // Who asks first (`Expect: 100-continue`) is answered before anything is sent.
            if !headers.contains_key(header::EXPECT) {
                discard(body, self.times.discard).await;
            }
            return Err(too_large());
        }
        let room = self.room(announced.unwrap_or(self.max_body)).await?;
        let deadline = Instant::now() + self.times.read;
        let mut bytes = BytesMut::new();
        while let Some(frame) = timeout_at(deadline, body.frame())
            .await
            .map_err(|_| self.too_slow())?
        {
            let frame =
                frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() as u64 + data.len() as u64 > self.max_body {
                discard(body, self.times.discard).await;
                return Err(too_large());
            }
            if bytes.is_empty() {
                // All at once where the length is known, but no more memory for a promise than this.
                bytes.reserve(
                    usize::try_from(announced.unwrap_or(0).min(1 << 20))
                        .unwrap_or(0)
                        .max(data.len()),
                );
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Received {
            bytes: bytes.freeze(),
            _room: room,
        })
    }

    fn too_slow(&self) -> ApiError {
        let message = format!(
            "the body did not arrive within {} seconds",
            self.times.read.as_secs()
        );
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    async fn room(&self, length: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let blocks = u32::try_from(blocks(length)).unwrap_or(u32::MAX);
        let room = timeout(
            self.times.room,
            Arc::clone(&self.blocks).acquire_many_owned(blocks),
        )
        .await;
        room.ok().and_then(Result::ok).ok_or_else(|| {
            let message =
                "the bodies of other requests fill the memory: try again later, or run more replicas";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(Duration::from_secs(1))
        })
    }
}

const fn blocks(length: u64) -> u64 {
    length / BLOCK + 1
}

fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let message = "a compressed body is not understood: send it without Content-Encoding";
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
        _ => Ok(()),
    }
}

async fn discard(mut body: Body, time: Duration) {
    let _ = timeout(time, async { while let Some(Ok(_)) = body.frame().await {} }).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Outcome;
    use axum::response::IntoResponse;
    use http_body_util::Empty;
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
                read: soon,
                room: soon,
                discard: soon,
            },
            ..Budget::new(max_body)
        }
    }

    async fn status(budget: &Budget, headers: &HeaderMap, body: Body) -> u16 {
        let error = budget
            .read(headers, body)
            .await
            .map(|received| received.bytes)
            .unwrap_err();
        error.into_response().status().as_u16()
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        assert_eq!(
            status(&budget(100), &HeaderMap::new(), Body::new(Silent)).await,
            408
        );
    }

    /// Without this, a few large uploads end the server for want of memory.
    #[tokio::test]
    async fn bodies_wait_for_room_and_are_turned_away_without_it() {
        let budget = budget(1 << 20);
        let mut kept = Vec::new();
        // Nobody says how long these are, so that each takes room for the largest.
        for _ in 0..BODIES - 1 {
            kept.push(
                budget
                    .read(&HeaderMap::new(), Body::new(Empty::new()))
                    .await
                    .unwrap(),
            );
        }
        kept.push(budget.read(&HeaderMap::new(), Body::from("x")).await.unwrap());
        let error = budget
            .read(&HeaderMap::new(), Body::from("x"))
            .await
            .map(|received| received.bytes)
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Rejected);
        let response = error.into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        kept.pop();
        assert_eq!(
            budget
                .read(&HeaderMap::new(), Body::from("x"))
                .await
                .unwrap()
                .bytes,
            "x"
        );
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
                .read(&headers, Body::from("0123456789"))
                .await
                .unwrap()
                .bytes
                .len(),
            10
        );
    }
}
