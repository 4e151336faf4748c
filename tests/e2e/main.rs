//! End to end: the operator, installed by its chart, on a real two-node cluster with real kubelets.
//!
//! The cluster is started by the first test that runs and removed after the last. Tests whose services mostly wait
//! run concurrently; those that count every request of a load run one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod autoscaling;
mod cache;
mod devices;
mod failures;
mod fixture;
mod helm;
mod kept_alive;
mod load;
mod models;
mod onnx;
mod pods;
mod security;
mod serving;
mod shares;
mod sources;
mod stores;
mod team;
mod traces;
mod traffic;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

use fixture::Fixture;

/// A test: a sentence about behaviour, and the code that checks it.
pub(crate) type Test = (&'static str, for<'a> fn(&'a Fixture) -> BoxFuture<'a, Result<()>>);

type Shared = Arc<OnceLock<Result<Fixture, String>>>;

/// How many tests that mostly wait for a kubelet run concurrently.
const SIDE_BY_SIDE: usize = 6;

fn main() -> ExitCode {
    let shared = Shared::default();
    let side_by_side = [
        serving::TESTS,
        failures::TESTS,
        cache::TESTS,
        devices::TESTS,
        helm::TESTS,
        pods::TESTS,
        security::TESTS,
        sources::TESTS,
        stores::TESTS,
    ]
    .concat();
    let one_after_another = [
        traffic::TESTS,
        autoscaling::TESTS,
        devices::UNDER_LOAD,
        shares::TESTS,
    ]
    .concat();
    let conclusions = [
        run(trials(&shared, &side_by_side), SIDE_BY_SIDE),
        run(trials(&shared, &one_after_another), 1),
        run(trials(&shared, traces::TRACES).map(measurement), 1),
    ];
    let failed = conclusions.iter().any(Conclusion::has_failed);
    let ended = Arc::into_inner(shared)
        .and_then(OnceLock::into_inner)
        .map_or(Ok(()), |fixture| end(fixture, failed));
    if let Err(error) = &ended {
        eprintln!("e2e: {error:#}");
    }
    if failed || ended.is_err() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn run(trials: impl Iterator<Item = Trial>, threads: usize) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(threads);
    libtest_mimic::run(&arguments, trials.collect())
}

fn trials(shared: &Shared, tests: &[Test]) -> impl Iterator<Item = Trial> {
    tests.iter().map(|(name, test)| {
        let (shared, test) = (Arc::clone(shared), *test);
        Trial::test(*name, move || {
            let fixture = shared.get_or_init(|| start().map_err(|error| format!("{error:#}")));
            let fixture = fixture
                .as_ref()
                .map_err(|error| Failed::from(format!("no cluster to test on: {error}")))?;
            fixture
                .block_on(test(fixture))
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
    })
}

/// What runs only if it is asked for by `--ignored`.
fn measurement(trial: Trial) -> Trial {
    trial.with_ignored_flag(true)
}

fn start() -> Result<Fixture> {
    let measures = Arguments::from_args().ignored;
    // Tests do not wait for the HorizontalPodAutoscaler's usual pace; measurements are about it.
    Fixture::start(!measures)
}

/// Removes the cluster and checks whether anything is left of it.
fn end(fixture: Result<Fixture, String>, failed: bool) -> Result<()> {
    let Ok(fixture) = fixture else { return Ok(()) };
    if failed {
        eprintln!(
            "e2e: logs of the cluster's parts: {}",
            fixture.cluster.save_logs()?.display()
        );
    }
    let leftovers = fixture.cluster.leftovers_check();
    drop(fixture);
    let left = leftovers().context("cannot look for leftovers")?;
    anyhow::ensure!(left.is_empty(), "left on this machine: {left:?}");
    Ok(())
}
