//! What any process has: signals, phases of its life, cores and memory that it may use, and an end with a reason.
//! Knows nothing of models or of HTTP.

pub mod cgroup;
pub mod exit;
pub mod lifecycle;
pub(crate) mod signals;
