//! Runner threads: each owns an engine and takes jobs from the model's queue.

use super::queue::{Queue, Rejected};
use super::{Completed, Job, JobError, Load, Timing};
use crate::engine::Engine;
use crate::metrics::ModelMetrics;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// The runners of one model; they end when this is dropped.
pub struct Runners {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Runners {
    /// Starts one thread per engine; `capacity` jobs may wait while all are busy.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        engines: Vec<Box<dyn Engine>>,
        capacity: usize,
        metrics: &ModelMetrics,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(capacity, engines.len()));
        let mut runners = Self {
            queue: Arc::clone(&queue),
            threads: Vec::with_capacity(engines.len()),
        };
        for (index, mut engine) in engines.into_iter().enumerate() {
            let (queue, metrics) = (Arc::clone(&queue), metrics.clone());
            let thread = std::thread::Builder::new()
                .name(format!("runner-{index}"))
                .spawn(move || {
                    while let Some(job) = queue.next() {
                        let started = Instant::now();
                        run(job, engine.as_mut(), &metrics);
                        queue.served(started.elapsed());
                    }
                });
            runners.threads.push(thread?);
        }
        Ok(runners)
    }

    /// Queues a job.
    ///
    /// # Errors
    /// When as many jobs wait as may, or the server is leaving.
    pub fn submit(&self, job: Job) -> Result<(), Rejected> {
        self.queue.submit(job)
    }

    /// How busy they are.
    #[must_use]
    pub fn load(&self) -> Load {
        self.queue.load()
    }
}

impl Drop for Runners {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A runner catches what its jobs panic with, so there is nothing to tell.
            let _ = thread.join();
        }
    }
}

fn run(job: Job, engine: &mut dyn Engine, metrics: &ModelMetrics) {
    let Job {
        prepare,
        outputs,
        submitted,
        reply,
    } = job;
    let queue = submitted.elapsed();
    metrics.queue_wait.observe(queue.as_secs_f64());
    // A panic is a bug, and a 500 for this request alone.
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<Completed, JobError> {
        let started = Instant::now();
        let inputs = prepare()?;
        let prepare = started.elapsed();
        metrics.preprocessing.observe(prepare.as_secs_f64());
        let started = Instant::now();
        let outputs = engine.run(&inputs, &outputs)?;
        let inference = started.elapsed();
        metrics.inference.observe(inference.as_secs_f64());
        metrics.batch_size.observe(1.0);
        metrics.ran(inference, 1);
        Ok(Completed {
            outputs,
            timing: Timing {
                queue,
                prepare,
                inference,
            },
        })
    }));
    let result = result.unwrap_or(Err(JobError::Lost("an internal error; see the server's log")));
    // The client may have left while the job ran.
    let _ = reply.send(result);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::engine::{EngineError, Signature};
    use crate::metrics::Metrics;
    use crate::tensor::Tensor;

    /// Answers with its inputs.
    struct Echo(Signature);

    impl Engine for Echo {
        fn signature(&self) -> &Signature {
            &self.0
        }

        fn run(&mut self, inputs: &[Tensor], _outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
            Ok(inputs.to_vec())
        }
    }

    fn runners(count: usize) -> Runners {
        let signature = Signature {
            inputs: Vec::new(),
            outputs: Vec::new(),
            opset: 1,
        };
        let engines = (0..count)
            .map(|_| Box::new(Echo(signature.clone())) as Box<dyn Engine>)
            .collect();
        Runners::start(engines, 8, &Metrics::new("", "", "").model("echo")).unwrap()
    }

    #[tokio::test]
    async fn a_job_that_panics_fails_alone() {
        let runners = runners(1);
        let (bad, answer) = Job::new(Box::new(|| panic!("a bug")), Vec::new());
        runners.submit(bad).unwrap();
        assert!(matches!(answer.await.unwrap(), Err(JobError::Lost(_))));

        let tensor = Tensor::from_vec(vec![1], vec![9_u8]).unwrap();
        let expected = tensor.clone();
        let (good, answer) = Job::new(Box::new(move || Ok(vec![tensor])), Vec::new());
        runners.submit(good).unwrap();
        assert_eq!(answer.await.unwrap().unwrap().outputs, [expected]);
    }

    #[tokio::test]
    async fn runners_finish_what_waits_before_they_end() {
        let runners = runners(2);
        let answers: Vec<_> = (0..6)
            .map(|_| {
                let (job, answer) = Job::new(Box::new(|| Ok(Vec::new())), Vec::new());
                runners.submit(job).unwrap();
                answer
            })
            .collect();
        drop(runners);
        for answer in answers {
            assert!(answer.await.unwrap().is_ok());
        }
    }
}
