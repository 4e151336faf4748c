//! Scaling: how many servers a service should have. Pure: no clock, no client, no randomness.

mod schedule;

pub use schedule::{Floor, LONGEST_FLOOR, Schedule, floor_at, next_change};
