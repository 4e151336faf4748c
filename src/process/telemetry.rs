//! Logs, and traces where an endpoint is configured.

use crate::cli::Settings;
use anyhow::Context as _;
use clap::ValueEnum;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, with the object that is reconciled in `span`
    Json,
    /// For a person
    Text,
}

/// Keeps traces going until it is flushed.
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Sends what was not sent yet.
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        // Waits for its own thread, which sends through this runtime.
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
            Err(error) => tracing::warn!(%error, "the last traces were not sent"),
        }
    }
}

/// Starts logging and tracing, once per process.
///
/// # Errors
/// When the log level cannot be read or the endpoint is no URL.
pub fn start(settings: &Settings) -> anyhow::Result<Telemetry> {
    let level = || {
        EnvFilter::try_new(&settings.log_level).with_context(|| {
            format!(
                "--log-level {:?}: write error, warn, info, debug or trace",
                settings.log_level
            )
        })
    };
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(true);
    let logs = match settings.log_format {
        LogFormat::Json => logs.json().with_span_list(false).boxed(),
        LogFormat::Text => logs.boxed(),
    };
    let provider = settings.otlp_endpoint.as_deref().map(provider).transpose()?;
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("modelservice-operator")));
    tracing_subscriber::registry()
        .with(logs.with_filter(level()?))
        .with(traces.with_filter(level()?))
        .try_init()
        .context("logging was started before")?;
    Ok(Telemetry(provider))
}

fn provider(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| {
            format!("--otlp-endpoint {endpoint:?}: write a URL such as http://collector.monitoring:4317")
        })?;
    let resource = Resource::builder()
        .with_service_name("modelservice-operator")
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}
