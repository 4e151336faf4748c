#![allow(clippy::unwrap_used)]

use super::*;
use crate::engine::{EngineError, Port};
use crate::tensor::DataType;
use std::sync::{Arc, Mutex};

/// Doubles its inputs; a run takes `fixed`, and `each` for each pair of rows, on a clock of its own. `mixes` lets rows
/// depend on each other.
struct Doubler {
    signature: Signature,
    clock: Arc<Mutex<Instant>>,
    fixed: Duration,
    each: Duration,
    mixes: bool,
}

impl Engine for Doubler {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        let input = &inputs[0];
        let rows = u32::try_from(input.shape()[0]).unwrap();
        *self.clock.lock().unwrap() += self.fixed + self.each * rows * rows;
        let values = input.elements::<f32>().unwrap();
        let more = if self.mixes { values.len() as f32 } else { 0.0 };
        let doubled = values.iter().map(|value| value * 2.0 + more).collect();
        Ok(vec![Tensor::from_vec(input.shape().to_vec(), doubled).unwrap()])
    }
}

fn signature(batch: i64) -> Signature {
    let port = Port::new("x", DataType::Fp32, vec![batch, 3]);
    Signature::new(vec![port.clone()], vec![port], 1)
}

fn tuner(fixed: u64, each: u64, mixes: bool) -> (Option<Tuner>, Arc<Mutex<Option<Curve>>>) {
    let stored = Arc::new(Mutex::new(None));
    let keeper = Arc::clone(&stored);
    let clock = Arc::new(Mutex::new(Instant::now()));
    let hands = Arc::clone(&clock);
    let make = Box::new(move || {
        Some(Box::new(Doubler {
            signature: signature(-1),
            clock: Arc::clone(&hands),
            fixed: Duration::from_millis(fixed),
            each: Duration::from_millis(each),
            mixes,
        }) as Box<dyn Engine>)
    });
    let store = Box::new(move |curve: &Curve| *keeper.lock().unwrap() = Some(curve.clone()));
    let row = [Tensor::zeros(DataType::Fp32, vec![1, 3]).unwrap()];
    let mut tuner = Tuner::new(&signature(-1), &row, 8, Curve::default(), make, store);
    if let Some(tuner) = &mut tuner {
        tuner.now = Box::new(move || *clock.lock().unwrap());
    }
    (tuner, stored)
}

#[test]
fn where_a_run_costs_much_by_itself_many_rows_go_into_it() {
    let (tuner, stored) = tuner(8, 0, false);
    let mut tuner = tuner.unwrap();
    tuner.quick(Duration::from_secs(1));
    assert_eq!(tuner.curve().best(), 4, "{:?}", tuner.curve());
    while tuner.step() {}
    assert_eq!(stored.lock().unwrap().take().unwrap().best(), 8);
}

#[test]
fn where_more_rows_make_each_slower_none_waits_for_another() {
    let (tuner, stored) = tuner(0, 4, false);
    let mut tuner = tuner.unwrap();
    while tuner.step() {}
    assert_eq!(stored.lock().unwrap().take().unwrap().best(), 1);
}

// If rows see each other, batches give wrong answers.
#[test]
fn a_model_whose_rows_see_each_other_is_never_batched() {
    let (tuner, stored) = tuner(8, 0, true);
    let mut tuner = tuner.unwrap();
    tuner.quick(Duration::from_secs(1));
    while tuner.step() {}
    let curve = stored.lock().unwrap().take().unwrap();
    assert_eq!((curve.best(), curve.apart), (1, Some(false)));
}

// It may come from an older server that did not check this.
#[test]
fn a_curve_that_was_kept_is_not_believed_before_rows_were_tried() {
    for (mixes, best) in [(false, 8), (true, 1)] {
        let (tuner, stored) = tuner(0, 0, mixes);
        let mut tuner = tuner.unwrap();
        for (rows, milliseconds) in [(1, 80), (2, 40), (4, 40), (8, 40)] {
            for _ in 0..SAMPLES {
                tuner.curve.add(rows, Duration::from_millis(milliseconds));
            }
        }
        assert_eq!(tuner.curve().best(), 1);
        while tuner.step() {}
        assert_eq!(stored.lock().unwrap().take().unwrap().best(), best);
    }
}

#[test]
fn a_model_without_a_dynamic_first_dimension_takes_no_batches() {
    let row = [Tensor::zeros(DataType::Fp32, vec![1, 3]).unwrap()];
    let make = || Box::new(|| None) as MakeEngine;
    let store = || Box::new(|_: &Curve| ()) as Store;
    assert!(Tuner::new(&signature(1), &row, 8, Curve::default(), make(), store()).is_none());
    assert!(Tuner::new(&signature(-1), &row, 1, Curve::default(), make(), store()).is_none());
}

#[test]
fn a_curve_that_was_kept_says_the_same_again() {
    let mut curve = Curve::tried(true);
    for (rows, milliseconds) in [(1, 10), (2, 15), (4, 24), (8, 60)] {
        curve.add(rows, Duration::from_millis(milliseconds));
    }
    let again: Curve = serde_json::from_str(&serde_json::to_string(&curve).unwrap()).unwrap();
    assert_eq!((again.best(), again.single()), (4, Duration::from_millis(10)));
    assert_eq!(
        (Curve::default().best(), Curve::default().single()),
        (1, Duration::ZERO)
    );
}

#[test]
fn a_batch_must_save_a_noticeable_part_and_is_no_larger_than_that_needs() {
    let best = |runs: [(usize, u64); 4]| {
        let mut curve = Curve::tried(true);
        for (rows, milliseconds) in runs {
            curve.add(rows, Duration::from_millis(milliseconds));
        }
        curve.best()
    };
    assert_eq!(best([(1, 100), (2, 192), (4, 384), (8, 768)]), 1, "a twentieth");
    assert_eq!(
        best([(1, 100), (2, 186), (4, 368), (8, 736)]),
        2,
        "hardly less with more"
    );
    assert_eq!(best([(1, 100), (2, 186), (4, 320), (8, 800)]), 4);
}
