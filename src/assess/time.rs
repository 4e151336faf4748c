//! Time: moments as a status has them. Pure.

use jiff::Timestamp;

/// A time in a status has no fraction of a second; with one, it would differ from what the API server returns.
pub(super) fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
