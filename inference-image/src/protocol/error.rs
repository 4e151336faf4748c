//! The one form of an error: a status and `{"error": "what happened and what to do"}`.

use crate::engine::EngineError;
use crate::metrics::Outcome;
use crate::models::RunError;
use crate::scheduling::{JobError, Rejected};
use crate::tensor::{InputError, InputProblem};
use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::fmt;
use std::time::Duration;

/// `Retry-After` in milliseconds, for clients that support it.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Longest message, in bytes: gRPC sends it as a header, and it may quote text from the client.
const MAX_MESSAGE: usize = 1024;
/// Longest quotation of a client's text, in bytes.
const MAX_QUOTED: usize = 128;

/// A client's text in a message: in quotes, and shortened if it is long.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(MAX_QUOTED);
        let rest = if end < self.0.len() { "…" } else { "" };
        write!(formatter, "{:?}{rest}", &self.0[..end])
    }
}

/// A response that is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self {
            status,
            message,
            retry_after: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(super) fn expired() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, JobError::Expired.to_string())
    }

    /// The HTTP status.
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// What happened and what to do.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// When to try again.
    pub(super) fn retry(&self) -> Option<Duration> {
        // A client that returns at once returns too early.
        self.retry_after.map(|after| after.max(Duration::from_millis(1)))
    }

    pub(super) const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Logs the error.
    pub(super) fn log(&self) {
        if self.outcome() == Outcome::Failed {
            tracing::error!(status = self.status.as_u16(), "{}", self.message);
        } else {
            tracing::debug!(status = self.status.as_u16(), "{}", self.message);
        }
    }

    /// The outcome of a request that ends with this error.
    pub(super) fn outcome(&self) -> Outcome {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::Rejected,
            StatusCode::GATEWAY_TIMEOUT => Outcome::Expired,
            StatusCode::NOT_IMPLEMENTED => Outcome::Invalid,
            status if status.is_server_error() => Outcome::Failed,
            _ => Outcome::Invalid,
        }
    }
}

impl From<InputError> for ApiError {
    fn from(error: InputError) -> Self {
        let status = match error.problem {
            InputProblem::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            InputProblem::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            InputProblem::Malformed => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.message)
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Rejected(Rejected::Full { retry_after }) => {
                let message = "the queue is full: try again later, or run more replicas";
                Self::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(retry_after)
            }
            RunError::Rejected(Rejected::OutOfReach {
                predicted,
                retry_after,
            }) => {
                let message = format!(
                    "the deadline cannot be met: the response would take {} ms; allow more time or run more \
                     replicas",
                    predicted.as_millis()
                );
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(retry_after)
            }
            RunError::Rejected(Rejected::Closed) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is shutting down: try again",
            )
            .retry_after(Duration::from_secs(1)),
            RunError::Job(JobError::Input(error)) => error.into(),
            RunError::Job(error @ JobError::Expired) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, error.to_string())
            }
            RunError::Job(JobError::Engine(error @ EngineError::Refused(_))) => {
                Self::bad_request(error.to_string())
            }
            RunError::Job(JobError::Engine(error @ (EngineError::NoMemory(_) | EngineError::Lost(_)))) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            RunError::Job(error) => Self::internal(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        if let Some(after) = self.retry() {
            let milliseconds = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, milliseconds.div_ceil(1000).into());
            headers.insert(RETRY_AFTER_MS, milliseconds.into());
        }
        response
    }
}

pub(super) async fn no_such_path(request: Request) -> ApiError {
    let message = format!(
        "there is nothing at {}; docs/server.md lists the paths",
        request.uri().path()
    );
    ApiError::not_found(message)
}

pub(super) async fn method_not_allowed(request: Request) -> ApiError {
    let message = format!("{} is not allowed at {}", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of many megabytes must not be sent back, least of all in a header.
    #[test]
    fn a_message_and_what_it_quotes_are_cut_between_characters() {
        let long = "é".repeat(1 << 20);
        let error = ApiError::bad_request(long.as_str());
        assert_eq!(error.message(), format!("{}…", "é".repeat(512)));
        assert_eq!(Quoted(&long).to_string(), format!("\"{}\"…", "é".repeat(64)));
        assert_eq!(Quoted("a\"b").to_string(), r#""a\"b""#);
    }
}
