//! What a start would say about one model package, all at once: the same steps as a start, which go on after a problem.

use super::loading::{Candidate, Settings};
use super::proving::Proven;
use crate::engine::{Runtime, Signature};
use crate::image::classifier::ImageClassifier;
use crate::package;
use crate::process::exit::{Fatal, OnProblem, noted};
use crate::tensor::Tensor;
use modelservice_contract::{ModelConfig, ModelReport, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// What a start would say.
pub struct Inspection {
    /// What is wrong; the first is what a start would end with.
    pub problems: Vec<Fatal>,
    /// What these problems have kept from being checked.
    pub unchecked: Vec<&'static str>,
    /// The model, as far as it is known.
    pub model: Option<Inspected>,
}

/// A model that has been loaded.
pub struct Inspected {
    /// As in the report of a server.
    pub report: ModelReport,
    /// Its inputs and outputs.
    pub signature: Signature,
    /// What `model.yaml` says, if there is one that fits.
    pub classifier: Option<ImageClassifier>,
    /// Inputs that the model accepts, if any have been found: all 0 or all 1.
    pub row: Option<Vec<Tensor>>,
    /// What is no problem, but good to know.
    pub notes: Vec<String>,
}

/// Checks the package of this model for a server with this configuration. Loads the model, but serves nothing.
#[must_use]
pub fn inspect(model: &ModelConfig, server: &ServerConfig, library: &Path) -> Inspection {
    let mut problems = Vec::new();
    let mut unchecked = Vec::new();
    let mut note = |problem| {
        problems.push(problem);
        Ok(())
    };
    // Nothing is given back: every problem is noted.
    let model = steps(model, server, library, &mut note, &mut unchecked);
    let model = model.map_err(&mut note).ok().flatten();
    Inspection {
        problems,
        unchecked,
        model,
    }
}

fn steps(
    model: &ModelConfig,
    server: &ServerConfig,
    library: &Path,
    on_problem: &mut OnProblem<'_>,
    unchecked: &mut Vec<&'static str>,
) -> Result<Option<Inspected>, Fatal> {
    // In the order of a start.
    let runtime = noted(Runtime::load(library, &server.execution_provider), on_problem)?;
    let parsed = noted(package::open_noting(model, on_problem), on_problem)?.flatten();
    let has_manifest = parsed
        .as_ref()
        .is_some_and(|parsed| parsed.package.manifest.is_some());
    let candidate = match runtime.zip(parsed) {
        Some((runtime, parsed)) => {
            let settings = Settings::new(server, 1);
            noted(
                Candidate::of_package(parsed, model, &Arc::new(runtime), &settings, None),
                on_problem,
            )?
        }
        None => {
            unchecked.push("whether ONNX Runtime loads the model");
            None
        }
    };
    match candidate {
        Some(candidate) => inspected(candidate, model, server, on_problem).map(Some),
        None => {
            if has_manifest {
                unchecked.push("whether model.yaml fits the model");
            }
            Ok(None)
        }
    }
}

fn inspected(
    mut candidate: Candidate,
    model: &ModelConfig,
    server: &ServerConfig,
    on_problem: &mut OnProblem<'_>,
) -> Result<Inspected, Fatal> {
    let Proven {
        signature,
        classifier,
        first_run,
        report,
    } = candidate.prove(model, server.limits.max_image_pixels, on_problem)?;
    let batches = candidate.why_not_batched();
    let batches = batches.map(|why| format!("each request is run by itself: {why}"));
    let notes = first_run.note().into_iter().chain(batches).collect();
    Ok(Inspected {
        row: candidate.plain_row(&signature, &first_run),
        report,
        signature,
        classifier,
        notes,
    })
}
