//! A model that does nothing, 12 KB in and out, one connection: the cost of the server itself. Its round trips are
//! compared with those of the same bytes between the same generator and a loopback echo.

use super::{all_failed, problem};
use crate::bench::{Bench, IDENTITY};
use crate::process::Process;
use crate::server::Server;
use crate::spec::{Answer, Drive, Driven, Request, Wire};
use crate::table::{Aim, Table, median};
use anyhow::{Context, Result};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let aims = [
        Aim::at_most(
            "identity, 12 KB, one connection: p50 over the loopback echo's",
            100.0,
            "µs",
        ),
        Aim::at_most(
            "identity, 12 KB, one connection: server CPU per request",
            40.0,
            "µs",
        ),
    ];
    if !aims.iter().any(|aim| bench.wants(&aim.workload)) {
        return Ok(());
    }
    println!("identity: one connection");
    if let Err(error) = try_measure(bench, table, &aims) {
        all_failed(table, bench, &aims, &error);
    }
    Ok(())
}

fn try_measure(bench: &Bench, table: &mut Table, aims: &[Aim; 2]) -> Result<()> {
    let samples = bench.samples(&IDENTITY)?;
    let server = Server::start(bench, "identity", &bench.config(&IDENTITY))?;
    let requests = bench.rest(&IDENTITY, &samples, &[])?;
    let answer = bench.work.join("identity-answer");
    let drive = bench.closed(server.address, server.id(), Wire::Http, requests, 1);
    bench.drive(&Drive {
        window: 0.2,
        keep: Some(answer.clone()),
        ..drive.clone()
    })?;
    let echo = Echo::start(bench, &drive.requests, &answer)?;
    let echoed = Drive {
        address: echo.address,
        server: echo.process.id(),
        requests: echo.requests(&drive.requests),
        ..drive.clone()
    };
    server.settle();
    let (mut echoes, mut runs): (Vec<Driven>, Vec<Driven>) = Default::default();
    for number in 1..=bench.rounds {
        echoes.push(bench.drive(&echoed)?);
        runs.push(bench.drive(&drive)?);
        let p50 = |runs: &[Driven]| runs.last().map_or(0.0, |run| 1e6 * run.answered.p50);
        println!(
            "  round {number}: p50 of the echo {:.1} µs, of the server {:.1} µs",
            p50(&echoes),
            p50(&runs)
        );
    }
    if let Some(problem) = problem(&runs).or_else(|| problem(&echoes)) {
        aims.iter().for_each(|aim| table.failed(aim, &problem));
        return Ok(());
    }
    let of = |runs: &[Driven], value: fn(&Driven) -> f64| -> Vec<f64> {
        runs.iter().map(|run| 1e6 * value(run)).collect()
    };
    let (p50, others) = (|run: &Driven| run.answered.p50, bench.others(&runs));
    let over = of(&runs, p50)
        .iter()
        .zip(of(&echoes, p50))
        .map(|(served, echo)| served - echo)
        .collect();
    let (served, echo) = (median(&of(&runs, p50)), median(&of(&echoes, p50)));
    let note = format!(
        "p50 {served:.1} µs, echo {echo:.1} µs; {:.0} requests/s",
        1e6 / median(&of(&runs, |run| 1.0 / run.rate()))
    );
    table.row(
        &aims[0],
        over,
        json!({"p50Microseconds": {"served": served, "echo": echo}, "othersPercentOfCores": others, "note": note}),
    );
    let cpu = |run: &Driven| run.cpu.watched / run.answered.count as f64;
    let echo_cpu = median(&of(&echoes, cpu));
    let note = format!("of it system calls and TCP as the echo's {echo_cpu:.1} µs");
    table.row(
        &aims[1],
        of(&runs, cpu),
        json!({"echoMicroseconds": echo_cpu, "othersPercentOfCores": others, "note": note}),
    );
    Ok(())
}

struct Echo {
    process: Process,
    address: SocketAddr,
}

impl Echo {
    fn start(bench: &Bench, requests: &[Request], answer: &Path) -> Result<Self> {
        let first = requests.first().context("no requests")?;
        let size = std::fs::metadata(&first.bytes)?.len();
        let mut command = Command::new(&bench.program);
        command
            .arg("echo")
            .arg(size.to_string())
            .arg(answer)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        Ok(Self {
            process,
            address: line.trim().parse()?,
        })
    }

    /// Every response equals that of the first request; comparing it costs the same.
    fn requests(&self, requests: &[Request]) -> Vec<Request> {
        let answer = requests
            .first()
            .map_or(Answer::Any, |request| request.answer.clone());
        requests
            .iter()
            .map(|request| Request {
                bytes: request.bytes.clone(),
                answer: answer.clone(),
            })
            .collect()
    }
}
