use super::*;

const MICROSECOND: Duration = Duration::from_micros(1);
const NO_OTHERS: bool = false;
const OTHERS: bool = true;

/// Each row of the table, and both sides of its limits.
#[test]
fn the_expected_time_and_other_jobs_decide_who_runs_a_job() {
    use Assignment::{Inline, Runners, Shared};
    let (small, medium) = (INLINE_LIMIT, INLINE_LIMIT_ALL_CORES);
    let above = |limit: Duration| Some(limit + MICROSECOND);
    for (expected, has_all_cores_session, overlaps, assignment) in [
        (Some(small), false, NO_OTHERS, Inline),
        (Some(small), true, NO_OTHERS, Inline),
        (Some(small), false, OTHERS, Shared),
        (Some(small), true, OTHERS, Shared),
        (above(small), false, NO_OTHERS, Runners),
        (above(small), true, NO_OTHERS, Inline),
        (above(small), true, OTHERS, Runners),
        (Some(medium), false, NO_OTHERS, Runners),
        (Some(medium), true, NO_OTHERS, Inline),
        (Some(medium), true, OTHERS, Runners),
        (above(medium), true, NO_OTHERS, Runners),
        (None, true, NO_OTHERS, Runners),
        (None, true, OTHERS, Runners),
    ] {
        let job = Profile {
            expected,
            has_all_cores_session,
        };
        assert_eq!(
            Assignment::of(job, overlaps),
            assignment,
            "{job:?}, others: {overlaps}"
        );
    }
}

const SMALL: Profile = Profile {
    expected: Some(INLINE_LIMIT),
    has_all_cores_session: false,
};

fn dispatcher(cores: usize) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(cores);
    dispatcher.enable_inline();
    dispatcher
}

// With more than four cores there are several network threads, and none of them runs jobs.
#[test]
fn without_inline_execution_everything_is_for_the_runners() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(8);
    assert!(!dispatcher.queued(SMALL, 1, now));
    assert_eq!(dispatcher.assign(SMALL, 1, now), Assignment::Runners);
}

#[test]
fn jobs_overlap_while_another_waits_or_runs_and_for_a_while_after_that() {
    let now = Instant::now();
    let mut waits = dispatcher(2);
    assert_eq!(waits.assign(SMALL, 1, now), Assignment::Inline);
    assert_eq!(waits.assign(SMALL, 2, now), Assignment::Shared);
    let mut runs = dispatcher(2);
    runs.started(Executor::Runner, 1);
    assert_eq!(runs.assign(SMALL, 1, now), Assignment::Shared);
    waits.queued(SMALL, 2, now);
    runs.queued(SMALL, 1, now);
    runs.finished(Executor::Runner, 1);
    for dispatcher in [waits, runs] {
        let within = now + OVERLAP_MEMORY - MICROSECOND;
        assert_eq!(dispatcher.assign(SMALL, 1, within), Assignment::Shared);
        let after = now + OVERLAP_MEMORY;
        assert_eq!(dispatcher.assign(SMALL, 1, after), Assignment::Inline);
    }
}

#[test]
fn the_network_thread_is_woken_once_until_it_finds_nothing() {
    let now = Instant::now();
    let mut dispatcher = dispatcher(2);
    assert!(dispatcher.queued(SMALL, 1, now));
    assert!(!dispatcher.queued(SMALL, 2, now));
    dispatcher.network_found_nothing();
    assert!(dispatcher.queued(SMALL, 3, now));
    dispatcher.disable_inline();
    dispatcher.network_found_nothing();
    assert!(!dispatcher.queued(SMALL, 4, now));
}

#[test]
fn as_many_runners_are_woken_as_find_a_core_and_a_job() {
    use Assignment::{Inline, Runners, Shared};
    use Executor::{Network, Runner};
    for (next, cores, busy, waiting, caller, wakes) in [
        (Inline, 4, 0, 1, None, 0),
        (Shared, 4, 0, 1, None, 1),
        (Shared, 4, 0, 9, None, 3),
        (Shared, 4, 2, 9, None, 1),
        (Shared, 4, 2, 9, Some(Network), 1),
        (Shared, 4, 2, 9, Some(Runner), 0),
        (Runners, 4, 0, 1, None, 1),
        (Runners, 4, 0, 9, None, 4),
        (Runners, 4, 2, 9, None, 2),
        (Runners, 4, 2, 9, Some(Runner), 1),
        (Runners, 4, 2, 1, Some(Runner), 0),
        (Runners, 4, 4, 9, None, 0),
    ] {
        let mut dispatcher = dispatcher(cores);
        for _ in 0..busy {
            dispatcher.started(Runner, 1);
        }
        let woken = dispatcher.wake_runners(next, waiting, caller);
        assert_eq!(
            woken, wakes,
            "{next:?}, {busy} of {cores} busy, {waiting} waiting, {caller:?}"
        );
        let again = dispatcher.wake_runners(next, waiting, caller);
        assert_eq!(again, 0, "they are on their way");
    }
}

#[test]
fn who_may_take_a_job() {
    use Assignment::{Inline, Runners, Shared};
    use Executor::{Network, Runner};
    let now = Instant::now();
    for (by, next, busy, woken, may_take) in [
        (Network, Inline, 0, 0, true),
        (Network, Shared, 0, 0, true),
        // One job is waiting, and a runner has been woken for it.
        (Network, Shared, 0, 1, false),
        (Network, Runners, 0, 0, false),
        (Runner, Runners, 1, 0, true),
        (Runner, Shared, 0, 0, true),
        // The other core is the network thread's.
        (Runner, Shared, 1, 0, false),
    ] {
        let mut dispatcher = dispatcher(2);
        dispatcher.queued(SMALL, 1, now);
        for _ in 0..busy {
            dispatcher.started(Runner, 1);
        }
        dispatcher.woken = woken;
        assert_eq!(
            dispatcher.may_take(by, next, 1),
            may_take,
            "{by:?}, {next:?}, {busy} busy, {woken} woken"
        );
    }
}
