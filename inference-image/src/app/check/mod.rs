//! `modelservice-server check`: tells a person what a server would say about a model package: every problem at once, or
//! else what clients send and get.

mod requests;
mod text;
mod verdict;

use super::arguments::{CheckArguments, Output};
use crate::config::{self, Overrides};
use crate::models::{Inspected, Inspection, inspect};
use crate::process::exit::Fatal;
use modelservice_contract::ModelReport;
use requests::Requests;
use std::path::Path;
use verdict::{Problem, Verdict};

/// Checks a package. Returns what to print, and the exit code: that of the first problem.
///
/// # Errors
/// `SystemError` if the result has no JSON form, which never happens.
pub(super) fn check(arguments: &CheckArguments, library: &Path) -> Result<(String, u8), Fatal> {
    let verdict = verdict(arguments, library);
    let code = verdict.problems.first().map_or(0, |problem| problem.exit_code);
    let text = match arguments.output {
        Output::Text => text::text(&verdict),
        Output::Json => serde_json::to_string_pretty(&verdict)
            .map(|text| text + "\n")
            .map_err(|error| Fatal::system("cannot print the result", &error))?,
    };
    Ok((text, code))
}

fn verdict(arguments: &CheckArguments, library: &Path) -> Verdict {
    let mut model = arguments.package.clone();
    model.digest.clone_from(&arguments.digest);
    let overrides = Overrides {
        models: vec![model.clone()],
        execution_provider: arguments.execution_provider.clone(),
    };
    let inspection = match config::load(None, None, overrides) {
        Ok(config) => inspect(&model, &config, library),
        Err(problem) => Inspection {
            problems: vec![problem],
            unchecked: vec!["the package"],
            model: None,
        },
    };
    let is_served = inspection.problems.is_empty();
    let (report, notes, requests) = match inspection.model {
        Some(inspected) => told(inspected, &model.path, is_served),
        None => (None, Vec::new(), None),
    };
    Verdict {
        name: model.name,
        is_served,
        problems: inspection.problems.into_iter().map(Problem::from).collect(),
        unchecked: inspection.unchecked,
        notes,
        model: report,
        requests,
    }
}

fn told(
    model: Inspected,
    folder: &str,
    is_served: bool,
) -> (Option<ModelReport>, Vec<String>, Option<Requests>) {
    let requests = is_served.then(|| Requests::new(&model, folder));
    (Some(model.report), model.notes, requests)
}
