//! Controller: wakes on whatever concerns a service, and runs one reconcile of it.

pub mod backoff;
pub mod bursts;
pub mod context;
pub mod events;
mod reconcile;
pub mod reports;
mod status;
mod watches;

pub use watches::{Scope, run};
