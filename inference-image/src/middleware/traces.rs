//! OpenTelemetry: a span for each request, with child spans for where its time went. They are built when the request
//! has been answered, from times that are measured anyway, so that a request without a trace costs nothing.

use super::facts::Facts;
use crate::scheduling::Timing;
use modelservice_contract::Tracing;
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt, TraceId, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::time::{Duration, SystemTime};

/// The service name in traces.
const SERVICE: &str = "modelservice-server";
/// How long sending the last spans may take at shutdown.
const LAST: Duration = Duration::from_secs(2);

/// Sends spans to a collector; clones share it.
#[derive(Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Call this on tokio's runtime: spans are sent through it.
    ///
    /// # Errors
    /// When the endpoint is not a URL.
    pub fn start(config: &Tracing) -> Result<Self, String> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&config.endpoint)
            .build()
            .map_err(|error| format!("endpoint {:?}: {error}", config.endpoint))?;
        let begun_here = Sampler::TraceIdRatioBased(config.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(begun_here)))
            .with_resource(Resource::builder().with_service_name(SERVICE).build())
            .build();
        let tracer = provider.tracer(SERVICE);
        Ok(Self { provider, tracer })
    }

    /// Sends the remaining spans and stops; blocks.
    pub fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST) {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }

    /// Records a request that has been answered; returns its trace ID, whether it is sampled or not.
    pub(super) fn record(&self, facts: &Facts<'_>, parent: &Context, began: SystemTime) -> TraceId {
        let log = facts.log;
        // Clients can request any path; only the paths of models are few.
        let name = match &log.model {
            Some(_) => format!("{} {}", facts.method, facts.path),
            None => facts.method.to_string(),
        };
        let builder = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_start_time(began);
        let mut span = self.tracer.build_with_context(builder, parent);
        let id = span.span_context().trace_id();
        if !span.is_recording() {
            return id;
        }
        span.set_attributes(attributes(facts));
        if facts.is_failure() {
            span.set_status(Status::error(""));
        }
        let end = began + facts.duration;
        if let Some(timing) = &log.timing {
            let within = Context::new().with_remote_span_context(span.span_context().clone());
            self.record_parts(timing, &within, end);
        }
        span.end_with_timestamp(end);
        id
    }

    /// One after the other, up to the end of the request: building the response takes next to no time.
    fn record_parts(&self, timing: &Timing, within: &Context, end: SystemTime) {
        let parts = [
            ("queue", timing.queue),
            ("preprocessing", timing.prepare),
            ("inference", timing.inference),
        ];
        let mut at = end - parts.iter().map(|(_, time)| *time).sum::<Duration>();
        for (name, time) in parts {
            let builder = self.tracer.span_builder(name).with_start_time(at);
            at += time;
            self.tracer
                .build_with_context(builder, within)
                .end_with_timestamp(at);
        }
    }
}

/// OpenTelemetry's names where it has some (semantic conventions for HTTP spans).
fn attributes(facts: &Facts<'_>) -> Vec<KeyValue> {
    let log = facts.log;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let always = [
        KeyValue::new("http.request.method", facts.method.to_string()),
        KeyValue::new("url.path", facts.path.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(facts.status.as_u16())),
    ];
    let sometimes = [
        facts
            .grpc_status
            .map(|status| KeyValue::new("rpc.response.status_code", status.to_owned())),
        facts
            .request_bytes
            .map(|bytes| KeyValue::new("http.request.body.size", number(bytes))),
        facts
            .response_bytes
            .map(|bytes| KeyValue::new("http.response.body.size", number(bytes))),
        log.model
            .as_ref()
            .map(|model| KeyValue::new("modelservice.model", model.to_string())),
        log.outcome
            .map(|outcome| KeyValue::new("modelservice.outcome", outcome.name())),
    ];
    always
        .into_iter()
        .chain(sometimes.into_iter().flatten())
        .collect()
}
