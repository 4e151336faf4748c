//! What any process has: signals, a lifecycle, limits on cores and memory, and an exit with a reason. Knows nothing
//! of models or HTTP.

pub mod cgroup;
pub mod exit;
pub mod lifecycle;
pub mod loss;
pub(crate) mod memory;
pub(crate) mod signals;
