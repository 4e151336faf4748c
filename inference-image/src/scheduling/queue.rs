//! The waiting jobs of one model, and what its runs cost. Pure, except for the engines it holds.

use super::demand::{Demand, Totals};
use super::dispatch::Profile;
use super::job::{Job, JobError, Priority, RunOptions};
use super::tuning::Tuner;
use crate::engine::{Curve, Engine};
use crate::metrics::ModelMetrics;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a model runs on.
pub struct Engines {
    /// Engines with one thread each; at least one.
    pub single_core: Vec<Box<dyn Engine>>,
    /// An engine on all cores, for a job that has them to itself, if that is faster.
    pub all_cores: Option<Box<dyn Engine>>,
}

/// A model for the scheduler.
pub struct QueueSettings {
    /// Its engines.
    pub engines: Engines,
    /// How many jobs may wait.
    pub capacity: usize,
    /// What runs of several rows cost, as far as known.
    pub curve: Curve,
    /// Measures what is missing in idle moments.
    pub tuner: Option<Tuner>,
    /// Where its runs are counted.
    pub metrics: ModelMetrics,
}

/// One model: its waiting jobs, its engines, and what its runs cost.
pub(super) struct Queue {
    pub(super) high: VecDeque<Job>,
    pub(super) normal: VecDeque<Job>,
    engines: Engines,
    pub(super) capacity: usize,
    pub(super) batch: usize,
    pub(super) tuner: Option<Tuner>,
    /// Jobs that are running.
    pub(super) running: usize,
    /// Whether there was a run since this was asked last.
    has_run: bool,
    /// Whether nothing is kept of its runs that the next one may not need.
    is_clean: bool,
    /// Running mean of the core time of one job.
    pub(super) cost: Duration,
    /// The shortest core time of one job.
    pub(super) least_cost: Duration,
    /// Core time so far. Models share the cores fairly: the one that has used the least core time is next.
    pub(super) spent: Duration,
    /// What has been asked of the model.
    demand: Demand,
    /// The largest value of `demand.offered` and what waits that was reported.
    offered: Duration,
    pub(super) metrics: Arc<ModelMetrics>,
}

impl Queue {
    pub(super) fn new(model: QueueSettings) -> Self {
        let QueueSettings {
            engines,
            capacity,
            curve,
            tuner,
            metrics,
        } = model;
        Self {
            high: VecDeque::new(),
            normal: VecDeque::new(),
            engines,
            capacity,
            batch: curve.best(),
            cost: curve.single(),
            least_cost: curve.single(),
            tuner,
            running: 0,
            has_run: false,
            is_clean: false,
            spent: Duration::ZERO,
            demand: Demand::default(),
            offered: Duration::ZERO,
            metrics: Arc::new(metrics),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.high.len() + self.normal.len()
    }

    pub(super) fn is_active(&self) -> bool {
        self.waiting() + self.running > 0
    }

    /// Whether a run could start now.
    pub(super) fn is_ready(&self) -> bool {
        self.waiting() > 0 && !self.engines.single_core.is_empty()
    }

    pub(super) fn push(&mut self, job: Job) {
        self.of(job.options.priority).push_back(job);
    }

    fn of(&mut self, priority: Priority) -> &mut VecDeque<Job> {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
        }
    }

    /// What is known about the run of a job with these options.
    pub(super) fn profile(&self, options: &RunOptions) -> Profile {
        let is_known = options.typical_cost && !self.cost.is_zero();
        Profile {
            expected: is_known.then_some(self.cost),
            has_all_cores_session: self.engines.all_cores.is_some(),
        }
    }

    /// The same for the next job.
    pub(super) fn next_profile(&self) -> Option<Profile> {
        let next = self.high.front().or_else(|| self.normal.front())?;
        Some(self.profile(&next.options))
    }

    /// At most `most` jobs for one run. A job whose client has left is dropped, and one that would be late is
    /// answered with that error. The first job's deadline limits how many more are added. Empty if the first job was
    /// dropped or late: the next one may be for another thread.
    pub(super) fn pop(&mut self, most: usize, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(most);
        let mut earliest: Option<Instant> = None;
        while jobs.len() < most {
            let run = self.cost * saturated(jobs.len() + 1);
            if !jobs.is_empty() && earliest.is_some_and(|deadline| now + run > deadline) {
                break;
            }
            let Some(job) = self.high.pop_front().or_else(|| self.normal.pop_front()) else {
                break;
            };
            match job.options.deadline {
                _ if job.reply.is_closed() => {}
                Some(deadline) if now + self.least_cost > deadline => {
                    self.demand.expired(self.cost);
                    // The client may leave at this moment.
                    let _ = job.reply.send(Err(JobError::Expired));
                }
                deadline => {
                    earliest = [earliest, deadline].into_iter().flatten().min();
                    jobs.push(job);
                }
            }
            if jobs.is_empty() {
                break;
            }
        }
        jobs
    }

    /// An engine, and the cores that a run on it takes: all `cores` only if nothing else could use them.
    pub(super) fn take_engine(
        &mut self,
        has_cores_alone: bool,
        cores: usize,
    ) -> Option<(Box<dyn Engine>, usize)> {
        let all_cores = self.engines.all_cores.take_if(|_| has_cores_alone);
        let all = all_cores.map(|engine| (engine, cores));
        all.or_else(|| Some((self.engines.single_core.pop()?, 1)))
    }

    /// Takes back what a run used, and learns what it cost: `took` for `ran` jobs.
    ///
    /// `asked` is the runner time that they asked for where the process may use less CPU than it has runners: the run's
    /// CPU time, as a share of what the process may use. By the clock, such a server looks idle until it is throttled, and
    /// then overloaded.
    pub(super) fn finish(
        &mut self,
        engine: Box<dyn Engine>,
        cores: usize,
        took: Duration,
        asked: Option<Duration>,
        ran: usize,
    ) {
        let spent = took * saturated(cores);
        self.spent += spent;
        self.metrics.ran(took, cores);
        // A job that has all cores takes more core time than on one core, where it is run if others wait.
        let asked = asked.filter(|_| cores == 1);
        self.demand
            .served(ran, asked.unwrap_or_else(|| self.cost.clamp(took, spent)));
        self.has_run = true;
        self.give_back(engine, cores);
        if cores == 1 && ran > 0 {
            self.learn(took / saturated(ran));
        }
    }

    /// Takes back an engine of so many cores.
    pub(super) fn give_back(&mut self, engine: Box<dyn Engine>, cores: usize) {
        if cores > 1 {
            self.engines.all_cores = Some(engine);
        } else {
            self.engines.single_core.push(engine);
        }
    }

    /// Whether an engine keeps memory that its next run may not need, and nothing waits or runs, nor has run since this was
    /// asked last.
    pub(super) fn is_idle_holder(&mut self) -> bool {
        if std::mem::take(&mut self.has_run) || self.is_active() {
            self.is_clean = false;
            return false;
        }
        let mut engines = self.engines.single_core.iter().chain(&self.engines.all_cores);
        self.is_clean = self.is_clean || !engines.any(|engine| engine.holds_memory());
        !self.is_clean
    }

    /// Such engines, and their cores; none while there is something to run.
    pub(super) fn take_holders(&mut self, cores: usize) -> Vec<(Box<dyn Engine>, usize)> {
        if self.is_active() {
            return Vec::new();
        }
        let holds = |engine: &mut Box<dyn Engine>| engine.holds_memory();
        let Engines {
            single_core,
            all_cores,
        } = &mut self.engines;
        let single_core = single_core.extract_if(.., holds).map(|engine| (engine, 1));
        let all_cores = all_cores.take_if(holds).map(|engine| (engine, cores));
        single_core.chain(all_cores).collect()
    }

    /// One run that something else held up must not count for much.
    fn learn(&mut self, each: Duration) {
        if self.cost.is_zero() {
            (self.cost, self.least_cost) = (each, each);
            return;
        }
        self.cost = (self.cost * 7 + each.min(self.cost * 3)) / 8;
        self.least_cost = self.least_cost.min(each);
    }

    /// Counts a job that was refused. A deadline that an idle server could not meet either is not a sign of load.
    pub(super) fn refuse(&mut self, options: &RunOptions, now: Instant) {
        if options
            .deadline
            .is_none_or(|deadline| now + self.least_cost <= deadline)
        {
            self.demand.refused(self.cost);
        }
    }

    /// Removes a job whose deadline has passed, if it is still waiting.
    pub(super) fn expire(&mut self, id: u64) -> Option<Job> {
        let job = [&mut self.high, &mut self.normal].into_iter().find_map(|queue| {
            let index = queue.iter().position(|job| job.id == id)?;
            queue.remove(index)
        })?;
        self.demand.expired(self.cost);
        Some(job)
    }

    /// What has been asked of the model up to now, also by the jobs that wait, at what a job costs on average: a queue
    /// that grows is more than the runners can do. If some of them leave, the value stays until it is true again.
    pub(super) fn totals(&mut self, now: Instant) -> Totals {
        let waiting = self.cost * saturated(self.waiting());
        self.offered = self.offered.max(self.demand.offered + waiting);
        Totals {
            at: now,
            demand: Demand {
                offered: self.offered,
                ..self.demand
            },
            in_flight: self.metrics.concurrency.integral(now),
        }
    }

    /// Drops jobs whose client has left.
    pub(super) fn drop_abandoned(&mut self) {
        self.high.retain(|job| !job.reply.is_closed());
        self.normal.retain(|job| !job.reply.is_closed());
    }
}

pub(super) fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
