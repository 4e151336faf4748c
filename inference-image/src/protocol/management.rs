//! The management port: health, metrics and reports. It has its own thread, so that it responds when the serving port
//! is saturated.

use super::error::{self, ApiError, Quoted};
use crate::models::Service;
use crate::models::history;
use crate::process::lifecycle::{Lifecycle, Phase};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use modelservice_contract::{
    LIVE_PATH, LOAD_HISTORY_SECONDS, LOAD_PATH, LoadReport, METRICS_PATH, READY_PATH, REPORT_PATH,
};
use serde::Deserialize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
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

/// The query of a request for the load.
#[derive(Deserialize)]
struct LoadQuery {
    /// Seconds of the history to include.
    history: Option<String>,
}

impl LoadQuery {
    fn history(&self) -> Result<Duration, ApiError> {
        let Some(text) = &self.history else {
            return Ok(Duration::ZERO);
        };
        let seconds = text.parse::<u64>().ok();
        let seconds = seconds.filter(|&seconds| seconds <= LOAD_HISTORY_SECONDS);
        seconds.map(Duration::from_secs).ok_or_else(|| {
            ApiError::bad_request(format!(
                "history is {}, but must be a whole number of seconds from 0 to {LOAD_HISTORY_SECONDS}",
                Quoted(text)
            ))
        })
    }
}

async fn load(
    State(management): State<Management>,
    query: Result<Query<LoadQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let service = management.service()?;
    let Query(query) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let report = LoadReport {
        start_time_seconds: service.start_time(),
        ready: management.lifecycle.phase() == Phase::Ready,
        in_flight: management.lifecycle.in_flight() as u64,
        connections: u64::try_from(service.connection_metrics().open.get()).unwrap_or(0),
        models: service.model_loads(query.history()?),
    };
    Ok(Json(report).into_response())
}

/// Records every second how busy the models were, and has idle ones free memory; never returns.
pub async fn record_load(management: Management) {
    let mut second = tokio::time::interval(history::PERIOD);
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
