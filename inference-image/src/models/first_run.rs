//! How a model's first run went, with inputs that were made up.

use crate::tensor::Tensor;

/// How it went.
#[derive(Debug)]
pub(super) enum FirstRun {
    /// The model accepts this row.
    Succeeded(Vec<Tensor>),
    /// It was not run, because no size of its inputs is more usual than another.
    AnySize,
    /// It does not accept what was made up.
    Refused(String),
    /// It failed in a way that is a problem of its own.
    Unknown,
}

impl FirstRun {
    /// What this means for the server, unless all is well.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::Succeeded(_) | Self::Unknown => None,
            Self::AnySize => {
                Some("the model is not warmed up, because it accepts inputs of any size".to_owned())
            }
            Self::Refused(problem) => Some(format!(
                "the model is neither warmed up nor batched: its first run, with made-up inputs, failed: {problem}"
            )),
        }
    }

    pub(super) fn log(&self, model: &str) {
        match self.note() {
            Some(note) if matches!(self, Self::Refused(_)) => tracing::warn!(model, "{note}"),
            Some(note) => tracing::info!(model, "{note}"),
            None => {}
        }
    }
}
