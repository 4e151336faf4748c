//! An error response that is sent before any protocol has seen the request, in the form that the client expects.

use crate::protocol::is_grpc;
use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

/// gRPC's status codes for the refusals here.
const INTERNAL: &str = "13";
const UNAUTHENTICATED: &str = "16";

/// The form of errors that a client expects.
#[derive(Clone, Copy)]
pub(super) struct Form {
    grpc: bool,
}

/// An error and its form.
pub(super) struct Refusal {
    form: Form,
    status: StatusCode,
    message: &'static str,
}

impl Refusal {
    /// The form that the client of a request with these headers expects.
    pub(super) fn prepare(headers: &HeaderMap) -> Form {
        Form {
            grpc: is_grpc(headers),
        }
    }

    pub(super) fn new(status: StatusCode, message: &'static str, headers: &HeaderMap) -> Self {
        Self::prepare(headers).with(status, message)
    }
}

impl Form {
    pub(super) const fn with(self, status: StatusCode, message: &'static str) -> Refusal {
        Refusal {
            form: self,
            status,
            message,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let mut response = if self.form.grpc {
            // Trailers-Only: the status is in the headers of a response without a body.
            let status = if unauthorized { UNAUTHENTICATED } else { INTERNAL };
            let headers = [
                ("content-type", "application/grpc"),
                ("grpc-status", status),
                ("grpc-message", self.message),
            ];
            (headers, Body::empty()).into_response()
        } else {
            (self.status, Json(json!({"error": self.message}))).into_response()
        };
        if unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
