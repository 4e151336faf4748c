//! What is measured before a model is served: what it costs, and whether all cores together are faster than one.

use super::batching::Batching;
use crate::engine::{Curve, Engine, OnnxModel, Signature};
use crate::scheduling::{MakeEngine, Store, Tuner, all_cores_pay, timed};
use crate::tensor::Tensor;
use modelservice_contract::ModelConfig;
use std::sync::Arc;
use std::time::Duration;

/// Time spent before readiness to find out whether batching pays.
const QUICK_TUNING: Duration = Duration::from_millis(50);

/// What can be tuned for the model.
pub(super) struct Tuning {
    pub(super) model: Arc<OnnxModel>,
    pub(super) cores: usize,
    /// Most rows that are put together.
    pub(super) rows: u32,
    /// Measurements of an earlier start.
    pub(super) curve: Curve,
    /// A session that computes on all cores.
    pub(super) all_cores: Option<Box<dyn Engine>>,
}

impl Tuning {
    /// The session that uses all cores, if it is faster, and the measured cost of batches.
    pub(super) fn measure(
        self,
        config: &ModelConfig,
        signature: &Signature,
        row: &[Tensor],
        batching: &Arc<Batching>,
        single_core: Option<&mut Box<dyn Engine>>,
    ) -> (Option<Box<dyn Engine>>, Option<Tuner>, Curve) {
        let Self {
            model,
            cores,
            rows,
            mut curve,
            all_cores,
        } = self;
        let is_known = curve.single() > Duration::ZERO;
        if let Some(engine) = single_core.filter(|_| !is_known)
            && let Some(took) = timed(engine.as_mut(), row)
        {
            curve.add(1, took);
        }
        let all_cores = paying(all_cores, &mut curve, row);
        let (maker, keeper) = (Arc::clone(&model), Arc::clone(&model));
        let make: MakeEngine = Box::new(move || {
            let engine = maker.engine(1, rows);
            maker.tidy();
            Some(Box::new(engine.ok()?) as Box<dyn Engine>)
        });
        let (name, told) = (config.name.clone(), Arc::clone(batching));
        let store: Store = Box::new(move |curve| {
            keeper.store_curve(cores, curve);
            told.measured(&name, curve);
        });
        let mut tuner = Tuner::new(signature, row, batching.largest(), curve.clone(), make, store);
        match tuner.as_mut() {
            None => {
                model.store_curve(cores, &curve);
                model.tidy();
            }
            Some(tuner) if !is_known => tuner.quick(QUICK_TUNING),
            Some(_) => {}
        }
        let curve = tuner.as_ref().map_or(curve, |tuner| tuner.curve().clone());
        (all_cores, tuner, curve)
    }
}

/// The session that uses all cores, warmed up, if it is clearly faster than one core.
fn paying(all_cores: Option<Box<dyn Engine>>, curve: &mut Curve, row: &[Tensor]) -> Option<Box<dyn Engine>> {
    let mut engine = all_cores?;
    // The first run of a session plans its memory.
    timed(engine.as_mut(), row)?;
    let known = curve.all_cores;
    let pays = known.unwrap_or_else(|| all_cores_pay(curve.single(), engine.as_mut(), row));
    curve.all_cores = Some(pays);
    pays.then_some(engine)
}
