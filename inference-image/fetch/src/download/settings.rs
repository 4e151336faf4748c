//! How a download behaves. The defaults are for production; tests shrink them.

use std::time::Duration;

/// How a download behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Size of a block in bytes. A kill costs the blocks that are under way, one for each request: one part in total.
    pub block_bytes: u64,
    /// How many blocks a request is for: together they are a part.
    pub part_blocks: u64,
    /// How many requests are under way at the same time.
    pub parallel: usize,
    /// When a failure is tried again.
    pub retries: Retries,
    /// How slow a source may be.
    pub slowest: Slowest,
    /// How often progress is measured. It is logged every fifth time.
    pub tick: Duration,
    /// How many bytes may be downloaded in total.
    pub maximum_bytes: u64,
}

/// When a failure is tried again.
#[derive(Clone, Debug)]
pub struct Retries {
    /// How often a request is made in total, unless it makes progress in between.
    pub attempts: u32,
    /// The wait after the first failure. It doubles with each further one.
    pub first: Duration,
    /// The longest wait that is our own choice.
    pub longest: Duration,
    /// The longest wait that a source may ask for (`Retry-After`).
    pub longest_asked: Duration,
    /// A part that has advanced by as many bytes starts counting anew. Since parts are bounded, so are its attempts.
    pub progress_bytes: u64,
}

/// How slow a source may be.
#[derive(Clone, Debug)]
pub struct Slowest {
    /// How long it may take to answer a request.
    pub answer: Duration,
    /// In each window, at least [`Self::bytes`] must arrive.
    pub window: Duration,
    /// In bytes per window.
    pub bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block_bytes: 1 << 20,
            part_blocks: 8,
            parallel: 8,
            retries: Retries::default(),
            slowest: Slowest::default(),
            tick: Duration::from_secs(2),
            maximum_bytes: 1 << 40,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 8,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            longest_asked: Duration::from_secs(300),
            progress_bytes: 1 << 20,
        }
    }
}

impl Default for Slowest {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            window: Duration::from_secs(30),
            bytes: 32 << 10,
        }
    }
}
