//! Command line of the operator. Every flag of the chart is one of these.

use crate::{
    crd, operator,
    process::telemetry::{self, LogFormat},
    self_test,
};
use clap::{Args, Parser, Subcommand};
use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Serves CNN and other ONNX models on Kubernetes: reconciles ModelService resources into autoscaled Deployments.
///
/// Without a subcommand it runs the operator. It uses the pod's service account or, outside a cluster,
/// $KUBECONFIG. A first try from a checkout:
///
///   kubectl apply --server-side -f crds/
///   modelservice-operator --runtime-image registry.example/modelservice-server:0.1.0
#[derive(Debug, Parser)]
#[command(name = "modelservice-operator", version, verbatim_doc_comment)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator (the default)
    Run,
    /// Print both CRDs as YAML, for `kubectl apply --server-side -f -`
    Crds,
    /// Apply a tiny ModelService, wait until it is Ready, send one request, delete it
    SelfTest(self_test::Settings),
}

/// How the operator runs.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Image of the inference server where an AcceleratorClass names none
    #[arg(long, env = "RUNTIME_IMAGE", default_value = concat!("modelservice-server:", env!("CARGO_PKG_VERSION")))]
    pub runtime_image: String,
    /// Watch only these namespaces, separated by commas; all when absent
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Let only one of several replicas work, by a Lease
    #[arg(long)]
    pub leader_elect: bool,
    /// Name of the Lease
    #[arg(long, default_value = "modelservice-operator")]
    pub lease_name: String,
    /// Namespace of the Lease, and of the dry run at start
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// How long a replica that is not heard of keeps the Lease; at least 3s
    #[arg(long, default_value = "15s", value_parser = lease_duration)]
    pub lease_duration: Duration,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// File with the YAML list of AcceleratorClasses that are made at start where absent; without it, `cpu`
    #[arg(long, value_name = "FILE")]
    pub accelerator_classes: Option<PathBuf>,
    /// error, warn, info, debug or trace, or a filter such as info,kube=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Send traces to this OTLP gRPC endpoint, for example http://collector.monitoring:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

impl Arguments {
    /// Does what the command line says.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let outcome = match self.command {
            Some(Command::Crds) => print_crds(),
            Some(Command::SelfTest(settings)) => block_on(async { self_test::run(settings).await }),
            Some(Command::Run) | None => block_on(async {
                let telemetry = telemetry::start(&self.settings)?;
                let outcome = operator::run(&self.settings).await;
                telemetry.flush().await;
                outcome
            }),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Also where logging never started.
                let _ = writeln!(std::io::stderr(), "modelservice-operator: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // One thread is enough: an operator waits. More would hand work to and fro, and keep an allocator's arena each.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn print_crds() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for definition in crd::definitions() {
        write!(out, "---\n{}", serde_saphyr::to_string(&definition)?)?;
    }
    Ok(())
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(3) {
        Err("at least 3s".to_owned())
    } else {
        Ok(duration)
    }
}

/// Parses `15s`, `2m` or `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a duration such as 15s or 2m".to_owned())?;
    Duration::try_from(span).map_err(|_| "must not be negative".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
        assert!(lease_duration("1s").is_err());
    }
}
