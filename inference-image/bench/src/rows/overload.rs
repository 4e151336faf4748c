//! Twice as many requests as the server can answer, in an open loop, each worthless after 100 ms: how many are
//! answered in time, how soon the others are refused, and whether memory stays constant.

use super::all_failed;
use crate::bench::{Bench, EFFICIENTNET, resident};
use crate::server::Server;
use crate::spec::{Drive, Driven, Open, Wire};
use crate::table::{Aim, Table, median};
use anyhow::Result;
use serde_json::json;

const DEADLINE: f64 = 0.1;
/// The deadline as sent to the server: `X-Request-Timeout` in decimal milliseconds.
const HEADER: (&str, &str) = ("X-Request-Timeout", "100");

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let aims = [
        Aim::at_least("2 × capacity, 100 ms deadline: goodput", 90.0, "% of capacity"),
        Aim::at_most("2 × capacity, 100 ms deadline: refusals, p99", 10.0, "ms"),
        Aim::at_most(
            "2 × capacity, 100 ms deadline: growth of resident memory",
            5.0,
            "%",
        ),
    ];
    if !aims.iter().any(|aim| bench.wants(&aim.workload)) {
        return Ok(());
    }
    println!("{}: twice its capacity", EFFICIENTNET.name);
    if let Err(error) = try_measure(bench, table, &aims) {
        all_failed(table, bench, &aims, &error);
    }
    Ok(())
}

/// One round.
struct Round {
    capacity: Driven,
    overload: Driven,
    /// Resident memory after it, in bytes.
    memory: f64,
}

fn try_measure(bench: &Bench, table: &mut Table, aims: &[Aim; 3]) -> Result<()> {
    let samples = bench.samples(&EFFICIENTNET)?;
    let server = Server::start(bench, "overload", &bench.config(&EFFICIENTNET))?;
    let plain = bench.rest(&EFFICIENTNET, &samples, &[])?;
    let timed = bench.rest(&EFFICIENTNET, &samples, &[HEADER])?;
    let closed = |connections| {
        bench.closed(
            server.address,
            server.id(),
            Wire::Http,
            plain.clone(),
            connections,
        )
    };
    server.settle();
    let mut rounds = Vec::new();
    for number in 1..=bench.rounds {
        // The best of two closed loops.
        let (some, more): (Driven, Driven) = (bench.drive(&closed(8))?, bench.drive(&closed(16))?);
        let capacity = if some.rate() > more.rate() { some } else { more };
        let open = Open {
            rate: 2.0 * capacity.rate(),
            deadline: DEADLINE,
        };
        let drive = Drive {
            window: 2.0 * bench.window,
            ..bench.open(&closed(8), timed.clone(), open)
        };
        let overload = bench.drive(&drive)?;
        println!(
            "  round {number}: capacity {:.0}/s; of {:.0}/s {:.0}/s in time, {:.0}/s refused",
            capacity.rate(),
            open.rate,
            overload.in_time as f64 / overload.wall,
            overload.refused.count as f64 / overload.wall
        );
        rounds.push(Round {
            capacity,
            overload,
            memory: resident(server.id())? as f64,
        });
    }
    report(bench, table, aims, &rounds);
    Ok(())
}

fn report(bench: &Bench, table: &mut Table, aims: &[Aim; 3], rounds: &[Round]) {
    let each = |of: &dyn Fn(&Round) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let plain =
        |round: &Round| 100.0 * round.overload.in_time as f64 / round.overload.wall / round.capacity.rate();
    // The generator takes more CPU for twice as many requests.
    let left = |driven: &Driven| 1.0 - driven.generator_share(bench.cores);
    let goodput = each(&|round| plain(round) * left(&round.capacity) / left(&round.overload));
    let overloads: Vec<Driven> = rounds.iter().map(|round| round.overload.clone()).collect();
    let failures: Vec<_> = rounds.iter().map(|round| &round.overload.failures).collect();
    let late = each(&|round| 1e3 * round.overload.lateness.p99);
    let answered_late = each(&|round| round.overload.answered.count as f64 - round.overload.in_time as f64);
    let note = format!(
        "plain {:.1} %; answered too late: {:.0}; the generator was up to {:.1} ms late (p99); other answers: {}",
        median(&each(&plain)),
        median(&answered_late),
        median(&late),
        json!(failures.last())
    );
    let more = json!({
        "plainPercent": median(&each(&plain)),
        "capacityPerSecond": median(&each(&|round| round.capacity.rate())),
        "answeredLate": answered_late,
        "generatorLatenessP99Milliseconds": late,
        "otherAnswers": failures,
        "othersPercentOfCores": bench.others(&overloads),
        "note": note,
    });
    table.row(&aims[0], goodput, more);
    if rounds.iter().any(|round| round.overload.refused.count == 0) {
        table.failed(&aims[1], "nothing was refused with 429 or 503");
    } else {
        let p50 = median(&each(&|round| 1e3 * round.overload.refused.p50));
        let note = format!("p50 {p50:.2} ms");
        table.row(
            &aims[1],
            each(&|round| 1e3 * round.overload.refused.p99),
            json!({"p50Milliseconds": p50, "note": note}),
        );
    }
    // After the first round, everything has reached its largest size.
    let memory = each(&|round| round.memory / f64::from(1 << 20));
    let first = memory.first().copied().unwrap_or(1.0);
    let last = memory.last().copied().unwrap_or(1.0);
    let note = format!("{first:.0} MiB after the first round, {last:.0} MiB after the last");
    table.row(
        &aims[2],
        vec![100.0 * (last / first - 1.0)],
        json!({"residentMebibytes": memory, "note": note}),
    );
}
