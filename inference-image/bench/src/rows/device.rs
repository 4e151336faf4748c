//! Answers per second of a device, as a share of the rate of in-process ONNX Runtime with the same execution provider, in
//! as many sessions as the server has runners, at its best batch size. The server batches by what it measures itself.

use super::throughput::{Contender, OF_RAW, best_batch, comparison, probe, rounds};
use super::{all_failed, problem};
use crate::bench::{Bench, EFFICIENTNET, Model, RESNET50, Sample, distance};
use crate::provider::Device;
use crate::rawside::{RawSide, Sessions};
use crate::server::Server;
use crate::spec::{Driven, RawRun, Wire};
use crate::table::{Aim, Table};
use anyhow::{Context, Result, ensure};
use modelservice_contract::{Assignment, LOAD_PATH, LoadReport, ModelReport, REPORT_PATH, Report};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Connections of the closed loops.
const CONNECTIONS: [usize; 3] = [1, 8, LARGEST];
/// Most rows in one run, on both sides: as many as there are connections.
const LARGEST: usize = 64;
const TARGET: f64 = 90.0;

/// The rows of a model.
struct Aims {
    nodes: Aim,
    /// For each number of connections.
    rates: [Aim; CONNECTIONS.len()],
}

impl Aims {
    fn of(device: &Device, model: &Model) -> Self {
        let name = format!("{} on {}", model.title, device.name());
        let rate = |connections: usize| {
            let plural = if connections == 1 { "" } else { "s" };
            let workload = format!("{name}, binary REST, {connections} connection{plural}");
            // Fewer do not fill the batches with which it is compared.
            if connections == LARGEST {
                Aim::at_least(&workload, TARGET, OF_RAW)
            } else {
                Aim::beside(&workload, OF_RAW)
            }
        };
        Self {
            nodes: Aim::at_least(&format!("{name}: compute nodes on the device"), 100.0, "%"),
            rates: CONNECTIONS.map(rate),
        }
    }

    fn all(&self) -> Vec<Aim> {
        std::iter::once(&self.nodes).chain(&self.rates).cloned().collect()
    }
}

pub(super) fn measure(bench: &Bench, table: &mut Table, device: &Device) {
    for model in [EFFICIENTNET, RESNET50] {
        let aims = Aims::of(device, &model);
        if !aims.all().iter().any(|aim| bench.wants(&aim.workload)) {
            continue;
        }
        println!("{}: {}", model.name, device.provider.name);
        if let Err(error) = try_measure(bench, table, device, &model, &aims) {
            all_failed(table, bench, &aims.all(), &error);
        }
    }
}

fn try_measure(bench: &Bench, table: &mut Table, device: &Device, model: &Model, aims: &Aims) -> Result<()> {
    // First, because it says why a device cannot be used.
    let server = Server::start(bench, model.name, &config(bench, device, model)?)?;
    let samples = bench.samples_of(model, Sessions::on_device(bench, 1))?;
    let difference = difference(&samples, &bench.samples(model)?)?;
    let contenders = contenders(bench, model, &server, &samples, aims)?;
    if let Some(first) = contenders.first() {
        probe(bench, &first.drive)?;
    }
    // It measures batches in idle moments.
    server.settle();
    let report = report(&server)?;
    if bench.wants(&aims.nodes.workload) {
        nodes_row(table, &aims.nodes, &report, difference)?;
    }
    if !contenders.is_empty() {
        rate_rows(bench, table, model, &server, &contenders)?;
    }
    Ok(())
}

fn config(bench: &Bench, device: &Device, model: &Model) -> Result<String> {
    Ok(format!(
        "{}executionProvider: {}\nscheduling: {{maxBatchSize: {LARGEST}}}\n",
        bench.config(model),
        serde_json::to_string(&device.provider)?
    ))
}

/// The loads that are wanted.
fn contenders(
    bench: &Bench,
    model: &Model,
    server: &Server,
    samples: &[Sample],
    aims: &Aims,
) -> Result<Vec<Contender>> {
    let requests = bench.rest(model, samples, &[])?;
    let wanted = CONNECTIONS.into_iter().zip(&aims.rates);
    let wanted = wanted.filter(|(_, aim)| bench.wants(&aim.workload));
    let contender = |(connections, aim): (usize, &Aim)| Contender {
        aim: aim.clone(),
        drive: bench.closed(
            server.address,
            server.id(),
            Wire::Http,
            requests.clone(),
            connections,
        ),
        is_peer: false,
    };
    Ok(wanted.map(contender).collect())
}

fn rate_rows(
    bench: &Bench,
    table: &mut Table,
    model: &Model,
    server: &Server,
    contenders: &[Contender],
) -> Result<()> {
    let sessions = Sessions::on_device(bench, runners(server)?);
    let sizes: Vec<usize> = std::iter::successors(Some(1), |size| Some(2 * size))
        .take_while(|&size| size <= LARGEST)
        .collect();
    let sessions = Sessions {
        batch: best_batch(bench, model, sessions, &sizes)?,
        ..sessions
    };
    let mut raw = RawSide::start(bench, model, sessions)?;
    let rounds = rounds(bench, &mut raw, contenders)?;
    let rows = report(server)?.batching.map_or(1, |batching| batching.rows);
    let raws: Vec<RawRun> = rounds.iter().map(|round| round.raw).collect();
    for (index, Contender { aim, .. }) in contenders.iter().enumerate() {
        let runs: Vec<Driven> = rounds.iter().map(|round| round.served[index].clone()).collect();
        if let Some(problem) = problem(&runs) {
            table.failed(aim, &problem);
            continue;
        }
        let (ratios, mut more) = comparison(bench, &raws, &runs, sessions.batch);
        more["servedBatch"] = json!(rows);
        more["note"] = note(&more, sessions).into();
        table.row(aim, ratios, more);
    }
    Ok(())
}

fn note(more: &Value, sessions: Sessions) -> String {
    let latency = |quantile: &str| more["latencyMilliseconds"][quantile].as_f64().unwrap_or_default();
    let Sessions { count, batch, .. } = sessions;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms; batches of up to {}, raw of {batch} in {count} sessions\n      {}",
        latency("p50"),
        latency("p99"),
        more["servedBatch"],
        more["note"].as_str().unwrap_or_default()
    )
}

fn nodes_row(table: &mut Table, aim: &Aim, report: &ModelReport, difference: f32) -> Result<()> {
    let assignment = report.assignment.as_ref();
    let assignment = assignment.context("the server does not report what runs the model's nodes")?;
    let Assignment {
        provider,
        device,
        nodes,
        elsewhere,
    } = assignment;
    let others: u64 = elsewhere.values().sum();
    let device = device
        .as_ref()
        .map_or("unnamed device", |device| device.name.as_str());
    let note = format!(
        "{nodes} of {} on {provider} ({device}), elsewhere {elsewhere:?}; answers differ from the CPU's by up to \
         {difference:.0e} of the largest value",
        nodes + others
    );
    let percent = 100.0 * *nodes as f64 / (nodes + others) as f64;
    let more = json!({"assignment": assignment, "differenceFromCpu": difference, "note": note});
    table.row(aim, vec![percent], more);
    Ok(())
}

/// The largest difference of any value, relative to the largest value of its answer.
fn difference(samples: &[Sample], on_cpu: &[Sample]) -> Result<f32> {
    let mut largest = 0_f32;
    for (sample, on_cpu) in samples.iter().zip(on_cpu) {
        let (given, right) = (sample.values()?, on_cpu.values()?);
        let scale = right.iter().fold(0_f32, |scale, value| scale.max(value.abs()));
        largest = largest.max(distance(&given, &right) / scale);
    }
    Ok(largest)
}

/// The only model that the server reports.
fn report(server: &Server) -> Result<ModelReport> {
    let report: Report = read(server, REPORT_PATH)?;
    report
        .models
        .into_iter()
        .next()
        .context("the server reports no model")
}

fn runners(server: &Server) -> Result<usize> {
    let load: LoadReport = read(server, LOAD_PATH)?;
    let model = load.models.first().context("the server reports no model")?;
    Ok(usize::try_from(model.runners)?)
}

fn read<T: DeserializeOwned>(server: &Server, path: &str) -> Result<T> {
    let (status, body) = server.management(path)?;
    ensure!(status == 200, "the server answers {path} with {status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("the server's answer to {path}"))
}
