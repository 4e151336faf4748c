//! What the handlers of all protocols share.

use super::body::Budget;
use super::error::{ApiError, Quoted};
use super::names::MODEL_VERSION;
use super::oip::template::ResponseTemplate;
use crate::models::{Model, Service};
use crate::process::lifecycle::{Lifecycle, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the handlers share.
pub(crate) struct Api {
    pub(super) service: Arc<Service>,
    templates: BTreeMap<String, ResponseTemplate>,
    pub(super) lifecycle: Lifecycle,
    pub(super) budget: Budget,
}

/// The model that a request names.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) model: &'a Model,
    pub(super) template: &'a ResponseTemplate,
}

impl Api {
    pub(super) fn new(service: Arc<Service>, lifecycle: Lifecycle) -> Self {
        let model = |name| Some((name, service.model(name)?.signature()));
        let models = service.names().filter_map(model);
        let limits = service.limits();
        let body_time = Duration::from_secs(limits.body_seconds.into());
        Self {
            templates: models
                .map(|(name, signature)| (name.to_owned(), ResponseTemplate::new(name, signature)))
                .collect(),
            budget: Budget::new(limits.max_body_bytes).in_at_most(body_time),
            service,
            lifecycle,
        }
    }

    /// The model of this name and version; the version may be empty.
    pub(super) fn named(&self, name: &str, version: &str) -> Result<Named<'_>, ApiError> {
        let (Some(model), Some((name, template))) =
            (self.service.model(name), self.templates.get_key_value(name))
        else {
            let known: Vec<&str> = self.service.names().collect();
            // The first words are Triton's: its clients look for them.
            return Err(ApiError::not_found(format!(
                "Request for unknown model: {} is not served here, only: {}",
                Quoted(name),
                known.join(", ")
            )));
        };
        if !version.is_empty() && version != MODEL_VERSION {
            return Err(ApiError::not_found(format!(
                "model {name:?} has no version {}, only: {MODEL_VERSION}",
                Quoted(version)
            )));
        }
        Ok(Named {
            name,
            model,
            template,
        })
    }

    /// The model to run; counts the request if there is no such model.
    pub(super) fn wanted(&self, name: &str, version: &str) -> Result<Named<'_>, ApiError> {
        let named = self.named(name, version);
        named.inspect_err(|error| self.service.unassigned().count(error.outcome()))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.lifecycle.phase() == Phase::Ready
    }
}
