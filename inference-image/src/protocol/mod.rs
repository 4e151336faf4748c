//! HTTP: from a request to a job and from its outputs to an answer. Each protocol is a module; none knows
//! how a model is run.

mod body;
mod classify;
mod error;
mod management;
mod multipart;
mod oip;
mod request;

pub use error::ApiError;
pub use management::{Management, record_load, router as management_router};

use crate::lifecycle::{Lifecycle, Phase};
use crate::service::{Model, Service};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use body::Budget;
use std::sync::Arc;

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

    fn is_ready(&self) -> bool {
        self.lifecycle.phase() == Phase::Ready
    }
}

/// The inference protocols; tests call it without a socket.
pub fn router(service: Arc<Service>, lifecycle: Lifecycle) -> Router {
    let budget = Budget::new(service.limits().max_body_bytes);
    let api = Arc::new(Api {
        service,
        lifecycle: lifecycle.clone(),
        budget,
    });
    Router::new()
        .route("/v2", get(oip::server))
        .route("/v2/health/live", get(oip::live))
        .route("/v2/health/ready", get(oip::ready))
        .route("/v2/models/{model}", get(oip::model).post(classify::classify))
        .route("/v2/models/{model}/ready", get(oip::model_ready))
        .route("/v2/models/{model}/infer", post(oip::infer))
        .route("/v1/models/{model}", post(classify::classify))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(from_fn_with_state(lifecycle, accompany))
        .with_state(api)
}

/// Counts a request as under way, and asks clients to leave once the server is leaving.
async fn accompany(State(lifecycle): State<Lifecycle>, request: Request, next: Next) -> Response {
    let in_flight = lifecycle.request();
    let version = request.version();
    let mut response = next.run(request).await;
    // HTTP/2 has no such header; its clients are told by a GOAWAY frame.
    if lifecycle.phase() == Phase::Draining && version <= Version::HTTP_11 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    drop(in_flight);
    response
}
