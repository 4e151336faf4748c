//! From a request to an engine: one bounded queue per model, and as many runs at once as there are cores.
//! Knows nothing of HTTP.
//!
//! - `scheduler`: what the rest of the server calls.
//! - `pool`: the threads: a runner per core, and the network thread's task.
//! - `state`: the decisions, pure: which model is next, and how many jobs go into one run; with `admission`: which jobs
//!   are taken; and `dispatch`: which thread runs them, a table.
//! - `queue`: the waiting jobs of one model, and what its runs cost.
//! - `batch`: one run: inputs are made, batched, run, and split into answers.
//! - `tuning`: measures the latency curve, from which the batch size follows, in idle moments.
//!
//! The thread that runs a job makes its inputs (decodes its image). So no more images are in memory at once than there
//! are cores, and decoding counts as the model's time.
//!
//! The rules follow Clockwork (OSDI '20): decisions are made in one place, runs are never preempted, and a request that
//! would be late is refused when it comes, not when it is late.

mod admission;
mod batch;
mod dispatch;
mod pool;
mod queue;
mod scheduler;
mod state;
mod tuning;

pub use admission::Load;
pub use scheduler::{Lane, Scheduler};
pub use tuning::{MakeEngine, Store, Tuner, timed, wide_pays};

use crate::engine::{Curve, Engine, EngineError};
use crate::metrics::ModelMetrics;
use crate::tensor::{InputError, Tensor};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Makes the inputs, in the signature's order.
pub type Prepare = Box<dyn FnOnce() -> Result<Vec<Tensor>, InputError> + Send>;

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The queue is full.
    Full {
        /// When the queue will probably be empty.
        retry_after: Duration,
    },
    /// The deadline would pass before the answer is ready.
    OutOfReach {
        /// How long the answer would take.
        predicted: Duration,
        /// When the queue will probably be empty.
        retry_after: Duration,
    },
    /// The server is shutting down.
    Closed,
}

/// Why a job has no outputs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JobError {
    /// The inputs could not be made.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The engine could not run them.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The deadline passed before the job could run.
    #[error("the request's deadline passed while it waited in the queue")]
    Expired,
    /// A bug: the job panicked, or its runner is gone.
    #[error("the request could not be completed: {0}")]
    Lost(&'static str),
}

/// Why a run gave no outputs.
#[derive(Clone, Debug, PartialEq)]
pub enum RunError {
    /// The job was not taken.
    Rejected(Rejected),
    /// The job failed.
    Job(JobError),
}

/// Outputs, in the order of the request, and where the time went.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    /// The tensors.
    pub outputs: Vec<Tensor>,
    /// The times.
    pub timing: Timing,
}

/// Where the time of a job went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Waiting for a core.
    pub queue: Duration,
    /// Making the inputs.
    pub prepare: Duration,
    /// In the engine; for a batch, the time of the whole batch.
    pub inference: Duration,
}

/// How urgent a run is, and what it will cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Which jobs go first.
    pub priority: Priority,
    /// When the answer becomes useless.
    pub deadline: Option<Instant>,
    /// Whether a run is known to take about as long as most of this model's runs.
    pub typical_cost: bool,
}

/// Jobs of a higher priority go first; jobs of the same priority in the order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High,
    /// Unless the request says otherwise.
    #[default]
    Normal,
}

/// What a model runs on.
pub struct Engines {
    /// One thread each; at least one engine.
    pub narrow: Vec<Box<dyn Engine>>,
    /// All cores: for a job that has them for itself, if that is faster.
    pub wide: Option<Box<dyn Engine>>,
}

/// A model for the scheduler.
pub struct LaneSettings {
    /// What runs it.
    pub engines: Engines,
    /// How many jobs may wait.
    pub capacity: usize,
    /// What runs of several rows cost, as far as it is known.
    pub curve: Curve,
    /// Measures the rest in idle moments.
    pub tuner: Option<Tuner>,
    /// Where its runs are counted.
    pub metrics: ModelMetrics,
}

/// One inference request.
struct Job {
    /// Unique in the scheduler.
    id: u64,
    prepare: Prepare,
    outputs: Vec<usize>,
    options: RunOptions,
    submitted: Instant,
    reply: oneshot::Sender<Result<Completed, JobError>>,
}
