//! A service on virtual time: clients that send, servers that start, queue and refuse, and the loop that decides.
//!
//! Each server has one runner, a run takes [`Simulation::run_seconds`], and runs of half a second may wait. Time passes
//! in steps of a tenth of a second. Load is given in servers that would have exactly the target.

use super::super::*;
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// Steps per second.
const STEPS: u64 = 10;
/// Steps between two decisions.
const PERIOD: u64 = STEPS;
/// Seconds of work that may wait at a server.
const QUEUE: f64 = 0.5;
/// Seconds from the start of a server's process until it is ready.
const LOADING: f64 = 1.0;

/// How requests arrive.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Arrivals {
    /// As evenly as water.
    Even,
    /// Each independently of the others.
    Poisson,
}

/// One service.
pub(super) struct Simulation {
    pub(super) policy: Policy,
    pub(super) size: i32,
    pub(super) schedules: Vec<Schedule>,
    /// Seconds until a new server is ready.
    pub(super) start_seconds: f64,
    pub(super) run_seconds: f64,
    pub(super) arrivals: Arrivals,
    /// Servers that find a node.
    pub(super) room: usize,
    /// By how much the operator's clock is wrong.
    pub(super) clock_error: SignedDuration,
    /// Which servers the operator cannot read.
    pub(super) is_unreadable: fn(usize) -> bool,
    pub(super) log: Vec<Entry>,
    memory: Memory,
    servers: Vec<Simulated>,
    pub(super) random: Rng,
    steps: u64,
}

/// One decision, when it was taken, and the size before it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) second: f64,
    pub(super) before: i32,
    pub(super) decision: Decision,
}

#[derive(Default)]
struct Simulated {
    /// Seconds until it is ready; `None` while it has no node.
    starts_in: Option<f64>,
    waiting: f64,
    served: f64,
    refused: f64,
    totals: Totals,
    history: VecDeque<Totals>,
    /// What the operator has read.
    read: Option<(Timestamp, VecDeque<Totals>)>,
}

impl Simulation {
    /// A service of `size` ready servers that has been idle for a while.
    pub(super) fn new(size: i32, policy: Policy) -> Self {
        let mut simulation = Self {
            policy,
            size,
            schedules: Vec::new(),
            start_seconds: 3.0,
            run_seconds: 0.02,
            arrivals: Arrivals::Even,
            room: usize::MAX,
            clock_error: SignedDuration::ZERO,
            is_unreadable: |_| false,
            log: Vec::new(),
            memory: Memory::default(),
            servers: Vec::new(),
            random: Rng::with_seed(7),
            steps: 0,
        };
        for _ in 0..size {
            simulation.servers.push(Simulated {
                starts_in: Some(0.0),
                ..Simulated::default()
            });
        }
        simulation.pass(60.0, |_| 0.0, false);
        simulation.steps = 0;
        simulation
    }

    /// Lets time pass under a load that depends on the second.
    pub(super) fn run(&mut self, seconds: f64, load: impl Fn(f64) -> f64) -> &mut Self {
        self.pass(seconds, load, true);
        self
    }

    fn pass(&mut self, seconds: f64, load: impl Fn(f64) -> f64, decides: bool) {
        for _ in 0..(seconds * STEPS as f64) as u64 {
            self.steps += 1;
            let second = self.second();
            self.serve(load(second));
            if decides && self.steps.is_multiple_of(PERIOD) {
                self.read();
                self.decide();
            }
        }
    }

    pub(super) fn second(&self) -> f64 {
        self.steps as f64 / STEPS as f64
    }

    fn now(&self) -> Timestamp {
        let begin: Timestamp = "2026-01-05T06:00:00Z".parse().unwrap();
        begin + SignedDuration::from_secs_f64(self.second()) + self.clock_error
    }

    /// One step of all servers.
    fn serve(&mut self, load: f64) {
        let step = 1.0 / STEPS as f64;
        let ready = self.servers.iter().filter(|server| server.is_ready()).count();
        let work_per_server = load * self.work_at_target() * step / ready.max(1) as f64;
        for server in &mut self.servers {
            let work = match self.arrivals {
                Arrivals::Even => work_per_server,
                Arrivals::Poisson => {
                    poisson(&mut self.random, work_per_server / self.run_seconds) * self.run_seconds
                }
            };
            server.step(step, work, self.run_seconds, self.steps.is_multiple_of(STEPS));
        }
    }

    /// Seconds of work per second that give a server exactly the target, at least while nothing waits.
    fn work_at_target(&self) -> f64 {
        match self.policy.target {
            Target::Utilization(target) | Target::Concurrency(target) => target,
        }
    }

    fn read(&mut self) {
        let now = self.now();
        for (number, server) in self.servers.iter_mut().enumerate() {
            if server.is_ready() && !(self.is_unreadable)(number) {
                server.read = Some((now, server.history.clone()));
            }
        }
    }

    fn decide(&mut self) {
        let servers: Vec<Server> = self.servers.iter().map(Simulated::known).collect();
        let now = self.now();
        let situation = Situation {
            policy: &self.policy,
            servers: &servers,
            size: self.size,
            floor: floor_at(&self.schedules, now),
            now,
        };
        let decision = decide(&situation, &mut self.memory);
        self.log.push(Entry {
            second: self.second(),
            before: self.size,
            decision: decision.clone(),
        });
        self.resize(decision.size);
    }

    /// New servers start; of the others, those that are not ready go first, then the youngest.
    fn resize(&mut self, size: i32) {
        self.size = size;
        let size = usize::try_from(size).unwrap();
        while self.servers.len() > size {
            let starting = self.servers.iter().rposition(|server| !server.is_ready());
            self.servers.remove(starting.unwrap_or(self.servers.len() - 1));
        }
        while self.servers.len() < size {
            let finds_node = self.servers.len() < self.room;
            self.servers.push(Simulated {
                starts_in: finds_node.then_some(self.start_seconds),
                ..Simulated::default()
            });
        }
    }

    /// A server is gone, and another starts in its place.
    pub(super) fn kill(&mut self, number: usize) {
        self.servers.remove(number);
        self.resize(self.size);
    }

    /// A server's process starts again, and is soon ready.
    pub(super) fn restart_server(&mut self, number: usize) {
        self.servers[number] = Simulated {
            starts_in: Some(LOADING),
            read: self.servers[number].read.take(),
            ..Simulated::default()
        };
    }

    /// Another operator takes over.
    pub(super) fn replace_operator(&mut self) {
        self.memory = Memory::default();
        self.servers.iter_mut().for_each(|server| server.read = None);
    }

    /// The size after each change, and when it changed.
    pub(super) fn changes(&self) -> Vec<(f64, i32)> {
        let changed = self
            .log
            .iter()
            .filter(|entry| entry.before != entry.decision.size);
        changed.map(|entry| (entry.second, entry.decision.size)).collect()
    }

    /// The changes after a second.
    pub(super) fn changes_after(&self, second: f64) -> Vec<(f64, i32)> {
        self.changes()
            .into_iter()
            .filter(|change| change.0 > second)
            .collect()
    }

    /// The share of the requests of the present servers that they refused.
    pub(super) fn refused_share(&self) -> f64 {
        let served: f64 = self.servers.iter().map(|server| server.served).sum();
        let refused: f64 = self.servers.iter().map(|server| server.refused).sum();
        refused / (served + refused).max(1.0)
    }
}

impl Simulated {
    fn is_ready(&self) -> bool {
        self.starts_in == Some(0.0)
    }

    fn step(&mut self, step: f64, work: f64, run_seconds: f64, is_second: bool) {
        let Some(starts_in) = self.starts_in else {
            return;
        };
        if starts_in > LOADING {
            self.starts_in = Some(starts_in - step);
            return;
        }
        self.starts_in = Some(if starts_in > step { starts_in - step } else { 0.0 });
        self.totals.at += step;
        if self.is_ready() {
            self.work(step, work, run_seconds);
        }
        if is_second {
            self.history.push_back(self.totals);
            if self.history.len() > 61 {
                self.history.pop_front();
            }
        }
    }

    fn work(&mut self, step: f64, work: f64, run_seconds: f64) {
        self.waiting += work;
        let done = self.waiting.min(step);
        let refused = (self.waiting - done - QUEUE).max(0.0);
        self.waiting -= done + refused;
        self.served += done / run_seconds;
        self.refused += refused / run_seconds;
        self.totals.served = self.served as u64;
        self.totals.refused = self.refused as u64;
        self.totals.offered_seconds += done + refused;
        self.totals.in_flight_seconds += done + self.waiting / run_seconds * step;
    }

    fn known(&self) -> Server {
        let (read_at, samples) = self.read.clone().unzip();
        Server {
            ready: self.is_ready(),
            pending: self.starts_in.is_none(),
            runners: 1,
            read_at,
            samples: samples.unwrap_or_default(),
        }
    }
}

/// A number from the Poisson distribution (Knuth, The Art of Computer Programming, 3.4.1).
fn poisson(random: &mut Rng, mean: f64) -> f64 {
    let (limit, mut product, mut number) = ((-mean).exp(), random.f64(), 0.0);
    while product > limit {
        product *= random.f64();
        number += 1.0;
    }
    number
}
