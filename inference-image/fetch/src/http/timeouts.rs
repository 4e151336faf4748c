//! How long a server may take.

use std::time::Duration;

/// How long a server may take for each step.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To resolve a name, to accept a connection by one address, and to agree on TLS.
    pub connect: Duration,
    /// To answer a request with its headers.
    pub headers: Duration,
    /// To send the next bytes of a body.
    pub idle: Duration,
    /// A body must bring [`Timeouts::SLOWEST`] bytes in each time of this length, or it is broken off.
    pub window: Duration,
}

impl Timeouts {
    /// What a body must bring at least per window, in bytes.
    pub const SLOWEST: u64 = 64 << 10;
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            window: Duration::from_secs(60),
        }
    }
}
