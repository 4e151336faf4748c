//! Which thread runs a job: the network thread that has read it, or a runner. Pure: no threads, no clock.
//!
//! There is one runner thread per core. On up to four cores there is one network thread beside them, which reads all
//! requests. Handing a job to a runner and its result back wakes two threads, which costs about as much as a run of a
//! small model. So the network thread executes some jobs inline:
//!
//! | expected run on one core | other jobs ¹ | assignment | runners woken | what it gains ² |
//! |---|---|---|---|---|
//! | ≤ 1 ms | none | `Inline` | none | ResNet-8, 8 connections: 64 → 80 % of raw, this row and the next |
//! | ≤ 1 ms | some | `Shared`: the network thread runs one job at a time, runners a batch | until cores − 1 are busy | ResNet-8: 81 → 88 %; the spare core 2 % more over gRPC |
//! | ≤ 10 ms, and the model has a session for all cores | none | `Inline`, on all cores | none | EfficientNet-Lite0, one connection: p50 111 → 108 % of raw |
//! | longer, or not known ³ | any | `Runners` | one per job and free core | |
//!
//! 1. Waiting or running now or in the last 100 ms: then others are expected to arrive with the next job, and the
//!    network thread must continue reading.
//! 2. Against ONNX Runtime called in-process; `docs/benchmarks.md` says how this is measured.
//! 3. No run of the model has been timed, or the request may take longer than the model's mean: it has more
//!    than 128 KiB and may hold several rows (`RunOptions::typical_cost`).
//!
//! On more than four cores there are several network threads, and `Runners` is the only assignment: one more core for
//! jobs would gain little, and a run would hold up the connections of its thread.

use std::time::{Duration, Instant};

/// How long a run may keep the network thread from its connections.
pub(super) const INLINE_LIMIT: Duration = Duration::from_millis(1);

/// The same for a job that gets all cores, by its time on one: no other job could run meanwhile.
pub(super) const INLINE_LIMIT_ALL_CORES: Duration = Duration::from_millis(10);

/// For how long after jobs have overlapped the next one is expected to overlap with others.
pub(super) const OVERLAP_MEMORY: Duration = Duration::from_millis(100);

/// A thread that runs jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executor {
    Network,
    Runner,
}

/// The decision that the table above describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// The network thread runs the job; no runner is woken.
    Inline,
    /// The network thread and runners both take jobs.
    Shared,
    /// Only runners may run it.
    Runners,
}

/// The properties of the job and its model that decide the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// How long the run will probably take on one core, if that is known.
    pub(super) expected: Option<Duration>,
    /// Whether the model has a session that computes on all cores.
    pub(super) has_all_cores_session: bool,
}

impl Assignment {
    fn of(job: Profile, overlaps: bool) -> Self {
        let takes_at_most = |limit| job.expected.is_some_and(|expected| expected <= limit);
        match overlaps {
            false if takes_at_most(INLINE_LIMIT) => Self::Inline,
            false if takes_at_most(INLINE_LIMIT_ALL_CORES) && job.has_all_cores_session => Self::Inline,
            true if takes_at_most(INLINE_LIMIT) => Self::Shared,
            _ => Self::Runners,
        }
    }
}

/// The network thread's role in running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NetworkThread {
    /// It runs no jobs.
    Excluded,
    /// It has found no job to run, and has to be woken for the next one.
    Asleep,
    /// It looks for jobs, and serves its connections between two of them.
    Awake,
}

/// Threads that a new job wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WakeUps {
    pub(super) network: bool,
    pub(super) runners: usize,
}

/// The cores, and the state of the threads that run jobs on them.
pub(super) struct Dispatcher {
    cores: usize,
    /// Cores on which nothing runs.
    free: usize,
    network: NetworkThread,
    /// Runners that run a job or a measurement.
    busy: usize,
    /// Runners that have been woken and have not looked for a job yet.
    woken: usize,
    /// When jobs overlapped last.
    last_overlap: Option<Instant>,
}

impl Dispatcher {
    pub(super) const fn new(cores: usize) -> Self {
        Self {
            cores,
            free: cores,
            network: NetworkThread::Excluded,
            busy: 0,
            woken: 0,
            last_overlap: None,
        }
    }

    pub(super) const fn cores(&self) -> usize {
        self.cores
    }

    pub(super) const fn free(&self) -> usize {
        self.free
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.free == self.cores
    }

    /// Lets the network thread run jobs.
    pub(super) const fn enable_inline(&mut self) {
        self.network = NetworkThread::Asleep;
    }

    /// Leaves everything to the runners.
    pub(super) const fn disable_inline(&mut self) {
        self.network = NetworkThread::Excluded;
    }

    /// Which thread runs the next of `waiting` jobs.
    pub(super) fn assign(&self, job: Profile, waiting: usize, now: Instant) -> Assignment {
        if self.network == NetworkThread::Excluded {
            return Assignment::Runners;
        }
        let overlapped = self.last_overlap.is_some_and(|last| now < last + OVERLAP_MEMORY);
        Assignment::of(job, overlapped || self.overlaps(waiting))
    }

    const fn overlaps(&self, waiting: usize) -> bool {
        !self.is_idle() || waiting > 1
    }

    /// A job has been queued; `waiting` jobs now wait. Returns whether the network thread has to be woken for it.
    pub(super) fn queued(&mut self, job: Profile, waiting: usize, now: Instant) -> bool {
        if self.overlaps(waiting) {
            self.last_overlap = Some(now);
        }
        let is_for_network = self.assign(job, waiting, now) != Assignment::Runners;
        let wakes = is_for_network && self.network == NetworkThread::Asleep;
        if wakes {
            self.network = NetworkThread::Awake;
        }
        wakes
    }

    /// The network thread has found no job to run.
    pub(super) fn network_found_nothing(&mut self) {
        if self.network == NetworkThread::Awake {
            self.network = NetworkThread::Asleep;
        }
    }

    /// How many runners have to be woken for the `waiting` jobs. `caller` is about to look for one itself.
    pub(super) fn wake_runners(
        &mut self,
        next: Assignment,
        waiting: usize,
        caller: Option<Executor>,
    ) -> usize {
        let coming = self.woken + usize::from(caller.is_some());
        let useful = self.free.min(waiting).saturating_sub(coming);
        let runners = self.busy + self.woken + usize::from(caller == Some(Executor::Runner));
        let wakes = match next {
            Assignment::Inline => 0,
            Assignment::Shared => useful.min((self.cores - 1).saturating_sub(runners)),
            Assignment::Runners => useful,
        };
        self.woken += wakes;
        wakes
    }

    /// A runner is looking for a job.
    pub(super) const fn runner_looks(&mut self) {
        self.woken = self.woken.saturating_sub(1);
    }

    /// Whether this thread may take the next of `waiting` jobs.
    pub(super) fn may_take(&self, by: Executor, next: Assignment, waiting: usize) -> bool {
        match by {
            // Jobs for which runners have been woken are left to them.
            Executor::Network => next != Assignment::Runners && waiting > self.woken,
            // The network thread needs a core: with as many busy runners as cores, it would compete with them.
            Executor::Runner => {
                let leaves_core = self.busy + 1 < self.cores;
                next == Assignment::Runners || self.network != NetworkThread::Awake || leaves_core
            }
        }
    }

    /// A thread starts a run on this many cores.
    pub(super) fn started(&mut self, by: Executor, cores: usize) {
        self.free -= cores;
        self.busy += usize::from(by == Executor::Runner);
    }

    /// The run is over.
    pub(super) fn finished(&mut self, by: Executor, cores: usize) {
        self.free += cores;
        self.busy -= usize::from(by == Executor::Runner);
    }
}

#[cfg(test)]
mod tests;
