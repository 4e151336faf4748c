#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::engine::Engine;
use crate::engine::{EngineError, Signature};
use crate::metrics::Metrics;
use crate::scheduling::dispatch::{INLINE_LIMIT, INLINE_LIMIT_ALL_CORES, OVERLAP_MEMORY};
use crate::scheduling::{Completed, Demand, Engines, JobError, Priority};
use crate::tensor::Tensor;
use tokio::sync::oneshot::{self, Receiver};

struct Stub {
    signature: Signature,
    holds_memory: bool,
}

impl Engine for Stub {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.holds_memory = true;
        Ok(inputs.to_vec())
    }

    fn holds_memory(&self) -> bool {
        self.holds_memory
    }

    fn free_memory(&mut self) {
        self.holds_memory = false;
    }
}

fn stub() -> Box<dyn Engine> {
    let signature = Signature::new(Vec::new(), Vec::new(), 1);
    Box::new(Stub {
        signature,
        holds_memory: false,
    })
}

type Answer = Receiver<Result<Completed, JobError>>;

/// A state for tests: jobs are numbered, and time advances only when told to.
struct Bench {
    state: State,
    now: Instant,
    next: u64,
    answers: Vec<Answer>,
}

const COST: Duration = Duration::from_millis(10);
/// Name of a model that has a session for all cores too: a job that is alone runs there.
const ALL_CORES: &str = "all-cores";

impl Bench {
    /// A model of 10 ms for each name in `models`.
    fn new(cores: usize, models: &[&str], batch: usize) -> Self {
        let mut state = State::new(cores);
        for name in models {
            let mut curve = Curve::tried(true);
            curve.add(1, COST);
            if batch > 1 {
                curve.add(batch, COST);
            }
            state.add(QueueSettings {
                engines: Engines {
                    single_core: (0..cores).map(|_| stub()).collect(),
                    all_cores: (*name == ALL_CORES).then(stub),
                },
                capacity: 2,
                curve,
                tuner: None,
                metrics: Metrics::new("", "", "").model(name),
            });
        }
        Self {
            state,
            now: Instant::now(),
            next: 0,
            answers: Vec::new(),
        }
    }

    fn job(&mut self, options: RunOptions) -> Job {
        let (reply, answer) = oneshot::channel();
        let id = self.next;
        self.next += 1;
        self.answers.push(answer);
        Job {
            id,
            prepare: Box::new(|| Ok(Vec::new())),
            outputs: Vec::new(),
            options,
            submitted: self.now,
            reply,
        }
    }

    fn submit(&mut self, model: usize, options: RunOptions) -> Result<Option<Work>, Rejected> {
        let job = self.job(options);
        // A waiting runner takes a job if no other job is waiting before it.
        let is_next = self.state.waiting() == 0;
        self.state.submit(model, job, self.now)?;
        Ok(if is_next { self.take() } else { None })
    }

    /// Submits a typical job that nobody takes yet; how many runners are woken for it.
    fn wakes(&mut self, model: usize) -> usize {
        self.wakes_for(model, true)
    }

    fn wakes_for(&mut self, model: usize, typical_cost: bool) -> usize {
        let job = self.job(RunOptions {
            typical_cost,
            ..TYPICAL
        });
        self.state.submit(model, job, self.now).unwrap().runners
    }

    fn take_inline(&mut self) -> Option<Work> {
        self.state.take(Executor::Network, self.now)
    }

    fn plain(&mut self, model: usize) -> Result<Option<Work>, Rejected> {
        self.submit(model, RunOptions::default())
    }

    fn take(&mut self) -> Option<Work> {
        self.state.take(Executor::Runner, self.now)
    }

    fn due(&self, after: Duration) -> RunOptions {
        RunOptions {
            deadline: Some(self.now + after),
            ..RunOptions::default()
        }
    }
}

fn ids(work: &Work) -> Vec<u64> {
    work.jobs.iter().map(|job| job.id).collect()
}

const HIGH: RunOptions = RunOptions {
    priority: Priority::High,
    deadline: None,
    typical_cost: false,
};

const TYPICAL: RunOptions = RunOptions {
    priority: Priority::Normal,
    deadline: None,
    typical_cost: true,
};

/// One model whose runs take this long; the network thread runs jobs inline.
fn inline(cores: usize, cost: Duration) -> Bench {
    let mut bench = Bench::new(cores, &["a"], 1);
    bench.state.enable_inline();
    bench.state.models[0].cost = cost;
    bench
}

const SMALL_COST: Duration = Duration::from_micros(200);

// Waking a thread takes longer than a run of a small model.
#[test]
fn a_small_models_jobs_that_come_one_at_a_time_run_inline_and_wake_no_runner() {
    let mut bench = inline(2, SMALL_COST);
    for _ in 0..3 {
        assert_eq!(bench.wakes(0), 0);
        let work = bench.take_inline().unwrap();
        bench.state.finish(work, SMALL_COST, None, 1);
        assert_eq!(bench.state.wake_runners(Some(Executor::Network), bench.now), 0);
    }
}

// If the network thread ran jobs while requests lay unread in their sockets, the other cores would be idle.
#[test]
fn a_small_models_jobs_that_overlap_are_shared_with_all_runners_but_one() {
    let mut bench = inline(2, SMALL_COST);
    assert_eq!((bench.wakes(0), bench.wakes(0), bench.wakes(0)), (0, 1, 0));
    let here = bench.take_inline().unwrap();
    let second = bench.take_inline();
    assert!(
        second.is_none() || bench.state.waiting() > 0,
        "one is the runner's"
    );
    bench.state.finish(here, SMALL_COST, None, 1);
    bench.state.runner_looks();
    let there = bench.take().unwrap();
    assert_eq!(
        bench.state.wake_runners(None, bench.now),
        0,
        "it has been woken already"
    );
    bench.state.finish(there, SMALL_COST, None, 1);
    // For a while, the next job is expected to overlap with others.
    while let Some(work) = bench.take() {
        bench.state.finish(work, SMALL_COST, None, 1);
    }
    if let Some(work) = second {
        bench.state.finish(work, SMALL_COST, None, 1);
    }
    assert_eq!(bench.wakes(0), 1);
    assert!(bench.take_inline().is_none(), "it is the woken runner's");
    bench.state.runner_looks();
    let work = bench.take().unwrap();
    bench.state.finish(work, SMALL_COST, None, 1);
    bench.now += OVERLAP_MEMORY;
    assert_eq!(bench.wakes(0), 0);
}

// One large request among small ones would stop all connections for as long as it runs.
#[test]
fn a_large_request_for_a_small_model_and_one_of_unknown_cost_are_left_to_the_runners() {
    let mut bench = inline(2, SMALL_COST);
    bench.state.models[0].batch = 4;
    assert_eq!((bench.wakes(0), bench.wakes_for(0, false)), (0, 1));
    bench.state.runner_looks();
    let small = bench.take_inline().unwrap();
    assert_eq!(ids(&small), [0]);
    assert!(bench.take_inline().is_none());
    assert_eq!(bench.state.wake_runners(None, bench.now), 1);
    assert_eq!(ids(&bench.take().unwrap()), [1]);
    bench.state.finish(small, SMALL_COST, None, 1);
    let mut unknown = inline(2, Duration::ZERO);
    assert_eq!(unknown.wakes(0), 1);
    assert!(unknown.take_inline().is_none());
}

#[test]
fn with_one_core_a_small_models_jobs_all_run_inline() {
    let mut bench = inline(1, SMALL_COST);
    assert_eq!((bench.wakes(0), bench.wakes(0), bench.wakes(0)), (0, 0, 0));
    assert!(bench.take_inline().is_some());
}

// While it runs a job, requests lie unread in its sockets, and runners have nothing to do.
#[test]
fn a_network_thread_takes_one_job_and_a_runner_a_batch() {
    let mut bench = inline(2, SMALL_COST);
    bench.state.models[0].batch = 2;
    for _ in 0..4 {
        let job = bench.job(TYPICAL);
        bench.state.submit(0, job, bench.now).unwrap();
    }
    assert_eq!(ids(&bench.take_inline().unwrap()), [0]);
    assert_eq!(ids(&bench.take().unwrap()), [1, 2]);
}

// With as many busy runners as cores, the network thread competes with them, and all of them get slower.
#[test]
fn runners_leave_the_last_core_to_a_network_thread_that_is_awake() {
    let mut bench = inline(2, SMALL_COST);
    for _ in 0..4 {
        bench.wakes(0);
    }
    let first = bench.take().unwrap();
    assert!(bench.take().is_none());
    let here = bench.take_inline().unwrap();
    bench.state.finish(here, SMALL_COST, None, 1);
    assert!(bench.take().is_none(), "it looks again");
    bench.state.network_found_nothing();
    let second = bench.take().unwrap();
    bench.state.finish(second, SMALL_COST, None, 1);
    bench.wakes(0);
    assert!(bench.take().is_none(), "it has been woken again");
    bench.state.close();
    assert!(
        bench.take().is_some(),
        "it may be gone before what waits has been run"
    );
    bench.state.finish(first, SMALL_COST, None, 1);
}

// It has all cores anyway: waking a runner would only make its client wait longer.
#[test]
fn the_only_job_gets_all_cores_and_runs_inline() {
    let all_cores = |cost| {
        let mut bench = Bench::new(2, &[ALL_CORES], 1);
        bench.state.enable_inline();
        bench.state.models[0].cost = cost;
        bench
    };
    let mut bench = all_cores(INLINE_LIMIT_ALL_CORES);
    assert_eq!(bench.wakes(0), 0);
    let work = bench.take_inline().unwrap();
    assert_eq!(bench.state.dispatcher.free(), 0);
    // Others arrived while it ran, so more are expected.
    assert_eq!(bench.wakes(0), 0, "no core is free");
    bench.state.finish(work, INLINE_LIMIT_ALL_CORES, None, 1);
    assert!(bench.take_inline().is_none());
    assert_eq!(bench.state.wake_runners(None, bench.now), 1);
    let mut slow = all_cores(INLINE_LIMIT_ALL_CORES * 2);
    assert_eq!(slow.wakes(0), 1);
    let mut single_core = inline(2, INLINE_LIMIT_ALL_CORES);
    assert_eq!(
        single_core.wakes(0),
        1,
        "it would keep others from the second core"
    );
}

// Otherwise a slow model would keep the thread from the connections that it looks after.
#[test]
fn a_slow_model_is_left_to_the_runners() {
    let mut bench = inline(2, INLINE_LIMIT * 2);
    assert_eq!((bench.wakes(0), bench.wakes(0), bench.wakes(0)), (1, 1, 0));
    assert!(bench.take_inline().is_none());
    bench.state.runner_looks();
    let first = bench.take().unwrap();
    bench.state.runner_looks();
    let _second = bench.take().unwrap();
    bench.state.finish(first, INLINE_LIMIT * 2, None, 1);
    assert_eq!(
        bench.state.wake_runners(Some(Executor::Runner), bench.now),
        0,
        "it goes on itself"
    );
}

#[test]
fn alone_a_job_has_all_cores_and_with_others_each_has_one() {
    let mut bench = Bench::new(2, &[ALL_CORES], 1);
    let all_cores = bench.plain(0).unwrap().unwrap();
    for _ in 0..2 {
        assert!(bench.plain(0).unwrap().is_none());
    }
    assert!(bench.take().is_none(), "no core is left");
    bench.state.finish(all_cores, COST, None, 1);
    let single_core = [bench.take().unwrap(), bench.take().unwrap()];
    assert_eq!(single_core.map(|work| ids(&work)), [[1], [2]]);
    assert!(bench.take().is_none());
}

#[test]
fn more_jobs_than_may_wait_are_refused_with_a_time_to_come_back() {
    let mut bench = Bench::new(1, &["a"], 1);
    let running = bench.plain(0).unwrap();
    assert!(running.is_some());
    for _ in 0..2 {
        assert!(bench.plain(0).unwrap().is_none());
    }
    let Err(Rejected::Full { retry_after }) = bench.plain(0) else {
        panic!("a third waits")
    };
    assert_eq!(retry_after, 2 * COST);
    // Clients that have given up must not keep out those that are still waiting.
    bench.answers.remove(1);
    assert!(bench.plain(0).unwrap().is_none());
}

#[test]
fn a_deadline_that_cannot_be_kept_is_refused_at_once() {
    let mut bench = Bench::new(1, &["a"], 1);
    let late = bench.due(COST / 2);
    let Err(Rejected::OutOfReach { predicted, .. }) = bench.submit(0, late) else {
        panic!("a run takes longer than that")
    };
    assert_eq!(predicted, COST);
    let in_time = bench.due(COST);
    let running = bench.submit(0, in_time).unwrap();
    assert!(running.is_some());
    // Half of the current run and one waiting job, a margin of an eighth, and its own run.
    assert!(bench.plain(0).unwrap().is_none());
    let needed = COST * 3 / 2 * 9 / 8 + COST;
    let short = bench.due(needed - Duration::from_micros(1));
    let Err(Rejected::OutOfReach { predicted, .. }) = bench.submit(0, short) else {
        panic!("it would be late as soon as anything comes between")
    };
    assert_eq!(predicted, needed);
    let enough = bench.due(needed);
    assert!(bench.submit(0, enough).unwrap().is_none());
}

/// The requests so far: served, refused, expired; and the milliseconds that they asked for.
fn demand(bench: &mut Bench) -> ([u64; 3], u128) {
    let demand = bench.state.totals(0, bench.now).demand;
    let Demand {
        served,
        refused,
        expired,
        offered,
    } = demand;
    ([served, refused, expired], offered.as_millis())
}

// An autoscaler adds servers for what is refused or expires, too.
#[test]
fn a_request_counts_for_what_a_run_costs_whether_it_is_run_or_refused_or_expires() {
    let mut bench = Bench::new(1, &["a"], 1);
    let running = bench.plain(0).unwrap().unwrap();
    let (first, second) = (bench.due(3 * COST), bench.due(5 * COST));
    assert!(bench.submit(0, first).unwrap().is_none());
    assert!(bench.submit(0, second).unwrap().is_none());
    assert!(bench.plain(0).is_err());
    // Those that wait are asked for already.
    assert_eq!(demand(&mut bench), ([0, 1, 0], 30));
    bench.now += 4 * COST;
    bench.state.finish(running, 2 * COST, None, 1);
    // By now a run is expected to take somewhat longer.
    assert_eq!(demand(&mut bench), ([1, 1, 0], 52));
    assert!(bench.state.expire(0, 2).is_some() && bench.state.expire(0, 2).is_none());
    assert!(bench.take().is_none());
    assert_eq!(demand(&mut bench), ([1, 1, 2], 52));
}

// More servers would not help.
#[test]
fn who_leaves_and_what_no_server_could_do_in_time_and_what_comes_too_late_is_no_load() {
    let mut bench = Bench::new(1, &["a"], 1);
    let hasty = bench.due(COST / 2);
    assert!(bench.submit(0, hasty).is_err());
    let running = bench.plain(0).unwrap().unwrap();
    assert!(bench.submit(0, hasty).is_err());
    assert!(bench.plain(0).unwrap().is_none());
    bench.answers.pop();
    bench.state.close();
    assert!(bench.plain(0).is_err());
    // Its inputs were invalid, but took the runner's time.
    bench.state.finish(running, COST, None, 0);
    assert!(bench.take().is_none());
    assert_eq!(demand(&mut bench), ([0, 0, 0], 10));
}

// Otherwise a server with few requests would seem to have many.
#[test]
fn a_run_on_all_cores_counts_for_what_it_costs_on_one() {
    let mut bench = Bench::new(2, &[ALL_CORES], 1);
    let ms = Duration::from_millis;
    // At least as long as on all cores, and at most as long as all of them together.
    for (took, offered) in [(ms(8), 10), (ms(15), 25), (ms(3), 31)] {
        let work = bench.plain(0).unwrap().unwrap();
        bench.state.finish(work, took, None, 1);
        assert_eq!(demand(&mut bench).1, offered);
    }
}

// By the clock, a server with a limit of 300m looks idle until it is throttled, and then three times overloaded.
#[test]
fn where_cpu_is_scarcer_than_runners_a_run_counts_for_its_share() {
    let mut bench = Bench::new(1, &["a"], 1);
    let ms = Duration::from_millis;
    let work = bench.plain(0).unwrap().unwrap();
    bench.state.finish(work, ms(100), Some(ms(25)), 1);
    assert_eq!(demand(&mut bench), ([1, 0, 0], 25));
}

// Otherwise a server whose long queue fills looks as if it just kept up.
#[test]
fn jobs_that_wait_are_asked_for_already_and_no_value_ever_decreases() {
    let mut bench = Bench::new(1, &["a"], 1);
    let running = bench.plain(0).unwrap().unwrap();
    for _ in 0..2 {
        assert!(bench.plain(0).unwrap().is_none());
    }
    let cost = COST.as_millis();
    assert_eq!(demand(&mut bench), ([0, 0, 0], 2 * cost));
    bench.state.finish(running, COST, None, 1);
    assert_eq!(demand(&mut bench), ([1, 0, 0], 3 * cost));
    // Both clients leave: nothing more is counted until as much has been asked for.
    bench.answers.clear();
    assert!(bench.take().is_none() && bench.take().is_none());
    assert_eq!(demand(&mut bench), ([1, 0, 0], 3 * cost));
}

// The utilisation that an autoscaler computes: 1 is a server that just keeps up.
#[test]
fn twice_the_requests_that_fit_ask_for_twice_the_time_of_the_runners() {
    for (cores, arrivals) in [(1, 1), (1, 2), (2, 2), (2, 4)] {
        let mut bench = Bench::new(cores, &["a"], 1);
        for _ in 0..100 {
            for _ in 0..arrivals {
                let job = bench.job(RunOptions::default());
                // Some are refused.
                let _ = bench.state.submit(0, job, bench.now);
            }
            let runs: Vec<Work> = std::iter::from_fn(|| bench.take()).collect();
            assert_eq!(runs.len(), cores);
            bench.now += COST;
            for work in runs {
                bench.state.finish(work, COST, None, 1);
            }
        }
        let offered = demand(&mut bench).1;
        assert_eq!(offered, arrivals * (100 * COST).as_millis(), "{cores} {arrivals}");
    }
}

// Autoscalers read it: the margin for deadlines is not waiting time.
#[test]
fn the_wait_that_is_reported_has_no_margin() {
    let mut bench = Bench::new(1, &["a"], 1);
    assert_eq!(bench.state.load(0).predicted_wait, Duration::ZERO);
    let _running = bench.plain(0).unwrap().unwrap();
    assert!(bench.plain(0).unwrap().is_none());
    assert_eq!(bench.state.load(0).predicted_wait, COST * 3 / 2);
}

#[test]
fn a_job_that_became_late_while_it_waited_is_told_so_and_not_run() {
    let mut bench = Bench::new(1, &["a"], 1);
    let running = bench.plain(0).unwrap().unwrap();
    let due = bench.due(2 * COST);
    assert!(bench.submit(0, due).unwrap().is_none());
    bench.now += COST * 3 / 2;
    bench.state.finish(running, COST, None, 1);
    assert!(bench.take().is_none());
    assert_eq!(bench.answers[1].try_recv().unwrap(), Err(JobError::Expired));
}

#[test]
fn who_left_is_not_run_and_who_is_urgent_goes_first() {
    let mut bench = Bench::new(1, &["a"], 1);
    let running = bench.plain(0).unwrap().unwrap();
    assert!(bench.plain(0).unwrap().is_none());
    bench.answers.remove(1);
    assert!(bench.plain(0).unwrap().is_none());
    assert!(bench.submit(0, HIGH).unwrap().is_none());
    bench.state.finish(running, COST, None, 1);
    let urgent = bench.take().unwrap();
    assert_eq!(ids(&urgent), [3]);
    bench.state.finish(urgent, COST, None, 1);
    assert_eq!(ids(&bench.take().unwrap()), [2]);
}

#[test]
fn what_waits_goes_into_one_run_up_to_the_size_that_pays() {
    let mut bench = Bench::new(1, &["a"], 2);
    let running = bench.plain(0).unwrap().unwrap();
    assert_eq!(ids(&running), [0], "it did not wait for others");
    for _ in 0..2 {
        assert!(bench.plain(0).unwrap().is_none());
    }
    bench.state.finish(running, COST, None, 1);
    let both = bench.take().unwrap();
    assert_eq!((ids(&both), both.batch), (vec![1, 2], 2));
    assert_eq!(bench.state.load(0).running, 2);
    bench.state.finish(both, COST, None, 1);
    assert_eq!(bench.state.load(0).running, 0);
}

// A model with many requests must not take the cores from another.
#[test]
fn who_has_had_least_time_is_next_but_nobody_saves_up_idle_time() {
    let mut bench = Bench::new(1, &["slow", "fast"], 1);
    let mut turns = Vec::new();
    let first = bench.plain(0).unwrap().unwrap();
    bench.state.finish(first, 3 * COST, None, 1);
    let mut running = bench.plain(0).unwrap();
    for _ in 0..12 {
        for model in [0, 1] {
            // Each model always has one job waiting.
            if bench.state.load(model).queued == 0 {
                let inline = bench.plain(model).unwrap();
                assert!(inline.is_none());
            }
        }
        let work = running.take().unwrap();
        let took = if work.model == 0 { 3 * COST } else { COST };
        bench.state.finish(work, took, None, 1);
        running = bench.take();
        turns.push(running.as_ref().unwrap().model);
    }
    let slow = turns.iter().filter(|&&model| model == 0).count();
    assert!(
        (2..=4).contains(&slow),
        "a quarter of the turns, half of the time: {turns:?}"
    );
}

// Otherwise it would starve the others for as long as it had been idle.
#[test]
fn a_model_that_comes_back_in_a_quiet_moment_has_saved_up_nothing() {
    let mut bench = Bench::new(1, &["busy", "idle"], 1);
    for _ in 0..100 {
        let work = bench.plain(0).unwrap().unwrap();
        bench.state.finish(work, COST, None, 1);
    }
    // Nothing is running or waiting when its job arrives.
    let mut running = bench.plain(1).unwrap();
    let mut turns = Vec::new();
    for _ in 0..8 {
        for model in [0, 1] {
            if bench.state.load(model).queued == 0 {
                assert!(bench.plain(model).unwrap().is_none());
            }
        }
        bench.state.finish(running.take().unwrap(), COST, None, 1);
        running = bench.take();
        turns.push(running.as_ref().unwrap().model);
    }
    let busy = turns.iter().filter(|&&model| model == 0).count();
    assert!((3..=5).contains(&busy), "{turns:?}");
}

// If every deadline were refused, nothing would run, and nothing would ever be learnt again.
#[test]
fn one_slow_run_does_not_shut_requests_with_deadlines_out() {
    let mut bench = Bench::new(1, &["a"], 1);
    let slow = bench.plain(0).unwrap().unwrap();
    bench.state.finish(slow, 1000 * COST, None, 1);
    let due = bench.due(COST);
    let work = bench.submit(0, due).unwrap().unwrap();
    bench.state.finish(work, COST, None, 1);
    assert!(bench.state.load(0).predicted_wait < COST);
}

#[test]
fn a_free_core_is_left_its_share_of_what_waits() {
    let mut bench = Bench::new(2, &["a"], 2);
    let running = [bench.plain(0).unwrap().unwrap(), bench.plain(0).unwrap().unwrap()];
    for _ in 0..2 {
        assert!(bench.plain(0).unwrap().is_none());
    }
    for work in running {
        bench.state.finish(work, COST, None, 1);
    }
    assert_eq!(ids(&bench.take().unwrap()), [2]);
    assert_eq!(ids(&bench.take().unwrap()), [3]);
}

#[test]
fn a_job_that_waits_can_be_taken_back_and_one_that_runs_cannot() {
    let mut bench = Bench::new(1, &["a"], 1);
    let _running = bench.plain(0).unwrap().unwrap();
    assert!(bench.plain(0).unwrap().is_none());
    assert!(bench.state.expire(0, 0).is_none());
    assert!(bench.state.expire(0, 1).is_some());
    assert_eq!(bench.state.waiting(), 0);
}

#[test]
fn a_server_that_leaves_finishes_what_waits_and_takes_nothing_new() {
    let mut bench = Bench::new(1, &["a"], 1);
    let running = bench.plain(0).unwrap().unwrap();
    assert!(bench.plain(0).unwrap().is_none());
    bench.state.close();
    assert!(matches!(bench.plain(0), Err(Rejected::Closed)));
    bench.state.finish(running, COST, None, 1);
    assert!(bench.take().is_some());
}

/// Memory that is freed between two runs is missing in the second, and one that is never freed is missing elsewhere.
#[test]
fn engines_free_memory_once_their_model_has_been_idle_from_one_look_to_the_next() {
    let mut bench = Bench::new(2, &[ALL_CORES, "b"], 1);
    assert!(bench.state.idle_holders().is_empty(), "nothing has run");
    let alone = bench.plain(0).unwrap().unwrap();
    let run = |mut work: Work, state: &mut State| {
        work.engine.run(&[], &[]).unwrap();
        state.finish(work, COST, None, 1);
    };
    assert!(bench.state.idle_holders().is_empty(), "it is running");
    run(alone, &mut bench.state);
    assert!(bench.state.idle_holders().is_empty(), "it has run since");
    assert_eq!(bench.state.idle_holders(), [0]);
    let holders = bench.state.take_holders(0);
    assert_eq!(holders.iter().map(|(_, cores)| *cores).collect::<Vec<_>>(), [2]);
    assert!(bench.state.take_holders(0).is_empty());
    for (mut engine, cores) in holders {
        engine.free_memory();
        bench.state.give_back(0, engine, cores);
    }
    assert!(bench.state.idle_holders().is_empty());
    let (first, second) = (bench.plain(1).unwrap().unwrap(), bench.plain(1).unwrap().unwrap());
    run(first, &mut bench.state);
    run(second, &mut bench.state);
    let waiting = bench.plain(1).unwrap();
    bench.state.idle_holders();
    assert!(bench.state.take_holders(1).is_empty(), "one is running again");
    run(waiting.unwrap(), &mut bench.state);
    bench.state.idle_holders();
    assert_eq!(
        (bench.state.idle_holders(), bench.state.take_holders(1).len()),
        (vec![1], 2)
    );
}
