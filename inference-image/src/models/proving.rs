//! From sessions to a model that may be served: `model.yaml` fits it, each session has run once, and what runs cost is known.

use super::batching::Batching;
use super::first_run::FirstRun;
use super::loading::Candidate;
use super::warm_up::{self, Trial, warm_up_all};
use crate::engine::{Curve, OnnxModel, Signature};
use crate::image::classifier::ImageClassifier;
use crate::package;
use crate::process::exit::{self, Fatal, OnProblem};
use crate::scheduling::{Engines, Tuner};
use crate::tensor::Tensor;
use modelservice_contract::{ExitReason, ModelConfig, ModelReport};
use std::sync::Arc;

/// A model whose sessions have run once, as far as that is possible.
pub(super) struct Proven {
    pub(super) signature: Signature,
    pub(super) classifier: Option<ImageClassifier>,
    pub(super) first_run: FirstRun,
    pub(super) report: ModelReport,
}

/// A model that may be served.
pub(super) struct Ready {
    pub(super) engines: Engines,
    pub(super) signature: Signature,
    pub(super) classifier: Option<ImageClassifier>,
    pub(super) curve: Curve,
    pub(super) tuner: Option<Tuner>,
    pub(super) batching: Arc<Batching>,
    pub(super) report: ModelReport,
}

impl Candidate {
    /// Runs each session once, measures, and checks `model.yaml` against the model.
    ///
    /// # Errors
    /// `ModelInvalid` if the manifest does not fit the model.
    pub(super) fn make_ready(mut self, config: &ModelConfig, max_pixels: u64) -> Result<Ready, Fatal> {
        let Proven {
            signature,
            classifier,
            first_run,
            report,
        } = self.prove(config, max_pixels, &mut exit::end)?;
        first_run.log(&config.name);
        let (all_cores, tuner, curve) = match (self.tuning, first_run) {
            (Some(tuning), FirstRun::Succeeded(row)) => tuning.measure(
                config,
                &signature,
                &row,
                &self.batching,
                self.single_core.first_mut(),
            ),
            _ => (None, None, Curve::default()),
        };
        Ok(Ready {
            engines: Engines {
                single_core: self.single_core,
                all_cores,
            },
            curve,
            tuner,
            signature,
            classifier,
            batching: self.batching,
            report,
        })
    }

    /// Checks `model.yaml` against the model and runs each session once.
    ///
    /// # Errors
    /// `ModelInvalid` if the manifest does not fit the model; `AcceleratorUnavailable` if the device does not work.
    pub(super) fn prove(
        &mut self,
        config: &ModelConfig,
        max_pixels: u64,
        on_problem: &mut OnProblem<'_>,
    ) -> Result<Proven, Fatal> {
        let signature = self.single_core.first().map(|engine| engine.signature().clone());
        let signature = signature.ok_or_else(|| Fatal::new(ExitReason::ModelInvalid, "no engine"))?;
        let classifier = self.classifier(&signature, max_pixels, on_problem)?;
        let rows = match &classifier {
            Some(classifier) => classifier.blank().map(|row| vec![row]),
            None => warm_up::rows(&signature),
        };
        let device = self.tuning.as_ref().map(|tuning| Arc::clone(&tuning.model));
        let first_run = match device.filter(|model| model.device_provider().is_some()) {
            Some(model) => self.run_on_device(&model, rows, &signature, classifier.as_ref()),
            None => self.warm_up(rows, classifier.as_ref()),
        };
        Ok(Proven {
            first_run: exit::noted(first_run, on_problem)?.unwrap_or(FirstRun::Unknown),
            report: self.report(config, &signature),
            signature,
            classifier,
        })
    }

    /// What `model.yaml` says, if it fits the model.
    fn classifier(
        &self,
        signature: &Signature,
        max_pixels: u64,
        on_problem: &mut OnProblem<'_>,
    ) -> Result<Option<ImageClassifier>, Fatal> {
        let Some(manifest) = &self.manifest else {
            return Ok(None);
        };
        match ImageClassifier::new(manifest, signature, max_pixels) {
            // The images of one form must be independent, too.
            Ok(classifier) if !self.batching.keeps_apart() => Ok(Some(classifier.one_by_one())),
            Ok(classifier) => Ok(Some(classifier)),
            Err(problems) => {
                problems.into_iter().map(does_not_fit).try_for_each(on_problem)?;
                Ok(None)
            }
        }
    }

    /// Runs each session once if that is possible.
    fn warm_up(
        &mut self,
        rows: Option<Vec<Vec<Tensor>>>,
        classifier: Option<&ImageClassifier>,
    ) -> Result<FirstRun, Fatal> {
        let Some(rows) = rows else {
            return Ok(FirstRun::AnySize);
        };
        match warm_up_all(&mut self.single_core, rows, classifier) {
            Ok(row) => Ok(FirstRun::Succeeded(row)),
            Err(Trial::Unfit(problem)) => Err(does_not_fit(problem)),
            // The made-up inputs may not suit the model, so the failure proves nothing. Real requests are answered
            // one by one.
            Err(Trial::Failed(problem)) => Ok(FirstRun::Refused(problem)),
        }
    }

    /// A row of zeros or of ones that the model accepts, of the same size as in the first run if that succeeded.
    pub(super) fn plain_row(&mut self, signature: &Signature, first_run: &FirstRun) -> Option<Vec<Tensor>> {
        let rows = match first_run {
            FirstRun::Succeeded(row) => warm_up::rows_like(row),
            _ => warm_up::rows_of_some_size(signature),
        };
        let accepts = |row: &Vec<Tensor>| warm_up_all(&mut self.single_core, vec![row.clone()], None).is_ok();
        rows.into_iter().find(accepts)
    }

    /// Runs each session on a device once. Without a run that succeeds, nothing shows that the device works.
    fn run_on_device(
        &mut self,
        model: &OnnxModel,
        rows: Option<Vec<Vec<Tensor>>>,
        signature: &Signature,
        classifier: Option<&ImageClassifier>,
    ) -> Result<FirstRun, Fatal> {
        let provider = model.device_provider().unwrap_or_default();
        let is_usual = rows.is_some();
        let mut refusal = None;
        for row in rows.unwrap_or_else(|| warm_up::rows_of_some_size(signature)) {
            match warm_up_all(&mut self.single_core, vec![row.clone()], classifier) {
                Ok(row) if is_usual => return Ok(FirstRun::Succeeded(row)),
                Ok(_) => return Ok(FirstRun::AnySize),
                Err(Trial::Unfit(problem)) => return Err(does_not_fit(problem)),
                Err(Trial::Failed(problem)) if model.runs_on_cpu(&row) => {
                    let message = format!(
                        "the first run on {provider} failed, and the CPU runs the same inputs: {problem}; check the \
                         device and its driver on this node"
                    );
                    return Err(Fatal::new(ExitReason::AcceleratorUnavailable, message));
                }
                Err(Trial::Failed(problem)) => _ = refusal.get_or_insert(problem),
            }
        }
        let message = format!(
            "the model accepts none of the inputs that were made up to show that {provider} runs it: {}; give its \
             inputs fixed sizes, or ask for CPUExecutionProvider",
            refusal.unwrap_or_else(|| "it has inputs without a shape".to_owned())
        );
        Err(Fatal::new(ExitReason::ModelInvalid, message))
    }
}

fn does_not_fit(problem: String) -> Fatal {
    let message = format!("{} does not fit the model: {problem}", package::MANIFEST_FILE);
    Fatal::new(ExitReason::ModelInvalid, message)
}
