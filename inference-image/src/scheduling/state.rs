//! The scheduler's decisions. Pure, except for the engines it holds: no threads, no clock; `now` is passed in.

use super::admission::{Admission, Load};
use super::demand::Totals;
use super::dispatch::{Assignment, Dispatcher, Executor, WakeUps};
use super::job::{Job, Rejected, RunOptions};
use super::queue::{Queue, QueueSettings};
use super::tuning::Tuner;
use crate::engine::{Curve, Engine};
use crate::metrics::ModelMetrics;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a server that is never idle takes measurements anyway: they may gain more than they cost.
const TUNING_UNDER_LOAD: Duration = Duration::from_secs(2);

/// All models, the cores and what runs on them.
pub(super) struct State {
    dispatcher: Dispatcher,
    models: Vec<Queue>,
    closed: bool,
    /// When something was measured last.
    tuned: Option<Instant>,
    /// The core time of the model whose turn came last, which had used the least. A model that becomes active again
    /// starts from there.
    floor: Duration,
}

/// One run: the jobs, the engine and the cores it takes. [`State::finish`] takes it back.
pub(super) struct Work {
    pub(super) model: usize,
    pub(super) jobs: Vec<Job>,
    pub(super) engine: Box<dyn Engine>,
    /// Rows that go into one run of the engine.
    pub(super) batch: usize,
    pub(super) metrics: Arc<ModelMetrics>,
    pub(super) by: Executor,
    cores: usize,
    count: usize,
}

impl State {
    pub(super) const fn new(cores: usize) -> Self {
        Self {
            dispatcher: Dispatcher::new(cores),
            models: Vec::new(),
            closed: false,
            tuned: None,
            floor: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, model: QueueSettings) -> usize {
        self.models.push(Queue::new(model));
        self.models.len() - 1
    }

    /// Lets the network thread run jobs.
    pub(super) const fn enable_inline(&mut self) {
        self.dispatcher.enable_inline();
    }

    /// Whether a job would be accepted now.
    pub(super) fn admit(&mut self, model: usize, options: &RunOptions, now: Instant) -> Result<(), Rejected> {
        if self.closed {
            return Err(Rejected::Closed);
        }
        if self.admission(model).check(options, now).is_ok() {
            return Ok(());
        }
        // Jobs whose clients have left take up places that others need.
        self.models[model].drop_abandoned();
        let checked = self.admission(model).check(options, now);
        if checked.is_err() {
            self.models[model].refuse(options, now);
        }
        checked
    }

    fn admission(&self, model: usize) -> Admission<'_> {
        Admission {
            models: &self.models,
            model,
            cores: self.dispatcher.cores(),
            free: self.dispatcher.free(),
        }
    }

    pub(super) fn load(&self, model: usize) -> Load {
        self.admission(model).load()
    }

    pub(super) fn totals(&mut self, model: usize, now: Instant) -> Totals {
        self.models[model].totals(now)
    }

    /// Queues a job if there is room and time for it. Returns which threads to wake for it.
    pub(super) fn submit(&mut self, model: usize, job: Job, now: Instant) -> Result<WakeUps, Rejected> {
        self.admit(model, &job.options, now)?;
        self.activate(model);
        let profile = self.models[model].profile(&job.options);
        self.models[model].push(job);
        Ok(WakeUps {
            network: self.dispatcher.queued(profile, self.waiting(), now),
            runners: self.wake_runners(None, now),
        })
    }

    /// A model is not credited for the time it was idle.
    fn activate(&mut self, model: usize) {
        let queue = &mut self.models[model];
        if !queue.is_active() {
            queue.spent = queue.spent.max(self.floor);
        }
    }

    /// How many runners have to be woken for the waiting jobs. `caller` is about to look for a job itself.
    pub(super) fn wake_runners(&mut self, caller: Option<Executor>, now: Instant) -> usize {
        let Some((_, assignment)) = self.next(now) else {
            return 0;
        };
        self.dispatcher.wake_runners(assignment, self.waiting(), caller)
    }

    /// A runner is looking for a job.
    pub(super) const fn runner_looks(&mut self) {
        self.dispatcher.runner_looks();
    }

    /// The network thread has found no job to run.
    pub(super) fn network_found_nothing(&mut self) {
        self.dispatcher.network_found_nothing();
    }

    /// The model whose turn it is and which thread runs its next job, if there is a core, an engine and a job.
    fn next(&self, now: Instant) -> Option<(usize, Assignment)> {
        if self.dispatcher.free() == 0 {
            return None;
        }
        let models = self.models.iter().enumerate();
        let ready = models.filter(|(_, queue)| queue.is_ready());
        let (model, queue) = ready.min_by_key(|(_, queue)| queue.spent)?;
        let assignment = self.dispatcher.assign(queue.next_profile()?, self.waiting(), now);
        Some((model, assignment))
    }

    /// The next run, if this thread may take it.
    pub(super) fn take(&mut self, by: Executor, now: Instant) -> Option<Work> {
        loop {
            let (model, assignment) = self.next(now)?;
            let waiting = self.waiting();
            if !self.dispatcher.may_take(by, assignment, waiting) {
                return None;
            }
            let has_cores_alone = self.dispatcher.is_idle() && waiting == 1;
            let queue = &mut self.models[model];
            self.floor = self.floor.max(queue.spent);
            // Each free core gets its share of the waiting jobs.
            let share = queue.waiting().div_ceil(self.dispatcher.free());
            // While the network thread runs a job, it does not read requests: with more than one job, the runners
            // would starve.
            let batch = if by == Executor::Network { 1 } else { queue.batch };
            let jobs = queue.pop(batch.min(share), now);
            if jobs.is_empty() {
                continue;
            }
            let (engine, cores) = queue.take_engine(has_cores_alone, self.dispatcher.cores())?;
            queue.running += jobs.len();
            self.dispatcher.started(by, cores);
            return Some(Work {
                model,
                count: jobs.len(),
                jobs,
                engine,
                batch: queue.batch,
                metrics: Arc::clone(&queue.metrics),
                by,
                cores,
            });
        }
    }

    /// Takes back what a run used, and learns what it cost. `ran` of its jobs were run; `asked` is the runner time that
    /// they asked for if that is not the time that the run took.
    pub(super) fn finish(&mut self, work: Work, took: Duration, asked: Option<Duration>, ran: usize) {
        self.dispatcher.finished(work.by, work.cores);
        let queue = &mut self.models[work.model];
        queue.running -= work.count;
        queue.finish(work.engine, work.cores, took, asked, ran);
    }

    /// A tuner that has something to measure; it takes one core. Nothing else may be waiting or running, unless there
    /// has been no such moment for a long time.
    pub(super) fn take_tuner(&mut self, now: Instant) -> Option<(usize, Tuner)> {
        let is_idle = self.dispatcher.is_idle() && self.waiting() == 0;
        // With one core, all jobs would wait for the whole measurement.
        let has_other_cores = self.dispatcher.cores() > 1;
        let is_overdue = has_other_cores && now - *self.tuned.get_or_insert(now) > TUNING_UNDER_LOAD;
        if self.dispatcher.free() == 0 || self.closed || !(is_idle || is_overdue) {
            return None;
        }
        let index = self.models.iter().position(|queue| queue.tuner.is_some())?;
        let tuner = self.models[index].tuner.take()?;
        self.tuned = Some(now);
        self.dispatcher.started(Executor::Runner, 1);
        Some((index, tuner))
    }

    /// Takes back a tuner that has more to measure, and uses what it has learnt.
    pub(super) fn finish_tuner(&mut self, model: usize, tuner: Option<Tuner>, curve: &Curve) {
        self.dispatcher.finished(Executor::Runner, 1);
        let queue = &mut self.models[model];
        queue.tuner = tuner;
        queue.batch = curve.best();
    }

    /// Whether there is something to measure in an idle moment.
    pub(super) fn has_tuner(&self) -> bool {
        self.models.iter().any(|queue| queue.tuner.is_some())
    }

    /// Models that have not run since this was called last, and keep memory that they may not need.
    pub(super) fn idle_holders(&mut self) -> Vec<usize> {
        let models = self.models.iter_mut().enumerate();
        models
            .filter_map(|(model, queue)| queue.is_idle_holder().then_some(model))
            .collect()
    }

    /// A model's engines that keep memory that they may not need, and their cores; none if the model is not idle any more.
    pub(super) fn take_holders(&mut self, model: usize) -> Vec<(Box<dyn Engine>, usize)> {
        let cores = self.dispatcher.cores();
        self.models[model].take_holders(cores)
    }

    /// Takes one of them back.
    pub(super) fn give_back(&mut self, model: usize, engine: Box<dyn Engine>, cores: usize) {
        self.models[model].give_back(engine, cores);
    }

    /// Takes a job back whose deadline has passed, if it is still waiting.
    pub(super) fn expire(&mut self, model: usize, id: u64) -> Option<Job> {
        self.models[model].expire(id)
    }

    /// Refuses new jobs. Runners finish the waiting jobs, since the network thread may end first.
    pub(super) const fn close(&mut self) {
        self.closed = true;
        self.dispatcher.disable_inline();
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Waiting jobs of all models.
    pub(super) fn waiting(&self) -> usize {
        self.models.iter().map(Queue::waiting).sum()
    }
}

#[cfg(test)]
mod tests;
