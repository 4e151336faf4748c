//! Decision: the size of a service, and why.
//!
//! 1. Two windows measure the load, in servers that would have exactly the target; see load.rs. The size follows the
//!    long one: it becomes ⌈load⌉ unless the load is within the tolerance of the present size (as the
//!    HorizontalPodAutoscaler does it).
//! 2. If the load within the short window is at least [`PANIC`] times what the ready servers should have, the size
//!    follows the higher of the two, and does not shrink before the long window has passed (Knative's panic mode).
//! 3. While the load of a ready server is not known, the size does not shrink. What is known may still make it grow.
//! 4. While a server finds no node, it does not grow.
//! 5. At most [`Up::max_percent`](super::Up) of the ready servers are added at once: servers that are still starting
//!    count towards the size but add no capacity. At most [`Down::max_percent`](super::Down) of the size go at once.
//! 6. It shrinks only to the largest size that 1 to 5 asked for within the delay, so that at most this share of the
//!    servers goes within one delay (the HorizontalPodAutoscaler's stabilization window).
//! 7. It is never below the minimum and the floor of the schedules, and never above the maximum.

use super::{
    because::Because,
    load::{Load, Measured, Server},
    memory::Memory,
    policy::Policy,
    schedule::Floor,
};
use jiff::Timestamp;

/// Load within the short window, divided by what the ready servers should have, from which on it decides. At the usual
/// target of 70 % it is just more than they can do. Knative's is 2.
const PANIC: f64 = 1.5;
/// Part of a server that is a rounding error.
const ROUNDING: f64 = 1e-3;

/// Everything that a decision depends on besides [`Memory`].
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What the spec asks for.
    pub policy: &'a Policy,
    /// The servers that count towards the size: not those that are ending.
    pub servers: &'a [Server],
    /// The size that is wanted at present.
    pub size: i32,
    /// What the schedules ask for now.
    pub floor: Option<Floor>,
    /// The operator's clock.
    pub now: Timestamp,
}

/// A size and its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The size that is wanted from now on.
    pub size: i32,
    /// The rule that decided it.
    pub because: Because,
    /// The load; `None` if none is known.
    pub measured: Option<Measured>,
}

/// A size on its way through the rules.
struct Wanted {
    size: i32,
    because: Because,
}

impl Wanted {
    fn new(size: i32, because: Because) -> Self {
        Self { size, because }
    }
}

/// Decides the size of a service.
#[must_use]
pub fn decide(situation: &Situation, memory: &mut Memory) -> Decision {
    let policy = situation.policy;
    let load = Load::of(situation.servers, policy, situation.now);
    memory.begin(situation.now, situation.size);
    let panics = memory.panics(is_far_more(&load), policy.down.window);
    let wanted = by_load(situation, &load, panics);
    let wanted = without_reports(wanted, situation, &load);
    let wanted = without_room(wanted, situation, &load);
    let wanted = within_rates(wanted, situation, &load);
    memory.record(wanted.size);
    let wanted = after_delay(wanted, situation, memory);
    let Wanted { size, because } = within_range(wanted, situation);
    Decision {
        size,
        because,
        measured: load.measured,
    }
}

/// Whether the load within the short window is far more than the ready servers should have.
fn is_far_more(load: &Load) -> bool {
    load.measured
        .is_some_and(|measured| measured.panic >= PANIC * f64::from(load.ready))
}

fn by_load(situation: &Situation, load: &Load, panics: bool) -> Wanted {
    let (size, policy) = (situation.size, situation.policy);
    if size <= 0 {
        return Wanted::new(0, Because::Zero);
    }
    let Some(measured) = load.measured else {
        return Wanted::new(size, not_measured(load));
    };
    let servers = if panics {
        measured.stable.max(measured.panic)
    } else {
        measured.stable
    };
    let target = policy.target;
    match asked(servers, size, policy) {
        asked if asked < size && panics => Wanted::new(size, Because::Panic(policy.down.window)),
        asked if asked == size => Wanted::new(size, Because::Steady { servers, target }),
        asked => Wanted::new(asked, Because::Load { servers, target }),
    }
}

/// The size for a load, which is the present one if it nearly fits.
fn asked(servers: f64, size: i32, policy: &Policy) -> i32 {
    let present = f64::from(size);
    let fits = servers <= present * (1.0 + policy.up.tolerance)
        && servers >= present * (1.0 - policy.down.tolerance);
    if fits {
        size
    } else {
        ((servers - ROUNDING).ceil() as i32).max(1)
    }
}

fn not_measured(load: &Load) -> Because {
    if load.ready == 0 {
        Because::Unready
    } else {
        missing(load)
    }
}

fn missing(load: &Load) -> Because {
    Because::Missing {
        missing: load.missing,
        ready: load.ready,
    }
}

fn without_reports(wanted: Wanted, situation: &Situation, load: &Load) -> Wanted {
    if load.missing == 0 || wanted.size >= situation.size {
        return wanted;
    }
    Wanted::new(situation.size, missing(load))
}

fn without_room(wanted: Wanted, situation: &Situation, load: &Load) -> Wanted {
    if load.pending == 0 || wanted.size <= situation.size {
        return wanted;
    }
    Wanted::new(situation.size, Because::Pending(load.pending))
}

fn within_rates(wanted: Wanted, situation: &Situation, load: &Load) -> Wanted {
    let (size, policy) = (situation.size, situation.policy);
    let added = share(load.ready, policy.up.max_percent);
    let most = load.ready.saturating_add(added).max(size);
    let least = size.saturating_sub(share(size, policy.down.max_percent));
    if wanted.size > most {
        Wanted::new(most, Because::UpRate(policy.up.max_percent))
    } else if wanted.size < least {
        Wanted::new(least, Because::DownRate(policy.down.max_percent))
    } else {
        wanted
    }
}

/// So many percent of some servers, but at least one.
fn share(servers: i32, percent: i32) -> i32 {
    let share = i64::from(servers) * i64::from(percent) / 100;
    i32::try_from(share).unwrap_or(i32::MAX).max(1)
}

fn after_delay(wanted: Wanted, situation: &Situation, memory: &mut Memory) -> Wanted {
    let down = situation.policy.down;
    let delay = down.delay.max(down.window);
    let largest = memory.largest(delay).min(situation.size);
    if largest <= wanted.size {
        return wanted;
    }
    Wanted::new(largest, Because::Delay(delay))
}

fn within_range(wanted: Wanted, situation: &Situation) -> Wanted {
    let Policy { min, max, .. } = *situation.policy;
    let mut wanted = wanted;
    if wanted.size < min {
        wanted = Wanted::new(min, Because::Minimum(min));
    }
    if let Some(floor) = &situation.floor
        && floor.replicas > wanted.size
    {
        wanted = Wanted::new(floor.replicas, Because::Floor(floor.schedule.clone()));
    }
    if wanted.size > max {
        wanted = Wanted::new(max, Because::Maximum(max));
    }
    wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scaling::{
        Target, Totals,
        fixtures::{NOW, busy, policy},
    };
    use jiff::SignedDuration;

    /// So many ready servers, which have this load together at a target of 50 %.
    fn servers(ready: i32, load: f64) -> Vec<Server> {
        let each = load * 0.5 / f64::from(ready);
        (0..ready).map(|_| busy(0, 60, each)).collect()
    }

    fn starting() -> Server {
        Server::default()
    }

    fn pending() -> Server {
        Server {
            pending: true,
            ..starting()
        }
    }

    fn silent() -> Server {
        Server {
            read_at: None,
            ..busy(0, 60, 0.0)
        }
    }

    /// The decisions of a new leader in the first seconds, under a load that stays, for a size that stays.
    fn decisions(
        seconds: i64,
        size: i32,
        servers: &[Server],
        policy: &Policy,
        floor: Option<&Floor>,
    ) -> Vec<Decision> {
        let mut memory = Memory::default();
        let decided_at = |second| {
            let now = NOW + SignedDuration::from_secs(second);
            let read_now = |server: &Server| Server {
                read_at: server.read_at.map(|_| now),
                ..server.clone()
            };
            let situation = Situation {
                policy,
                servers: &servers.iter().map(read_now).collect::<Vec<_>>(),
                size,
                floor: floor.cloned(),
                now,
            };
            decide(&situation, &mut memory)
        };
        (0..=seconds).map(decided_at).collect()
    }

    /// A decision after every delay.
    fn decided(size: i32, servers: &[Server], policy: &Policy, floor: Option<&Floor>) -> Decision {
        decisions(90, size, servers, policy, floor).pop().unwrap()
    }

    fn half() -> Policy {
        policy(1, 20, Target::Utilization(0.5))
    }

    #[track_caller]
    fn assert_decided(size: i32, servers: &[Server], expected: i32, because: &str) {
        let decision = decided(size, servers, &half(), None);
        assert_eq!(
            (decision.size, decision.because.to_string().as_str()),
            (expected, because)
        );
    }

    #[test]
    fn the_size_is_the_load_rounded_up_unless_it_nearly_fits() {
        let load = |load: &str| format!("load of {load} servers at 50 % utilization");
        let steady = |servers: &str| format!("{}, which fits the present size", load(servers));
        assert_decided(1, &servers(1, 1.9), 2, &load("1.9"));
        assert_decided(2, &servers(2, 2.2), 2, &steady("2.2"));
        assert_decided(2, &servers(2, 2.21), 3, &load("2.2"));
        assert_decided(4, &servers(4, 3.6), 4, &steady("3.6"));
        assert_decided(4, &servers(4, 3.5), 4, &steady("3.5"));
        assert_decided(20, &servers(20, 18.5), 20, &steady("18.5"));
        assert_decided(20, &servers(20, 17.5), 18, &load("17.5"));
        assert_decided(4, &servers(4, 3.0), 3, &load("3.0"));
        assert_decided(2, &servers(2, 0.0), 1, &load("0.0"));
    }

    /// Clients are refused until new servers are ready, so each second until the decision counts.
    #[test]
    fn the_short_window_decides_when_the_ready_servers_cannot_do_the_load() {
        let mut server = busy(0, 60, 0.5);
        let before = server.samples[60];
        server.samples.extend((1..=3).map(|second| Totals {
            at: before.at + f64::from(second),
            offered_seconds: before.offered_seconds + 1.2 * f64::from(second),
            ..before
        }));
        let first_decision = |server: &Server| {
            let situation = Situation {
                policy: &half(),
                servers: std::slice::from_ref(server),
                size: 1,
                floor: None,
                now: NOW,
            };
            decide(&situation, &mut Memory::default())
        };
        let decision = first_decision(&server);
        assert_eq!(decision.size, 2, "{decision:?}");
        server.samples.pop_back();
        let decision = first_decision(&server);
        assert_eq!(
            decision.size, 1,
            "1.47 times the target, and 1.1 in the long window: {decision:?}"
        );
    }

    /// Most of the servers may be starting again: what is ready says nothing about what is needed then.
    #[test]
    fn nothing_is_removed_while_the_ready_servers_cannot_do_the_load() {
        let starting = vec![starting(); 8];
        let held = "none are removed within 30 s of a load that is too much for the ready servers";
        assert_decided(10, &[servers(2, 3.0), starting.clone()].concat(), 10, held);
        let load = "load of 2.9 servers at 50 % utilization";
        assert_decided(5, &[servers(2, 2.9), starting].concat(), 3, load);
    }

    /// A server that cannot be asked may have all of the load.
    #[test]
    fn without_all_reports_the_size_only_grows() {
        let missing = "none are removed while the load of 1 of 4 ready servers is not known";
        assert_decided(4, &[servers(3, 0.3), vec![silent()]].concat(), 4, missing);
        assert_decided(
            4,
            &[servers(3, 5.0), vec![silent()]].concat(),
            5,
            "load of 5.0 servers at 50 % utilization",
        );
        let all = "none are removed while the load of 2 of 2 ready servers is not known";
        assert_decided(2, &[silent(), silent()], 2, all);
        assert_decided(
            2,
            &[starting(), starting()],
            2,
            "no server is ready, so the load is not known",
        );
        assert_decided(2, &[], 2, "no server is ready, so the load is not known");
    }

    #[test]
    fn servers_without_a_node_end_growth_but_nothing_else() {
        let with_pending = |load| [servers(2, load), vec![pending()]].concat();
        assert_decided(
            3,
            &with_pending(9.0),
            3,
            "none are added while 1 server finds no node with room for it",
        );
        assert_decided(
            3,
            &with_pending(2.0),
            2,
            "load of 2.0 servers at 50 % utilization",
        );
    }

    /// Servers that start slowly would be added again and again.
    #[test]
    fn growth_is_limited_by_the_ready_servers() {
        let limited = "more are needed, but at most 300 % of the ready servers are added at once";
        assert_decided(1, &servers(1, 15.0), 4, limited);
        let with_starting = [servers(1, 15.0), vec![starting(); 3]].concat();
        assert_decided(4, &with_starting, 4, limited);
        assert_decided(
            4,
            &servers(4, 15.0),
            15,
            "load of 15.0 servers at 50 % utilization",
        );
        let mut slow = half();
        slow.up.max_percent = 10;
        assert_eq!(decided(2, &servers(2, 15.0), &slow, None).size, 3, "at least one");
    }

    #[test]
    fn reductions_are_limited_by_the_present_size() {
        let limited = "fewer are needed, but at most 50 % are removed at once";
        assert_decided(10, &servers(10, 1.0), 5, limited);
        assert_decided(3, &servers(3, 0.1), 2, limited);
        assert_decided(2, &servers(2, 0.1), 1, "load of 0.1 servers at 50 % utilization");
    }

    #[test]
    fn reductions_wait_until_a_smaller_size_was_enough_for_the_delay() {
        let decisions = decisions(90, 4, &servers(4, 3.0), &half(), None);
        let sizes: Vec<i32> = decisions.iter().map(|decision| decision.size).collect();
        assert_eq!(sizes.iter().position(|size| *size < 4), Some(61));
        assert!(sizes[61..].iter().all(|size| *size == 3));
    }

    /// A maximum that is raised later must not bring back servers for a load that is gone.
    #[test]
    fn what_was_asked_for_earlier_never_adds_servers() {
        let (mut policy, mut memory) = (half(), Memory::default());
        let mut size = |max, load| {
            policy.max = max;
            let situation = Situation {
                policy: &policy,
                servers: &servers(4, load),
                size: 4,
                floor: None,
                now: NOW,
            };
            decide(&situation, &mut memory).size
        };
        assert_eq!(size(4, 5.5), 4);
        assert_eq!(size(9, 1.0), 4);
    }

    #[test]
    fn the_size_stays_within_the_range_and_above_the_floor() {
        let floor = |replicas| {
            Some(Floor {
                replicas,
                schedule: "0 8 * * * (Etc/UTC)".into(),
            })
        };
        let range = policy(2, 6, Target::Utilization(0.5));
        let load = "load of 5.0 servers at 50 % utilization";
        let scheduled = "the minimum of the schedule 0 8 * * * (Etc/UTC)";
        let maximum = "the maximum of 6, although more are asked for";
        let table = [
            (4, 5.0, None, 5, load),
            (4, 5.0, floor(5), 5, load),
            (4, 5.0, floor(6), 6, scheduled),
            (4, 5.0, floor(9), 6, maximum),
            (4, 8.0, None, 6, maximum),
            (2, 0.1, None, 2, "the minimum of 2"),
            (2, 0.1, floor(1), 2, "the minimum of 2"),
            (2, 0.1, floor(3), 3, scheduled),
            (0, 0.0, None, 2, "the minimum of 2"),
            (0, 0.0, floor(5), 5, scheduled),
        ];
        for (size, load, floor, expected, because) in table {
            let decision = decided(size, &servers(size.max(1), load), &range, floor.as_ref());
            let found = (decision.size, decision.because.to_string());
            assert_eq!(found, (expected, because.to_owned()), "{size} {load} {floor:?}");
        }
        let idle = policy(0, 6, Target::Utilization(0.5));
        assert_eq!(
            decided(1, &servers(1, 0.0), &idle, None).size,
            1,
            "somebody else decides on zero"
        );
        let zero = decided(0, &[], &idle, None);
        assert_eq!((zero.size, zero.because), (0, Because::Zero));
    }
}
