//! Telemetry: logs, and traces if an endpoint is configured.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use modelservice_contract::names_levels;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line, which names the reconciled object in `span`
    Json,
    /// Human-readable text
    Text,
}

/// What is logged, and where traces go.
#[derive(Clone, Debug, Args)]
#[group(id = "telemetry")]
pub struct Settings {
    /// error, warn, info, debug or trace, or a filter such as info,kube=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = log_level)]
    pub log_level: String,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Send traces to this OTLP gRPC endpoint, for example http://collector.monitoring:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// Traces that have not been sent yet.
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Sends them.
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        // It blocks until its own thread has sent them, through this runtime.
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
/// When the log level cannot be parsed or the endpoint is not a URL.
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

/// A word that is not a level would be taken for the name of a module, and everything else would be silent.
fn log_level(text: &str) -> Result<String, String> {
    if names_levels(text) && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("write error, warn, info, debug or trace, or a filter such as info,kube=debug".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If `loud` were accepted and nothing logged, problems would be hidden.
    #[test]
    fn a_log_level_is_a_level_or_names_one() {
        for right in [
            "info",
            "WARN",
            "off",
            "info,modelservice_operator=debug",
            "warn,kube[request{verb=GET}]=trace",
        ] {
            assert_eq!(log_level(right), Ok(right.to_owned()));
        }
        for wrong in ["loud", "", "info,", "info,kube", "kube=loud", "in fo"] {
            assert!(log_level(wrong).is_err(), "{wrong:?}");
        }
    }
}
