//! Health: the operator's health and metrics over HTTP.

use super::metrics::Metrics;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What the endpoints report.
#[derive(Clone, Default)]
pub struct Health {
    /// Set once the API server was reached and this replica leads or waits for the lease.
    pub ready: Arc<AtomicBool>,
    /// Counters and durations.
    pub metrics: Arc<Metrics>,
}

/// `/healthz` (the process answers), `/readyz` (it works or waits for the lease), `/metrics` (OpenMetrics text).
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    if health.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server has not been reached yet, or the CRDs are missing; see the log",
        )
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, openmetrics)], health.metrics.text())
}
