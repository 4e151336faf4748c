//! What every request for a model has in common: its outcome is counted, its time is told.

use super::ApiError;
use crate::metrics::{ModelMetrics, Outcome};
use crate::scheduling::Timing;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use std::time::Duration;

/// The model's name in the path, and what follows it up to the next slash.
pub(super) struct Target(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(target)| Self(target))
            .map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// Answers with what `work` gives, and counts it.
pub(super) async fn measured(
    metrics: &ModelMetrics,
    work: impl Future<Output = Result<Response, ApiError>>,
) -> Response {
    let result = counted(metrics, work).await;
    let response = result.unwrap_or_else(IntoResponse::into_response);
    metrics
        .response_bytes
        .inc_by(response.body().size_hint().exact().unwrap_or(0));
    response
}

/// Gives what `work` gives, counts how it ended, and that it is under way until then.
pub(super) async fn counted<T>(
    metrics: &ModelMetrics,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let mut counted = Counted {
        metrics,
        outcome: Outcome::Cancelled,
    };
    metrics.in_flight.inc();
    let result = work.await;
    counted.outcome = result.as_ref().map_or_else(ApiError::outcome, |_| Outcome::Ok);
    result
}

/// Dropped early, before there is an outcome, when the client leaves.
struct Counted<'a> {
    metrics: &'a ModelMetrics,
    outcome: Outcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.count(self.outcome);
    }
}

/// The `Server-Timing` header (W3C Server Timing), in milliseconds.
pub(super) fn server_timing(timing: Timing) -> (HeaderName, HeaderValue) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let value = format!(
        "queue;dur={:.3}, preprocessing;dur={:.3}, inference;dur={:.3}",
        milliseconds(timing.queue),
        milliseconds(timing.prepare),
        milliseconds(timing.inference)
    );
    let value = HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(""));
    (HeaderName::from_static("server-timing"), value)
}
