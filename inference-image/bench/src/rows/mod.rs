//! The rows of the table, grouped by the processes that they need. Each module measures, and explains what the
//! numbers mean.

mod any_size;
mod device;
mod identity;
mod memory;
mod one_connection;
mod overload;
mod start;
mod throughput;

use crate::bench::Bench;
use crate::spec::Driven;
use crate::table::{Aim, Table};
use anyhow::Result;

/// Measures every row that is wanted: those of a device, or those of the CPU.
pub(crate) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    if let Some(device) = &bench.device {
        device::measure(bench, table, device);
        return Ok(());
    }
    throughput::resnet(bench, table)?;
    throughput::efficientnet(bench, table)?;
    throughput::quantised(bench, table)?;
    one_connection::measure(bench, table)?;
    identity::measure(bench, table)?;
    overload::measure(bench, table)?;
    memory::measure(bench, table)?;
    any_size::measure(bench, table)?;
    start::measure(bench, table)
}

/// The problem in any of the rounds, if there was one.
fn problem(rounds: &[Driven]) -> Option<String> {
    let mut failures = rounds.iter().flat_map(|driven| &driven.failures);
    if let Some((what, count)) = failures.next() {
        return Some(format!("{count} × {what}"));
    }
    rounds
        .iter()
        .any(|driven| driven.answered.count == 0)
        .then(|| "no answers".to_owned())
}

/// A group of rows that could not be measured: all of them failed, the others continue.
fn all_failed(table: &mut Table, bench: &Bench, aims: &[Aim], error: &anyhow::Error) {
    for aim in aims.iter().filter(|aim| bench.wants(&aim.workload)) {
        table.failed(aim, &format!("{error:#}"));
    }
}
