//! The runner threads, one per core, and the network threads, which run short jobs themselves: handing one to
//! another thread and back would cost more than a small model's run.

use super::queue::Thread;
use super::state::{Load, State, Work};
use super::{Completed, Job, JobError, LaneSettings, Prepare, Rejected, RunError, RunOptions, Tuner, batch};
use crate::engine::Curve;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

thread_local! {
    /// What this thread helps, and how its task is woken that does.
    static HELPER: RefCell<Option<(Arc<Shared>, Arc<Notify>)>> = const { RefCell::new(None) };
}

/// With nothing to do for this long, a runner measures what is not known yet.
const IDLE_BEFORE_TUNING: Duration = Duration::from_millis(200);

/// Runs jobs of several models on the cores of this process. Its threads end when it and all lanes are dropped.
pub struct Scheduler {
    shared: Arc<Shared>,
    /// Ends the threads when the last of scheduler and lanes is gone.
    threads: Arc<Threads>,
}

/// The way to one model.
pub struct Lane {
    shared: Arc<Shared>,
    model: usize,
    _threads: Arc<Threads>,
}

struct Shared {
    state: Mutex<State>,
    /// There is a run that could start.
    startable: Condvar,
    ids: AtomicU64,
}

struct Threads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Scheduler {
    /// Starts one runner per core.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(cores: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(cores)),
            startable: Condvar::new(),
            ids: AtomicU64::new(0),
        });
        let threads = Threads {
            shared: Arc::clone(&shared),
            handles: Mutex::default(),
        };
        for index in 0..cores {
            let runner = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("runner-{index}"))
                .spawn(move || runner.run())?;
            locked(&threads.handles).push(thread);
        }
        Ok(Self {
            shared,
            threads: Arc::new(threads),
        })
    }

    /// Lets the thread of the current runtime run short jobs, for as long as the runtime lives. A task does it that
    /// takes turns with those of the connections: all that has come is read before the next run, so that the
    /// queue knows it. To be called on that thread, of a runtime that has no others.
    pub fn help(&self) {
        let (shared, woken) = (Arc::clone(&self.shared), Arc::new(Notify::new()));
        locked(&shared.state).be_helped();
        HELPER.set(Some((Arc::clone(&shared), Arc::clone(&woken))));
        tokio::spawn(async move {
            loop {
                woken.notified().await;
                // Those whose requests have come go first.
                yield_now().await;
                while shared.help() {
                    yield_now().await;
                }
            }
        });
    }

    /// Adds a model.
    #[must_use]
    pub fn add(&self, model: LaneSettings) -> Lane {
        let model = locked(&self.shared.state).add(model);
        // Those who wait do not know yet that there is something to measure.
        self.shared.startable.notify_all();
        Lane {
            model,
            shared: Arc::clone(&self.shared),
            _threads: Arc::clone(&self.threads),
        }
    }
}

impl Lane {
    /// Whether a job would be taken now: to be asked before a request's body is read.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, options: &RunOptions) -> Result<(), Rejected> {
        locked(&self.shared.state).admit(self.model, options, Instant::now())
    }

    /// Runs the model as soon as it is this job's turn; dropping the future cancels the job if it still waits.
    ///
    /// # Errors
    /// When the job was not taken or failed.
    pub async fn run(
        &self,
        prepare: Prepare,
        outputs: Vec<usize>,
        options: RunOptions,
    ) -> Result<Completed, RunError> {
        let (reply, mut answer) = oneshot::channel();
        let now = Instant::now();
        let id = self.shared.ids.fetch_add(1, Ordering::Relaxed);
        let job = Job {
            id,
            prepare,
            outputs,
            options,
            submitted: now,
            reply,
        };
        self.shared
            .submit(self.model, job, now)
            .map_err(RunError::Rejected)?;
        if let Some(deadline) = options.deadline {
            let in_time = tokio::time::timeout_at(deadline.into(), &mut answer).await;
            if let Ok(result) = in_time {
                return unpack(result);
            }
            if locked(&self.shared.state).withdraw(self.model, id).is_some() {
                return Err(RunError::Job(JobError::Expired));
            }
            // It is being run: the answer is late, but there will be one.
        }
        unpack(answer.await)
    }

    /// How busy the model is.
    #[must_use]
    pub fn load(&self) -> Load {
        locked(&self.shared.state).load(self.model)
    }
}

fn unpack(
    result: Result<Result<Completed, JobError>, oneshot::error::RecvError>,
) -> Result<Completed, RunError> {
    let result = result.unwrap_or(Err(JobError::Lost("its runner is gone")));
    result.map_err(RunError::Job)
}

impl Shared {
    /// A runner's life.
    fn run(&self) {
        while let Some(task) = self.next() {
            match task {
                Task::Run(work) => self.execute(work, Thread::Runner),
                Task::Tune(model, tuner) => self.tune(model, tuner),
            }
        }
    }

    /// Waits for something to do; `None` when there never will be.
    fn next(&self) -> Option<Task> {
        let mut state = locked(&self.state);
        loop {
            let now = Instant::now();
            state.answer_call();
            if state.waiting() > 0
                && state.has_tuner()
                && let Some((model, tuner)) = state.take_tuner(now)
            {
                // This thread was woken for a job that another one has to take now.
                self.startable.notify_one();
                return Some(Task::Tune(model, tuner));
            }
            if let Some(work) = state.take(Thread::Runner, now) {
                return Some(Task::Run(work));
            }
            if state.is_closed() && state.waiting() == 0 {
                return None;
            }
            if !state.has_tuner() {
                state = self.startable.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (next, waited) = self
                .startable
                .wait_timeout(state, IDLE_BEFORE_TUNING)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out()
                && let Some((model, tuner)) = state.take_tuner(Instant::now())
            {
                return Some(Task::Tune(model, tuner));
            }
        }
    }

    /// Takes a job and wakes who may run it.
    fn submit(&self, model: usize, job: Job, now: Instant) -> Result<(), Rejected> {
        let mut state = locked(&self.state);
        if state.submit(model, job, now)? {
            self.wake_helper(&mut state);
        }
        let calls = state.call(None, now);
        drop(state);
        self.wake(calls);
        Ok(())
    }

    /// Wakes runners.
    fn wake(&self, runners: usize) {
        for _ in 0..runners {
            self.startable.notify_one();
        }
    }

    /// Wakes the task of this thread that runs short jobs.
    fn wake_helper(&self, state: &mut State) {
        HELPER.with_borrow(|helper| {
            if let Some((shared, woken)) = helper
                && std::ptr::eq(Arc::as_ptr(shared), self)
                && state.start_helping()
            {
                woken.notify_one();
            }
        });
    }

    /// One short run, if there is something to run.
    fn help(&self) -> bool {
        let now = Instant::now();
        let mut state = locked(&self.state);
        let next = state.take_short(now);
        if next.is_none() {
            state.stop_helping();
        }
        let calls = state.call(None, now);
        drop(state);
        self.wake(calls);
        let Some(work) = next else { return false };
        self.execute(work, Thread::Network);
        true
    }

    fn execute(&self, mut work: Work, by: Thread) {
        let started = Instant::now();
        let jobs = std::mem::take(&mut work.jobs);
        let ran = batch::run(jobs, work.engine.as_mut(), work.batch, &work.metrics);
        self.release(by, |state| state.finish(work, started.elapsed(), ran));
    }

    fn tune(&self, model: usize, mut tuner: Tuner) {
        // A model that panics when it is measured is not measured any more.
        let step = catch_unwind(AssertUnwindSafe(|| {
            let more = tuner.step();
            (tuner.curve().clone(), more.then_some(tuner))
        }));
        let (curve, tuner) = step.unwrap_or_else(|_| (Curve::default(), None));
        self.release(Thread::Runner, |state| state.finish_tuner(model, tuner, &curve));
    }

    /// Gives cores back, and wakes who can use them beside the caller, which looks for more itself.
    fn release(&self, by: Thread, give: impl FnOnce(&mut State)) {
        let mut state = locked(&self.state);
        give(&mut state);
        let calls = state.call(Some(by), Instant::now());
        drop(state);
        self.wake(calls);
    }
}

enum Task {
    Run(Work),
    Tune(usize, Tuner),
}

impl Drop for Threads {
    fn drop(&mut self) {
        locked(&self.shared.state).close();
        self.shared.startable.notify_all();
        for thread in locked(&self.handles).drain(..) {
            // A runner catches what its jobs panic with, so there is nothing to tell.
            let _ = thread.join();
        }
    }
}

// Nothing panics while it holds a lock; if it did, what is locked would still be whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
