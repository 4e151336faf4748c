//! The scheduler as the rest of the server sees it: models are added, jobs are run.

use super::admission::Load;
use super::demand::Totals;
use super::job::{Completed, Job, JobError, Prepare, Rejected, RunError, RunOptions};
use super::pool::Runners;
use super::queue::QueueSettings;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Runs jobs of several models on the cores of this process. Its threads end when it and all queues are dropped.
pub struct Scheduler {
    runners: Arc<Runners>,
}

/// A handle to one model's queue.
pub struct QueueHandle {
    runners: Arc<Runners>,
    model: usize,
}

impl Scheduler {
    /// Starts one runner per core. `cpu_limit` is how many cores the process may use, if there is a limit: it may be a
    /// fraction.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(cores: usize, cpu_limit: Option<f64>) -> std::io::Result<Self> {
        let runners = Arc::new(Runners::start(cores, cpu_limit)?);
        Ok(Self { runners })
    }

    /// Lets the thread of the current runtime, which must be single-threaded, run jobs as long as the runtime lives.
    /// `dispatch` decides which jobs.
    pub fn enable_inline_execution(&self) {
        let pool = Arc::clone(&self.runners.pool);
        pool.state().enable_inline();
        tokio::spawn(async move { pool.run_inline().await });
    }

    /// Models that have not run since this was called last, and keep memory that they may not need.
    #[must_use]
    pub fn idle_holders(&self) -> Vec<usize> {
        self.runners.pool.state().idle_holders()
    }

    /// Frees that memory, as far as they are still idle.
    pub fn free_memory(&self, models: &[usize]) {
        for &model in models {
            self.runners.pool.free_memory(model);
        }
    }

    /// Adds a model.
    #[must_use]
    pub fn add(&self, model: QueueSettings) -> QueueHandle {
        let model = self.runners.pool.state().add(model);
        // Waiting runners do not know yet that there is something to measure.
        self.runners.pool.wake_all_runners();
        QueueHandle {
            model,
            runners: Arc::clone(&self.runners),
        }
    }
}

impl QueueHandle {
    /// Whether a job would be accepted now; checked before a request's body is read.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, options: &RunOptions) -> Result<(), Rejected> {
        self.runners
            .pool
            .state()
            .admit(self.model, options, Instant::now())
    }

    /// Runs the model as soon as it is this job's turn; dropping the future cancels the job if it is still waiting.
    ///
    /// # Errors
    /// When the job was refused or failed.
    pub async fn run(
        &self,
        prepare: Prepare,
        outputs: Vec<usize>,
        options: RunOptions,
    ) -> Result<Completed, RunError> {
        let (reply, mut answer) = oneshot::channel();
        let now = Instant::now();
        let id = self.runners.pool.next_id();
        let job = Job {
            id,
            prepare,
            outputs,
            options,
            submitted: now,
            reply,
        };
        let pool = &self.runners.pool;
        pool.submit(self.model, job, now).map_err(RunError::Rejected)?;
        if let Some(deadline) = options.deadline {
            let in_time = tokio::time::timeout_at(deadline.into(), &mut answer).await;
            if let Ok(result) = in_time {
                return unpack(result);
            }
            if pool.state().expire(self.model, id).is_some() {
                return Err(RunError::Job(JobError::Expired));
            }
            // It is already running: the answer will be late, but there will be one.
        }
        unpack(answer.await)
    }

    /// How busy the model is.
    #[must_use]
    pub fn load(&self) -> Load {
        self.runners.pool.state().load(self.model)
    }

    /// What has been asked of the model so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut state = self.runners.pool.state();
        // While nothing else can be counted.
        state.totals(self.model, Instant::now())
    }
}

fn unpack(
    result: Result<Result<Completed, JobError>, oneshot::error::RecvError>,
) -> Result<Completed, RunError> {
    let result = result.unwrap_or(Err(JobError::Lost("the thread that ran it has ended")));
    result.map_err(RunError::Job)
}

#[cfg(test)]
mod tests;
