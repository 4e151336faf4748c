//! What all requests for a model have in common: the outcome is counted, and the times are reported.

use crate::metrics::{ModelMetrics, Outcome, Success, Unassigned};
use crate::protocol::error::ApiError;
use crate::request_log::record;
use crate::scheduling::Timing;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

/// The model in the path: its name, with what follows up to the next slash, and its version if there is one.
pub(crate) struct Target(RawPathParams);

impl Target {
    /// The name.
    pub(crate) fn model(&self) -> &str {
        self.part("model")
    }

    /// The version; empty if the path has none.
    pub(crate) fn version(&self) -> &str {
        self.part("version")
    }

    fn part(&self, wanted: &str) -> &str {
        let part = self.0.iter().find(|(key, _)| *key == wanted);
        part.map(|(_, part)| part).unwrap_or_default()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = RawPathParams::from_request_parts(parts, state).await;
        path.map(Self)
            .map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// The value of a header that must have a single value.
///
/// # Errors
/// 400 if there are several, since they may contradict each other.
pub(crate) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ApiError::bad_request(format!("{name} is given twice"))),
    }
}

/// When the client stops waiting: `X-Request-Timeout`, in milliseconds from the arrival of the request.
///
/// # Errors
/// 400 if it is not such a number.
pub(crate) fn deadline(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>, ApiError> {
    let Some(value) = only(headers, &REQUEST_TIMEOUT)? else {
        return Ok(None);
    };
    let milliseconds = value.to_str().ok().and_then(|text| text.parse::<f64>().ok());
    let milliseconds = milliseconds.filter(|number| number.is_finite() && *number > 0.0);
    let refused = || {
        ApiError::bad_request(format!(
            "{REQUEST_TIMEOUT} is {value:?}, but must be a decimal number of milliseconds above 0"
        ))
    };
    let timeout = Duration::try_from_secs_f64(milliseconds.ok_or_else(refused)? / 1000.0);
    // A deadline beyond the range of `Instant` means no deadline.
    Ok(timeout.ok().and_then(|timeout| arrived.checked_add(timeout)))
}

/// A response, and where the time went.
pub(crate) struct Answered<T> {
    pub(crate) value: T,
    pub(crate) timing: Timing,
}

impl<T> Answered<T> {
    /// A response that has been in the making since `started`.
    pub(crate) fn new(value: T, mut timing: Timing, started: Instant) -> Self {
        timing.output += started.elapsed();
        Self { value, timing }
    }
}

/// Responds with the result of `work`, and counts it.
pub(crate) async fn measured(
    metrics: &ModelMetrics,
    work: impl Future<Output = Result<Answered<Response>, ApiError>>,
) -> Response {
    let result = counted(metrics, work).await;
    let response = result.unwrap_or_else(IntoResponse::into_response);
    metrics
        .response_bytes
        .inc_by(response.body().size_hint().exact().unwrap_or(0));
    response
}

/// Returns the result of `work`, counts the outcome, and counts the request as in flight until then.
pub(crate) async fn counted<T>(
    metrics: &ModelMetrics,
    work: impl Future<Output = Result<Answered<T>, ApiError>>,
) -> Result<T, ApiError> {
    let mut counted = Counted {
        metrics,
        outcome: Outcome::Cancelled,
        timing: Timing::default(),
        started: Instant::now(),
    };
    metrics.concurrency.arrived(counted.started);
    let result = work.await;
    (counted.outcome, counted.timing) = match &result {
        Ok(answered) => (Outcome::Ok, answered.timing),
        Err(error) => (error.outcome(), Timing::default()),
    };
    record(|log| {
        log.model = Some(Arc::clone(&metrics.name));
        log.outcome = Some(counted.outcome);
    });
    result.map(|answered| answered.value)
}

/// Dropped early, before there is an outcome, if the client disconnects or the work panics.
struct Counted<'a> {
    metrics: &'a ModelMetrics,
    outcome: Outcome,
    timing: Timing,
    started: Instant,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outcome = Outcome::Failed;
        }
        let (statistics, now) = (&self.metrics.statistics, Instant::now());
        let total = now.saturating_duration_since(self.started);
        match self.outcome {
            Outcome::Ok => statistics.succeeded(&Success {
                total,
                queue: self.timing.queue,
                input: self.timing.prepare,
                infer: self.timing.inference,
                output: self.timing.output,
                rows: self.timing.rows,
            }),
            Outcome::Cancelled => {}
            _ => statistics.failed(total),
        }
        self.metrics.concurrency.left(now);
        self.metrics.count(self.outcome);
    }
}

/// Returns the result of `reading`, for a request whose model is not known yet; a failure is counted.
pub(crate) async fn unassigned<T>(
    metrics: &Unassigned,
    reading: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let mut counted = Lost {
        metrics,
        outcome: Some(Outcome::Cancelled),
    };
    let result = reading.await;
    counted.outcome = result.as_ref().err().map(ApiError::outcome);
    result
}

/// Dropped early if the client disconnects.
struct Lost<'a> {
    metrics: &'a Unassigned,
    outcome: Option<Outcome>,
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.metrics.count(outcome);
        }
    }
}

/// The `Server-Timing` header (W3C Server Timing), in milliseconds.
pub(crate) fn server_timing(timing: Timing) -> (HeaderName, HeaderValue) {
    let parts = [
        ("queue", timing.queue),
        ("preprocessing", timing.prepare),
        ("inference", timing.inference),
    ];
    let mut value = String::with_capacity(80);
    for (name, time) in parts {
        let separator = if value.is_empty() { "" } else { ", " };
        let (whole, rest) = (time.as_millis(), time.subsec_micros() % 1000);
        // Writing to memory does not fail.
        let _ = write!(value, "{separator}{name};dur={whole}.{rest:03}");
    }
    let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""));
    (HeaderName::from_static("server-timing"), value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Metrics;
    use futures::future::FutureExt;
    use std::panic::AssertUnwindSafe;

    /// If a bug looked like disconnecting clients, nobody would notice.
    #[tokio::test]
    async fn a_panic_is_counted_as_a_failure_and_a_client_who_leaves_is_not() {
        let metrics = Metrics::new("", "", "");
        let model = metrics.model("m");
        let count = |outcome: &str| {
            let line = format!("modelservice_requests_total{{model=\"m\",outcome=\"{outcome}\"}} 1");
            metrics.encode().unwrap().contains(&line)
        };
        let work = async { panic!("a bug") };
        let result = AssertUnwindSafe(counted::<()>(&model, work)).catch_unwind().await;
        assert!(result.is_err());
        assert!(count("failed") && !count("cancelled"));
        assert!(
            counted::<()>(&model, std::future::pending())
                .now_or_never()
                .is_none()
        );
        assert!(count("failed") && count("cancelled"));
    }
}
