//! Controller: runs a reconcile of a service whenever something that concerns it changes.

mod asking;
pub mod backoff;
pub mod bursts;
pub mod context;
pub mod devices;
pub mod events;
pub mod loads;
mod reconcile;
pub mod reports;
mod status;
mod watches;

pub use watches::{Scope, run};
