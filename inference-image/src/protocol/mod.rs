//! HTTP and gRPC: from a request to a job and from its outputs to an answer. Each protocol is a module; none
//! knows how a model is run, and what they share of an inference is `infer`.

mod body;
mod classify;
mod elements;
mod error;
mod frames;
mod grpc;
mod infer;
mod management;
mod multipart;
mod oip;
mod request;

pub use error::ApiError;
pub use grpc::proto;
pub use management::{Management, record_load, router as management_router};

use crate::lifecycle::{Lifecycle, Phase};
use crate::service::{Model, Service};
use axum::Router;
use axum::routing::{get, post};
use body::Budget;
use std::sync::Arc;
use std::time::Duration;

/// The server's name in the protocols.
const NAME: &str = "modelservice-server";
/// Extensions of the Open Inference Protocol that are understood, by Triton's names.
const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];
/// What the engine is, in the protocol's words.
const PLATFORM: &str = "onnx_onnxv1";
/// A model has one version: another is another ModelService.
const MODEL_VERSION: &str = "1";

/// What the handlers share.
pub(crate) struct Api {
    service: Arc<Service>,
    lifecycle: Lifecycle,
    budget: Budget,
}

impl Api {
    fn model(&self, name: &str) -> Result<&Model, ApiError> {
        self.service.model(name).ok_or_else(|| {
            let known: Vec<&str> = self.service.names().collect();
            ApiError::not_found(format!(
                "there is no model {name:?}, this server has: {}",
                known.join(", ")
            ))
        })
    }

    /// The model of that name and version; without a version the only one.
    fn version(&self, name: &str, version: &str) -> Result<&Model, ApiError> {
        let model = self.model(name)?;
        if version.is_empty() || version == MODEL_VERSION {
            return Ok(model);
        }
        Err(ApiError::not_found(format!(
            "model {name:?} has no version {version:?}, it has: {MODEL_VERSION}"
        )))
    }

    fn is_ready(&self) -> bool {
        self.lifecycle.phase() == Phase::Ready
    }
}

/// The inference protocols; tests call it without a socket.
pub fn router(service: Arc<Service>, lifecycle: Lifecycle) -> Router {
    let limits = service.limits();
    let body_time = Duration::from_secs(limits.body_seconds.into());
    let budget = Budget::new(limits.max_body_bytes).in_at_most(body_time);
    let api = Arc::new(Api {
        service,
        lifecycle,
        budget,
    });
    Router::new()
        .route("/v2", get(oip::server))
        .route("/v2/health/live", get(oip::live))
        .route("/v2/health/ready", get(oip::ready))
        .route("/v2/models/{model}", get(oip::model).post(classify::classify))
        .route("/v2/models/{model}/ready", get(oip::model_ready))
        .route("/v2/models/{model}/infer", post(oip::infer_tensors))
        .route("/v1/models/{model}", post(classify::classify))
        .merge(grpc::router())
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(api)
}
