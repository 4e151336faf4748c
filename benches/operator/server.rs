//! One simulated server: how its totals grow, and what it reports.

use fastrand::Rng;
use k8s_openapi::jiff::Timestamp;
use modelservice_contract::{DutyCycle, LOAD_HISTORY_SECONDS, LoadReport, LoadTotals, ModelLoad};
use std::{collections::VecDeque, time::Instant};

/// What a request takes. Each server has one runner.
pub(crate) const SERVICE_SECONDS: f64 = 0.005;

/// One server. Requests arrive at random times (a Poisson process); there is no queue, so those that arrive within a
/// step and are more than the runner can do in it are refused.
pub(crate) struct Server {
    /// UID of its pod.
    pub(crate) uid: String,
    pub(crate) service: String,
    start: Timestamp,
    started: Instant,
    /// Requests per second.
    pub(crate) rate: f64,
    totals: LoadTotals,
    /// The totals at every full second of the last minute.
    history: VecDeque<LoadTotals>,
    /// How often its load has been read.
    pub(crate) readings: usize,
}

impl Server {
    /// A server that has just started.
    pub(crate) fn new(uid: String, service: String) -> Self {
        Self {
            uid,
            service,
            start: Timestamp::now(),
            started: Instant::now(),
            rate: 0.0,
            totals: LoadTotals::default(),
            history: [LoadTotals::default()].into(),
            readings: 0,
        }
    }

    /// Lets the time pass until now.
    pub(crate) fn advance(&mut self, random: &mut Rng) {
        let now = self.started.elapsed().as_secs_f64();
        loop {
            let second = self.totals.at_seconds.floor() + 1.0;
            self.pass(second.min(now), random);
            if now < second {
                return;
            }
            self.history.push_back(self.totals);
            // One more than there are seconds: both ends of each.
            if self.history.len() > LOAD_HISTORY_SECONDS as usize + 1 {
                self.history.pop_front();
            }
        }
    }

    fn pass(&mut self, until: f64, random: &mut Rng) {
        let totals = &mut self.totals;
        let seconds = until - totals.at_seconds;
        let arrived = arrivals(self.rate, seconds, random);
        let served = arrived.min((seconds / SERVICE_SECONDS).ceil() as u64);
        totals.at_seconds = until;
        totals.served += served;
        totals.refused += arrived - served;
        totals.offered_seconds += arrived as f64 * SERVICE_SECONDS;
        totals.in_flight_seconds += served as f64 * SERVICE_SECONDS;
    }

    /// The load, with the totals of so many past seconds.
    pub(crate) fn report(&self, seconds: u64) -> LoadReport {
        let oldest = self.totals.at_seconds - seconds as f64;
        let recent = self.history.iter().filter(|sample| sample.at_seconds >= oldest);
        let model = ModelLoad {
            name: "net".to_owned(),
            in_flight: 0,
            queued: 0,
            running: 0,
            runners: 1,
            duty_cycle: DutyCycle::default(),
            predicted_wait_ms: 0.0,
            totals: Some(self.totals),
            history: if seconds > 0 {
                recent.copied().collect()
            } else {
                Vec::new()
            },
        };
        LoadReport {
            start_time_seconds: self.start.as_millisecond() as f64 / 1000.0,
            ready: true,
            in_flight: 0,
            connections: 0,
            models: vec![model],
        }
    }
}

/// How many requests arrive: in a Poisson process, the times between them are exponentially distributed.
fn arrivals(rate: f64, seconds: f64, random: &mut Rng) -> u64 {
    let mut gap = || -(1.0 - random.f64()).ln() / rate;
    let mut next = gap();
    let mut arrived = 0;
    while next < seconds {
        arrived += 1;
        next += gap();
    }
    arrived
}
