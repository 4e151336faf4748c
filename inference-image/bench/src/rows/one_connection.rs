//! One request at a time, against one session that uses all cores and whose idle threads do not spin. Spinning
//! threads, which occupy whole cores while idle, are reported as well.

use super::{all_failed, problem};
use crate::bench::{Bench, EFFICIENTNET};
use crate::rawside::{RawSide, Sessions};
use crate::server::Server;
use crate::spec::{Driven, RawRun, Wire};
use crate::table::{Aim, Table, median};
use anyhow::Result;
use serde_json::json;

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let aim = Aim::at_most("EfficientNet-Lite0, one connection: p50", 108.0, "% of raw");
    if !bench.wants(&aim.workload) {
        return Ok(());
    }
    println!("{}: one connection", EFFICIENTNET.name);
    if let Err(error) = try_measure(bench, table, &aim) {
        all_failed(table, bench, &[aim], &error);
    }
    Ok(())
}

fn try_measure(bench: &Bench, table: &mut Table, aim: &Aim) -> Result<()> {
    let samples = bench.samples(&EFFICIENTNET)?;
    let server = Server::start(bench, "one-connection", &bench.config(&EFFICIENTNET))?;
    let drive = bench.closed(
        server.address,
        server.id(),
        Wire::Http,
        bench.rest(&EFFICIENTNET, &samples, &[])?,
        1,
    );
    server.settle();
    let mut quiet = RawSide::start(bench, &EFFICIENTNET, Sessions::one_with_all_cores(bench, false))?;
    let mut spinning = RawSide::start(bench, &EFFICIENTNET, Sessions::one_with_all_cores(bench, true))?;
    let (mut raws, mut spun, mut runs): (Vec<RawRun>, Vec<RawRun>, Vec<Driven>) = Default::default();
    for number in 1..=bench.rounds {
        raws.push(quiet.run(bench, bench.window, server.id())?);
        spun.push(spinning.run(bench, bench.window, server.id())?);
        runs.push(bench.drive(&drive)?);
        let last = |runs: &[RawRun]| runs.last().map_or(0.0, |run| 1e3 * run.times.p50);
        let served = runs.last().map_or(0.0, |run| 1e3 * run.answered.p50);
        println!(
            "  round {number}: p50 of raw {:.2} ms (spinning {:.2} ms), of the server {served:.2} ms",
            last(&raws),
            last(&spun)
        );
    }
    if let Some(problem) = problem(&runs) {
        table.failed(aim, &problem);
        return Ok(());
    }
    let ratios = |of: &[RawRun]| -> Vec<f64> {
        of.iter()
            .zip(&runs)
            .map(|(raw, run)| 100.0 * run.answered.p50 / raw.times.p50)
            .collect()
    };
    let p50 = |of: &[RawRun]| 1e3 * median(&of.iter().map(|run| run.times.p50).collect::<Vec<f64>>());
    let served = 1e3 * median(&runs.iter().map(|run| run.answered.p50).collect::<Vec<f64>>());
    let note = format!(
        "p50 {served:.2} ms, raw {:.2} ms; raw with spinning threads {:.2} ms: {:.0} % of it",
        p50(&raws),
        p50(&spun),
        median(&ratios(&spun))
    );
    let milliseconds = json!({"served": served, "raw": p50(&raws), "rawSpinning": p50(&spun)});
    table.row(aim, ratios(&raws), json!({"p50Milliseconds": milliseconds, "percentOfRawSpinning": median(&ratios(&spun)), "othersPercentOfCores": bench.others(&runs), "note": note}));
    Ok(())
}
