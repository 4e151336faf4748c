//! Load: what the clients of a service ask for, in servers that would have exactly the target.
//!
//! With `Δx` the growth of a server's total `x` within a window, and `T` the seconds in which it grew:
//!
//! - busy = Σ Δoffered_seconds / T: runners that would always be busy if nothing were refused
//! - in flight = Σ Δin_flight_seconds / T: the mean number of requests in the servers
//! - refused, left = Σ Δrefused / T, Σ (Δserved + Δexpired) / T: requests per second
//! - time = in flight / left: the mean time of a request in a server, by Little's law (L = λW; Little, Operations
//!   Research 9(3), 1961). If no request has left a server within the window, it is busy / refused: what a run takes.
//!
//! | target | load in servers |
//! |---|---|
//! | utilization | busy / (runners of a server × target) |
//! | concurrency | (in flight + refused × time) / target |
//!
//! `T` lies between the server's first and last sample within the window. A server that is younger than the window did
//! nothing before it started, so its `T` is that of the server with the longest: the windows of the others still contain
//! the load that it has taken over, which would count twice otherwise.

use super::policy::{Policy, Target};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// How old a server's newest sample may be: of one reading each second, some may fail.
pub const FRESH: SignedDuration = SignedDuration::from_secs(7);
/// Fewer seconds say nothing about a rate.
const SHORTEST: f64 = 1.0;

/// Totals of one server since it started; none ever decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Seconds since the server started.
    pub at: f64,
    /// Requests that were run.
    pub served: u64,
    /// Requests that were refused because too many were waiting.
    pub refused: u64,
    /// Requests whose deadline passed while they were waiting.
    pub expired: u64,
    /// Runner seconds that all of these asked for.
    pub offered_seconds: f64,
    /// The integral of the requests in flight over time.
    pub in_flight_seconds: f64,
}

/// What is known of one server that counts towards the size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// It gets requests.
    pub ready: bool,
    /// It finds no node.
    pub pending: bool,
    /// Its runners; 0 if not known.
    pub runners: u32,
    /// When its newest sample was read.
    pub read_at: Option<Timestamp>,
    /// About one a second, oldest first, as long as the longer window.
    pub samples: VecDeque<Totals>,
}

/// The load of a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Servers that get requests.
    pub ready: i32,
    /// Those of them whose load is not known.
    pub missing: i32,
    /// Servers that find no node.
    pub pending: i32,
    /// The load of the others; `None` if none is known.
    pub measured: Option<Measured>,
}

/// The load in servers that would have exactly the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Within the long window.
    pub stable: f64,
    /// Within the short window.
    pub panic: f64,
}

impl Load {
    /// Measures the load of the ready servers.
    #[must_use]
    pub fn of(servers: &[Server], policy: &Policy, now: Timestamp) -> Self {
        let ready: Vec<&Server> = servers.iter().filter(|server| server.ready).collect();
        let (mut stable, mut panic) = (Vec::new(), Vec::new());
        for server in ready.iter().filter(|server| server.is_fresh(now)) {
            if let Some(long) = Growth::of(&server.samples, policy.down.window) {
                panic.push(Growth::of(&server.samples, policy.up.window).unwrap_or(long));
                stable.push(long);
            }
        }
        let runners = mean_runners(&ready);
        let load = |growths: &[Growth]| Rates::of(growths).servers(policy.target, runners);
        let measured = || {
            Some(Measured {
                stable: load(&stable)?,
                panic: load(&panic)?,
            })
        };
        Self {
            ready: count(ready.len()),
            missing: count(ready.len() - stable.len()),
            pending: count(servers.iter().filter(|server| server.pending).count()),
            measured: if stable.is_empty() { None } else { measured() },
        }
    }
}

impl Server {
    /// A time in the future is no better than one long ago: somebody has set the clock.
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.read_at
            .is_some_and(|at| now.duration_since(at).abs() <= FRESH)
    }
}

/// By how much the totals of a server grew within a window.
#[derive(Clone, Copy)]
struct Growth {
    seconds: f64,
    is_young: bool,
    offered_seconds: f64,
    in_flight_seconds: f64,
    refused: f64,
    left: f64,
}

impl Growth {
    /// `None` if there is less than a second of samples, or if they are not those of a server.
    fn of(samples: &VecDeque<Totals>, window: SignedDuration) -> Option<Self> {
        let window = window.as_secs_f64();
        let last = samples.back()?;
        let first = since_start(samples).find(|sample| last.at - sample.at <= window)?;
        let difference = |total: fn(&Totals) -> f64| total(last) - total(first);
        let growth = Self {
            seconds: difference(|totals| totals.at),
            is_young: last.at < window,
            offered_seconds: difference(|totals| totals.offered_seconds),
            in_flight_seconds: difference(|totals| totals.in_flight_seconds),
            refused: difference(|totals| totals.refused as f64),
            left: difference(|totals| totals.served as f64 + totals.expired as f64),
        };
        (growth.seconds >= SHORTEST && growth.is_possible()).then_some(growth)
    }

    fn is_possible(&self) -> bool {
        let grown = [
            self.offered_seconds,
            self.in_flight_seconds,
            self.refused,
            self.left,
        ];
        grown.iter().all(|grown| grown.is_finite() && *grown >= 0.0)
    }
}

/// The samples since the server last started.
fn since_start(samples: &VecDeque<Totals>) -> impl Iterator<Item = &Totals> {
    let mut pairs = samples.iter().zip(samples.iter().skip(1));
    let restart = pairs.rposition(|(before, after)| after.at < before.at);
    samples.iter().skip(restart.map_or(0, |before| before + 1))
}

/// What all servers together are asked for per second.
#[derive(Default)]
struct Rates {
    busy: f64,
    in_flight: f64,
    refused: f64,
    left: f64,
}

impl Rates {
    fn of(growths: &[Growth]) -> Self {
        let longest = growths.iter().map(|growth| growth.seconds).fold(0.0, f64::max);
        let mut rates = Self::default();
        for growth in growths {
            let seconds = if growth.is_young { longest } else { growth.seconds };
            rates.busy += growth.offered_seconds / seconds;
            rates.in_flight += growth.in_flight_seconds / seconds;
            rates.refused += growth.refused / seconds;
            rates.left += growth.left / seconds;
        }
        rates
    }

    /// The load in servers; `None` if the target is not a positive number.
    fn servers(&self, target: Target, runners: f64) -> Option<f64> {
        let servers = match target {
            Target::Utilization(share) => self.busy / (runners * share),
            Target::Concurrency(requests) => (self.in_flight + self.refused * self.mean_time()) / requests,
        };
        (servers.is_finite() && servers.is_sign_positive()).then_some(servers)
    }

    fn mean_time(&self) -> f64 {
        if self.left > 0.0 {
            self.in_flight / self.left
        } else if self.refused > 0.0 {
            self.busy / self.refused
        } else {
            0.0
        }
    }
}

/// The mean number of runners of the servers that say it; 1 if none does.
fn mean_runners(servers: &[&Server]) -> f64 {
    let known: Vec<f64> = servers
        .iter()
        .map(|server| f64::from(server.runners))
        .filter(|runners| *runners > 0.0)
        .collect();
    if known.is_empty() {
        return 1.0;
    }
    known.iter().sum::<f64>() / known.len() as f64
}

fn count(servers: usize) -> i32 {
    i32::try_from(servers).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scaling::fixtures::{NOW, busy, policy, server};

    /// The load at a target of 50 %.
    fn load(servers: &[Server]) -> Load {
        Load::of(servers, &policy(1, 10, Target::Utilization(0.5)), NOW)
    }

    fn stable(servers: &[Server]) -> f64 {
        load(servers).measured.unwrap().stable
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn the_load_of_all_servers_is_added() {
        assert_near(stable(&[busy(0, 60, 0.5)]), 1.0);
        assert_near(stable(&[busy(0, 60, 0.5), busy(0, 60, 1.0)]), 3.0);
        let four = Server {
            runners: 4,
            ..busy(0, 60, 2.0)
        };
        assert_near(stable(std::slice::from_ref(&four)), 1.0);
        let unknown = Server {
            runners: 0,
            ..busy(0, 60, 2.0)
        };
        assert_near(stable(&[four, unknown]), 2.0);
    }

    /// A service that refuses half of its requests looks idle if only those that it serves count.
    #[test]
    fn refused_requests_are_load() {
        let per_second = Totals {
            served: 10,
            refused: 10,
            in_flight_seconds: 4.0,
            ..Totals::default()
        };
        let of = |per_second| {
            let load = Load::of(
                &[server(0, 60, per_second)],
                &policy(1, 10, Target::Concurrency(4.0)),
                NOW,
            );
            load.measured.unwrap().stable
        };
        assert_near(
            of(Totals {
                refused: 0,
                ..per_second
            }),
            1.0,
        );
        assert_near(of(per_second), 2.0);
        let expired = Totals {
            served: 5,
            expired: 5,
            ..per_second
        };
        assert_near(of(expired), 2.0);
        let none_served = Totals {
            served: 0,
            refused: 10,
            offered_seconds: 2.0,
            ..per_second
        };
        assert_near(of(none_served), (4.0 + 10.0 * 0.2) / 4.0);
        assert_near(
            of(Totals {
                served: 0,
                refused: 0,
                ..per_second
            }),
            1.0,
        );
    }

    #[test]
    fn each_window_sees_its_own_part() {
        let mut server = busy(0, 60, 0.5);
        let before = *server.samples.back().unwrap();
        server.samples.extend((1..=6).map(|second| Totals {
            at: before.at + f64::from(second),
            offered_seconds: before.offered_seconds + 2.0 * f64::from(second),
            ..before
        }));
        let measured = load(&[server]).measured.unwrap();
        assert_near(measured.panic, 4.0);
        assert_near(measured.stable, 2.0 * (24.0 * 0.5 + 6.0 * 2.0) / 30.0);
    }

    /// A new leader decides at once, from the history that the servers keep.
    #[test]
    fn a_window_is_used_as_far_as_it_goes() {
        assert_near(stable(&[busy(100, 101, 0.5)]), 1.0);
        assert_near(stable(&[busy(100, 110, 0.5)]), 1.0);
        assert_eq!(load(&[busy(100, 100, 0.5)]).measured, None, "less than a second");
        assert_eq!(load(&[busy(100, 100, 0.5)]).missing, 1);
    }

    /// Otherwise the load that a new server has just taken over counts twice, and the service grows twice.
    #[test]
    fn a_young_server_did_nothing_before_it_started() {
        let alone = busy(0, 3, 0.5);
        assert_near(stable(std::slice::from_ref(&alone)), 1.0);
        assert_near(stable(&[alone.clone(), busy(0, 60, 0.5)]), 1.1);
        let joined_late = busy(40, 43, 0.5);
        assert_near(stable(&[joined_late, busy(0, 60, 0.5)]), 2.0);
    }

    #[test]
    fn a_server_that_restarted_begins_a_new_series() {
        let mut server = busy(20, 60, 0.5);
        server.samples.extend(busy(0, 4, 1.0).samples);
        assert_near(stable(&[server]), 2.0);
    }

    #[test]
    fn only_ready_servers_that_report_are_measured() {
        let second = SignedDuration::from_secs(1);
        let read_at = |read_at| Server {
            read_at,
            ..busy(0, 60, 0.5)
        };
        let table = [
            ("fresh", read_at(Some(NOW - FRESH)), 0),
            ("stale", read_at(Some(NOW - FRESH - second)), 1),
            ("from the future", read_at(Some(NOW + FRESH + second)), 1),
            ("never read", read_at(None), 1),
            (
                "without samples",
                Server {
                    samples: VecDeque::new(),
                    ..busy(0, 60, 0.5)
                },
                1,
            ),
            (
                "starting",
                Server {
                    ready: false,
                    read_at: None,
                    ..busy(0, 60, 0.5)
                },
                0,
            ),
        ];
        for (name, server, missing) in table {
            let load = load(&[server, busy(0, 60, 0.5)]);
            assert_eq!(load.missing, missing, "{name}");
            let servers = if name == "fresh" { 2.0 } else { 1.0 };
            assert_near(load.measured.unwrap().stable, servers);
        }
    }

    /// A server that writes nonsense must neither end the operator nor a service.
    #[test]
    fn impossible_totals_are_no_report() {
        let nan = busy(0, 60, f64::NAN);
        let infinite = busy(0, 60, f64::INFINITY);
        let mut decreasing = busy(0, 60, 0.5);
        decreasing.samples.back_mut().unwrap().offered_seconds = 0.0;
        let mut fewer = busy(0, 60, 0.5);
        fewer.samples[55].served = u64::MAX;
        fewer.samples[30].served = 7;
        let mut timeless = busy(0, 60, 0.5);
        timeless.samples.back_mut().unwrap().at = f64::NAN;
        for server in [nan, infinite, decreasing, fewer, timeless] {
            let load = load(std::slice::from_ref(&server));
            assert_eq!(
                (load.missing, load.measured),
                (1, None),
                "{:?}",
                server.samples.back()
            );
        }
        for target in [0.0, -1.0, f64::NAN] {
            for target in [Target::Utilization(target), Target::Concurrency(target)] {
                let load = Load::of(&[busy(0, 60, 0.5)], &policy(1, 10, target), NOW);
                assert_eq!(load.measured, None, "{target:?}");
            }
        }
    }
}
