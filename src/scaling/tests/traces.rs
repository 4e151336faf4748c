//! Traces of load on virtual time, and what goes wrong meanwhile.

use super::{
    super::{Because, Policy, Schedule, Target, fixtures},
    simulator::{Arrivals, Simulation},
};
use jiff::SignedDuration;

const HOUR: f64 = 3600.0;

/// The defaults at the usual target.
fn policy(max: i32) -> Policy {
    fixtures::policy(1, max, Target::Utilization(0.7))
}

fn service(size: i32) -> Simulation {
    Simulation::new(size, policy(20))
}

fn poisson(size: i32, seed: u64) -> Simulation {
    let mut service = service(size);
    service.arrivals = Arrivals::Poisson;
    service.random.seed(seed);
    service
}

/// The first second at which the size was at least this.
fn reached(service: &Simulation, size: i32) -> Option<f64> {
    let mut log = service.log.iter();
    Some(log.find(|entry| entry.decision.size >= size)?.second)
}

fn assert_never_shrinks(service: &Simulation, from: f64) {
    let mut log = service.log.iter().filter(|entry| entry.second > from);
    let shrunk = log.find(|entry| entry.decision.size < entry.before);
    assert!(shrunk.is_none(), "{shrunk:?}");
}

/// Clients wait or are refused until the decision. It must not matter when between two decisions the step comes.
#[test]
fn a_step_from_one_to_three_servers_is_decided_within_six_seconds() {
    for arrivals in [Arrivals::Even, Arrivals::Poisson] {
        for tenth in 0..20 {
            let mut service = service(1);
            service.arrivals = arrivals;
            service.run(120.0 + f64::from(tenth) / 10.0, |_| 0.9);
            assert_eq!(service.size, 1);
            let begin = service.second();
            service.run(60.0, |_| 3.0);
            let after = reached(&service, 3).unwrap() - begin;
            assert!(after <= 6.0, "{after} s after {begin} s");
            assert!(service.size <= 4, "{:?}", service.changes());
        }
    }
}

#[test]
fn a_constant_load_is_followed_once_and_then_left_alone() {
    for size in [1, 3, 12] {
        for tenths in [1, 5, 9, 10, 11, 12, 19, 20, 21, 29, 30, 31, 55, 80, 97] {
            let load = f64::from(tenths) / 10.0;
            let mut service = service(size);
            service.run(900.0, |_| load);
            let late = service.changes_after(600.0);
            assert!(late.is_empty(), "from {size} at {load}: {late:?}");
            let (least, most) = (load / 1.1, load / 0.9 + 1.0);
            let end = f64::from(service.size);
            assert!(
                end >= least && (end <= most || service.size == 1),
                "from {size} at {load}: {end}"
            );
        }
    }
}

/// Each change costs a start, and warms up or throws away caches. With runs of 20 ms the load of one server varies by
/// 3 % in the long window, and with runs of 100 ms by 7 %, so that it exceeds the tolerance now and then.
#[test]
fn noise_changes_the_size_only_now_and_then() {
    let table = [
        (1, 0.005, 0),
        (1, 0.02, 2),
        (3, 0.02, 0),
        (10, 0.02, 0),
        (3, 0.1, 8),
        (10, 0.1, 0),
    ];
    for (size, run_seconds, most) in table {
        for seed in 0..3 {
            let mut service = poisson(size, seed);
            service.run_seconds = run_seconds;
            service.run(HOUR, |_| f64::from(size));
            let changes = service.changes();
            assert!(
                changes.len() <= most,
                "{size} servers, runs of {run_seconds} s: {changes:?}"
            );
        }
    }
}

/// The load of a server that has just been removed is in no window: the others seem to be enough for less.
#[test]
fn a_reduction_is_not_followed_by_growth() {
    for delay in [0, 30, 60] {
        for load in [0.9, 1.7, 2.9, 4.5, 7.6] {
            let mut service = service(12);
            service.policy.down.delay = SignedDuration::from_secs(delay);
            service.run(1200.0, |_| load);
            let grown = service
                .log
                .iter()
                .find(|entry| entry.decision.size > entry.before);
            assert!(
                grown.is_none(),
                "delay of {delay} s, load of {load}: {:?}",
                service.changes()
            );
            assert_eq!(f64::from(service.size), load.ceil(), "delay of {delay} s");
        }
    }
}

#[test]
fn a_ramp_is_followed_without_refusals_and_without_detours() {
    let mut service = poisson(1, 1);
    service.run(1200.0, |second| 0.5 + second / 100.0);
    assert_never_shrinks(&service, 0.0);
    assert!((12..=15).contains(&service.size), "{}", service.size);
    assert!(service.refused_share() < 0.001, "{}", service.refused_share());
}

#[test]
fn a_burst_is_served_and_its_servers_stay_for_a_while() {
    let mut service = service(2);
    let burst = |second: f64| {
        if (300.0..308.0).contains(&second) {
            10.0
        } else {
            1.5
        }
    };
    service.run(900.0, burst);
    let grown = reached(&service, 8).unwrap();
    assert!(grown <= 308.0, "{grown}");
    let shrunk = service
        .changes()
        .into_iter()
        .find(|change| change.0 > 320.0)
        .unwrap();
    assert!(shrunk.0 > 368.0, "{shrunk:?}");
    assert_eq!(service.size, 2);
}

#[test]
fn a_wave_is_followed() {
    let mut service = poisson(4, 1);
    let wave = |second: f64| 5.0 + 4.0 * (second / 1800.0 * std::f64::consts::TAU).sin();
    service.run(3.0 * HOUR, wave);
    let sizes: Vec<i32> = service.log.iter().map(|entry| entry.decision.size).collect();
    assert!(sizes.iter().any(|size| *size <= 3), "it shrinks in the valleys");
    let mut late = service.log.iter().filter(|entry| entry.second > 300.0);
    let short = late.find(|entry| f64::from(entry.decision.size) < wave(entry.second) / 1.43);
    assert!(short.is_none(), "too small for all of the load: {short:?}");
    assert!(service.changes().len() <= 6 * 18, "{}", service.changes().len());
}

/// Servers that stop and start all the time serve nobody.
#[test]
fn load_that_comes_and_goes_faster_than_servers_keeps_them() {
    let mut service = service(1);
    service.run(HOUR, |second| if second % 40.0 < 20.0 { 4.0 } else { 0.0 });
    let late = service.changes_after(120.0);
    assert!(late.is_empty(), "{late:?}");
    assert!((3..=5).contains(&service.size), "{}", service.size);
}

/// What the servers refuse is load too.
#[test]
fn an_overloaded_service_grows_until_nothing_is_refused() {
    for target in [Target::Utilization(0.7), Target::Concurrency(0.7)] {
        let mut service = Simulation::new(1, fixtures::policy(1, 20, target));
        let overload = 8.0;
        service.run(30.0, |_| overload);
        let servers = f64::from(service.size);
        assert!(servers > 5.0, "{target}: {servers}");
        let before = service.refused_share();
        service.run(HOUR, |_| overload);
        let now = service.refused_share();
        assert!(now < before / 50.0, "{target}: {now}");
        assert!(
            service.changes_after(1800.0).is_empty(),
            "{:?}",
            service.changes()
        );
    }
}

#[test]
fn servers_that_start_slowly_are_not_added_twice() {
    let mut service = service(1);
    service.start_seconds = 60.0;
    service.run(300.0, |_| 3.0);
    assert_eq!(service.changes().last().unwrap().1, 3, "{:?}", service.changes());
    assert!(service.changes().len() <= 2, "{:?}", service.changes());
    let mut service = Simulation::new(1, policy(50));
    service.start_seconds = 60.0;
    service.run(600.0, |_| 12.0);
    let first_minute: Vec<i32> = service
        .changes()
        .iter()
        .filter(|change| change.0 < 60.0)
        .map(|change| change.1)
        .collect();
    assert_eq!(first_minute.last(), Some(&4), "{first_minute:?}");
    assert!((12..=13).contains(&service.size), "{:?}", service.changes());
}

#[test]
fn a_server_that_dies_or_restarts_changes_nothing() {
    for start_seconds in [3.0, 60.0] {
        let mut service = service(4);
        service.start_seconds = start_seconds;
        service.run(300.0, |_| 3.9);
        service.kill(1);
        service.run(300.0, |_| 3.9);
        service.restart_server(0);
        service.run(300.0, |_| 3.9);
        assert_eq!(service.changes(), [], "starts in {start_seconds} s");
    }
}

/// The operator is replaced at each upgrade, and whenever its node goes.
#[test]
fn a_new_operator_keeps_the_size_and_still_follows_the_load() {
    let mut service = service(6);
    service.run(300.0, |_| 5.9);
    service.replace_operator();
    service.run(30.0, |_| 5.9);
    assert_eq!(service.changes(), []);
    service.run(25.0, |_| 1.0);
    service.replace_operator();
    service.run(58.0, |_| 1.0);
    assert_eq!(service.changes(), [], "the delay begins anew");
    service.run(300.0, |_| 1.0);
    assert_eq!(service.size, 1);
    service.replace_operator();
    service.run(10.0, |_| 3.0);
    assert!(service.size >= 3, "{:?}", service.changes());
}

/// A broken network between the operator and the servers is not an idle service.
#[test]
fn lost_reports_never_remove_servers() {
    let some: fn(usize) -> bool = |number| number % 2 == 0;
    let all: fn(usize) -> bool = |_| true;
    for is_unreadable in [some, all] {
        let mut service = service(6);
        service.run(120.0, |_| 5.5);
        service.is_unreadable = is_unreadable;
        service.run(HOUR, |_| 0.0);
        assert_eq!(service.changes(), []);
        let because = &service.log.last().unwrap().decision.because;
        assert!(matches!(because, Because::Missing { .. }), "{because:?}");
        service.is_unreadable = |_| false;
        service.run(300.0, |_| 0.0);
        assert_eq!(service.size, 1);
    }
}

#[test]
fn the_reports_that_arrive_still_add_servers() {
    let mut service = service(4);
    service.is_unreadable = |number| number == 0;
    service.run(60.0, |_| 9.0);
    assert!(service.size >= 7, "{:?}", service.changes());
}

/// Somebody sets the clock of the operator's node.
#[test]
fn a_jump_of_the_clock_removes_no_servers() {
    for hours in [-24 * 365, -1, 1, 24 * 365] {
        let mut service = service(6);
        service.run(120.0, |_| 5.5);
        service.run(20.0, |_| 1.0);
        service.clock_error = SignedDuration::from_hours(hours);
        service.run(30.0, |_| 1.0);
        assert_eq!(service.changes(), [], "{hours} h");
        service.run(400.0, |_| 1.0);
        assert_eq!(service.size, 1, "{hours} h: it goes on afterwards");
        service.clock_error = SignedDuration::ZERO;
        service.run(10.0, |_| 3.0);
        assert!(service.size >= 3, "{hours} h");
    }
}

#[test]
fn a_full_cluster_ends_growth() {
    let mut service = service(1);
    service.room = 3;
    service.run(600.0, |_| 12.0);
    assert_eq!(service.size, 4, "one that finds no node: {:?}", service.changes());
    let because = &service.log.last().unwrap().decision.because;
    assert!(matches!(because, Because::Pending(1)), "{because:?}");
    service.run(600.0, |_| 1.0);
    assert_eq!(service.size, 1);
}

/// It is 6:00 at the start of a simulation.
#[test]
fn a_schedule_keeps_servers_for_its_hours() {
    let mut service = service(1);
    let half_past = Schedule::parse("30 6 * * *", None, 5, SignedDuration::from_hours(1)).unwrap();
    service.schedules = vec![half_past];
    service.run(2.0 * HOUR, |_| 1.0);
    let changes = service.changes();
    assert_eq!(changes.first(), Some(&(1800.0, 5)));
    assert!(changes[1].0 >= 5400.0, "{changes:?}");
    assert_eq!(service.size, 1);
}
