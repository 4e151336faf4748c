//! One run: makes the inputs of its jobs, runs jobs of the same shape together, and answers each.

use super::job::{Completed, Job, JobError, Timing};
use crate::engine::Engine;
use crate::metrics::ModelMetrics;
use crate::tensor::Tensor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tokio::sync::oneshot::Sender;

type Reply = Sender<Result<Completed, JobError>>;

/// A job with its inputs.
struct Prepared {
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    timing: Timing,
    reply: Reply,
}

/// Answers every job. At most `batch` rows go into one run of the engine. Returns how many jobs were run; the others
/// had inputs that could not be made, or clients that left.
pub(super) fn run(jobs: Vec<Job>, engine: &mut dyn Engine, batch: usize, metrics: &ModelMetrics) -> usize {
    let mut waiting: Vec<Prepared> = jobs.into_iter().filter_map(|job| prepare(job, metrics)).collect();
    let mut ran = 0;
    while !waiting.is_empty() {
        let together = take_fitting(&mut waiting, batch);
        ran += together.len();
        match <[Prepared; 1]>::try_from(together) {
            Ok([alone]) => run_alone(alone, engine, metrics),
            Err(together) => run_together(together, engine, metrics),
        }
        // The others have waited for a whole run: their clients may have left.
        waiting.retain(|job| !job.reply.is_closed());
    }
    ran
}

fn prepare(job: Job, metrics: &ModelMetrics) -> Option<Prepared> {
    let queue = job.submitted.elapsed();
    metrics.queue_wait.observe(queue.as_secs_f64());
    let started = Instant::now();
    let make = job.prepare;
    match caught(|| make().map_err(JobError::Input)) {
        Ok(inputs) => {
            let prepare = started.elapsed();
            metrics.preprocessing.observe(prepare.as_secs_f64());
            let timing = Timing {
                queue,
                prepare,
                ..Timing::default()
            };
            Some(Prepared {
                inputs,
                outputs: job.outputs,
                timing,
                reply: job.reply,
            })
        }
        Err(error) => {
            // The client may have left.
            let _ = job.reply.send(Err(error));
            None
        }
    }
}

/// The first job, and the later ones whose tensors differ from its tensors only in the first dimension.
fn take_fitting(waiting: &mut Vec<Prepared>, batch: usize) -> Vec<Prepared> {
    let first = waiting.remove(0);
    let mut room = batch.saturating_sub(first.rows().unwrap_or(batch));
    let fits = |other: &mut Prepared| match other.rows() {
        Some(rows) if rows <= room && first.fits(other) => {
            room -= rows;
            true
        }
        _ => false,
    };
    let others: Vec<Prepared> = waiting.extract_if(.., fits).collect();
    std::iter::once(first).chain(others).collect()
}

impl Prepared {
    /// The first dimension, if it is the same for all inputs.
    fn rows(&self) -> Option<usize> {
        let rows = *self.inputs.first()?.shape().first()?;
        let same = self
            .inputs
            .iter()
            .all(|input| input.shape().first() == Some(&rows));
        usize::try_from(rows).ok().filter(|_| same)
    }

    fn fits(&self, other: &Self) -> bool {
        let mut inputs = self.inputs.iter().zip(&other.inputs);
        self.outputs == other.outputs
            && inputs.all(|(a, b)| a.datatype() == b.datatype() && a.shape().get(1..) == b.shape().get(1..))
    }

    fn answer(self, run: Run, result: Result<Vec<Tensor>, JobError>) {
        let timing = Timing {
            inference: run.took,
            rows: run.rows,
            ..self.timing
        };
        // The client may have left while the job ran.
        let _ = self
            .reply
            .send(result.map(|outputs| Completed { outputs, timing }));
    }
}

fn run_alone(job: Prepared, engine: &mut dyn Engine, metrics: &ModelMetrics) {
    let (run, result) = measured(engine, &job.inputs, &job.outputs, job.timing.prepare, metrics);
    job.answer(run, result);
}

fn run_together(jobs: Vec<Prepared>, engine: &mut dyn Engine, metrics: &ModelMetrics) {
    if let Some(inputs) = concatenated(&jobs) {
        let prepare = jobs.iter().map(|job| job.timing.prepare).sum();
        let (run, result) = measured(engine, &inputs, &jobs[0].outputs, prepare, metrics);
        let parts = result.and_then(|outputs| {
            cut(&outputs, &jobs).ok_or(JobError::Lost(
                "the model's outputs are not a batch of its inputs",
            ))
        });
        if let Ok(parts) = parts {
            for (job, outputs) in jobs.into_iter().zip(parts) {
                job.answer(run, Ok(outputs));
            }
            return;
        }
    }
    // One job's bad input must not fail the others.
    for job in jobs {
        run_alone(job, engine, metrics);
    }
}

/// One run of the engine.
#[derive(Clone, Copy)]
struct Run {
    took: Duration,
    rows: u64,
}

fn measured(
    engine: &mut dyn Engine,
    inputs: &[Tensor],
    outputs: &[usize],
    prepare: Duration,
    metrics: &ModelMetrics,
) -> (Run, Result<Vec<Tensor>, JobError>) {
    let started = Instant::now();
    let result = caught(|| engine.run(inputs, outputs).map_err(JobError::Engine));
    let took = started.elapsed();
    metrics.inference.observe(took.as_secs_f64());
    let rows = inputs.first().and_then(|input| input.shape().first());
    let rows = rows.map_or(1, |&rows| u64::try_from(rows).unwrap_or(1));
    metrics.batch_size.observe(rows as f64);
    if result.is_ok() {
        metrics.statistics.ran(rows, prepare, took);
    }
    (Run { took, rows }, result)
}

/// A panic is a bug, and only this request gets a 500.
fn caught<T>(work: impl FnOnce() -> Result<T, JobError>) -> Result<T, JobError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or(Err(JobError::Lost("an internal error; see the server's log")))
}

fn concatenated(jobs: &[Prepared]) -> Option<Vec<Tensor>> {
    let count = jobs.first()?.inputs.len();
    let input = |index: usize| {
        let parts: Vec<&Tensor> = jobs.iter().map(|job| &job.inputs[index]).collect();
        Tensor::concatenate(&parts)
    };
    (0..count).map(input).collect()
}

/// The outputs of each job.
fn cut(outputs: &[Tensor], jobs: &[Prepared]) -> Option<Vec<Vec<Tensor>>> {
    let rows: Option<Vec<i64>> = jobs.iter().map(|job| i64::try_from(job.rows()?).ok()).collect();
    let rows = rows?;
    let mut parts: Vec<Vec<Tensor>> = jobs.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        for (part, tensor) in parts.iter_mut().zip(output.split(&rows)?) {
            part.push(tensor);
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::{EngineError, Signature};
    use crate::metrics::Metrics;
    use crate::scheduling::RunOptions;
    use tokio::sync::oneshot::{Receiver, channel};

    /// The client of another job leaves while it runs.
    struct Slow {
        signature: Signature,
        leaves: Option<Receiver<Result<Completed, JobError>>>,
    }

    impl Engine for Slow {
        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
            self.leaves = None;
            Ok(inputs.to_vec())
        }
    }

    /// The cost of the run would be divided by jobs that it was not for.
    #[test]
    fn a_job_whose_client_leaves_before_its_run_is_not_counted_as_run() {
        let job = |columns: usize| {
            let (reply, answer) = channel();
            let shape = vec![1, i64::try_from(columns).unwrap()];
            let job = Job {
                id: 0,
                prepare: Box::new(move || Ok(vec![Tensor::from_vec(shape, vec![0_f32; columns]).unwrap()])),
                outputs: vec![0],
                options: RunOptions::default(),
                submitted: Instant::now(),
                reply,
            };
            (job, answer)
        };
        // Of other shapes, so that each has its own run.
        let ((first, mut stays), (second, leaves)) = (job(1), job(2));
        let mut engine = Slow {
            signature: Signature::new(Vec::new(), Vec::new(), 1),
            leaves: Some(leaves),
        };
        let metrics = Metrics::new("", "", "").model("m");
        assert_eq!(run(vec![first, second], &mut engine, 2, &metrics), 1);
        assert!(stays.try_recv().unwrap().is_ok());
    }
}
