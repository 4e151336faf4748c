//! Policy: what the spec asks of the autoscaler. Values outside the bounds below never fail, but decide nothing useful.

use jiff::SignedDuration;
use std::fmt;

/// The range of a service's size, and how it follows the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Fewest servers.
    pub min: i32,
    /// Most servers; stronger than `min` and every floor.
    pub max: i32,
    /// The load that each server should have.
    pub target: Target,
    /// How the size grows.
    pub up: Up,
    /// How it shrinks.
    pub down: Down,
}

/// The load that each server should have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Share of its runners that are busy, above 0 and at most 1.
    Utilization(f64),
    /// Requests in flight, above 0. With more than a server has runners, some must wait to reach it: such a size swings
    /// more than one that follows the utilization.
    Concurrency(f64),
}

/// How the size grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Up {
    /// The short window, 5 s to 60 s. If the load within it is far more than the ready servers should have, the size
    /// follows it.
    pub window: SignedDuration,
    /// Servers that are added at once, in percent of those that are ready, but always at least one.
    pub max_percent: i32,
    /// Share of the present size by which the load must exceed it.
    pub tolerance: f64,
}

/// How the size shrinks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Down {
    /// The long window, 5 s to 60 s, that the size follows otherwise.
    pub window: SignedDuration,
    /// How long a smaller size must have been enough. Counts as at least `window`: when a server has just gone, no
    /// window contains the load that it had.
    pub delay: SignedDuration,
    /// Servers that are removed at once, in percent of the present size, but always at least one.
    pub max_percent: i32,
    /// Share of the present size by which the load must fall short of it.
    pub tolerance: f64,
}

impl Default for Up {
    fn default() -> Self {
        Self {
            window: SignedDuration::from_secs(6),
            max_percent: 300,
            tolerance: 0.1,
        }
    }
}

impl Default for Down {
    fn default() -> Self {
        Self {
            window: SignedDuration::from_secs(30),
            delay: SignedDuration::from_secs(60),
            max_percent: 50,
            tolerance: 0.1,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utilization(share) => write!(f, "{:.0} % utilization", share * 100.0),
            Self::Concurrency(requests) => write!(f, "{requests} requests in flight each"),
        }
    }
}
