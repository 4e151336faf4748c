//! Ends a body that only drips: in every window of time, a least number of bytes must arrive.

use super::settings::Slowest;
use crate::error::FetchError;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};

/// The current window of one body.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    slowest: &'a Slowest,
    ends: Instant,
    bytes: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(slowest: &'a Slowest) -> Self {
        Self {
            slowest,
            ends: Instant::now() + slowest.window,
            bytes: 0,
        }
    }

    /// Waits for the answer to a request.
    pub(super) async fn answer<T>(
        &mut self,
        request: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let answer = timeout(self.slowest.answer, request).await.map_err(|_| {
            let seconds = self.slowest.answer.as_secs();
            FetchError::unavailable(format!("the source did not answer within {seconds} s"))
        })?;
        self.ends = Instant::now() + self.slowest.window;
        answer
    }

    /// The next bytes of a body.
    pub(super) async fn next(
        &mut self,
        body: &mut (impl Stream<Item = Result<Bytes, FetchError>> + Unpin),
    ) -> Result<Option<Bytes>, FetchError> {
        loop {
            match timeout_at(self.ends, body.next()).await {
                Ok(Some(Ok(bytes))) => {
                    self.bytes = self.bytes.saturating_add(bytes.len() as u64);
                    self.turn()?;
                    return Ok(Some(bytes));
                }
                Ok(other) => return other.transpose(),
                Err(_) => self.turn()?,
            }
        }
    }

    /// Begins the next window if this one is over.
    fn turn(&mut self) -> Result<(), FetchError> {
        let now = Instant::now();
        if now < self.ends {
            return Ok(());
        }
        if self.bytes < self.slowest.bytes {
            let (bytes, seconds) = (self.bytes, self.slowest.window.as_secs());
            let message = format!("the source sent only {bytes} bytes in {seconds} s");
            return Err(FetchError::unavailable(message));
        }
        self.ends = now + self.slowest.window;
        self.bytes = 0;
        Ok(())
    }

    /// Does not count the time of our own work since `begun` against the source.
    pub(super) fn resume(&mut self, begun: Instant) {
        self.ends += begun.elapsed();
    }
}
