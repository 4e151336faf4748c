//! The phases of the server from start to end, and the number of requests in flight.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The phase of the server; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Models are being loaded.
    Loading = 0,
    /// The server accepts requests.
    Ready = 1,
    /// SIGTERM has arrived: requests are still answered, but new ones should go elsewhere.
    Draining = 2,
}

/// Shared by the listeners and the code that starts and stops them.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    in_flight: AtomicUsize,
    quiet: Notify,
    moved: Notify,
}

impl Lifecycle {
    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Enters `phase`; never moves back.
    pub fn enter(&self, phase: Phase) {
        self.0.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.0.moved.notify_waiters();
    }

    /// Waits until the server has reached `phase` or a later one.
    pub async fn reached(&self, phase: Phase) {
        loop {
            let mut moved = pin!(self.0.moved.notified());
            // Registered before the check, so that a change in between is not missed.
            moved.as_mut().enable();
            if self.phase() >= phase {
                return;
            }
            moved.await;
        }
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn request(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(&self.0))
    }

    /// The number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Acquire)
    }

    /// Waits until no request is in flight.
    pub async fn quiet(&self) {
        loop {
            let mut quiet = pin!(self.0.quiet.notified());
            // Registered before the check, so that an end in between is not missed.
            quiet.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            quiet.await;
        }
    }
}

/// Whether a connection accepts no more requests, and a way to wait for that. It is an extension of HTTP/2 requests,
/// for calls that would otherwise never end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Retirement(Arc<Latch>);

#[derive(Debug, Default)]
struct Latch {
    begun: AtomicBool,
    told: Notify,
}

impl Retirement {
    /// From now on the connection accepts no more requests.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.told.notify_waiters();
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Waits until it has begun.
    pub async fn begun(&self) {
        let mut told = pin!(self.0.told.notified());
        // Registered before the check, so that a retirement in between is not missed.
        told.as_mut().enable();
        if !self.has_begun() {
            told.await;
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is shutting down must not become ready again because a slow load finishes.
    #[test]
    fn it_never_goes_back() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Draining);
        lifecycle.enter(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn who_waits_for_a_phase_is_told_of_it_and_of_later_ones() {
        let lifecycle = Lifecycle::default();
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.reached(Phase::Ready).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        lifecycle.enter(Phase::Draining);
        assert!(waiting.await.is_ok());
        lifecycle.reached(Phase::Draining).await;
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

    #[tokio::test]
    async fn a_retirement_is_told_to_those_who_wait_and_to_those_who_come_later() {
        let retirement = Retirement::default();
        let waiting = tokio::spawn({
            let retirement = retirement.clone();
            async move { retirement.begun().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        retirement.begin();
        assert!(waiting.await.is_ok());
        retirement.begun().await;
    }
}
