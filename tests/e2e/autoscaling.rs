//! The number of servers follows the load, without a request lost: an open-loop load over kept-alive and new
//! connections, whose requests arrive at random times.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use modelservice_contract::{LOAD_PATH, LoadReport, LoadTotals};
use modelservice_operator::crd::{
    Autoscaling, AutoscalingStatus, ExternalTarget, ModelService, ScaleDown, ScaleTarget,
};
use serde_json::json;

use crate::Test;
use crate::fixture::{DEVICE, Fixture, PATIENCE, SYSTEM, condition, photo, service};
use crate::load::Load;
use crate::pods::{INJECT, container, inject};
use crate::team::Team;
use crate::traffic::{settled, size};

pub(crate) const TESTS: &[Test] = &[
    (
        "autoscaling::one_to_three_to_one_servers_by_utilization_lose_no_request",
        |fixture| Box::pin(by_utilization(fixture)),
    ),
    (
        "autoscaling::servers_follow_the_requests_in_flight_while_operator_and_api_server_restart",
        |fixture| Box::pin(by_concurrency(fixture)),
    ),
    (
        "autoscaling::servers_with_devices_grow_as_far_as_there_are_devices",
        |fixture| Box::pin(with_devices(fixture)),
    ),
    (
        "autoscaling::an_autoscaler_of_ones_own_scales_the_service",
        |fixture| Box::pin(external(fixture)),
    ),
];

/// CPU limit of each server: three of them leave room for everything else on two cores.
const CPU: &str = "300m";

/// A service of photographs with this range and target, which shrinks after five seconds.
fn autoscaled(fixture: &Fixture, target: ScaleTarget, most: i32) -> ModelService {
    let mut wanted = service("photos", &fixture.models.photos);
    let cpu = ("cpu".to_owned(), Quantity(CPU.to_owned()));
    wanted.spec.resources.limits.extend([cpu]);
    wanted.spec.server.queue_length = Some(1024);
    wanted.spec.autoscaling = Some(Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(most),
        target,
        scale_down: ScaleDown {
            window_seconds: 5,
            delay_seconds: 5,
            ..ScaleDown::default()
        },
        ..Autoscaling::default()
    });
    wanted
}

/// A light load, and how many requests per second keep one server busy, by what it says of those.
pub(crate) async fn measured(team: &Team<'_>) -> Result<(Load, f64)> {
    let load = team.load_photo("photos", &photo("coffee.jpg"), 1.0).await?;
    let before = totals(team).await?;
    tokio::task::block_in_place(|| load.wait_answers(15))?;
    let after = totals(team).await?;
    let served = (after.served - before.served) as f64;
    let most = served / (after.offered_seconds - before.offered_seconds);
    eprintln!("one server can answer {most:.1} requests per second");
    Ok((load, most))
}

async fn totals(team: &Team<'_>) -> Result<LoadTotals> {
    let pods = team.pods("photos").await?;
    let text = team.management(pods.first().context("no pod")?, LOAD_PATH)?;
    let report: LoadReport = serde_json::from_str(&text)?;
    let model = report.models.into_iter().next().context("no model")?;
    model.totals.context("no totals")
}

/// Beside each server runs a container without a CPU request that uses as much CPU as it may: neither is seen.
async fn by_utilization(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-by-utilization", &[]).await?;
    let mut burning = container("aaa-proxy", "while true; do :; done");
    burning["resources"]["limits"]["cpu"] = json!("50m");
    burning["resources"]["requests"]["cpu"] = json!("0");
    inject(&team, "burning", "/spec/containers/-", &[burning]).await?;
    let mut wanted = autoscaled(fixture, ScaleTarget::default(), 3);
    wanted
        .spec
        .pod
        .labels
        .insert(INJECT.to_owned(), "burning".to_owned());
    team.serve(&wanted).await?;
    let (load, most) = measured(&team).await?;
    ensure!(
        decided(&team, 1).await?.decided_by != "Maximum",
        "one server is enough for a light load"
    );

    // Three servers carry this at 60 %; one cannot.
    load.set_rate(3.0 * 0.6 * most);
    let step = Instant::now();
    let up = decided(&team, 3).await?;
    let decided_after = step.elapsed();
    size(&team, 3).await?;
    eprintln!(
        "one to three servers by utilization: decided {decided_after:.1?} after the step, ready after {:.1?}: {}",
        step.elapsed(),
        up.message
    );
    load.set_rate(0.2 * most);
    let down = decided(&team, 1).await?;
    ensure!(down.message.starts_with("1 server: "), "{down:?}");
    settled(&team, "photos", 1).await?;
    tokio::task::block_in_place(|| load.wait_answers(1))?;
    tokio::task::block_in_place(|| load.finish("one to three to one servers by utilization"))?;
    let events = events(&team).await?;
    ensure!(events == ["ScalingDown", "ScalingUp"], "{events:?}");
    team.leave("photos").await
}

async fn by_concurrency(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-by-concurrency", &[]).await?;
    let target = ScaleTarget {
        utilization: None,
        concurrency: Some(1),
        ..ScaleTarget::default()
    };
    team.serve(&autoscaled(fixture, target, 2)).await?;
    let (load, most) = measured(&team).await?;
    decided(&team, 1).await?;
    // Some wait in one server.
    load.set_rate(1.1 * most);
    let operators: Api<Pod> = Api::namespaced(fixture.client.clone(), SYSTEM);
    for pod in operators.list(&ListParams::default()).await? {
        let at_once = DeleteParams::default().grace_period(0);
        operators.delete(&pod.name_any(), &at_once).await?;
    }
    size(&team, 2).await?;
    load.set_rate(0.1 * most);
    tokio::task::block_in_place(|| {
        fixture.cluster.restart("kube-apiserver")?;
        local_cluster::wait_until("the API server answers again", PATIENCE, || {
            Ok(fixture.cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok())
        })
    })?;
    decided(&team, 1).await?;
    settled(&team, "photos", 1).await?;
    tokio::task::block_in_place(|| load.finish("one to two to one servers by concurrency"))?;
    team.leave("photos").await
}

/// There are two devices, and the load asks for more servers.
async fn with_devices(fixture: &Fixture) -> Result<()> {
    let _devices = fixture.devices.lock().await;
    let team = fixture.team("team-by-devices", &[]).await?;
    fixture
        .class(
            "scaled-tpu",
            json!({"resource": {"name": DEVICE}, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = autoscaled(fixture, ScaleTarget::default(), 4);
    wanted.spec.accelerators = vec!["scaled-tpu".to_owned()];
    team.serve(&wanted).await?;
    let (load, most) = measured(&team).await?;
    // More than one server can answer, and less than two.
    load.set_rate(1.6 * most);
    let lacking = team
        .wait("photos", "two servers, and a third without a device", |service| {
            let status = service.status.as_ref();
            status.is_some_and(|status| status.ready_replicas == 2)
                && condition(service, "Reconciling")
                    .is_some_and(|(_, reason, message)| reason == "Unschedulable" && message.contains(DEVICE))
        })
        .await?;
    ensure!(
        condition(&lacking, "Available").is_some_and(|(status, ..)| status == "True"),
        "{lacking:?}"
    );
    load.set_rate(0.1 * most);
    decided(&team, 1).await?;
    settled(&team, "photos", 1).await?;
    tokio::task::block_in_place(|| load.finish("one server to as many as there are devices, and back"))?;
    team.leave("photos").await
}

async fn external(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-external", &[]).await?;
    let mut wanted = service("photos", &fixture.models.photos);
    wanted.spec.replicas = Some(1);
    wanted.spec.autoscaling = Some(Autoscaling {
        target: ScaleTarget {
            utilization: None,
            external: Some(ExternalTarget {}),
            ..ScaleTarget::default()
        },
        ..Autoscaling::default()
    });
    team.serve(&wanted).await?;
    let own: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "photos-by-me"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService", "name": "photos"},
            "minReplicas": 1, "maxReplicas": 2,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 40}}}],
        },
    }))?;
    team.api().create(&PostParams::default(), &own).await?;
    let load = team.load_photo("photos", &photo("coffee.jpg"), 2.0).await?;
    tokio::task::block_in_place(|| load.wait_answers(10))?;
    // Twice the request of 50m.
    load.set_rate(0.1 / load.report().median().as_secs_f64());
    size(&team, 2).await?;
    let status = autoscaling(&team.api::<ModelService>().get("photos").await?)?;
    ensure!(
        status.decided_by == "External" && status.wanted == 2,
        "{status:?}"
    );
    tokio::task::block_in_place(|| load.finish("an autoscaler of one's own"))?;
    team.leave("photos").await
}

fn autoscaling(service: &ModelService) -> Result<AutoscalingStatus> {
    let status = service.status.as_ref();
    let autoscaling = status.and_then(|status| status.autoscaling.clone());
    autoscaling.context("no status.autoscaling")
}

/// Waits until this many servers are wanted, and the Deployment says the same.
async fn decided(team: &Team<'_>, servers: i32) -> Result<AutoscalingStatus> {
    let what = format!("{servers} servers are wanted");
    let wanted = team
        .wait("photos", &what, |service| {
            autoscaling(service).is_ok_and(|status| status.wanted == servers)
        })
        .await?;
    let revision = wanted
        .status
        .as_ref()
        .and_then(|status| status.current_revision.clone())
        .context("no revision")?;
    team.until::<Deployment>(
        &format!("photos-{revision}"),
        &what,
        |deployment: Option<&Deployment>| {
            deployment.is_some_and(|deployment| deployment.spec.replicas == Some(servers))
        },
    )
    .await?;
    autoscaling(&wanted)
}

/// Reasons of the events about the changes of size, sorted: one for each direction, not for each step.
async fn events(team: &Team<'_>) -> Result<Vec<String>> {
    let events = team.api::<k8s_openapi::api::events::v1::Event>();
    let all = events.list(&ListParams::default()).await?;
    let reasons = all.items.into_iter().filter_map(|event| event.reason);
    let mut scaling: Vec<String> = reasons.filter(|reason| reason.starts_with("Scaling")).collect();
    scaling.retain(|reason| ["ScalingUp", "ScalingDown"].contains(&reason.as_str()));
    scaling.sort();
    Ok(scaling)
}
