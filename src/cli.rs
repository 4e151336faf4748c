//! The operator's command line.

use crate::{crd, operator, process::telemetry, self_test};
use clap::{Parser, Subcommand};
use std::{io::Write as _, process::ExitCode};

/// Serves CNN and other ONNX models on Kubernetes: reconciles ModelService resources into autoscaled Deployments.
/// Without a subcommand, it runs the operator. It uses the pod's service account or, outside a cluster, $KUBECONFIG.
/// To try it from a checkout:
///
///   kubectl apply --server-side -f crds/
///   modelservice-operator --runtime-image registry.example/modelservice-server:0.1.0
#[derive(Debug, Parser)]
#[command(name = "modelservice-operator", version, verbatim_doc_comment)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: operator::Settings,
    #[command(flatten)]
    telemetry: telemetry::Settings,
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

impl Arguments {
    /// Runs the subcommand.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let outcome = match self.command {
            Some(Command::Crds) => print_crds(),
            Some(Command::SelfTest(settings)) => block_on(async { self_test::run(settings).await }),
            Some(Command::Run) | None => block_on(async {
                let telemetry = telemetry::start(&self.telemetry)?;
                let outcome = operator::run(&self.settings).await;
                telemetry.flush().await;
                outcome
            }),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Logging may not have started.
                let _ = writeln!(std::io::stderr(), "modelservice-operator: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // One thread is enough, because an operator mostly waits. Several threads would pass work back and forth, and
    // each would have its own allocator arena.
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
