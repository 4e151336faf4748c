//! The threads that run jobs: one runner per core, and the network thread's task for inline execution. `state` and
//! `dispatch` decide which thread runs what; this module waits, wakes and runs.

use super::batch;
use super::dispatch::{Executor, WakeUps};
use super::job::{Job, Rejected};
use super::state::{State, Work};
use super::tuning::Tuner;
use crate::engine::Curve;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::time::{ClockId, clock_gettime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::yield_now;

/// A runner that has been idle for this long takes the missing measurements.
const IDLE_BEFORE_TUNING: Duration = Duration::from_millis(200);

/// What the threads share.
pub(super) struct Pool {
    state: Mutex<State>,
    /// Wakes runners: a run could start.
    runnable: Condvar,
    /// Wakes the network thread's task.
    network: Notify,
    ids: AtomicU64,
    /// Runners divided by the cores that the process may use, if these are fewer.
    scarcity: Option<f64>,
}

/// The runners. When this is dropped, they finish the waiting jobs and end.
pub(super) struct Runners {
    pub(super) pool: Arc<Pool>,
    handles: Vec<JoinHandle<()>>,
}

enum Task {
    Run(Work),
    Tune(usize, Tuner),
}

impl Pool {
    fn new(cores: usize, cpu_limit: Option<f64>) -> Self {
        let scarcity = cpu_limit.map(|limit| cores as f64 / limit);
        Self {
            state: Mutex::new(State::new(cores)),
            runnable: Condvar::new(),
            network: Notify::new(),
            ids: AtomicU64::new(0),
            scarcity: scarcity.filter(|scarcity| *scarcity > 1.0),
        }
    }

    /// An ID for a job, unique in this pool.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Queues a job and wakes a thread that may run it.
    pub(super) fn submit(&self, model: usize, job: Job, now: Instant) -> Result<(), Rejected> {
        let WakeUps { network, runners } = self.state().submit(model, job, now)?;
        if network {
            self.network.notify_one();
        }
        self.wake_runners(runners);
        Ok(())
    }

    fn wake_runners(&self, count: usize) {
        for _ in 0..count {
            self.runnable.notify_one();
        }
    }

    pub(super) fn wake_all_runners(&self) {
        self.runnable.notify_all();
    }

    /// The network thread's task: runs jobs inline, and lets the tasks of the connections go first, so that all
    /// requests that have arrived are queued before the next run.
    pub(super) async fn run_inline(&self) {
        loop {
            self.network.notified().await;
            yield_now().await;
            while self.run_one_inline() {
                yield_now().await;
            }
        }
    }

    /// Runs one job on the network thread, if there is one that it may run.
    fn run_one_inline(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let work = state.take(Executor::Network, now);
        if work.is_none() {
            state.network_found_nothing();
        }
        let runners = state.wake_runners(None, now);
        drop(state);
        self.wake_runners(runners);
        let Some(work) = work else { return false };
        self.run(work);
        true
    }

    /// The main loop of a runner.
    fn run_tasks(&self) {
        while let Some(task) = self.next_task() {
            match task {
                Task::Run(work) => self.run(work),
                Task::Tune(model, tuner) => self.tune(model, tuner),
            }
        }
    }

    /// Waits for something to do; `None` when the pool has been closed.
    fn next_task(&self) -> Option<Task> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            state.runner_looks();
            if state.waiting() > 0
                && state.has_tuner()
                && let Some((model, tuner)) = state.take_tuner(now)
            {
                // This runner was woken for a job, which another runner has to take now.
                self.runnable.notify_one();
                return Some(Task::Tune(model, tuner));
            }
            if let Some(work) = state.take(Executor::Runner, now) {
                return Some(Task::Run(work));
            }
            if state.is_closed() && state.waiting() == 0 {
                return None;
            }
            if !state.has_tuner() {
                self.runnable.wait(&mut state);
                continue;
            }
            let waited = self.runnable.wait_for(&mut state, IDLE_BEFORE_TUNING);
            if waited.timed_out()
                && let Some((model, tuner)) = state.take_tuner(Instant::now())
            {
                return Some(Task::Tune(model, tuner));
            }
        }
    }

    fn run(&self, mut work: Work) {
        let started = Instant::now();
        let cpu = self.scarcity.map(|scarcity| (scarcity, thread_cpu_time()));
        let jobs = std::mem::take(&mut work.jobs);
        let ran = batch::run(jobs, work.engine.as_mut(), work.batch, &work.metrics);
        let asked = cpu.map(|(scarcity, before)| (thread_cpu_time() - before).mul_f64(scarcity));
        let by = work.by;
        self.release(by, |state| state.finish(work, started.elapsed(), asked, ran));
    }

    fn tune(&self, model: usize, mut tuner: Tuner) {
        // A model that panics during a measurement is not measured any more.
        let step = catch_unwind(AssertUnwindSafe(|| {
            let more = tuner.step();
            (tuner.curve().clone(), more.then_some(tuner))
        }));
        let (curve, tuner) = step.unwrap_or_else(|_| (Curve::default(), None));
        self.release(Executor::Runner, |state| state.finish_tuner(model, tuner, &curve));
    }

    /// Frees memory that an idle model keeps and may not need.
    pub(super) fn free_memory(&self, model: usize) {
        let holders = self.state().take_holders(model);
        for (mut engine, cores) in holders {
            engine.free_memory();
            let mut state = self.state();
            state.give_back(model, engine, cores);
            let is_wanted = state.waiting() > 0;
            drop(state);
            if is_wanted {
                // A job has come that may have found no engine.
                self.network.notify_one();
                self.wake_all_runners();
            }
        }
    }

    /// Gives cores back, and wakes who can use them beside the caller, which looks for a job itself.
    fn release(&self, by: Executor, give_back: impl FnOnce(&mut State)) {
        let mut state = self.state();
        give_back(&mut state);
        let runners = state.wake_runners(Some(by), Instant::now());
        drop(state);
        self.wake_runners(runners);
    }
}

impl Runners {
    /// Starts one per core of a process that may use `cpu_limit` cores.
    pub(super) fn start(cores: usize, cpu_limit: Option<f64>) -> std::io::Result<Self> {
        // If a thread cannot be started, dropping this ends the others.
        let mut runners = Self {
            pool: Arc::new(Pool::new(cores, cpu_limit)),
            handles: Vec::with_capacity(cores),
        };
        for index in 0..cores {
            let pool = Arc::clone(&runners.pool);
            let runner = std::thread::Builder::new()
                .name(format!("runner-{index}"))
                .spawn(move || pool.run_tasks())?;
            runners.handles.push(runner);
        }
        Ok(runners)
    }
}

impl Drop for Runners {
    fn drop(&mut self) {
        self.pool.state().close();
        self.pool.wake_all_runners();
        for runner in self.handles.drain(..) {
            // A runner catches what its jobs panic with, so there is nothing to report.
            let _ = runner.join();
        }
    }
}

/// CPU time of this thread.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
