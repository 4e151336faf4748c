//! Reason: the closed set of reasons that conditions, events and metrics carry, and the problems of a reconcile.
//! Data only; nothing here refers to another room.

mod list;
mod problem;

pub use list::Reason;
pub use problem::{NO_DRA, Problem};
