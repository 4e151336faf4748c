//! Back-off: how long a failing service waits: exponentially longer, with jitter.

use crate::crd::ModelService;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(120);

/// Failures in a row, by service.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<ObjectRef<ModelService>, u32>>);

impl Backoff {
    /// Counts a failure; returns how long to wait.
    pub fn next(&self, service: &ObjectRef<ModelService>) -> Duration {
        let mut failures = self.0.lock();
        let count = failures.entry(service.clone()).or_default();
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(*count)).min(LONGEST);
        *count = count.saturating_add(1);
        // Between half of it and all of it, so that services that failed together are not retried together.
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Forgets the failures of a service that works or is gone.
    pub fn reset(&self, service: &ObjectRef<ModelService>) {
        self.0.lock().remove(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_anew_after_success() {
        let (backoff, service) = (Backoff::default(), ObjectRef::new("photos"));
        let waits: Vec<_> = (0..20).map(|_| backoff.next(&service)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits[4] > FIRST * 4);
        assert!(waits[19] <= LONGEST && waits[19] >= LONGEST / 2);
        backoff.reset(&service);
        assert!(backoff.next(&service) <= FIRST);
    }
}
