//! Tries again what may succeed later: exponential back-off with jitter, and no sooner than the source asks for.

use super::settings::Retries;
use crate::error::{FetchError, Retry};
use std::time::Duration;

/// The attempts of one request.
#[derive(Debug)]
pub struct Backoff<'a> {
    retries: &'a Retries,
    failures: u32,
}

impl<'a> Backoff<'a> {
    /// Before the first attempt.
    #[must_use]
    pub const fn new(retries: &'a Retries) -> Self {
        Self { retries, failures: 0 }
    }

    /// Starts counting anew, because there was progress.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure itself if another attempt is not worth it, with the number of attempts if there were several.
    pub async fn wait(&mut self, error: FetchError) -> Result<(), FetchError> {
        self.failures += 1;
        let asked = match error.retry {
            Retry::Never => return Err(error),
            Retry::Soon => Duration::ZERO,
            Retry::After(time) => time.min(self.retries.longest_asked),
        };
        if self.failures >= self.retries.attempts {
            return Err(self.given_up(error));
        }
        let delay = asked.max(self.delay(fastrand::f64()));
        tracing::warn!(
            attempt = self.failures,
            wait_seconds = delay.as_secs_f32(),
            "{error}"
        );
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Between half of the full delay and all of it, so that pods that failed together do not return together.
    fn delay(&self, random: f64) -> Duration {
        let doubled = self
            .retries
            .first
            .saturating_mul(1 << (self.failures.saturating_sub(1)).min(20));
        doubled.min(self.retries.longest).mul_f64(0.5 + random / 2.0)
    }

    fn given_up(&self, error: FetchError) -> FetchError {
        FetchError {
            message: format!("{} (given up after {} attempts)", error.message, self.failures),
            retry: Retry::Never,
            ..error
        }
    }
}

/// Repeats a request until it succeeds or is given up.
///
/// # Errors
/// The last failure.
pub async fn repeat<T>(
    retries: &Retries,
    mut request: impl AsyncFnMut() -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    let mut backoff = Backoff::new(retries);
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) => backoff.wait(error).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use modelservice_contract::FetchReason;
    use tokio::time::Instant;

    async fn failing(errors: Vec<FetchError>) -> (Result<(), FetchError>, Duration, u32) {
        let retries = Retries::default();
        let (mut errors, mut requests) = (errors.into_iter().cycle(), 0);
        let begun = Instant::now();
        let result = repeat(&retries, async || {
            requests += 1;
            Err(errors.next().unwrap())
        });
        (result.await, begun.elapsed(), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_stays_down_is_given_up_after_a_minute() {
        let (result, took, requests) = failing(vec![FetchError::unavailable("503: down")]).await;
        let error = result.unwrap_err();
        assert_eq!(error.message, "503: down (given up after 8 attempts)");
        assert_eq!(error.retry, Retry::Never);
        assert_eq!(requests, 8);
        // 0.5 + 1 + 2 + … + 30 s, of which jitter leaves at least half.
        assert!((30..=62).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_stays_is_not_tried_again() {
        let (result, took, requests) = failing(vec![FetchError::new(FetchReason::Denied, "403")]).await;
        assert_eq!(result.unwrap_err().message, "403");
        assert_eq!((took, requests), (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_says_when_to_return_is_left_alone_until_then() {
        let asked = FetchError {
            retry: Retry::After(Duration::from_secs(40)),
            ..FetchError::unavailable("429")
        };
        let (_, took, requests) = failing(vec![asked]).await;
        assert_eq!(requests, 8);
        assert!(took >= Duration::from_secs(7 * 40), "{took:?}");
        let endless = FetchError {
            retry: Retry::After(Duration::MAX),
            ..FetchError::unavailable("429")
        };
        let (_, took, _) = failing(vec![endless]).await;
        assert_eq!(took.as_secs(), 7 * 300, "no source may stop a fetch for longer");
    }

    #[test]
    fn pods_that_failed_together_do_not_return_together() {
        let retries = Retries::default();
        let backoff = Backoff {
            retries: &retries,
            failures: 3,
        };
        assert_eq!(backoff.delay(0.0), Duration::from_secs(1));
        assert_eq!(backoff.delay(1.0), Duration::from_secs(2));
    }
}
