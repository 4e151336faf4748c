//! From a request to a runner: one bounded queue per model, and one runner thread per core that owns an
//! engine. Knows nothing of HTTP.
//!
//! A job's inputs are prepared (an image is decoded) on the runner's thread: so no more images are in
//! memory at once than there are runners, and decoding never takes a core from the network.

mod queue;
mod runner;

pub use queue::Rejected;
pub use runner::Runners;

use crate::engine::EngineError;
use crate::tensor::Tensor;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Makes the inputs, in the signature's order.
pub type Prepare = Box<dyn FnOnce() -> Result<Vec<Tensor>, InputError> + Send>;

/// Inputs that cannot be made from what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputProblem {
    /// Not in a form that is understood at all.
    Unsupported,
    /// Larger than the limits allow.
    TooLarge,
    /// Broken.
    Malformed,
}

/// [`InputProblem`] and its message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// The kind.
    pub problem: InputProblem,
    /// What is wrong.
    pub message: String,
}

/// How busy the runners of a model are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that wait.
    pub queued: usize,
    /// Runners at work.
    pub running: usize,
    /// Runners that there are.
    pub runners: usize,
    /// How long a job that came now would probably wait.
    pub predicted_wait: Duration,
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
    /// The deadline passed before a runner was free.
    #[error("the request's deadline passed while it waited in the queue")]
    Expired,
    /// A bug: the job panicked, or its runner is gone.
    #[error("the request could not be completed: {0}")]
    Lost(&'static str),
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
    /// Waiting for a runner.
    pub queue: Duration,
    /// Making the inputs.
    pub prepare: Duration,
    /// In the engine.
    pub inference: Duration,
}

/// How urgent a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Which jobs go first.
    pub priority: Priority,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
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

/// A request for one run.
pub struct Job {
    prepare: Prepare,
    outputs: Vec<usize>,
    submitted: Instant,
    reply: oneshot::Sender<Result<Completed, JobError>>,
}

impl Job {
    /// A job, and where its result arrives. Dropping the receiver before it runs cancels it.
    #[must_use]
    pub fn new(
        prepare: Prepare,
        outputs: Vec<usize>,
    ) -> (Self, oneshot::Receiver<Result<Completed, JobError>>) {
        let (reply, receiver) = oneshot::channel();
        (
            Self {
                prepare,
                outputs,
                submitted: Instant::now(),
                reply,
            },
            receiver,
        )
    }
}
