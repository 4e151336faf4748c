//! The operator against a real API server, controller manager and scheduler; kwok simulates nodes and pods. Each test
//! has its own namespace, and an operator that watches only that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod admission;
mod children;
mod devices;
mod fixture;
mod leadership;
mod others;
mod placement;
mod problems;
mod rollout;
mod scale;
mod security;
mod servers;
mod settled;
mod sources;

use fixture::World;
use libtest_mimic::{Arguments, Trial};
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    let world = match World::start() {
        Ok(world) => Arc::new(world),
        Err(error) => {
            eprintln!("the control plane did not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&world)));
    drop(world);
    conclusion.exit_code()
}

fn trials(world: Option<&Arc<World>>) -> Vec<Trial> {
    let mut all = Vec::new();
    for tests in [
        admission::tests(),
        children::tests(),
        devices::tests(),
        others::tests(),
        scale::tests(),
        rollout::tests(),
        placement::tests(),
        settled::tests(),
        sources::tests(),
        problems::tests(),
        security::tests(),
        leadership::tests(),
    ] {
        for (name, test) in tests {
            let world = world.cloned();
            all.push(Trial::test(name, move || {
                let world = world.ok_or("no control plane")?;
                // The test runner catches panics.
                world.block_on(test(world.clone()));
                Ok(())
            }));
        }
    }
    all
}
