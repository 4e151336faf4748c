//! Memory of the warmed-up server against the same number of sessions in-process, by proportional set size. Each is
//! measured while the others are not running, so that nothing is shared with them.

use super::{all_failed, problem};
use crate::bench::{Bench, EFFICIENTNET, HEAVY, Model};
use crate::rawside::{RawSide, Sessions};
use crate::server::Server;
use crate::spec::{Drive, Wire};
use crate::table::{Aim, Table, median};
use anyhow::Result;
use serde_json::json;

const MEBIBYTE: f64 = 1_048_576.0;
/// The server's memory limit, relative to that of the sessions in-process.
const FACTOR: f64 = 1.2;

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    for model in [EFFICIENTNET, HEAVY] {
        let aim = Aim::at_most(
            &format!("memory, {}: PSS − 1.2 × in-process sessions'", model.title),
            40.0,
            "MiB",
        );
        if !bench.wants(&aim.workload) {
            continue;
        }
        println!("{}: memory", model.name);
        if let Err(error) = try_measure(bench, table, &model, &aim) {
            all_failed(table, bench, &[aim], &error);
        }
    }
    Ok(())
}

fn try_measure(bench: &Bench, table: &mut Table, model: &Model, aim: &Aim) -> Result<()> {
    let samples = bench.samples(model)?;
    let requests = bench.rest(model, &samples, &[])?;
    let (mut servers, mut many, mut one) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=bench.rounds {
        let per_core = Sessions {
            samples: 1,
            ..Sessions::per_core(bench)
        };
        many.push(in_process(bench, model, per_core)?);
        one.push(in_process(bench, model, Sessions { count: 1, ..per_core })?);
        let server = Server::start(bench, "memory", &bench.config(model))?;
        let drive = bench.closed(server.address, server.id(), Wire::Http, requests.clone(), 8);
        let driven = bench.drive(&Drive {
            warm: 0.0,
            window: 1.0,
            ..drive.clone()
        })?;
        // The server's special treatment of a single request at a time also takes memory.
        let alone = bench.drive(&Drive {
            warm: 0.0,
            window: 0.5,
            connections: 1,
            ..drive
        })?;
        if let Some(problem) = problem(&[driven, alone]) {
            table.failed(aim, &problem);
            return Ok(());
        }
        server.settle();
        servers.push(server.family().proportional_memory()? as f64 / MEBIBYTE);
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        println!(
            "  round {number}: server {:.1} MiB, {} sessions {:.1} MiB, one {:.1} MiB",
            last(&servers),
            bench.cores,
            last(&many),
            last(&one)
        );
    }
    let over = servers
        .iter()
        .zip(&many)
        .map(|(server, sessions)| server - FACTOR * sessions)
        .collect();
    let note = format!(
        "server {:.1} MiB; in-process {} sessions {:.1} MiB, one {:.1} MiB",
        median(&servers),
        bench.cores,
        median(&many),
        median(&one)
    );
    let mebibytes = json!({"server": servers, "sessions": many, "oneSession": one});
    table.row(
        aim,
        over,
        json!({"pssMebibytes": mebibytes, "sessions": bench.cores, "note": note}),
    );
    Ok(())
}

/// Sessions that have run for a while.
fn in_process(bench: &Bench, model: &Model, sessions: Sessions) -> Result<f64> {
    let mut raw = RawSide::start(bench, model, sessions)?;
    raw.run(bench, 0.5, 0)?;
    Ok(raw.family().proportional_memory()? as f64 / MEBIBYTE)
}
