//! The device that a session has opened: how many runs there have been, and whether it fails.

use crate::mode::Mode;
use crate::status::{Outcome, failed};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs of all sessions.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// The device as one session sees it, whose runs follow each other.
pub(crate) struct Device {
    pub(crate) mode: Mode,
    runs: AtomicU64,
    fails: AtomicBool,
}

impl Device {
    pub(crate) const fn new(mode: Mode) -> Self {
        Self {
            mode,
            runs: AtomicU64::new(0),
            fails: AtomicBool::new(false),
        }
    }

    /// A run begins.
    pub(crate) fn begin(&self) {
        let of_session = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let of_process = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        self.fails
            .store(self.mode.fails(of_session, of_process), Ordering::Relaxed);
        std::thread::sleep(self.mode.delay());
    }

    /// # Errors
    /// The device's own words, in a run that fails.
    pub(crate) fn check(&self) -> Outcome<()> {
        if self.fails.load(Ordering::Relaxed) {
            Err(failed("the test device has fallen off the bus"))
        } else {
            Ok(())
        }
    }
}
