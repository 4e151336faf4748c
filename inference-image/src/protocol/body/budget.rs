//! Memory and time for request bodies: for all of them together, and for each.

use super::discard::DISCARD_TIME;
use super::encoding::{Decoder, Refused};
use super::sink::{Full, Reservation, Sink, blocks};
use crate::protocol::error::ApiError;
use axum::http::StatusCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};

/// How long to wait.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// For a whole body.
    pub(super) read: Duration,
    /// For memory.
    pub(super) room: Duration,
    /// While the rest of a rejected body is discarded.
    pub(super) discard: Duration,
}

const TIMES: Times = Times {
    read: Duration::from_secs(60),
    room: Duration::from_secs(10),
    discard: DISCARD_TIME,
};
/// All bodies together may take this many times the memory of the largest one.
pub(super) const BODIES: usize = 4;
/// Reservation for a body of unknown length; it grows with the body.
const UNKNOWN: usize = 64 << 10;
/// Largest reservation for a body before any of it has arrived.
const AT_ONCE: usize = 256 << 10;

/// Memory for the bodies of all requests that are in flight or queued.
pub(crate) struct Budget {
    pub(super) blocks: Arc<Semaphore>,
    pub(super) max_body: usize,
    pub(super) times: Times,
}

impl Budget {
    pub(crate) fn new(max_body: u64) -> Self {
        let max_body = usize::try_from(max_body.min(u64::from(u32::MAX))).unwrap_or(usize::MAX);
        let all = BODIES.saturating_mul(blocks(max_body) as usize);
        Self {
            blocks: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            max_body,
            times: TIMES,
        }
    }

    /// The same, with another time limit for a whole body.
    pub(crate) const fn in_at_most(mut self, time: Duration) -> Self {
        self.times.read = time;
        self
    }

    /// Accepts received bytes, once there is memory for them.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(crate) async fn push(&self, decoder: &mut Decoder, data: &[u8]) -> Result<(), Refused> {
        let room = timeout(self.times.room, decoder.reserve(data.len())).await;
        room.unwrap_or(Err(Refused::Full(Full::Memory)))?;
        decoder.push(data)
    }

    /// Largest body, in bytes.
    pub(crate) const fn max_body(&self) -> usize {
        self.max_body
    }

    /// A buffer for the expected bytes, once there is memory for the first of them.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(crate) async fn sink(&self, expected: Option<usize>, aligned_at: usize) -> Result<Sink, ApiError> {
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
    pub(crate) async fn in_time<T>(
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

    pub(crate) fn too_large(&self) -> ApiError {
        let message = format!(
            "the body is larger than {} bytes, the most that this server accepts",
            self.max_body
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// Why a body was rejected.
    pub(crate) fn refused(&self, refused: Refused) -> ApiError {
        match refused {
            Refused::Full(Full::Limit) => self.too_large(),
            Refused::Full(Full::Memory) => no_room(),
            Refused::Broken(error) => ApiError::bad_request(format!(
                "the body is not compressed as its encoding says: {error}"
            )),
        }
    }
}

fn no_room() -> ApiError {
    let message = "the bodies of other requests take up all memory for bodies: try again later, or run more \
        replicas";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(Duration::from_secs(1))
}
