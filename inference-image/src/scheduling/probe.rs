//! Tests whether rows have the same outputs in a batch as alone. The graph says that they should; this checks what
//! actually happens when the model runs.

use crate::tensor::{DataType, Tensor, element_count};
use bytes::Bytes;
use half::{bf16, f16};

/// How far an output in a batch may differ from that of a row alone, relative to the largest at its position: sums in
/// a different order differ by this much.
const fn tolerance(datatype: DataType) -> f64 {
    match datatype {
        DataType::Bf16 => 3e-2,
        DataType::Fp16 => 4e-3,
        _ => 1e-3,
    }
}

/// The same relative to the largest output anywhere, for outputs whose summands nearly cancel out.
const CANCELLED: f64 = 1e-6;

/// The rows of the batches: some contain a row twice, and the rows appear in different orders.
const ORDERS: [usize; 16] = [0, 1, 2, 0, 3, 3, 1, 2, 2, 0, 0, 1, 1, 3, 2, 3];
/// Rows per batch.
const TOGETHER: usize = 4;

/// Runs the model.
type Run<'a> = &'a mut dyn FnMut(&[Tensor]) -> Option<Vec<Tensor>>;

/// Rows that differ from each other, with the output of each row alone.
pub(super) struct Probe {
    rows: Vec<Vec<Tensor>>,
    alone: Vec<Vec<Tensor>>,
}

/// Ranges of values in a row, from the one that finds the most problems to the one that every model accepts: integers
/// may be indices, and small ones are more often valid.
#[derive(Clone, Copy)]
enum Range {
    Wide,
    Bits,
    /// The integers of the row that is known to work.
    Same,
}

impl Probe {
    /// Rows like this one that the model accepts; `None` if it accepts no others.
    pub(super) fn new(row: &[Tensor], run: Run<'_>) -> Option<Self> {
        [Range::Wide, Range::Bits, Range::Same]
            .into_iter()
            .find_map(|range| {
                let make = |kind| row.iter().map(|input| input_of(kind, range, input)).collect();
                let rows: Vec<Vec<Tensor>> = (0..TOGETHER).map(make).collect::<Option<_>>()?;
                let alone = rows.iter().map(|row| run(row)).collect::<Option<_>>()?;
                Some(Self { rows, alone })
            })
    }

    /// How many rows are run to create a probe and to use it.
    pub(super) const COST: usize = TOGETHER + ORDERS.len();

    /// This many rows, each different from its neighbours.
    pub(super) fn batch(&self, count: usize) -> Option<Vec<Tensor>> {
        let rows: Vec<usize> = (0..count).map(|row| row % TOGETHER).collect();
        self.joined(&rows)
    }

    /// Whether rows have the same outputs in batches of at most `largest` rows as alone.
    pub(super) fn holds(&self, largest: usize, run: Run<'_>) -> bool {
        let mut batches = ORDERS.chunks(largest.min(TOGETHER));
        batches.all(|rows| self.holds_for(rows, run).unwrap_or(false))
    }

    fn holds_for(&self, rows: &[usize], run: Run<'_>) -> Option<bool> {
        let outputs = run(&self.joined(rows)?)?;
        let sizes = vec![1; rows.len()];
        for (output, tensor) in outputs.iter().enumerate() {
            let alone: Vec<&Tensor> = self.alone.iter().map(|outputs| &outputs[output]).collect();
            let parts = tensor.split(&sizes)?;
            if !rows
                .iter()
                .zip(&parts)
                .all(|(&row, part)| is_close(part, alone[row], &alone))
            {
                return Some(false);
            }
        }
        Some(true)
    }

    fn joined(&self, rows: &[usize]) -> Option<Vec<Tensor>> {
        let input = |index: usize| {
            let parts: Vec<&Tensor> = rows.iter().map(|&row| &self.rows[row][index]).collect();
            Tensor::concatenate(&parts)
        };
        (0..self.rows[0].len()).map(input).collect()
    }
}

/// Whether two outputs of a row are equal except for rounding. All outputs together show how large the numbers are at
/// each position.
fn is_close(a: &Tensor, b: &Tensor, all: &[&Tensor]) -> bool {
    let tolerance = tolerance(a.datatype());
    let (Some(a), Some(b)) = (floats(a), floats(b)) else {
        return a == b;
    };
    let all: Vec<Vec<f64>> = all.iter().filter_map(|tensor| floats(tensor)).collect();
    let size = |value: f64| if value.is_finite() { value.abs() } else { 0.0 };
    let largest = all
        .iter()
        .flatten()
        .fold(0.0, |largest, &value| size(value).max(largest));
    let place = |place: usize| {
        let values = all.iter().filter_map(|values| values.get(place));
        values.fold(0.0, |largest, &value| size(value).max(largest))
    };
    let same = |(index, (&a, &b)): (usize, (&f64, &f64))| {
        let room = (place(index) * tolerance).max(largest * CANCELLED);
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= room
    };
    a.len() == b.len() && a.iter().zip(&b).enumerate().all(same)
}

/// The elements; `None` if they are not floating-point numbers.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    Some(match tensor.datatype() {
        DataType::Fp64 => tensor.elements::<f64>()?.to_vec(),
        DataType::Fp32 => tensor
            .elements::<f32>()?
            .iter()
            .map(|&value| value.into())
            .collect(),
        DataType::Fp16 => tensor
            .elements::<f16>()?
            .iter()
            .map(|&value| value.into())
            .collect(),
        DataType::Bf16 => tensor
            .elements::<bf16>()?
            .iter()
            .map(|&value| value.into())
            .collect(),
        _ => return None,
    })
}

/// An input for a row of this kind; each kind has different values.
fn input_of(kind: usize, range: Range, like: &Tensor) -> Option<Tensor> {
    let (datatype, shape) = (like.datatype(), like.shape().to_vec());
    let mut noise = Noise::new(kind as u64);
    let is_float = matches!(
        datatype,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    );
    let bytes = match (is_float, range, datatype.size()) {
        (_, _, None) | (false, Range::Same, _) => return Some(like.clone()),
        (true, _, _) => elements(&shape, || float(datatype, noise.float(kind))),
        (false, range, Some(size)) => {
            let numbers = match (range, datatype, kind) {
                (Range::Bits, ..) | (_, DataType::Bool, _) | (_, _, 0) => 0..=1,
                // These may be pixels.
                (_, DataType::Uint8, 1 | 2) => 0..=255,
                (_, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, 1) => -3..=3,
                _ => 0..=3,
            };
            elements(&shape, || noise.integer(&numbers).to_le_bytes()[..size].to_vec())
        }
    };
    Tensor::from_wire(datatype, shape, bytes?).ok()
}

fn elements(shape: &[i64], element: impl FnMut() -> Vec<u8>) -> Option<Bytes> {
    let count = element_count(shape)?;
    Some(std::iter::repeat_with(element).take(count).flatten().collect())
}

#[allow(clippy::cast_possible_truncation)]
fn float(datatype: DataType, value: f64) -> Vec<u8> {
    match datatype {
        DataType::Fp16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Fp64 => value.to_le_bytes().to_vec(),
        _ => (value as f32).to_le_bytes().to_vec(),
    }
}

/// Knuth's MMIX generator; any generator will do.
struct Noise(u64);

impl Noise {
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 40
    }

    /// Numbers of both signs, large numbers of both signs, small integers, or numbers from 0 to 1: some models treat
    /// all negative numbers alike, others all small ones.
    fn float(&mut self, kind: usize) -> f64 {
        let fraction = self.next() as f64 / f64::from(1 << 24);
        match kind {
            0 => fraction * 2.0 - 1.0,
            1 => fraction * 200.0 - 100.0,
            2 => (fraction * 7.0).floor() - 3.0,
            _ => fraction,
        }
    }

    fn integer(&mut self, range: &std::ops::RangeInclusive<i64>) -> i64 {
        let count = range.end() - range.start() + 1;
        range.start() + (self.next().cast_signed() % count)
    }
}

#[cfg(test)]
mod tests;
