//! Responses per second over 8 connections, as a share of the rate of in-process ONNX Runtime with as many callers as
//! cores. The generator uses the same cores: served ÷ (raw × (1 − the generator's share of them)).

use super::{all_failed, problem};
use crate::bench::{Bench, EFFICIENTNET, Model, QUANTISED, RESNET};
use crate::peers;
use crate::rawside::{RawSide, Sessions};
use crate::server::Server;
use crate::spec::{Drive, Driven, RawRun, Wire};
use crate::table::{Aim, Table, median};
use anyhow::Result;
use serde_json::{Value, json};

/// Connections of the closed loops.
const CONNECTIONS: usize = 8;
/// Runs of a batch size that a measurement must have room for.
const FEWEST_RUNS: f64 = 10.0;
pub(super) const OF_RAW: &str = "% of raw";

/// A load whose rate is compared with raw.
pub(super) struct Contender {
    pub(super) aim: Aim,
    pub(super) drive: Drive,
    /// Whether it is another server, whose failures are not failures of this one.
    pub(super) is_peer: bool,
}

pub(super) fn resnet(bench: &Bench, table: &mut Table) -> Result<()> {
    let aims = [
        Aim::at_least("ResNet-8, binary REST, 8 connections", 90.0, OF_RAW),
        Aim::at_least("ResNet-8, gRPC, 8 connections", 80.0, OF_RAW),
    ];
    group(bench, table, &RESNET, &aims, None)
}

pub(super) fn efficientnet(bench: &Bench, table: &mut Table) -> Result<()> {
    let aims = [
        Aim::at_least("EfficientNet-Lite0, binary REST, 8 connections", 95.0, OF_RAW),
        Aim::at_least("EfficientNet-Lite0, gRPC, 8 connections", 92.0, OF_RAW),
        Aim::at_least("JPEG 640×480 to top-5, 8 connections", 75.0, OF_RAW),
        Aim::at_most("EfficientNet-Lite0, 8 connections: p99 / p50", 1.5, ""),
    ];
    group(bench, table, &EFFICIENTNET, &aims, None)
}

pub(super) fn quantised(bench: &Bench, table: &mut Table) -> Result<()> {
    let aims = [Aim::at_least(
        "EfficientNet-Lite0 int8, binary REST, 8 connections",
        92.0,
        OF_RAW,
    )];
    group(bench, table, &QUANTISED, &aims, Some(&[1, 2, 4, 8]))
}

/// The rows of one model: over REST, over gRPC, with images, and the spread of the latencies over REST.
fn group(
    bench: &Bench,
    table: &mut Table,
    model: &Model,
    aims: &[Aim],
    batches: Option<&[usize]>,
) -> Result<()> {
    let has_peers = bench.peers && batches.is_none();
    if !has_peers && !aims.iter().any(|aim| bench.wants(&aim.workload)) {
        return Ok(());
    }
    println!("{}: answers per second", model.name);
    if let Err(error) = try_group(bench, table, model, aims, batches) {
        all_failed(table, bench, aims, &error);
    }
    Ok(())
}

fn try_group(
    bench: &Bench,
    table: &mut Table,
    model: &Model,
    aims: &[Aim],
    batches: Option<&[usize]>,
) -> Result<()> {
    let samples = bench.samples(model)?;
    let server = Server::start(bench, model.name, &bench.config(model))?;
    let closed = |wire, requests| bench.closed(server.address, server.id(), wire, requests, CONNECTIONS);
    let loads = [
        closed(Wire::Http, bench.rest(model, &samples, &[])?),
        closed(Wire::Grpc, bench.grpc(model, &samples)?),
        closed(Wire::Http, bench.jpegs(model)?),
    ];
    let load = loads[0].clone();
    let spread = aims.get(loads.len()).filter(|aim| bench.wants(&aim.workload));
    let mut contenders: Vec<Contender> = Vec::new();
    for (index, (aim, drive)) in aims.iter().zip(loads).enumerate() {
        // The spread is measured with the first load.
        if !(bench.wants(&aim.workload) || index == 0 && spread.is_some()) {
            continue;
        }
        let contender = Contender {
            aim: aim.clone(),
            drive,
            is_peer: false,
        };
        match probe(bench, &contender.drive) {
            Ok(()) => contenders.push(contender),
            Err(error) if contender.drive.wire == Wire::Grpc => {
                table.not_measured(aim, &format!("the server does not answer gRPC ({error:#})"));
            }
            Err(error) => table.failed(aim, &format!("{error:#}")),
        }
    }
    let mut running = Vec::new();
    if bench.peers && batches.is_none() {
        running = peers::start(bench, table, model, &samples, &load);
        contenders.extend(running.iter().map(|peer| Contender {
            aim: peer.aim.clone(),
            drive: peer.drive.clone(),
            is_peer: true,
        }));
    }
    if contenders.is_empty() {
        return Ok(());
    }
    server.settle();
    let sessions = Sessions::per_core(bench);
    let sessions = Sessions {
        batch: best_batch(bench, model, sessions, batches.unwrap_or_default())?,
        ..sessions
    };
    let mut raw = RawSide::start(bench, model, sessions)?;
    let rounds = rounds(bench, &mut raw, &contenders)?;
    for (index, contender) in contenders.iter().enumerate() {
        let runs: Vec<Driven> = rounds.iter().map(|round| round.served[index].clone()).collect();
        let raws: Vec<RawRun> = rounds.iter().map(|round| round.raw).collect();
        if let Some(problem) = problem(&runs) {
            let row = if contender.is_peer {
                Table::not_measured
            } else {
                Table::failed
            };
            row(table, &contender.aim, &problem);
        } else {
            let (ratios, more) = comparison(bench, &raws, &runs, sessions.batch);
            table.row(&contender.aim, ratios, more);
            if index == 0
                && let Some(spread) = spread
            {
                spread_row(table, spread, &runs);
            }
        }
    }
    // It must run until here.
    drop(running);
    Ok(())
}

/// Runs the load for one second on one connection, to see whether it works at all.
pub(super) fn probe(bench: &Bench, drive: &Drive) -> Result<()> {
    let driven = bench.drive(&Drive {
        connections: 1,
        warm: 0.0,
        window: 0.3,
        ..drive.clone()
    })?;
    match problem(std::slice::from_ref(&driven)) {
        Some(problem) => Err(anyhow::anyhow!(problem)),
        None => Ok(()),
    }
}

pub(super) struct Round {
    pub(super) raw: RawRun,
    pub(super) served: Vec<Driven>,
}

/// Measures raw, then each load, and so on, so that a disturbance of several seconds affects all of them.
pub(super) fn rounds(bench: &Bench, raw: &mut RawSide, contenders: &[Contender]) -> Result<Vec<Round>> {
    let server = contenders.first().map_or(0, |contender| contender.drive.server);
    let mut rounds = Vec::new();
    for number in 1..=bench.rounds {
        let raw = raw.run(bench, bench.window, server)?;
        let served = contenders
            .iter()
            .map(|contender| bench.drive(&contender.drive))
            .collect::<Result<Vec<_>>>()?;
        let rates: Vec<String> = served
            .iter()
            .map(|driven| format!("{:.0}", driven.rate()))
            .collect();
        println!(
            "  round {number}: raw {:.0}/s, served {}/s",
            raw.rate(),
            rates.join(", ")
        );
        rounds.push(Round { raw, served });
    }
    Ok(rounds)
}

/// The batch size at which in-process ONNX Runtime processes the most samples per second. Ends before sizes, each twice
/// the last, of which too few runs would fit into a measurement.
pub(super) fn best_batch(
    bench: &Bench,
    model: &Model,
    sessions: Sessions,
    batches: &[usize],
) -> Result<usize> {
    let mut best = (1, 0.0);
    for &batch in batches {
        let run =
            RawSide::start(bench, model, Sessions { batch, ..sessions })?.run(bench, bench.window, 0)?;
        let rate = run.rate();
        println!("  raw with batches of {batch}: {rate:.0}/s");
        if rate > best.1 {
            best = (batch, rate);
        }
        if 2.0 * run.times.p50 * FEWEST_RUNS > bench.window {
            break;
        }
    }
    Ok(best.0)
}

/// The ratios of one load, and what else is known about it.
pub(super) fn comparison(bench: &Bench, raws: &[RawRun], runs: &[Driven], batch: usize) -> (Vec<f64>, Value) {
    let each = |of: &dyn Fn(&RawRun, &Driven) -> f64| -> Vec<f64> {
        raws.iter()
            .zip(runs)
            .map(|(raw, driven)| of(raw, driven))
            .collect()
    };
    let ratios = each(&|raw, driven| 100.0 * driven.rate() / bench.expected(raw, driven));
    let plain = median(&each(&|raw, driven| 100.0 * driven.rate() / raw.rate()));
    let cpu = median(&each(&|raw, driven| {
        let served = driven.cpu.watched / driven.answered.count as f64;
        served / (raw.cpu.own / raw.samples as f64)
    }));
    let generator = median(&each(&|_, driven| 100.0 * driven.generator_share(bench.cores)));
    let (rate, raw) = (
        median(&each(&|_, driven| driven.rate())),
        median(&each(&|raw, _| raw.rate())),
    );
    let others = bench.others(runs);
    let idle: Vec<f64> = raws
        .iter()
        .map(|raw| 100.0 * raw.cpu.watched / (raw.wall * bench.cores as f64))
        .collect();
    let note = format!(
        "{rate:.0}/s of {raw:.0}/s; plain {plain:.1} %; CPU per inference {cpu:.2} × raw's; generator {generator:.0} %, others {others:.0} % of the cores"
    );
    let more = json!({
        "ratesPerSecond": {"served": rate, "raw": raw},
        "plainPercent": plain,
        "cpuPerInferenceOverRaw": cpu,
        "generatorPercentOfCores": generator,
        "othersPercentOfCores": others,
        "serverPercentOfCoresWhileRawRan": median(&idle),
        "rawBatch": batch,
        "latencyMilliseconds": latency(runs),
        "note": note,
    });
    (ratios, more)
}

fn latency(runs: &[Driven]) -> Value {
    let of = |time: fn(&Driven) -> f64| 1e3 * median(&runs.iter().map(time).collect::<Vec<f64>>());
    json!({"p50": of(|run| run.answered.p50), "p99": of(|run| run.answered.p99), "max": of(|run| run.answered.max)})
}

fn spread_row(table: &mut Table, aim: &Aim, runs: &[Driven]) {
    let ratios = runs
        .iter()
        .map(|run| run.answered.p99 / run.answered.p50)
        .collect();
    let latency = latency(runs);
    let note = format!(
        "p50 {:.1} ms, p99 {:.1} ms",
        latency["p50"].as_f64().unwrap_or_default(),
        latency["p99"].as_f64().unwrap_or_default()
    );
    table.row(aim, ratios, json!({"latencyMilliseconds": latency, "note": note}));
}
