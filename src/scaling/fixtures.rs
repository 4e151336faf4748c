//! Servers and policies for the tests of this room.

use super::{
    load::{Server, Totals},
    policy::{Down, Policy, Target, Up},
};
use jiff::Timestamp;

/// When the servers were read.
pub(super) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A policy with this range and target, and the defaults.
pub(super) fn policy(min: i32, max: i32, target: Target) -> Policy {
    Policy {
        min,
        max,
        target,
        up: Up::default(),
        down: Down::default(),
    }
}

/// A server with one runner that was just read, with samples of every second from `from` to `to`, whose totals grow by
/// so much each second.
pub(super) fn server(from: u32, to: u32, per_second: Totals) -> Server {
    let sample = |second: u32| {
        let at = f64::from(second);
        let whole = |total: u64| total * u64::from(second);
        Totals {
            at,
            served: whole(per_second.served),
            refused: whole(per_second.refused),
            expired: whole(per_second.expired),
            offered_seconds: per_second.offered_seconds * at,
            in_flight_seconds: per_second.in_flight_seconds * at,
        }
    };
    Server {
        ready: true,
        runners: 1,
        read_at: Some(NOW),
        samples: (from..=to).map(sample).collect(),
        ..Server::default()
    }
}

/// A server that is asked for so many runner seconds each second.
pub(super) fn busy(from: u32, to: u32, offered_seconds: f64) -> Server {
    let per_second = Totals {
        offered_seconds,
        ..Totals::default()
    };
    server(from, to, per_second)
}
