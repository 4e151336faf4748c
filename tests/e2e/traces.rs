//! The same traces of load, once scaled by the operator and once by a HorizontalPodAutoscaler on CPU, both with their
//! defaults: how many servers each used, and how many requests were late. Not a test: `make bench-autoscaling` runs it,
//! in about half an hour, and docs/autoscaling.md has the result.

use std::f64::consts::TAU;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, ListParams};
use modelservice_operator::crd::{Autoscaling, ModelService, ScaleTarget};
use tokio::time::{Instant, sleep_until};

use crate::Test;
use crate::autoscaling::measured;
use crate::fixture::{Fixture, service};
use crate::load::Report;
use crate::team::Team;

pub(crate) const TRACES: &[Test] = &[(
    "traces::the_operator_and_an_autoscaler_on_cpu_with_the_same_load",
    |fixture| Box::pin(compare(fixture)),
)];

/// CPU limit of each server, and the most servers: together they leave room for everything else on two cores.
const CPU: &str = "300m";
const MOST: i32 = 4;
/// Length of a trace, in seconds.
const SECONDS: u32 = 150;
/// A request that takes longer is late, as is one that fails.
const LATE: Duration = Duration::from_millis(100);

/// Load at a second, as a share of what one server can answer.
type Trace = fn(f64) -> f64;

const LOADS: [(&str, Trace); 4] = [
    ("step: 0.4, after 30 s 2.1, after 110 s 0.4", |second| {
        if (30.0..110.0).contains(&second) { 2.1 } else { 0.4 }
    }),
    ("ramp: from 0.2 to 2.1 and back", |second| {
        let half = f64::from(SECONDS) / 2.0;
        0.2 + 1.9 * (1.0 - (second - half).abs() / half)
    }),
    ("bursts: 0.4, and 1.8 for 15 s of each 60 s", |second| {
        if (30.0..45.0).contains(&(second % 60.0)) {
            1.8
        } else {
            0.4
        }
    }),
    ("sine: 1.2 ± 0.9 with a period of 75 s", |second| {
        1.2 - 0.9 * (TAU * second / 75.0).cos()
    }),
];

async fn compare(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-traces", &[]).await?;
    let by_cpu = ScaleTarget {
        utilization: None,
        cpu_utilization: Some(70),
        ..ScaleTarget::default()
    };
    println!("| load | scaled by | servers × seconds | later than 100 ms | failed | median |");
    println!("|---|---|---|---|---|---|");
    for (name, trace) in LOADS {
        for (by, target) in [("utilization", ScaleTarget::default()), ("CPU", by_cpu.clone())] {
            let run = run(&team, target, trace).await.with_context(|| name.to_owned())?;
            println!("| {name} | {by} | {run}");
        }
    }
    Ok(())
}

/// One trace with a new service; returns the rest of the table's row.
async fn run(team: &Team<'_>, target: ScaleTarget, trace: Trace) -> Result<String> {
    team.serve(&autoscaled(team.fixture, target)).await?;
    let (load, most) = measured(team).await?;
    let warm = load.report();
    let began = Instant::now();
    let mut server_seconds = 0;
    for second in 0..SECONDS {
        load.set_rate(trace(f64::from(second)) * most);
        sleep_until(began + Duration::from_secs(u64::from(second) + 1)).await;
        server_seconds += servers(team).await?;
    }
    let report = tokio::task::block_in_place(|| load.stop())?;
    team.api::<ModelService>()
        .delete("photos", &DeleteParams::foreground())
        .await?;
    team.until::<ModelService>("photos", "gone", |service: Option<&ModelService>| {
        service.is_none()
    })
    .await?;
    Ok(row(server_seconds, &since(report, &warm)))
}

/// A service with the defaults of autoscaling, but for the bounds.
fn autoscaled(fixture: &Fixture, target: ScaleTarget) -> ModelService {
    let mut wanted = service("photos", &fixture.models.photos);
    let cpu = || ("cpu".to_owned(), Quantity(CPU.to_owned()));
    wanted.spec.resources.limits.extend([cpu()]);
    wanted.spec.resources.requests.extend([cpu()]);
    wanted.spec.autoscaling = Some(Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(MOST),
        target,
        ..Autoscaling::default()
    });
    wanted
}

/// Servers that there should be now: each costs from when it is asked for.
async fn servers(team: &Team<'_>) -> Result<i32> {
    let deployments = team.api::<Deployment>().list(&ListParams::default()).await?;
    let sizes = deployments.items.iter();
    Ok(sizes
        .map(|deployment| deployment.spec.replicas.unwrap_or(1))
        .sum())
}

/// What happened after `warm`.
fn since(mut report: Report, warm: &Report) -> Report {
    report.answered -= warm.answered;
    report.latencies.drain(..warm.latencies.len());
    report.errors.drain(..warm.errors.len());
    report
}

fn row(server_seconds: i32, report: &Report) -> String {
    let all = (report.answered + report.errors.len()) as f64;
    let late = report.latencies.iter().filter(|latency| **latency > LATE).count();
    let share = |requests: usize| format!("{:.1} %", requests as f64 / all * 100.0);
    format!(
        "{server_seconds} | {} | {} | {:.0} ms |",
        share(late + report.errors.len()),
        share(report.errors.len()),
        report.median().as_secs_f64() * 1000.0
    )
}
