//! Measures what a run of several rows costs on this device.
//!
//! A few runs are measured before the server is ready, the others in idle moments after that, on a separate session, so
//! that the memory of large batches is freed.

use crate::engine::{Curve, Engine, Signature};
use crate::tensor::{DataType, Tensor};
use std::time::{Duration, Instant};

/// Measurements per batch size.
const SAMPLES: usize = 3;
/// A measurement repeats the run until it has run this many rows; the fastest run counts.
const ROWS: usize = 8;
/// No batch is tried whose rows would take longer than this one by one: a measurement, about twice as long, takes a core
/// from requests that come meanwhile.
const LONGEST: Duration = Duration::from_millis(125);
/// How far outputs of a batch may differ from those of single rows, relative to the largest.
const TOLERANCE: f32 = 1e-2;

/// Makes a session to measure with.
pub type MakeEngine = Box<dyn FnMut() -> Option<Box<dyn Engine>> + Send>;
/// Called with the complete curve.
pub type Store = Box<dyn FnOnce(&Curve) + Send>;

/// Measures a [`Curve`], a run at a time.
pub struct Tuner {
    make: MakeEngine,
    store: Option<Store>,
    engine: Option<Box<dyn Engine>>,
    /// Type and shape of each input, for one row.
    row: Vec<(DataType, Vec<i64>)>,
    outputs: Vec<usize>,
    largest: usize,
    verified: bool,
    curve: Curve,
}

impl Tuner {
    /// Measures batches of up to `largest` rows like `row` on the engine that `make` makes; `None` if the
    /// model takes no batches.
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
            row: row
                .iter()
                .map(|input| (input.datatype(), input.shape().to_vec()))
                .collect(),
            outputs: (0..signature.outputs.len()).collect(),
            largest,
            verified: false,
            curve,
        })
    }

    /// The curve as far as it is measured.
    #[must_use]
    pub const fn curve(&self) -> &Curve {
        &self.curve
    }

    /// Measures whether batches pay, if that takes no longer than `budget`; otherwise idle moments are used for it.
    pub fn quick(&mut self, budget: Duration) {
        let tried = 4.min(self.largest);
        // Two measurements of each size, and what it takes to verify.
        let rows = u32::try_from(4 * ROWS + 2 + 2 * tried + 4).unwrap_or(u32::MAX);
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

    /// The smallest size with too few measurements; none beyond a size that does not pay or takes too long.
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
        if rows > 1 && !self.verified {
            self.verified = self.verify();
            if !self.verified {
                tracing::info!("this model is not run in batches: a row's outputs depend on the others");
                self.curve = std::mem::take(&mut self.curve).up_to(1);
                return false;
            }
        }
        let inputs = self.inputs(0, rows);
        // The first run of a shape plans its memory. After a pause the next runs are slow, too. That weighs less in a
        // batch: with one run of each size, batches would look better than they are.
        if self.run(&inputs).is_none() {
            return false;
        }
        let mut fastest = Duration::MAX;
        for _ in 0..ROWS.div_ceil(rows) {
            let started = Instant::now();
            if self.run(&inputs).is_none() {
                return false;
            }
            fastest = fastest.min(started.elapsed());
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

    /// Whether the rows of a batch come out as they do alone. Where the first dimension is no batch (a
    /// sequence, say), or a scale is taken from the whole batch (dynamic quantisation), they do not: the second
    /// row is a hundred times as large as the first.
    fn verify(&mut self) -> bool {
        if !self.row.iter().any(|(datatype, _)| varies(*datatype)) {
            return false;
        }
        let (first, second) = (self.inputs(0, 1), self.inputs(1, 1));
        let both = self.inputs(0, 2);
        let (Some(first), Some(second), Some(both)) = (self.run(&first), self.run(&second), self.run(&both))
        else {
            return false;
        };
        let alone = first.iter().zip(&second);
        alone.zip(&both).all(|((first, second), both)| {
            let parts = both.split(&[1, 1]);
            parts.is_some_and(|parts| close(first, &parts[0]) && close(second, &parts[1]))
        })
    }

    /// `count` rows from the `first` on, each different from the others.
    fn inputs(&self, first: usize, count: usize) -> Vec<Tensor> {
        let rows = self.row.iter().filter_map(|(datatype, shape)| {
            let rows: Option<Vec<Tensor>> = (first..first + count)
                .map(|row| noise(*datatype, shape.clone(), row as u64))
                .collect();
            Tensor::concatenate(&rows?.iter().collect::<Vec<_>>())
        });
        rows.collect()
    }
}

/// Whether [`noise`] of that type is more than zeros.
const fn varies(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp32 | DataType::Fp16 | DataType::Uint8)
}

/// Numbers from 0 to 1, in every second row from 0 to 100; bytes; or zeros where the elements may be indices.
fn noise(datatype: DataType, shape: Vec<i64>, row: u64) -> Option<Tensor> {
    let count = crate::tensor::element_count(&shape)?;
    // Knuth's MMIX generator: any will do.
    let mut state = row.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    let values = std::iter::repeat_with(next).take(count);
    let scale = if row % 2 == 1 { 100.0 } else { 1.0 };
    let floats = |value: u64| value as f32 / (1 << 24) as f32 * scale;
    match datatype {
        DataType::Fp32 => Tensor::from_vec(shape, values.map(floats).collect()),
        DataType::Fp16 => {
            let halves = values.map(|value| half::f16::from_f32(floats(value)));
            Tensor::from_vec(shape, halves.collect())
        }
        DataType::Uint8 => Tensor::from_vec(shape, values.map(|value| value.to_le_bytes()[0]).collect()),
        other => Tensor::zeros(other, shape),
    }
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    let (Some(x), Some(y)) = (a.elements::<f32>(), b.elements::<f32>()) else {
        return a == b;
    };
    let largest = x
        .iter()
        .fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    x.len() == y.len()
        && x.iter()
            .zip(y)
            .all(|(a, b)| (a - b).abs() <= largest * TOLERANCE || a == b)
}

/// The time of one run; `None` if it fails.
pub fn timed(engine: &mut dyn Engine, inputs: &[Tensor]) -> Option<Duration> {
    let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
    let started = Instant::now();
    engine.run(inputs, &outputs).ok().map(|_| started.elapsed())
}

/// Whether `wide`, which must have run the inputs before, takes clearly less time than one core.
#[must_use]
pub fn wide_pays(narrow: Duration, wide: &mut dyn Engine, inputs: &[Tensor]) -> bool {
    // Two attempts: something else may have held up the first.
    let mut pays = || timed(wide, inputs).is_some_and(|wide| wide.as_secs_f64() < narrow.as_secs_f64() * 0.9);
    pays() || pays()
}

#[cfg(test)]
#[path = "tuning_tests.rs"]
mod tests;
