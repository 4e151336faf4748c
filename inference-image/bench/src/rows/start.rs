//! The time from the server's start until it is ready, compared with loading the same sessions in-process and running
//! each once; and the time to load a model with a cached optimised graph, compared with loading it for the first
//! time.

use super::all_failed;
use crate::bench::{Bench, EFFICIENTNET};
use crate::rawside::{RawSide, Sessions};
use crate::server::Server;
use crate::table::{Aim, Table, median};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let ready = Aim::at_most(
        "EfficientNet-Lite0: start to ready − loading in-process",
        150.0,
        "ms",
    );
    let cached = Aim::at_most(
        "EfficientNet-Lite0: model load from the cached graph",
        50.0,
        "% of uncached",
    );
    if bench.wants(&ready.workload) {
        println!("{}: start to ready", EFFICIENTNET.name);
        if let Err(error) = start(bench, table, &ready) {
            all_failed(table, bench, &[ready], &error);
        }
    }
    if bench.wants(&cached.workload) {
        println!("{}: load from the cached graph", EFFICIENTNET.name);
        if let Err(error) = cache(bench, table, &cached) {
            all_failed(table, bench, &[cached], &error);
        }
    }
    Ok(())
}

fn start(bench: &Bench, table: &mut Table, aim: &Aim) -> Result<()> {
    let (mut servers, mut raws) = (Vec::new(), Vec::new());
    for number in 1..=bench.rounds {
        raws.push(1e3 * RawSide::start(bench, &EFFICIENTNET, Sessions::per_core(bench))?.load);
        servers.push(
            1e3 * Server::start(bench, "start", &bench.config(&EFFICIENTNET))?
                .start
                .as_secs_f64(),
        );
        println!(
            "  round {number}: ready after {:.0} ms, in-process {:.0} ms",
            servers[number - 1],
            raws[number - 1]
        );
    }
    let note = format!(
        "ready after {:.0} ms; {} sessions loaded in-process and run once in {:.0} ms",
        median(&servers),
        bench.cores,
        median(&raws)
    );
    let over = servers
        .iter()
        .zip(&raws)
        .map(|(server, raw)| server - raw)
        .collect();
    table.row(
        aim,
        over,
        json!({"milliseconds": {"server": servers, "inProcess": raws}, "note": note}),
    );
    Ok(())
}

/// As the server reports it at /report: reading the package and creating the sessions, without their first runs.
fn cache(bench: &Bench, table: &mut Table, aim: &Aim) -> Result<()> {
    let folder = bench.work.join("cache");
    let plain = bench.config(&EFFICIENTNET);
    let config = format!("{plain}cache: {{path: {}}}\n", folder.display());
    let (mut uncached, mut filling, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=bench.rounds {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        uncached.push(load(bench, &plain)?.0);
        filling.push(load(bench, &config)?.0);
        let (milliseconds, graph) = load(bench, &config)?;
        ensure!(
            graph == "Cached",
            "the second load took the {graph} graph, not the cached one"
        );
        cached.push(milliseconds);
        println!(
            "  round {number}: {:.0} ms, with an empty cache {:.0} ms, from the cache {milliseconds:.0} ms",
            uncached[number - 1],
            filling[number - 1]
        );
    }
    let ratios = cached
        .iter()
        .zip(&uncached)
        .map(|(cached, uncached)| 100.0 * cached / uncached)
        .collect();
    let note = format!(
        "{:.0} ms without a cache, {:.0} ms with an empty one, {:.0} ms from it",
        median(&uncached),
        median(&filling),
        median(&cached)
    );
    let milliseconds = json!({"uncached": uncached, "emptyCache": filling, "cached": cached});
    table.row(
        aim,
        ratios,
        json!({"loadMilliseconds": milliseconds, "note": note}),
    );
    Ok(())
}

/// Milliseconds of the load, and where the graph came from.
fn load(bench: &Bench, config: &str) -> Result<(f64, String)> {
    let server = Server::start(bench, "cache", config)?;
    // What the server measures once it is ready is stored in the cache too.
    server.settle();
    let (_, report) = server.management("/report")?;
    let report: Value = serde_json::from_str(&report)?;
    let model = &report["models"][0];
    let seconds = model["loadSeconds"]
        .as_f64()
        .context("/report tells no loadSeconds")?;
    Ok((
        1e3 * seconds,
        model["graph"].as_str().unwrap_or_default().to_owned(),
    ))
}
