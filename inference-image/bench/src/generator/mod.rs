//! The load generator: a separate process that sends prepared requests, uses as little CPU as it can, and checks
//! every response. Knows nothing of models.

mod check;
mod closed;
mod connection;
mod http;
mod http2;
mod open;
mod record;
#[cfg(test)]
mod tests;

use crate::spec::{Drive, Request};
use anyhow::{Context, Result, ensure};
use check::Check;
use std::fs;

/// Executes the commands on standard input and writes the measurements to standard output.
pub(crate) fn main() -> Result<()> {
    let spec: Drive =
        serde_json::from_reader(std::io::stdin().lock()).context("the specification of the load")?;
    let messages = spec
        .requests
        .iter()
        .map(Message::read)
        .collect::<Result<Vec<_>>>()?;
    ensure!(!messages.is_empty(), "no requests");
    let driven = match spec.open {
        None => closed::run(&spec, &messages)?,
        Some(open) => open::run(&spec, open, &messages)?,
    };
    serde_json::to_writer(std::io::stdout().lock(), &driven)?;
    Ok(())
}

/// A request as it is sent, and the check of its response.
struct Message {
    bytes: Vec<u8>,
    check: Check,
}

impl Message {
    fn read(request: &Request) -> Result<Self> {
        let bytes =
            fs::read(&request.bytes).with_context(|| format!("cannot read {}", request.bytes.display()))?;
        Ok(Self {
            bytes,
            check: Check::new(&request.answer)?,
        })
    }
}
