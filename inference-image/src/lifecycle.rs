//! Where the server stands between its start and its end, and how many requests are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::watch;

/// Where the server stands; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Models are being loaded.
    Loading = 0,
    /// Requests are welcome.
    Ready = 1,
    /// SIGTERM has come: requests are still answered, but new ones should go elsewhere.
    Draining = 2,
}

/// Shared by the listeners and whoever starts and stops them.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Arc<AtomicU8>,
    in_flight: Arc<watch::Sender<usize>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Arc::default(),
            in_flight: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Lifecycle {
    /// Where the server stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Moves on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Counts a request as under way until the guard is dropped.
    #[must_use]
    pub fn request(&self) -> InFlight {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.in_flight.borrow()
    }

    /// Waits until no request is under way.
    pub async fn quiet(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self.in_flight.subscribe().wait_for(|&count| count == 0).await;
    }
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight(Arc<watch::Sender<usize>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A server that is leaving must not become ready again because a slow load ends.
    #[test]
    fn it_never_goes_back() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn it_is_quiet_when_the_last_request_ends() {
        let lifecycle = Lifecycle::default();
        let (first, second) = (lifecycle.request(), lifecycle.request());
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.quiet().await }
        });
        drop(first);
        assert_eq!((lifecycle.in_flight(), waiting.is_finished()), (1, false));
        drop(second);
        assert!(waiting.await.is_ok());
    }
}
