//! Scaling: how many servers a service should have. Pure: no clock, no client, no randomness.
//!
//! [`decide`] is one pass of a loop that runs about once a second for each autoscaled service:
//!
//! ```text
//! reports of servers ─► load (two windows) ─► size asked for ─► limits ─► delay of reductions ─► range
//!                       load.rs               decision.rs                 memory.rs              schedule.rs: floors
//! ```
//!
//! It does not decide whether a service is suspended or goes to zero: as long as there are servers, the load asks for
//! at least one.

mod because;
mod decision;
mod load;
mod memory;
mod policy;
mod schedule;

pub use because::Because;
pub use decision::{Decision, Situation, decide};
pub use load::{FRESH, Load, Measured, Server, Totals};
pub use memory::Memory;
pub use policy::{Down, Policy, Target, Up};
pub use schedule::{Floor, LONGEST_FLOOR, Schedule, floor_at, next_change};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
