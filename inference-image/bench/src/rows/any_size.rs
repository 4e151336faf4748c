//! What requests of many sizes leave of memory, against the memory of the largest alone; and what it costs that a run of
//! another size than the last one frees its memory.

use super::all_failed;
use crate::bench::{ANY_SIZE, Bench, resident};
use crate::encode;
use crate::server::Server;
use crate::table::{Aim, Table, median};
use crate::usage::peak_memory;
use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::time::Duration;

const MEBIBYTE: f64 = 1_048_576.0;
const REQUESTS: usize = 5000;
const CLIENTS: usize = 2;
/// The server ends connections after some minutes.
const PER_CONNECTION: usize = 100;
/// Sides of the images; with the largest, a run needs more than the server keeps.
const SIDES: RangeInclusive<usize> = 100..=1200;
const LARGE_SIDES: RangeInclusive<usize> = 1000..=1200;
/// Sizes that are sent several times in turn.
const SIZES: usize = 40;
/// After two idle seconds the server frees what it does not need.
const IDLE: Duration = Duration::from_secs(4);

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let title = ANY_SIZE.title;
    let left = Aim::at_most(
        &format!("{title}: memory after {REQUESTS} requests"),
        130.0,
        "% of the largest's",
    );
    let cost = Aim::beside(
        &format!("{title}: CPU for a size other than the last"),
        "% of the same again",
    );
    if bench.wants(&left.workload) {
        println!("{}: memory", ANY_SIZE.name);
        if let Err(error) = memory(bench, table, &left) {
            all_failed(table, bench, &[left], &error);
        }
    }
    if bench.wants(&cost.workload) {
        println!("{}: CPU", ANY_SIZE.name);
        if let Err(error) = cpu(bench, table, &cost) {
            all_failed(table, bench, &[cost], &error);
        }
    }
    Ok(())
}

/// Once, whatever the number of rounds: it takes long, and there is nothing to vary but the order.
fn memory(bench: &Bench, table: &mut Table, aim: &Aim) -> Result<()> {
    let server = Server::start(bench, "largest", &bench.config(&ANY_SIZE))?;
    let (side, before) = (*SIDES.end(), resident(server.id())?);
    Client::new(&server)?.ask(side, side)?;
    let largest = over(peak_memory(server.id())?, before);
    drop(server);
    let server = Server::start(bench, "any-size", &bench.config(&ANY_SIZE))?;
    let before = resident(server.id())?;
    std::thread::scope(|scope| {
        let server = &server;
        let clients: Vec<_> = (0..CLIENTS as u64)
            .map(|seed| scope.spawn(move || random(server, Rng::with_seed(seed))))
            .collect();
        let mut ended = clients.into_iter().map(|client| client.join());
        ended.try_for_each(|end| end.map_err(|_| anyhow!("a client panicked"))?)
    })?;
    let (at_once, peak) = (
        over(resident(server.id())?, before),
        over(peak_memory(server.id())?, before),
    );
    std::thread::sleep(IDLE);
    let after = over(resident(server.id())?, before);
    let note = format!(
        "beyond {:.0} MiB: the largest alone {largest:.0} MiB; {CLIENTS} clients at most {peak:.0}, {at_once:.0} at once after \
         them, {after:.0} when idle",
        before as f64 / MEBIBYTE
    );
    let mebibytes = json!({"largest": largest, "peak": peak, "atOnce": at_once, "idle": after});
    table.row(
        aim,
        vec![100.0 * after / largest],
        json!({"mebibytes": mebibytes, "note": note}),
    );
    Ok(())
}

fn over(bytes: u64, before: u64) -> f64 {
    (bytes as f64 - before as f64) / MEBIBYTE
}

fn random(server: &Server, mut random: Rng) -> Result<()> {
    for _ in 0..REQUESTS / CLIENTS / PER_CONNECTION {
        let mut client = Client::new(server)?;
        for _ in 0..PER_CONNECTION {
            client.ask(random.usize(SIDES), random.usize(SIDES))?;
        }
    }
    Ok(())
}

/// Each size three times in turn: the first frees what it has used, the second begins without memory, the third finds the
/// second's.
fn cpu(bench: &Bench, table: &mut Table, aim: &Aim) -> Result<()> {
    let server = Server::start(bench, "any-size", &bench.config(&ANY_SIZE))?;
    let (mut client, mut random) = (Client::new(&server)?, Rng::with_seed(0));
    let mut seconds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..SIZES {
        let (height, width) = (random.usize(LARGE_SIDES), random.usize(LARGE_SIDES));
        for seconds in &mut seconds {
            let before = server.family().cpu();
            client.ask(height, width)?;
            seconds.push(server.family().cpu() - before);
        }
    }
    let [other, _, again] = &seconds;
    let ratios = other
        .iter()
        .zip(again)
        .map(|(other, again)| 100.0 * other / again);
    let note = format!(
        "{:.1} ms, and {:.1} ms for the same size again",
        1e3 * median(other),
        1e3 * median(again)
    );
    table.row(aim, ratios.collect(), json!({"note": note}));
    Ok(())
}

/// A connection, one request at a time.
struct Client(TcpStream);

impl Client {
    fn new(server: &Server) -> Result<Self> {
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// The scores of a grey image.
    fn ask(&mut self, height: usize, width: usize) -> Result<()> {
        let shape = [1, 3, i64::try_from(height)?, i64::try_from(width)?];
        let tensor = 0.5_f32.to_le_bytes().repeat(3 * height * width);
        self.0
            .write_all(&encode::rest(ANY_SIZE.name, &shape, &tensor, &[]))?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            let count = self.0.read(&mut part)?;
            ensure!(count > 0, "the server closed the connection");
            answer.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, _)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            ensure!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().ok())?
            });
            if answer.len() >= head.len() + 4 + length.context("no Content-Length")? {
                return Ok(());
            }
        }
    }
}
