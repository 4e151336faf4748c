//! The inference server's speed and memory against ONNX Runtime called in-process: see docs/benchmarks.md.

mod bench;
mod echo;
mod encode;
mod generator;
mod peers;
mod process;
mod provider;
mod raw;
mod rawside;
mod rows;
mod server;
mod spec;
mod table;
mod usage;

use anyhow::{Context, Result, ensure};
use bench::Bench;
use clap::{Parser, Subcommand};
use modelservice_contract::ExecutionProvider;
use provider::{Device, Flavour};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use table::Table;

/// Measures modelservice-server's release build against ONNX Runtime called in-process, in interleaved rounds.
///
/// Every row is the median of its rounds. A row under load is the served rate as a share of the raw one, where raw is
/// reduced by the generator's share of the CPU: served ÷ (raw × (1 − generator CPU seconds ÷ (wall × cores))). Prints
/// a table and writes target/bench/server.json. Run it with `make bench-server`, which creates the models and builds
/// the programs; nothing else should run on the machine.
#[derive(Parser)]
#[command(
    name = "bench-server",
    bin_name = "scripts/bench-server",
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    /// Number of rounds; the value of a row is their median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only rows whose name contains this, ignoring case: `--only gRPC`, `--only memory`.
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Two short rounds, to check that everything works; the numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Seconds for which each load is measured.
    #[arg(long, default_value_t = 3.0)]
    window: f64,
    /// Also measure other servers, in the same rounds; installs them from PyPI below .cache/peers.
    #[arg(long)]
    peers: bool,
    /// Measure another build of the server.
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Measure a device instead of the rows of the CPU, with this flavour of ONNX Runtime. The rows are EfficientNet-Lite0
    /// and a ResNet-50 at 1, 8 and 64 connections, against ONNX Runtime in-process with the same execution provider at
    /// its best batch size. The result goes to target/bench/server-PROVIDER.json.
    #[arg(long, value_enum, default_value_t = Flavour::Cpu)]
    provider: Flavour,
    /// The server's setting `executionProvider` in place of the flavour's own, as JSON: another device of OpenVINO
    /// (`{"name": "OpenVINOExecutionProvider", "options": {"device_type": "GPU"}}`), TensorRT, a plug-in library.
    #[arg(long, value_name = "JSON", value_parser = provider::parse)]
    execution_provider: Option<ExecutionProvider>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The helper processes, which a run starts itself.
#[derive(Subcommand)]
enum Part {
    /// Sessions of ONNX Runtime; reads commands from standard input.
    #[command(hide = true)]
    Raw { spec: String },
    /// The load generator; reads commands from standard input.
    #[command(hide = true)]
    Generate,
    /// The loopback echo.
    #[command(hide = true)]
    Echo { request_bytes: usize, answer: PathBuf },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.part {
        Some(Part::Raw { spec }) => raw::main(spec)?,
        Some(Part::Generate) => generator::main()?,
        Some(Part::Echo {
            request_bytes,
            answer,
        }) => echo::main(*request_bytes, answer)?,
        None => return coordinate(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails if a server gave wrong responses; a row that misses its target is just a number.
fn coordinate(arguments: Arguments) -> Result<ExitCode> {
    ensure!(
        arguments.rounds > 0 && arguments.window > 0.0,
        "there must be a round, and time to measure"
    );
    process::watch_signals()?;
    let (rounds, window) = if arguments.quick {
        (2, 0.6)
    } else {
        (arguments.rounds, arguments.window)
    };
    let device = Device::new(arguments.provider, arguments.execution_provider)?;
    ensure!(
        device.is_none() || !arguments.peers,
        "other servers are measured only on the CPU: leave out --peers, or --provider"
    );
    let mut bench = Bench::new(rounds, window, arguments.only, arguments.peers, device)?;
    if let Some(server) = arguments.server {
        bench.server = server
            .canonicalize()
            .with_context(|| server.display().to_string())?;
    }
    let started = Instant::now();
    println!(
        "bench-server: {rounds} rounds of {window} s on {} cores",
        bench.cores
    );
    let mut table = Table::default();
    rows::measure(&bench, &mut table)?;
    ensure!(
        !table.is_empty(),
        "no row's name contains the text given with --only; a run without it shows all rows"
    );
    let mut machine = json!({
        "cores": bench.cores,
        "processor": processor(),
        "rounds": rounds,
        "windowSeconds": window,
        "tookSeconds": started.elapsed().as_secs(),
    });
    if let Some(device) = &bench.device {
        machine["executionProvider"] = json!(device.provider);
    }
    table.finish(&bench.work.with_extension("json"), &machine)?;
    println!("{machine}");
    Ok(if table.has_failures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
