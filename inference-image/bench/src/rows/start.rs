//! From the server's start until it is ready, against loading the same sessions in-process and running each
//! once; and loading a model whose optimised graph is in the cache against loading one for the first time.

use super::all_failed;
use crate::bench::{Bench, EFFICIENTNET, IDENTITY};
use crate::rawside::{RawSide, Sessions};
use crate::server::Server;
use crate::table::{Aim, Table, median};
use anyhow::Result;
use serde_json::json;
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

/// What a server without a model to speak of takes to become ready is not the model's load.
fn cache(bench: &Bench, table: &mut Table, aim: &Aim) -> Result<()> {
    let folder = bench.work.join("cache");
    let config = format!(
        "{}cache: {{path: {}}}\n",
        bench.config(&EFFICIENTNET),
        folder.display()
    );
    let (mut empty, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=bench.rounds {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        empty.push(
            1e3 * Server::start(bench, "cache", &bench.config(&IDENTITY))?
                .start
                .as_secs_f64(),
        );
        let server = match Server::start(bench, "cache", &config) {
            Ok(server) => server,
            Err(error) if format!("{error:#}").contains("unknown field") => {
                table.not_measured(aim, "this server has no cache");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        first.push(1e3 * server.start.as_secs_f64());
        server.settle();
        drop(server);
        again.push(1e3 * Server::start(bench, "cache", &config)?.start.as_secs_f64());
        println!(
            "  round {number}: ready after {:.0} ms, from the cache after {:.0} ms, without a model after {:.0} ms",
            first[number - 1],
            again[number - 1],
            empty[number - 1]
        );
    }
    let ratios = (0..bench.rounds)
        .map(|n| 100.0 * (again[n] - empty[n]) / (first[n] - empty[n]))
        .collect();
    let note = format!(
        "ready after {:.0} ms, from the cache after {:.0} ms, without a model after {:.0} ms",
        median(&first),
        median(&again),
        median(&empty)
    );
    table.row(
        aim,
        ratios,
        json!({"readyMilliseconds": {"uncached": first, "cached": again, "identity": empty}, "note": note}),
    );
    Ok(())
}
