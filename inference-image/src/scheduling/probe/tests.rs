#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeSet;

/// Rows of three numbers.
fn row(datatype: DataType) -> Vec<Tensor> {
    vec![Tensor::zeros(datatype, vec![1, 3]).unwrap()]
}

/// Whether a model of rows of three numbers holds, in batches of up to `largest`.
fn holds_in(largest: usize, model: fn(&[[f32; 3]]) -> Vec<[f32; 3]>) -> bool {
    let mut run = |inputs: &[Tensor]| {
        let rows: Vec<[f32; 3]> = inputs[0].elements::<f32>()?.as_chunks::<3>().0.to_vec();
        let results = model(&rows).concat();
        Some(vec![Tensor::from_vec(inputs[0].shape().to_vec(), results)?])
    };
    let probe = Probe::new(&row(DataType::Fp32), &mut run).unwrap();
    probe.holds(largest, &mut run)
}

fn holds(model: fn(&[[f32; 3]]) -> Vec<[f32; 3]>) -> bool {
    let results = [2, 3, 8].map(|largest| holds_in(largest, model));
    assert!(results[0] == results[1] && results[1] == results[2]);
    results[0]
}

#[test]
fn rows_that_are_computed_by_themselves_hold() {
    assert!(holds(|rows| rows.to_vec()));
    assert!(
        holds(|rows| rows.iter().map(|row| row.map(f32::sqrt)).collect()),
        "also what is no number"
    );
    // Sums in another order.
    let alone_or_not = |rows: &[[f32; 3]]| {
        let error = if rows.len() > 1 { 1e-5 } else { 0.0 };
        rows.iter()
            .map(|row| row.map(|value| value * (1.0 + error)))
            .collect()
    };
    assert!(holds(alone_or_not));
}

// Each of these was once taken for a model with independent rows.
#[test]
fn rows_that_see_each_other_are_found_out() {
    let least = |rows: &[[f32; 3]]| {
        let least = rows.iter().map(|row| row[0]).fold(f32::MAX, f32::min);
        rows.iter().map(|row| row.map(|value| value - least)).collect()
    };
    assert!(!holds(least));
    let clamped_least = |rows: &[[f32; 3]]| {
        let least = rows.iter().map(|row| row[0]).fold(0.0, f32::min);
        rows.iter().map(|row| row.map(|value| value - least)).collect()
    };
    assert!(!holds(clamped_least), "only negative numbers show it");
    let new = |rows: &[[f32; 3]]| {
        let is_new = |index: usize| !rows[..index].contains(&rows[index]);
        let keep =
            |(index, row): (usize, &[f32; 3])| row.map(|value| if is_new(index) { value } else { 0.0 });
        rows.iter().enumerate().map(keep).collect()
    };
    assert!(!holds(new), "only equal rows show it");
    let beside_large_ones = |rows: &[[f32; 3]]| {
        let [first, ..] = rows[0];
        rows.iter()
            .map(|&[a, b, _]| [a * 1e5, b * 1e5, a - first])
            .collect()
    };
    assert!(!holds(beside_large_ones), "only the small column shows it");
    let by_count = |rows: &[[f32; 3]]| {
        let count = rows.len() as f32;
        rows.iter().map(|row| row.map(|value| value / count)).collect()
    };
    assert!(!holds(by_count));
}

#[test]
fn integers_are_more_than_zeros_and_no_larger_than_the_model_takes() {
    for (limit, expected) in [(i64::MAX, -3..=3), (4, 0..=1), (1, 0..=0)] {
        let mut run = |inputs: &[Tensor]| {
            let numbers = inputs[0].elements::<i64>()?;
            let is_valid = |&number: &i64| limit == i64::MAX || (0..limit).contains(&number);
            numbers.iter().all(is_valid).then(|| inputs.to_vec())
        };
        let row = vec![Tensor::zeros(DataType::Int64, vec![1, 60]).unwrap()];
        let probe = Probe::new(&row, &mut run).unwrap();
        let rows = probe.rows.iter().filter_map(|row| row[0].elements::<i64>());
        let numbers: Vec<i64> = rows.flatten().copied().collect();
        let range = *numbers.iter().min().unwrap()..=*numbers.iter().max().unwrap();
        assert_eq!(range, expected);
        assert!(probe.holds(8, &mut run));
    }
}

// Only pixels use the whole range of their type.
#[test]
fn every_type_has_rows_that_differ() {
    for (datatype, kinds) in [
        (DataType::Uint8, 4),
        (DataType::Int8, 4),
        (DataType::Uint64, 4),
        (DataType::Bool, 4),
        (DataType::Fp64, 4),
        (DataType::Bf16, 4),
        // Texts may mean anything.
        (DataType::Bytes, 1),
    ] {
        let row = vec![Tensor::zeros(datatype, vec![1, 60]).unwrap()];
        let probe = Probe::new(&row, &mut |inputs| Some(inputs.to_vec())).unwrap();
        let rows: BTreeSet<_> = probe.rows.iter().map(|row| row[0].to_wire()).collect();
        assert_eq!(rows.len(), kinds, "{datatype:?}");
        let largest = rows.iter().flat_map(|row| row.iter().copied()).max().unwrap();
        assert!(datatype != DataType::Uint8 || largest > 200);
    }
}

#[test]
fn a_model_that_fails_in_batches_does_not_hold() {
    let mut run = |inputs: &[Tensor]| (inputs[0].shape()[0] == 1).then(|| inputs.to_vec());
    let probe = Probe::new(&row(DataType::Fp32), &mut run).unwrap();
    assert!(!probe.holds(8, &mut run));
    let mut one_output = |inputs: &[Tensor]| {
        Some(vec![
            inputs[0]
                .split(&vec![1; usize::try_from(inputs[0].shape()[0]).ok()?])?
                .remove(0),
        ])
    };
    let probe = Probe::new(&row(DataType::Fp32), &mut one_output).unwrap();
    assert!(!probe.holds(8, &mut one_output));
    assert!(Probe::new(&row(DataType::Fp32), &mut |_| None).is_none());
}

// Half precision has three digits, and bfloat16 two.
#[test]
fn fractions_of_16_bits_may_differ_by_a_step() {
    for (datatype, near, far) in [(DataType::Fp16, 0x3C01, 0x3C10), (DataType::Bf16, 0x3F81, 0x3F90)] {
        let one: u16 = if datatype == DataType::Fp16 {
            0x3C00
        } else {
            0x3F80
        };
        let tensor = |bits: u16| {
            Tensor::from_wire(datatype, vec![1, 1], Bytes::copy_from_slice(&bits.to_le_bytes())).unwrap()
        };
        let (one, near, far) = (tensor(one), tensor(near), tensor(far));
        assert!(
            is_close(&one, &near, &[&one]) && !is_close(&one, &far, &[&one]),
            "{datatype:?}"
        );
    }
}
