//! `modelservice-fetch`: see `modelservice_fetch::cli`.

use clap::Parser;
use modelservice_fetch::cli::{Arguments, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(&arguments)
}
