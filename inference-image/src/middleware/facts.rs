//! What is known about a request when it has been answered.

use crate::request_log::RequestLog;
use axum::http::{Method, StatusCode};
use std::time::Duration;

/// What is known about a request in the end.
pub(super) struct Facts<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) status: StatusCode,
    /// gRPC's own status, if it is in the head of the response.
    pub(super) grpc_status: Option<&'a str>,
    pub(super) request_bytes: Option<u64>,
    pub(super) response_bytes: Option<u64>,
    pub(super) duration: Duration,
    pub(super) log: &'a RequestLog,
}

impl Facts<'_> {
    /// Whether the server is at fault: 500, and INTERNAL or UNKNOWN over gRPC. Being full is not a fault.
    pub(super) fn is_failure(&self) -> bool {
        self.status == StatusCode::INTERNAL_SERVER_ERROR || matches!(self.grpc_status, Some("2" | "13"))
    }
}
