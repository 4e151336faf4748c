//! How requests are distributed among servers: Kubernetes balances connections, and clients keep theirs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use local_cluster::wait_until;
use modelservice_contract::METRICS_PATH;
use modelservice_operator::crd::{ModelService, PAUSED_ANNOTATION};
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, is_ready, service};
use crate::kept_alive::{Client, KeptAlive};
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    (
        "shares::an_added_server_gets_its_share_of_kept_alive_connections_within_their_age",
        |fixture| Box::pin(added_server(fixture)),
    ),
    (
        "shares::a_service_that_gets_its_port_for_grpc_loses_no_request",
        |fixture| Box::pin(grpc_port(fixture)),
    ),
];

/// Seconds that a connection may live.
const AGE: i32 = 3;
/// Clients that keep their connections.
const CLIENTS: usize = 8;
/// kube-proxy learns of an endpoint up to a second after it is ready; the rest is for a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// Ages over which requests are counted. A new connection goes to either server by chance: that a quarter or less of
/// 8 × 10 go to the new one happens once in a million runs.
const AGES: usize = 10;

// Without this, an autoscaler adds servers that get no requests, while the busy one stays busy.
async fn added_server(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-shares", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.server.connections.max_age_seconds = Some(AGE);
    team.serve(&wanted).await?;
    let clients = team.keep_alive("orders", CLIENTS).await?;
    renewed(&clients, 0, Instant::now())?;
    let old = requests(&team, "orders").await?;
    ensure!(old.len() == 1, "{old:?}");

    wanted.spec.replicas = Some(2);
    team.apply(&wanted).await?;
    team.wait("orders", "two servers are ready", |service| {
        let ready = service.status.as_ref().map(|status| status.ready_replicas);
        is_ready(service) && ready == Some(2)
    })
    .await?;
    let added = Instant::now();
    renewed(&clients, 1, added)?;
    let within = added.elapsed();
    ensure!(
        within <= longest_life() + SLACK,
        "connections were renewed after {within:.1?}"
    );

    let before = requests(&team, "orders").await?;
    renewed(&clients, AGES, Instant::now())?;
    let after = requests(&team, "orders").await?;
    let served = |pod: &String| after[pod] - before.get(pod).unwrap_or(&0.0);
    let new: f64 = after
        .keys()
        .filter(|pod| !old.contains_key(*pod))
        .map(served)
        .sum();
    let share = new / after.keys().map(served).sum::<f64>();
    let clients = clients.finish()?;
    eprintln!(
        "shares: all {CLIENTS} connections renewed {within:.1?} after the second server was ready (age {AGE} s); \
         then {:.0} % of the requests went to it; {} answered, 0 failed",
        share * 100.0,
        clients.iter().map(|client| client.answered).sum::<usize>()
    );
    ensure!(
        share >= 0.25,
        "the added server's share is {share:.2} of {after:?} since {before:?}"
    );
    for life in clients.iter().flat_map(lives) {
        ensure!(
            life <= longest_life() + SLACK,
            "a connection lived for {life:.1?}"
        );
    }
    team.leave("orders").await
}

/// The age plus 10 %.
fn longest_life() -> Duration {
    Duration::from_secs_f64(f64::from(AGE) * 1.1)
}

/// How long each of a client's connections lived.
fn lives(client: &Client) -> impl Iterator<Item = Duration> {
    client.opened.windows(2).map(|pair| pair[1] - pair[0])
}

/// Waits until each client has opened this many connections since `since`, or has got any answer.
fn renewed(clients: &KeptAlive, times: usize, since: Instant) -> Result<()> {
    let since_then = |client: &Client| client.opened.iter().filter(|at| **at > since).count();
    let done = |client: &Client| client.answered > 0 && since_then(client) >= times;
    tokio::task::block_in_place(|| {
        wait_until(
            &format!("{times} new connections of each client"),
            Duration::from_secs(180),
            || {
                let clients = clients.clients();
                let failed = clients.iter().find_map(|client| client.error.as_ref());
                ensure!(failed.is_none(), "a request failed: {failed:?}");
                Ok(clients.iter().all(done))
            },
        )
    })
}

/// How many requests each pod of a service has answered.
async fn requests(team: &Team<'_>, name: &str) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for pod in team.pods(name).await? {
        let metrics = team.management(&pod, METRICS_PATH)?;
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("modelservice_requests_total{"));
        let count = counts
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        all.insert(pod.name_any(), count);
    }
    Ok(all)
}

// With an upgrade, every Service that an older operator created gets the port while it carries traffic.
async fn grpc_port(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-grpc-port", &[]).await?;
    team.serve(&service("orders", &fixture.models.plus_one)).await?;
    let load = team.load_adder("orders", 20.0).await?;
    paused(&team, Some("true")).await?;
    let older = json!({"spec": {"ports": [{"name": "http", "appProtocol": "http", "port": 80, "targetPort": "http"}]}});
    team.api::<Service>()
        .patch("orders", &PatchParams::default(), &Patch::Merge(older))
        .await?;
    tokio::task::block_in_place(|| load.wait_answers(40))?;
    paused(&team, None).await?;
    let has_port = |service: Option<&Service>| {
        let ports = service.and_then(|service| service.spec.as_ref()?.ports.as_ref());
        ports.is_some_and(|ports| ports.iter().any(|port| port.name.as_deref() == Some("grpc")))
    };
    team.until::<Service>("orders", "the port is there", has_port)
        .await?;
    // Until nodes have learned of it, and a few more.
    tokio::task::block_in_place(|| load.wait_answers(60))?;
    tokio::task::block_in_place(|| load.finish("a port added to the Service"))?;
    let endpoint = team.api::<Service>().get("orders").await?;
    ensure!(
        endpoint
            .spec
            .context("no spec")?
            .ports
            .is_some_and(|ports| ports.len() == 2)
    );
    team.leave("orders").await
}

async fn paused(team: &Team<'_>, value: Option<&str>) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {PAUSED_ANNOTATION: value}}});
    team.api::<ModelService>()
        .patch("orders", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
