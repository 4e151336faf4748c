//! The result of a check, as programs get it.

use super::requests::Requests;
use crate::process::exit::Fatal;
use modelservice_contract::{ExitReason, ModelReport};
use serde::Serialize;

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    /// Name of the model in requests.
    pub(super) name: String,
    /// Whether a server would serve it.
    pub(super) is_served: bool,
    /// What is wrong. A server would end with the first.
    pub(super) problems: Vec<Problem>,
    /// What these problems have kept from being checked.
    pub(super) unchecked: Vec<&'static str>,
    /// What is no problem, but good to know.
    pub(super) notes: Vec<String>,
    /// What the server would report of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<ModelReport>,
    /// How it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<Requests>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    pub(super) reason: ExitReason,
    pub(super) exit_code: u8,
    pub(super) message: String,
}

impl From<Fatal> for Problem {
    fn from(Fatal { reason, message }: Fatal) -> Self {
        Self {
            reason,
            exit_code: reason.code(),
            message,
        }
    }
}
