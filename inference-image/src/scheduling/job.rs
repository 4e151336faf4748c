//! A job, from the request to its outputs, and why there may be none.

use crate::engine::EngineError;
use crate::tensor::{InputError, Tensor};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Makes the inputs, in the signature's order.
pub type Prepare = Box<dyn FnOnce() -> Result<Vec<Tensor>, InputError> + Send>;

/// Why a job was refused.
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
    /// A bug: the job panicked, or the thread that ran it has ended.
    #[error("the request could not be completed: {0}")]
    Lost(&'static str),
}

/// Why a run gave no outputs.
#[derive(Clone, Debug, PartialEq)]
pub enum RunError {
    /// The job was refused.
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
    /// Making the response, so far.
    pub output: Duration,
    /// Rows in the run of the engine.
    pub rows: u64,
}

/// How urgent a run is, and what it will cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Which jobs go first.
    pub priority: Priority,
    /// When the answer becomes useless.
    pub deadline: Option<Instant>,
    /// Whether the run will take about as long as most of this model's runs.
    pub typical_cost: bool,
}

/// Jobs of a higher priority go first; jobs of the same priority in the order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High,
    /// The default.
    #[default]
    Normal,
}

/// One inference request.
pub(super) struct Job {
    /// Unique in the scheduler.
    pub(super) id: u64,
    pub(super) prepare: Prepare,
    pub(super) outputs: Vec<usize>,
    pub(super) options: RunOptions,
    pub(super) submitted: Instant,
    pub(super) reply: oneshot::Sender<Result<Completed, JobError>>,
}
