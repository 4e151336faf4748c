//! The scheduler's decisions. Pure but for the engines it keeps: no threads, no clock; `now` is passed in.

use super::queue::{Queue, Thread, saturated};
use super::{Job, LaneSettings, Priority, Rejected, RunOptions, Tuner};
use crate::engine::{Curve, Engine};
use crate::metrics::ModelMetrics;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After requests of a small model came side by side, the next to come is expected to have others beside it.
const CROWDED: Duration = Duration::from_millis(100);

/// This part of what is ahead of a job is added to it before it is compared with a deadline.
const MARGIN: u32 = 8;

/// A server that is never idle measures this often nevertheless: what it learns may serve more than it costs.
const TUNING_UNDER_LOAD: Duration = Duration::from_secs(2);

/// All models, the cores and what runs on them.
pub(super) struct State {
    cores: usize,
    /// Cores on which nothing runs.
    free: usize,
    models: Vec<Queue>,
    /// Runs on runner threads.
    running: usize,
    /// Runners that have been woken and have not looked yet.
    called: usize,
    /// Whether network threads run short jobs too.
    helped: bool,
    /// Whether a network thread is running short jobs, one after the other, with a look at its connections between.
    helping: bool,
    /// When short jobs were there side by side last.
    crowded: Option<Instant>,
    closed: bool,
    /// When something was measured last.
    tuned: Option<Instant>,
    /// The least core time that a model had had when its turn came last: one that comes back starts from there.
    floor: Duration,
}

/// One run: the jobs, the engine and the cores it takes. Comes back to [`State::finish`].
pub(super) struct Work {
    pub(super) model: usize,
    pub(super) jobs: Vec<Job>,
    pub(super) engine: Box<dyn Engine>,
    /// Rows that go into one run of the engine.
    pub(super) batch: usize,
    pub(super) metrics: Arc<ModelMetrics>,
    cores: usize,
    count: usize,
    by: Thread,
}

/// When a job would be answered.
struct Prediction {
    /// What goes before it, on its model's share of the cores.
    ahead: Duration,
    /// Its own run.
    own: Duration,
}

/// How busy a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that are being run.
    pub running: usize,
    /// Cores, which all models share.
    pub cores: usize,
    /// How long a job that came now would probably wait.
    pub predicted_wait: Duration,
    /// Jobs that go into one run when enough wait.
    pub batch: usize,
}

impl State {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            cores,
            free: cores,
            models: Vec::new(),
            running: 0,
            called: 0,
            helped: false,
            helping: false,
            crowded: None,
            closed: false,
            tuned: None,
            floor: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, model: LaneSettings) -> usize {
        let LaneSettings {
            engines,
            capacity,
            curve,
            tuner,
            metrics,
        } = model;
        self.models.push(Queue {
            high: VecDeque::new(),
            normal: VecDeque::new(),
            engines,
            capacity,
            batch: curve.best(),
            cost: curve.single(),
            least_cost: curve.single(),
            tuner,
            running: 0,
            spent: Duration::ZERO,
            metrics: Arc::new(metrics),
        });
        self.models.len() - 1
    }

    /// Whether a job would be taken now. Those whose client left hold places that nobody needs.
    pub(super) fn admit(&mut self, model: usize, options: &RunOptions, now: Instant) -> Result<(), Rejected> {
        if self.check(model, options, now).is_ok() {
            return Ok(());
        }
        self.models[model].forget_gone();
        self.check(model, options, now)
    }

    fn check(&self, model: usize, options: &RunOptions, now: Instant) -> Result<(), Rejected> {
        if self.closed {
            return Err(Rejected::Closed);
        }
        let entry = &self.models[model];
        let retry_after = || entry.cost * saturated(entry.waiting()) / saturated(self.cores);
        // What a free core takes at once does not wait.
        if entry.waiting() >= entry.capacity + self.free {
            return Err(Rejected::Full {
                retry_after: retry_after(),
            });
        }
        let Some(deadline) = options.deadline else {
            return Ok(());
        };
        let Prediction { ahead, own } = self.predict(model, options.priority);
        // Between runs, and from and to the network, passes time that no run counts. Who is taken with no time to spare
        // would be answered too late, for nothing, while a queue that is a little shorter keeps the cores as busy.
        let predicted = ahead + ahead / MARGIN + own;
        if now + predicted <= deadline {
            return Ok(());
        }
        Err(Rejected::OutOfReach {
            predicted,
            retry_after: retry_after(),
        })
    }

    /// Takes a job, unless it cannot be served in time or there is no room. Returns whether it is short.
    pub(super) fn submit(&mut self, model: usize, job: Job, now: Instant) -> Result<bool, Rejected> {
        self.admit(model, &job.options, now)?;
        self.activate(model);
        let entry = &mut self.models[model];
        let is_short = job.options.is_small && entry.is_quick();
        entry.queue(job.options.priority).push_back(job);
        if self.free < self.cores || self.waiting() > 1 {
            self.crowded = Some(now);
        }
        Ok(is_short || self.is_alone(model, now))
    }

    /// Whether this model's job has all cores for itself, and nothing else is expected: then the thread that read it
    /// need not look after others while it runs, and to wake another one would only take time.
    fn is_alone(&self, model: usize, now: Instant) -> bool {
        self.is_only_job() && self.models[model].is_swift() && !self.is_crowded(now)
    }

    /// Whether one job waits, and nothing runs.
    fn is_only_job(&self) -> bool {
        self.free == self.cores && self.waiting() == 1
    }

    /// Whether what is next of this model is for a network thread.
    fn is_for_network(&self, model: usize, now: Instant) -> bool {
        self.helped && (self.models[model].is_short() || self.is_alone(model, now))
    }

    fn is_crowded(&self, now: Instant) -> bool {
        self.crowded.is_some_and(|last| now < last + CROWDED)
    }

    /// Network threads run short jobs from now on.
    pub(super) fn be_helped(&mut self) {
        self.helped = true;
    }

    /// A network thread will take short jobs until there is none for it. Returns whether it has to be woken for that.
    pub(super) fn start_helping(&mut self) -> bool {
        !std::mem::replace(&mut self.helping, true)
    }

    /// It found none.
    pub(super) fn stop_helping(&mut self) {
        self.helping = false;
    }

    /// How many runners are to be woken for what waits; the caller may be about to take one job itself.
    ///
    /// Of short jobs a network thread runs as many as it can, so one runner less is of use. It is given nothing
    /// while short jobs come one at a time: to wake it would take longer than to run them.
    pub(super) fn call(&mut self, caller: Option<Thread>, now: Instant) -> usize {
        let Some(next) = self.next() else { return 0 };
        let taken = usize::from(caller.is_some());
        let mut most = self.free.min(self.waiting()).saturating_sub(self.called + taken);
        if self.is_for_network(next, now) {
            let runners = self.running + self.called + usize::from(caller == Some(Thread::Runner));
            let room = (self.cores - 1).saturating_sub(runners);
            most = if self.is_crowded(now) { most.min(room) } else { 0 };
        }
        self.called += most;
        most
    }

    /// A runner looks for work.
    pub(super) fn answer_call(&mut self) {
        self.called = self.called.saturating_sub(1);
    }

    /// A model that was idle does not get back the time that it did not use.
    fn activate(&mut self, model: usize) {
        if !self.models[model].is_active() {
            let entry = &mut self.models[model];
            entry.spent = entry.spent.max(self.floor);
        }
    }

    /// The model whose turn it is, if there is a core, an engine and a job for it.
    fn next(&self) -> Option<usize> {
        let models = self.models.iter().enumerate();
        let ready = models.filter(|(_, entry)| entry.waiting() > 0 && !entry.engines.narrow.is_empty());
        let (model, _) = ready.min_by_key(|(_, entry)| entry.spent)?;
        (self.free > 0).then_some(model)
    }

    /// The next run for a network thread; it leaves what runners have been woken for.
    pub(super) fn take_short(&mut self, now: Instant) -> Option<Work> {
        if self.waiting() > self.called {
            self.take(Thread::Network, now)
        } else {
            None
        }
    }

    /// The next run, if it is one for this thread.
    pub(super) fn take(&mut self, by: Thread, now: Instant) -> Option<Work> {
        loop {
            let model = self.next()?;
            let is_for_network = self.is_for_network(model, now);
            // The last core is the network thread's: one runner more would only take turns with it.
            let is_left = self.helping && self.running + 1 >= self.cores && !self.closed;
            let may_take = match by {
                Thread::Network => is_for_network,
                Thread::Runner => !(is_for_network && is_left),
            };
            if !may_take {
                return None;
            }
            let alone = self.is_only_job();
            let entry = &mut self.models[model];
            self.floor = self.floor.max(entry.spent);
            // Each core that is free gets its share of what waits.
            let share = entry.waiting().div_ceil(self.free);
            // While a network thread runs, nothing is read: it would have the runners starve if it took more.
            let batch = if by == Thread::Network { 1 } else { entry.batch };
            let jobs = entry.pop(batch.min(share), now);
            if jobs.is_empty() {
                continue;
            }
            let wide = if alone { entry.engines.wide.take() } else { None };
            let cores = if wide.is_some() { self.cores } else { 1 };
            let engine = wide.or_else(|| entry.engines.narrow.pop())?;
            entry.running += jobs.len();
            self.free -= cores;
            self.running += usize::from(by == Thread::Runner);
            return Some(Work {
                by,
                model,
                count: jobs.len(),
                jobs,
                engine,
                batch: entry.batch,
                metrics: Arc::clone(&entry.metrics),
                cores,
            });
        }
    }

    /// Takes back what a run used, and learns what it cost. `ran` of its jobs had inputs that could be run.
    pub(super) fn finish(&mut self, work: Work, took: Duration, ran: usize) {
        let entry = &mut self.models[work.model];
        self.free += work.cores;
        self.running -= usize::from(work.by == Thread::Runner);
        entry.running -= work.count;
        entry.spent += took * saturated(work.cores);
        entry.metrics.ran(took, work.cores);
        if work.cores > 1 {
            entry.engines.wide = Some(work.engine);
            return;
        }
        entry.engines.narrow.push(work.engine);
        if ran > 0 {
            entry.learn(took / saturated(ran));
        }
    }

    /// A tuner that has something to measure; it takes one core. Nothing else may be there to do, unless such a
    /// moment has not come for long.
    pub(super) fn take_tuner(&mut self, now: Instant) -> Option<(usize, Tuner)> {
        let is_idle = self.free == self.cores && self.waiting() == 0;
        // With one core, those who wait would wait for all of it.
        let is_overdue = self.cores > 1 && now - *self.tuned.get_or_insert(now) > TUNING_UNDER_LOAD;
        if self.free == 0 || self.closed || !(is_idle || is_overdue) {
            return None;
        }
        let index = self.models.iter().position(|entry| entry.tuner.is_some())?;
        let tuner = self.models[index].tuner.take()?;
        self.tuned = Some(now);
        self.free -= 1;
        self.running += 1;
        Some((index, tuner))
    }

    /// Takes back a tuner, or forgets one that has measured all, and uses what it has learnt.
    pub(super) fn finish_tuner(&mut self, model: usize, tuner: Option<Tuner>, curve: &Curve) {
        self.free += 1;
        self.running -= 1;
        let entry = &mut self.models[model];
        entry.tuner = tuner;
        entry.batch = curve.best();
    }

    /// Whether there is something to measure in an idle moment.
    pub(super) fn has_tuner(&self) -> bool {
        self.models.iter().any(|entry| entry.tuner.is_some())
    }

    /// Takes a job back that still waits.
    pub(super) fn withdraw(&mut self, model: usize, id: u64) -> Option<Job> {
        let entry = &mut self.models[model];
        [&mut entry.high, &mut entry.normal]
            .into_iter()
            .find_map(|queue| {
                let index = queue.iter().position(|job| job.id == id)?;
                queue.remove(index)
            })
    }

    /// Refuses new jobs; those that wait are still run.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Jobs of all models that wait.
    pub(super) fn waiting(&self) -> usize {
        self.models.iter().map(Queue::waiting).sum()
    }

    pub(super) fn load(&self, model: usize) -> Load {
        let entry = &self.models[model];
        let predicted = self.predict(model, Priority::Normal);
        Load {
            queued: entry.waiting(),
            running: entry.running,
            cores: self.cores,
            predicted_wait: (predicted.ahead + predicted.own).saturating_sub(entry.cost),
            batch: entry.batch,
        }
    }

    /// Until a job that came now would be answered.
    fn predict(&self, model: usize, priority: Priority) -> Prediction {
        let entry = &self.models[model];
        if self.free > 0 && entry.waiting() == 0 {
            // The least that it took: else one slow run could have all that come after it refused, and nothing
            // would ever be learnt again.
            return Prediction {
                ahead: Duration::ZERO,
                own: entry.least_cost,
            };
        }
        let ahead = match priority {
            Priority::High => entry.high.len(),
            Priority::Normal => entry.waiting(),
        };
        let others = self.models.iter().enumerate();
        let active = others.filter(|(index, entry)| *index == model || entry.waiting() > 0);
        // Runs that are under way are half done, on average; its own run may be that of a batch.
        let work = entry.cost * saturated(ahead) + entry.cost * saturated(entry.running) / 2;
        Prediction {
            ahead: work * saturated(active.count()) / saturated(self.cores),
            own: entry.cost * saturated(entry.batch.min(ahead + 1)),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
