//! Measures the cost of runs of several rows on this device.
//!
//! A few runs are measured before the server is ready, the others later in idle moments, on a separate session, so
//! that the memory of large batches is freed.

use super::probe::Probe;
use crate::engine::{Curve, Engine, Signature};
use crate::tensor::Tensor;
use std::time::{Duration, Instant};

/// Measurements per batch size.
const SAMPLES: usize = 3;
/// A measurement repeats the run until this many rows have been run; the fastest run counts.
const ROWS: usize = 8;
/// A batch is not tried if its rows would take longer than this one by one: a measurement takes about twice as long,
/// and requests that arrive meanwhile have one core less.
const LONGEST: Duration = Duration::from_millis(125);

/// Creates a session for measurements.
pub type MakeEngine = Box<dyn FnMut() -> Option<Box<dyn Engine>> + Send>;
/// Called with the complete curve.
pub type Store = Box<dyn FnOnce(&Curve) + Send>;

/// Measures a [`Curve`], a run at a time.
pub struct Tuner {
    make: MakeEngine,
    store: Option<Store>,
    engine: Option<Box<dyn Engine>>,
    /// One row that the model accepts.
    row: Vec<Tensor>,
    probe: Option<Probe>,
    outputs: Vec<usize>,
    largest: usize,
    curve: Curve,
    now: Box<dyn Fn() -> Instant + Send>,
}

impl Tuner {
    /// Measures batches of up to `largest` rows like `row` on the engine that `make` creates; `None` if the model
    /// accepts no batches. The model's graph must be known to keep rows independent.
    #[must_use]
    pub fn new(
        signature: &Signature,
        row: &[Tensor],
        largest: usize,
        curve: Curve,
        make: MakeEngine,
        store: Store,
    ) -> Option<Self> {
        let is_batch = |shape: &[i64]| shape.first().is_some_and(|&size| size < 0);
        let ports = signature.inputs.iter().chain(&signature.outputs);
        if largest < 2 || !ports.into_iter().all(|port| is_batch(&port.shape)) {
            return None;
        }
        Some(Self {
            make,
            store: Some(store),
            engine: None,
            row: row.to_vec(),
            probe: None,
            outputs: (0..signature.outputs.len()).collect(),
            largest,
            curve,
            now: Box::new(Instant::now),
        })
    }

    /// The curve measured so far.
    #[must_use]
    pub const fn curve(&self) -> &Curve {
        &self.curve
    }

    /// Measures whether batching pays, if that takes no longer than `budget`; otherwise this is left to idle moments.
    pub fn quick(&mut self, budget: Duration) {
        let tried = 4.min(self.largest);
        // Two measurements of each size, and the cost of the trial.
        let rows = u32::try_from(4 * ROWS + 2 + 2 * tried + Probe::COST).unwrap_or(u32::MAX);
        if self.curve.single().is_zero() && !self.measure(1) {
            return;
        }
        if self.curve.single() * rows < budget {
            for rows in [1, tried, 1, tried] {
                self.measure(rows);
            }
        }
    }

    /// Takes one measurement; `false` when nothing is left to measure.
    pub fn step(&mut self) -> bool {
        if self.curve.has_batches() && self.curve.apart.is_none() {
            self.are_apart();
        }
        if let Some(rows) = self.next()
            && self.measure(rows)
        {
            return true;
        }
        if let Some(store) = self.store.take() {
            store(&self.curve);
        }
        false
    }

    /// The smallest size with too few measurements; `None` beyond a size that does not pay or takes too long.
    fn next(&self) -> Option<usize> {
        let sizes =
            std::iter::successors(Some(1), |rows| Some(rows * 2)).take_while(|&rows| rows <= self.largest);
        let single = self.curve.single().as_secs_f64();
        for rows in sizes {
            if single * rows as f64 > LONGEST.as_secs_f64() {
                return None;
            }
            if self.curve.samples(rows) < SAMPLES {
                return Some(rows);
            }
            let time = self.curve.median(rows).unwrap_or_default();
            if rows >= 4 && time / rows as f64 > single {
                return None;
            }
        }
        None
    }

    /// `false` if the model cannot run a batch of that size, or gives wrong outputs: then it is never batched.
    fn measure(&mut self, rows: usize) -> bool {
        if rows > 1 && !self.are_apart() {
            return false;
        }
        let inputs = self.with_probe(|probe, _| probe.batch(rows));
        let Some(inputs) = inputs else { return false };
        // The first run of a shape plans its memory, and after a pause the next runs are slow too. This matters less
        // for a batch: with one run of each size, batches would look better than they are.
        if self.run(&inputs).is_none() {
            return false;
        }
        let mut fastest = Duration::MAX;
        for _ in 0..ROWS.div_ceil(rows) {
            let started = (self.now)();
            if self.run(&inputs).is_none() {
                return false;
            }
            fastest = fastest.min((self.now)().saturating_duration_since(started));
        }
        self.curve.add(rows, fastest);
        true
    }

    fn run(&mut self, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
        if self.engine.is_none() {
            self.engine = (self.make)();
        }
        let result = self.engine.as_mut()?.run(inputs, &self.outputs);
        result
            .map_err(|error| tracing::debug!("a batch cannot be measured: {error}"))
            .ok()
    }

    /// Whether rows have the same outputs in a batch as alone; tried once.
    fn are_apart(&mut self) -> bool {
        if let Some(known) = self.curve.apart {
            return known;
        }
        let largest = self.largest;
        let holds =
            self.with_probe(|probe, tuner| Some(probe.holds(largest, &mut |inputs| tuner.run(inputs))));
        self.curve.apart = holds;
        if holds != Some(true) {
            self.curve = std::mem::take(&mut self.curve).up_to(1);
        }
        holds.unwrap_or(false)
    }

    /// Does something with rows that the model accepts; `None` if there are none.
    fn with_probe<T>(&mut self, work: impl FnOnce(&Probe, &mut Self) -> Option<T>) -> Option<T> {
        let probe = match self.probe.take() {
            Some(probe) => probe,
            None => Probe::new(&self.row.clone(), &mut |inputs| self.run(inputs))?,
        };
        let result = work(&probe, self);
        self.probe = Some(probe);
        result
    }
}

/// The time of one run; `None` if it fails.
pub fn timed(engine: &mut dyn Engine, inputs: &[Tensor]) -> Option<Duration> {
    let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
    let started = Instant::now();
    engine.run(inputs, &outputs).ok().map(|_| started.elapsed())
}

/// Whether `all_cores`, which must already have run these inputs, takes clearly less time than one core.
#[must_use]
pub fn all_cores_pay(single_core: Duration, all_cores: &mut dyn Engine, inputs: &[Tensor]) -> bool {
    // Two attempts, since something else may have delayed the first.
    let mut pays = || {
        timed(all_cores, inputs)
            .is_some_and(|all_cores| all_cores.as_secs_f64() < single_core.as_secs_f64() * 0.9)
    };
    pays() || pays()
}

#[cfg(test)]
mod tests;
