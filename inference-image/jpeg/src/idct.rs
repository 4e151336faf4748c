//! The inverse cosine transform: libjpeg's accurate one in integers (`jidctint.c`), after C. Loeffler,
//! A. Ligtenberg and G. Moschytz, "Practical Fast 1-D DCT Algorithms with 11 Multiplications", ICASSP 1989.

use std::num::Wrapping;

/// A row of numbers; a damaged file may make them overflow, which is not a bug.
type Row = [Wrapping<i32>; 8];

/// Fractional bits, in constants and after the first pass.
const CONSTANT: usize = 13;
const PASS: usize = 2;

/// Computes the 8×8 samples of a block from its coefficients and their steps, both in row-major order.
#[inline(always)]
pub(crate) fn inverse(coefficients: &[i16; 64], steps: &[u16; 64], samples: &mut [u8], stride: usize) {
    let mut rows = [[Wrapping(0); 8]; 8];
    let values = coefficients.iter().zip(steps);
    for (number, (&coefficient, &step)) in rows.as_flattened_mut().iter_mut().zip(values) {
        // libjpeg-turbo's vector code multiplies 16 bits as well.
        *number = Wrapping(i32::from(coefficient.wrapping_mul(step as i16)));
    }
    let columns = transposed(&pass::<{ CONSTANT - PASS }>(&rows));
    let rows = transposed(&pass::<{ CONSTANT + PASS + 3 }>(&columns));
    for (line, row) in samples.chunks_mut(stride).zip(&rows) {
        if let Some(line) = line.first_chunk_mut::<8>() {
            *line = row.map(|Wrapping(value)| (value.clamp(-128, 127) + 128) as u8);
        }
    }
}

/// The same if all coefficients except the first are zero.
#[inline(always)]
pub(crate) fn flat(coefficient: i16, step: u16, samples: &mut [u8], stride: usize) {
    let value = i32::from(coefficient.wrapping_mul(step as i16));
    let sample = (((value * 4 + 16) >> 5) + 128).clamp(0, 255) as u8;
    for line in samples.chunks_mut(stride).take(8) {
        if let Some(line) = line.first_chunk_mut::<8>() {
            *line = [sample; 8];
        }
    }
}

#[inline(always)]
fn transposed(rows: &[Row; 8]) -> [Row; 8] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// One dimension, for all columns at once.
#[inline(always)]
fn pass<const SHIFT: usize>(input: &[Row; 8]) -> [Row; 8] {
    let mut out = [[Wrapping(0); 8]; 8];
    for lane in 0..8 {
        let x = |row: usize| input[row][lane];
        let (even, odd) = (even([x(0), x(2), x(4), x(6)]), odd([x(1), x(3), x(5), x(7)]));
        for row in 0..4 {
            let half = Wrapping(1 << (SHIFT - 1));
            out[row][lane] = (even[row] + odd[row] + half) >> SHIFT;
            out[7 - row][lane] = (even[row] - odd[row] + half) >> SHIFT;
        }
    }
    out
}

#[inline(always)]
fn even([x0, x2, x4, x6]: [Wrapping<i32>; 4]) -> [Wrapping<i32>; 4] {
    let z = (x2 + x6) * Wrapping(4_433);
    let (t2, t3) = (z - x6 * Wrapping(15_137), z + x2 * Wrapping(6_270));
    let (t0, t1) = ((x0 + x4) << CONSTANT, (x0 - x4) << CONSTANT);
    [t0 + t3, t1 + t2, t1 - t2, t0 - t3]
}

#[inline(always)]
fn odd([x1, x3, x5, x7]: [Wrapping<i32>; 4]) -> [Wrapping<i32>; 4] {
    let (z1, z2) = ((x7 + x1) * Wrapping(-7_373), (x5 + x3) * Wrapping(-20_995));
    let (z3, z4) = (x7 + x3, x5 + x1);
    let z5 = (z3 + z4) * Wrapping(9_633);
    let (z3, z4) = (z3 * Wrapping(-16_069) + z5, z4 * Wrapping(-3_196) + z5);
    [
        x1 * Wrapping(12_299) + z1 + z4,
        x3 * Wrapping(25_172) + z2 + z3,
        x5 * Wrapping(16_819) + z2 + z4,
        x7 * Wrapping(2_446) + z1 + z3,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_block_is_what_the_transform_makes_of_it() {
        for value in -1100..1100 {
            let mut block = [0; 64];
            block[0] = value;
            let (mut quick, mut slow) = ([0; 64], [0; 64]);
            flat(value, 3, &mut quick, 8);
            inverse(&block, &[3; 64], &mut slow, 8);
            assert_eq!(quick, slow, "{value}");
        }
    }

    /// A cosine of one period along the row, whose samples are known from its definition.
    #[test]
    fn a_coefficient_is_a_wave() {
        let mut block = [0; 64];
        block[2] = 40;
        let mut samples = [0; 64];
        inverse(&block, &[10; 64], &mut samples, 8);
        let wave =
            |x: usize| ((2 * x + 1) as f64 * std::f64::consts::PI / 8.0).cos() * 400.0 / 32.0_f64.sqrt();
        for (place, &sample) in samples.iter().enumerate() {
            let expected = 128.0 + wave(place % 8);
            assert!(
                (f64::from(sample) - expected).abs() <= 1.0,
                "{place}: {sample}, {expected}"
            );
        }
    }
}
