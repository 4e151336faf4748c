//! The access log: a line for a sample of the requests and for those that fail. It contains no query, header or body,
//! which may hold secrets.

use super::facts::Facts;
use crate::metrics::Outcome;
use modelservice_contract::AccessLog as Config;
use opentelemetry::trace::TraceId;
use std::time::Duration;

/// Which requests are logged.
#[derive(Clone, Copy, Debug)]
pub struct AccessLog {
    sample_ratio: f64,
    failures: bool,
}

impl AccessLog {
    /// The access log as configured; `None` if no request is logged.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let Config {
            sample_ratio,
            failures,
        } = *config;
        (sample_ratio > 0.0 || failures).then_some(Self {
            sample_ratio,
            failures,
        })
    }

    /// Whether this request is sampled, so that it is logged whatever its outcome.
    pub(super) fn samples(&self) -> bool {
        self.sample_ratio > 0.0 && fastrand::f64() < self.sample_ratio
    }

    pub(super) fn write(&self, facts: &Facts<'_>, sampled: bool, trace: Option<TraceId>) {
        if !(sampled || self.failures && facts.is_failure()) {
            return;
        }
        let timing = facts.log.timing;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        tracing::info!(
            target: "modelservice_server::access",
            method = facts.method.as_str(),
            path = facts.path,
            status = facts.status.as_u16(),
            grpc_status = facts.grpc_status,
            model = facts.log.model.as_deref(),
            outcome = facts.log.outcome.map(Outcome::name),
            request_bytes = facts.request_bytes,
            response_bytes = facts.response_bytes,
            duration_ms = milliseconds(facts.duration),
            queue_ms = timing.map(|timing| milliseconds(timing.queue)),
            preprocessing_ms = timing.map(|timing| milliseconds(timing.prepare)),
            inference_ms = timing.map(|timing| milliseconds(timing.inference)),
            trace_id = trace.map(tracing::field::display),
            "request"
        );
    }
}
