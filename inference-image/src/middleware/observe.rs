//! Observes requests for the access log and traces.

use super::access_log::AccessLog;
use super::facts::Facts;
use super::traces::Traces;
use crate::request_log::RequestLog;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, Uri, header};
use hyper::body::Body as _;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::time::{Instant, SystemTime};

/// What requests are observed for.
#[derive(Default)]
pub struct Observer {
    /// Lines for some requests.
    pub access_log: Option<AccessLog>,
    /// Spans for some requests.
    pub traces: Option<Traces>,
}

/// A request, from its head to its response.
pub(super) struct Observed {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) started: Instant,
    /// Set if the request is recorded even if it succeeds.
    sampled: Option<Box<Sampled>>,
}

/// What is remembered only for requests that are logged or traced.
struct Sampled {
    logged: bool,
    began: SystemTime,
    parent: Context,
    request_bytes: Option<u64>,
}

impl Observer {
    /// Looks at a request before it is served.
    pub(super) fn begin<B>(&self, request: &Request<B>) -> Option<Observed> {
        if self.access_log.is_none() && self.traces.is_none() {
            return None;
        }
        let logged = self.access_log.as_ref().is_some_and(AccessLog::samples);
        let sampled = (logged || self.traces.is_some()).then(|| {
            let headers = request.headers();
            let length = headers.get(header::CONTENT_LENGTH);
            Box::new(Sampled {
                logged,
                began: SystemTime::now(),
                parent: TraceContextPropagator::new()
                    .extract_with_context(&Context::new(), &Headers(headers)),
                request_bytes: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            })
        });
        Some(Observed {
            method: request.method().clone(),
            uri: request.uri().clone(),
            started: Instant::now(),
            sampled,
        })
    }

    /// Logs and traces a request that has been answered.
    pub(super) fn end(&self, observed: &Observed, response: &Response<Body>, log: &RequestLog) {
        let sampled = observed.sampled.as_deref();
        let facts = Facts {
            method: &observed.method,
            path: observed.uri.path(),
            status: response.status(),
            grpc_status: response
                .headers()
                .get("grpc-status")
                .and_then(|value| value.to_str().ok()),
            request_bytes: sampled.and_then(|sampled| sampled.request_bytes),
            response_bytes: response.body().size_hint().exact(),
            duration: observed.started.elapsed(),
            log,
        };
        let mut trace = sampled.map(|sampled| sampled.parent.span().span_context().trace_id());
        if let (Some(traces), Some(sampled)) = (&self.traces, sampled) {
            trace = Some(traces.record(&facts, &sampled.parent, sampled.began));
        }
        if let Some(log) = &self.access_log {
            let trace = trace.filter(|id| *id != TraceId::INVALID);
            log.write(&facts, sampled.is_some_and(|sampled| sampled.logged), trace);
        }
    }
}

impl Observed {
    /// Whether a request log is wanted.
    pub(super) const fn is_sampled(&self) -> bool {
        self.sampled.is_some()
    }
}

/// Headers as OpenTelemetry reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(header::HeaderName::as_str).collect()
    }
}
