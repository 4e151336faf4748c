//! From a request to an engine: one bounded queue per model, and as many runs at once as there are cores.
//! Knows nothing of HTTP.
//!
//! - `state`: the decisions, pure: who may run now, what is refused, which model is next, how many jobs go
//!   into one run.
//! - `queue`: what waits for one model, and what its runs cost.
//! - `scheduler`: the runner threads, one per core, and the network threads, which run short jobs.
//! - `batch`: one run: inputs are made, batched, run, and cut into answers.
//! - `tuning`: what a run of several costs, measured; from it follows the batch size.
//!
//! A job's inputs are made (an image is decoded) by who runs it: so no more images are in memory at once than
//! there are cores, and decoding counts as the model's time.
//!
//! The rules, after Clockwork (OSDI '20): choices are taken in one place, runs are never preempted, and a
//! request that would be late is refused when it comes, not when it is late.

mod batch;
mod queue;
mod scheduler;
mod state;
mod tuning;

pub use scheduler::{Lane, Scheduler};
pub use state::Load;
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
    /// As many jobs wait as may; try again after this time.
    Full {
        /// When the queue will probably be empty.
        retry_after: Duration,
    },
    /// The deadline would pass before the answer is ready; try again after this time.
    OutOfReach {
        /// Until the answer would be ready.
        predicted: Duration,
        /// When the queue will probably be empty.
        retry_after: Duration,
    },
    /// The runners are gone: the server is leaving.
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

/// Outputs, in the order in which they were asked for, and where the time went.
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
    /// In the engine; of the whole batch, if it was one.
    pub inference: Duration,
}

/// How urgent a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Which jobs go first.
    pub priority: Priority,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Whether it is known to be little: a run of it takes about as long as most of this model's do.
    pub is_small: bool,
}

/// Jobs of a higher priority go first; within one, the order is that of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High,
    /// What nobody says anything about.
    #[default]
    Normal,
}

/// What a model runs on. `M` is the engine's type.
pub struct Engines {
    /// One thread each; at least one.
    pub narrow: Vec<Box<dyn Engine>>,
    /// All cores, for a request that comes when nothing else is there; where that is faster.
    pub wide: Option<Box<dyn Engine>>,
}

/// A model as the scheduler is told of it.
pub struct LaneSettings {
    /// What runs it.
    pub engines: Engines,
    /// Jobs that may wait.
    pub capacity: usize,
    /// What runs of several cost, as far as it is known.
    pub curve: Curve,
    /// Measures in idle moments what is not known yet.
    pub tuner: Option<Tuner>,
    /// Where its runs are counted.
    pub metrics: ModelMetrics,
}

/// A request for one run.
struct Job {
    /// Unique in its scheduler.
    id: u64,
    prepare: Prepare,
    outputs: Vec<usize>,
    options: RunOptions,
    submitted: Instant,
    reply: oneshot::Sender<Result<Completed, JobError>>,
}
