//! HTTP and gRPC: from a request to a job, and from its outputs to a response. Each protocol is a module and none
//! knows how a model is run. What the protocols share about an inference is in `inference`.

mod body;
mod docs;
mod error;
pub mod fuzz;
mod grpc;
mod images;
mod inference;
mod json;
mod kserve_v1;
mod management;
mod oip;
mod routing;

pub(crate) use body::{DISCARD_TIME, ZeroCopyBody, ZeroCopySource, discard};
pub(crate) use docs::is_page_file;
pub use error::ApiError;
pub use grpc::proto;
pub use management::{Management, record_load, router as management_router};
pub use routing::Protocols;

use crate::models::{Model, Service};
use crate::process::lifecycle::{Lifecycle, Phase};
use axum::Router;
use body::Budget;
use error::Quoted;
use oip::ResponseTemplate;
use routing::{Routes, verbs};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The server's name in the protocols.
const NAME: &str = "modelservice-server";
/// Supported extensions of the Open Inference Protocol, by Triton's names.
const EXTENSIONS: [&str; 5] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
];
/// The engine, in the terms of the protocol.
const PLATFORM: &str = "onnx_onnxv1";
/// A model has one version: another version is another ModelService.
const MODEL_VERSION: &str = "1";

/// What the handlers share.
pub(crate) struct Api {
    service: Arc<Service>,
    templates: BTreeMap<String, ResponseTemplate>,
    lifecycle: Lifecycle,
    budget: Budget,
}

/// The model that a request names.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a str,
    model: &'a Model,
    template: &'a ResponseTemplate,
}

impl Api {
    fn new(service: Arc<Service>, lifecycle: Lifecycle) -> Self {
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
    fn named(&self, name: &str, version: &str) -> Result<Named<'_>, ApiError> {
        let (Some(model), Some((name, template))) =
            (self.service.model(name), self.templates.get_key_value(name))
        else {
            let known: Vec<&str> = self.service.names().collect();
            return Err(ApiError::not_found(format!(
                "there is no model {}, this server has: {}",
                Quoted(name),
                known.join(", ")
            )));
        };
        if !version.is_empty() && version != MODEL_VERSION {
            return Err(ApiError::not_found(format!(
                "model {name:?} has no version {}, it has: {MODEL_VERSION}",
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
    fn wanted(&self, name: &str, version: &str) -> Result<Named<'_>, ApiError> {
        let named = self.named(name, version);
        named.inspect_err(|error| self.service.unassigned().count(error.outcome()))
    }

    fn is_ready(&self) -> bool {
        self.lifecycle.phase() == Phase::Ready
    }
}

/// The inference protocols.
pub fn protocols(service: Arc<Service>, lifecycle: Lifecycle) -> Protocols {
    let grpc = grpc::router(&lifecycle);
    let api = Arc::new(Api::new(service, lifecycle));
    let router = routes()
        .into_router()
        .merge(grpc)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(Arc::clone(&api));
    Protocols::new(api, router)
}

/// The same as a router; tests call it without a socket.
pub fn router(service: Arc<Service>, lifecycle: Lifecycle) -> Router {
    protocols(service, lifecycle).into_router()
}

/// All routes over HTTP except those of gRPC; each is described in `docs/openapi/openapi.yaml`.
fn routes() -> Routes {
    let routes = Routes::default()
        .get("/openapi.json", docs::openapi)
        .get("/v1/models", oip::models)
        .get("/v1/models/{model}", oip::model_ready)
        .post("/v1/models/{model}", verbs::post)
        .get("/v2/models/{model}", oip::model)
        .post("/v2/models/{model}", verbs::post);
    docs::add(oip::add(routes))
}
