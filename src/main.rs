//! The command `modelservice-operator`.

use clap::Parser as _;
use modelservice_operator::cli::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    Arguments::parse().execute()
}
