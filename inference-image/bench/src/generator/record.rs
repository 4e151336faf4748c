//! What happens within the window of a load.

use crate::generator::Message;
use crate::generator::connection::Reply;
use crate::spec::{Drive, Driven, Times};
use crate::usage::{Cpu, Family};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How much of the text of an error is kept.
const SHOWN: usize = 160;

/// Counts responses from the start of the window on.
pub(super) struct Record {
    server: Family,
    from: Instant,
    until: Instant,
    begun: Option<(Instant, Cpu)>,
    keep: Option<PathBuf>,
    answered: Vec<f64>,
    refused: Vec<f64>,
    lateness: Vec<f64>,
    deadline: f64,
    in_time: usize,
    failures: BTreeMap<String, usize>,
}

impl Record {
    pub(super) fn new(spec: &Drive) -> Self {
        let from = Instant::now() + Duration::from_secs_f64(spec.warm);
        Self {
            server: Family::of(spec.server),
            from,
            until: from + Duration::from_secs_f64(spec.window),
            begun: None,
            keep: spec.keep.clone(),
            // No reallocation during the measurement, at up to about 60,000 responses per second.
            answered: Vec::with_capacity(1 << 18),
            refused: Vec::new(),
            lateness: Vec::new(),
            deadline: spec.open.map_or(f64::INFINITY, |open| open.deadline),
            in_time: 0,
            failures: BTreeMap::new(),
        }
    }

    /// Whether the window is over; check often.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if self.begun.is_none() && now >= self.from {
            self.begun = Some((now, Cpu::now(&self.server)));
        }
        now >= self.until
    }

    /// A request that was sent this long after it was due.
    pub(super) fn sent(&mut self, late: Duration) {
        if self.begun.is_some() {
            self.lateness.push(late.as_secs_f64());
        }
    }

    /// A response to a request whose sending began at `sent`.
    pub(super) fn reply(
        &mut self,
        reply: &Reply,
        message: &Message,
        sent: Instant,
        now: Instant,
    ) -> Result<()> {
        if let Some(path) = self.keep.take() {
            fs::write(path, reply.whole)?;
        }
        let problem = if reply.status == 200 {
            message.check.problem(reply.body)
        } else {
            None
        };
        if problem.is_none() && self.begun.is_none() && matches!(reply.status, 200 | 429 | 503) {
            return Ok(());
        }
        let took = (now - sent).as_secs_f64();
        match (reply.status, problem) {
            (_, Some(problem)) => self.failed(problem),
            (200, None) => {
                self.answered.push(took);
                self.in_time += usize::from(took <= self.deadline);
            }
            (429 | 503, None) => self.refused.push(took),
            (status, None) => {
                let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(SHOWN)]);
                // A message may contain a time or a number: this keeps the kinds of failures few.
                let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
                self.failed(format!("status {status}: {text}"));
            }
        }
        Ok(())
    }

    /// A request without a response.
    pub(super) fn failed(&mut self, what: String) {
        *self.failures.entry(what).or_default() += 1;
    }

    /// Ends the window.
    pub(super) fn finish(self) -> Driven {
        let (began, before) = self
            .begun
            .unwrap_or_else(|| (Instant::now(), Cpu::now(&self.server)));
        Driven {
            wall: began.elapsed().as_secs_f64(),
            cpu: Cpu::now(&self.server).since(before),
            answered: Times::of(self.answered),
            refused: Times::of(self.refused),
            in_time: self.in_time,
            lateness: Times::of(self.lateness),
            failures: self.failures,
        }
    }
}
