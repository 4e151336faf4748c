//! From a request to an engine: one bounded queue per model, and as many runs at once as there are cores.
//! Knows nothing of HTTP.
//!
//! - `scheduler`: what the rest of the server calls.
//! - `pool`: the threads: a runner per core, and the network thread's task.
//! - `state`: the decisions, pure: which model is next, and how many jobs go into one run; with `admission`, which
//!   decides which jobs are accepted, and `dispatch`, a table that says which thread runs them.
//! - `demand`: what has been asked of a model so far, for autoscalers.
//! - `job`: one request; `queue`: the waiting jobs of one model, and what its runs cost.
//! - `batch`: one run: inputs are made, batched, run, and split into answers.
//! - `tuning`: measures the latency curve, from which the batch size follows, in idle moments.
//! - `probe`: tries whether rows have the same outputs in a batch as alone.
//!
//! The thread that runs a job also makes its inputs (decodes its image). So there are never more decoded images in
//! memory than cores, and decoding counts as the model's time.
//!
//! The rules follow Clockwork (OSDI '20): decisions are made in one place, runs are never preempted, and a request
//! that would be late is refused when it arrives, not when it is late.

mod admission;
mod batch;
mod demand;
mod dispatch;
mod job;
mod pool;
mod probe;
mod queue;
mod scheduler;
mod state;
mod tuning;

pub use admission::Load;
pub use demand::{Demand, Totals};
pub use job::{Completed, JobError, Prepare, Priority, Rejected, RunError, RunOptions, Timing};
pub use queue::{Engines, QueueSettings};
pub use scheduler::{QueueHandle, Scheduler};
pub use tuning::{MakeEngine, Store, Tuner, all_cores_pay, timed};
