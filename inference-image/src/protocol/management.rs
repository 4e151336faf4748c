//! The management port: health, metrics and reports. It has its own thread, so that it responds when the serving port
//! is saturated.

use super::error::{self, ApiError};
use crate::models::Service;
use crate::models::duty_cycle;
use crate::process::lifecycle::{Lifecycle, Phase};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use modelservice_contract::{LIVE_PATH, LOAD_PATH, LoadReport, METRICS_PATH, READY_PATH, REPORT_PATH};
use std::sync::{Arc, OnceLock};
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

/// The media type of the OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the management port knows.
#[derive(Clone, Default)]
pub struct Management {
    /// The phase of the server.
    pub lifecycle: Lifecycle,
    /// Set once the models are loaded.
    pub service: Arc<OnceLock<Arc<Service>>>,
}

impl Management {
    fn service(&self) -> Result<&Service, ApiError> {
        let loading = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the models are being loaded");
        self.service.get().map(AsRef::as_ref).ok_or_else(loading)
    }
}

/// The management port: health, metrics and reports. It has its own thread, so that it responds when the serving port
/// is saturated.
pub fn router(management: Management) -> Router {
    Router::new()
        .route(LIVE_PATH, get(|| async { "ok\n" }))
        .route(READY_PATH, get(ready))
        .route(METRICS_PATH, get(metrics))
        .route(REPORT_PATH, get(report))
        .route(LOAD_PATH, get(load))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(management)
}

async fn ready(State(management): State<Management>) -> (StatusCode, &'static str) {
    match management.lifecycle.phase() {
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "the models are being loaded\n"),
        Phase::Ready => (StatusCode::OK, "ok\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down\n"),
    }
}

async fn metrics(State(management): State<Management>) -> Result<Response, ApiError> {
    let text = management
        .service()?
        .metrics()
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

async fn load(State(management): State<Management>) -> Result<Response, ApiError> {
    let service = management.service()?;
    let report = LoadReport {
        ready: management.lifecycle.phase() == Phase::Ready,
        in_flight: management.lifecycle.in_flight() as u64,
        connections: u64::try_from(service.connection_metrics().open.get()).unwrap_or(0),
        models: service.model_loads(),
    };
    Ok(Json(report).into_response())
}

/// Records every second how busy the models were, and has idle ones free memory; never returns.
pub async fn record_load(management: Management) {
    let mut second = tokio::time::interval(duty_cycle::PERIOD);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        if let Some(service) = management.service.get() {
            service.record_load();
            free_memory(service).await;
        }
    }
}

/// Probes are answered meanwhile: it takes long to free much.
async fn free_memory(service: &Arc<Service>) {
    let models = service.idle_holders();
    if !models.is_empty() {
        let service = Arc::clone(service);
        // If it fails, there is another second.
        let _ = spawn_blocking(move || service.free_memory(&models)).await;
    }
}

async fn report(State(management): State<Management>) -> Result<Response, ApiError> {
    Ok(Json(management.service()?.current_report()).into_response())
}
