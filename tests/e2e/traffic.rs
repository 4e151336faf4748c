//! No request is lost, whatever an owner or an administrator does: every test sends an open-loop load over kept-alive
//! and new connections, without retries, and fails on the first transport error or non-2xx answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler as Autoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use modelservice_operator::crd::{Autoscaling, ModelService, ScaleTarget};
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, PATIENCE, SYSTEM, condition, is_ready, photo, service};
use crate::load::{Load, Report};
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    ("traffic::a_deleted_pod_loses_no_request", |fixture| {
        Box::pin(deleted_pod(fixture))
    }),
    ("traffic::a_killed_operator_loses_no_request", |fixture| {
        Box::pin(killed_operator(fixture))
    }),
    (
        "traffic::a_new_model_on_three_autoscaled_servers_loses_no_request",
        |fixture| Box::pin(new_model(fixture)),
    ),
    (
        "traffic::a_broken_model_never_replaces_a_working_one",
        |fixture| Box::pin(broken_model(fixture)),
    ),
    (
        "traffic::from_fixed_to_autoscaled_and_back_loses_neither_requests_nor_servers",
        |fixture| Box::pin(hand_over(fixture)),
    ),
    (
        "traffic::one_to_three_to_one_servers_by_cpu_lose_no_request",
        |fixture| Box::pin(by_cpu(fixture)),
    ),
    ("traffic::a_drained_node_loses_no_request", |fixture| {
        Box::pin(drained_node(fixture))
    }),
];

/// Far less than one server can answer.
const RATE: f64 = 20.0;

/// Some more answers, then the end of the load.
fn finish(load: Load, what: &str) -> Result<Report> {
    tokio::task::block_in_place(|| {
        load.wait_answers(40)?;
        load.finish(what)
    })
}

async fn deleted_pod(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-deleted-pod", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.replicas = Some(2);
    team.serve(&wanted).await?;
    let load = team.load_adder("orders", RATE).await?;
    let victim = team.pods("orders").await?.first().context("no pod")?.name_any();
    team.api::<Pod>()
        .delete(&victim, &DeleteParams::default())
        .await?;
    team.until::<Pod>(&victim, "gone", |pod: Option<&Pod>| pod.is_none())
        .await?;
    team.ready("orders").await?;
    finish(load, "a pod deleted")?;
    team.leave("orders").await
}

async fn killed_operator(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-operator", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    team.serve(&wanted).await?;
    let load = team.load_adder("orders", RATE).await?;
    let operators: Api<Pod> = Api::namespaced(fixture.client.clone(), SYSTEM);
    for pod in operators.list(&ListParams::default()).await? {
        operators
            .delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
            .await?;
    }
    // The next operator continues the work.
    wanted.spec.replicas = Some(2);
    team.apply(&wanted).await?;
    team.wait("orders", "two servers are ready", |service| {
        is_ready(service)
            && service
                .status
                .as_ref()
                .is_some_and(|status| status.ready_replicas == 2)
    })
    .await?;
    finish(load, "the operator killed")?;
    team.leave("orders").await
}

async fn new_model(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-new-model", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.autoscaling = Some(Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(4),
        ..Autoscaling::default()
    });
    team.serve(&wanted).await?;
    // Three servers, as the autoscaler would choose: a rollout must not reduce them.
    wanted.spec.autoscaling = Some(Autoscaling {
        min_replicas: Some(3),
        max_replicas: Some(4),
        ..Autoscaling::default()
    });
    team.serve(&wanted).await?;
    team.wait("orders", "three servers are ready", |service| {
        service
            .status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == 3)
    })
    .await?;
    let load = team.load_adder("orders", RATE).await?;
    tokio::task::block_in_place(|| load.wait_answers(10))?;
    ensure!(load.report().adds(1.0), "{:?}", load.report().latest);

    let old = revision(&team.api::<ModelService>().get("orders").await?)?;
    wanted.spec.model.image = Some(fixture.models.plus_ten.clone());
    let served = team.serve(&wanted).await?;
    let new = revision(&served)?;
    ensure!(old != new, "the revision is still {old}");
    let fresh = team.api::<Deployment>().get(&format!("orders-{new}")).await?;
    ensure!(
        fresh.spec.replicas >= Some(3),
        "the new revision is smaller: {fresh:?}"
    );

    // This includes the end of the old servers: until then, kept-alive connections lead to them.
    team.until::<Deployment>(&format!("orders-{old}"), "at zero", |old: Option<&Deployment>| {
        old.is_some_and(|old| {
            old.status
                .as_ref()
                .is_none_or(|status| status.replicas.unwrap_or(0) == 0)
        })
    })
    .await?;
    gone(&team, &old).await?;
    let report = finish(load, "the model changed")?;
    ensure!(report.adds(10.0), "{:?}", report.latest);
    team.leave("orders").await
}

async fn broken_model(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-broken-model", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    let old = revision(&team.serve(&wanted).await?)?;
    let load = team.load_adder("orders", RATE).await?;

    wanted.spec.model.image = Some(fixture.models.not_onnx.clone());
    team.apply(&wanted).await?;
    let broken = team
        .wait("orders", "ModelInvalid beside a working revision", |service| {
            condition(service, "Ready")
                .is_some_and(|(status, reason, _)| status == "False" && reason == "ModelInvalid")
                && condition(service, "Stalled").is_some()
        })
        .await?;
    ensure!(
        condition(&broken, "Available").is_some_and(|(status, ..)| status == "True"),
        "{:?}",
        broken.status
    );
    let (_, _, message) = condition(&broken, "Ready").context("no condition")?;
    ensure!(message.contains(&format!("{old} keeps serving")), "{message}");
    tokio::task::block_in_place(|| load.wait_answers(10))?;
    ensure!(load.report().adds(1.0), "{:?}", load.report().latest);

    wanted.spec.model.image = Some(fixture.models.plus_ten.clone());
    team.serve(&wanted).await?;
    gone(&team, &old).await?;
    let report = finish(load, "a broken model applied and repaired")?;
    ensure!(report.adds(10.0), "{:?}", report.latest);
    team.leave("orders").await
}

async fn hand_over(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-hand-over", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.replicas = Some(2);
    let served = team.serve(&wanted).await?;
    let sizes = Sizes::watch(&team, &format!("orders-{}", revision(&served)?));
    let load = team.load_adder("orders", RATE).await?;
    for _ in 0..2 {
        wanted.spec.replicas = None;
        wanted.spec.autoscaling = Some(Autoscaling {
            min_replicas: Some(2),
            max_replicas: Some(3),
            // Out of reach, however busy the machine is.
            target: cpu(1000),
            ..Autoscaling::default()
        });
        team.serve(&wanted).await?;
        team.until::<Autoscaler>("orders", "the autoscaler works", |hpa: Option<&Autoscaler>| {
            hpa.is_some_and(|hpa| {
                hpa.status
                    .as_ref()
                    .is_some_and(|status| status.desired_replicas == 2)
            })
        })
        .await?;
        wanted.spec.replicas = Some(2);
        wanted.spec.autoscaling = None;
        team.serve(&wanted).await?;
        team.until::<Autoscaler>("orders", "the autoscaler is gone", |hpa: Option<&Autoscaler>| {
            hpa.is_none()
        })
        .await?;
    }
    finish(load, "fixed to autoscaled and back, twice")?;
    let seen = sizes.stop()?;
    ensure!(
        seen.iter().all(|size| *size == 2),
        "spec.replicas was {seen:?} on the way"
    );
    team.leave("orders").await
}

/// This CPU use, in percent of the request.
fn cpu(percent: i32) -> ScaleTarget {
    ScaleTarget {
        utilization: None,
        cpu_utilization: Some(percent),
        ..ScaleTarget::default()
    }
}

async fn by_cpu(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-by-cpu", &[]).await?;
    let mut wanted = service("photos", &fixture.models.photos);
    let set = |cpu: &str| {
        [("cpu", cpu), ("memory", "256Mi")]
            .map(|(name, value)| (name.to_owned(), Quantity(value.to_owned())))
            .into()
    };
    wanted.spec.resources.requests = set("100m");
    wanted.spec.resources.limits = set("300m");
    wanted.spec.autoscaling = Some(Autoscaling {
        min_replicas: Some(1),
        max_replicas: Some(3),
        target: cpu(30),
        behavior: Some(serde_json::from_value(json!({
            "scaleUp": {"stabilizationWindowSeconds": 0},
            "scaleDown": {"stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 1}]},
        }))?),
        ..Autoscaling::default()
    });
    team.serve(&wanted).await?;
    let load = team.load_photo("photos", &photo("coffee.jpg"), 2.0).await?;
    tokio::task::block_in_place(|| load.wait_answers(20))?;
    // Enough for one server to use 130m: below half of its limit, and above four times the target.
    load.set_rate(0.13 / load.report().median().as_secs_f64());
    size(&team, 3).await?;
    load.set_rate(0.2);
    size(&team, 1).await?;
    // Until the last superfluous server is gone.
    settled(&team, "photos", 1).await?;
    tokio::task::block_in_place(|| load.wait_answers(1))?;
    tokio::task::block_in_place(|| load.finish("one to three to one servers by CPU"))?;
    team.leave("photos").await
}

async fn drained_node(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-drain", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.replicas = Some(2);
    wanted.spec.pod.topology_spread_constraints = serde_json::from_value(json!([
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"},
    ]))?;
    team.serve(&wanted).await?;
    let on_second = |pods: &[Pod]| {
        pods.iter()
            .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("node-2"))
            .count()
    };
    ensure!(
        on_second(&team.pods("orders").await?) == 1,
        "the servers are not spread over the nodes"
    );
    let load = team.load_adder("orders", RATE).await?;
    let drain = [
        "drain",
        "node-2",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=150s",
    ];
    let drained = tokio::task::block_in_place(|| fixture.cluster.kubectl(&drain));
    let ready = team.ready("orders").await;
    fixture.cluster.kubectl(&["uncordon", "node-2"])?;
    drained?;
    ready?;
    settled(&team, "orders", 2).await?;
    finish(load, "a node drained")?;
    team.leave("orders").await
}

fn revision(service: &ModelService) -> Result<String> {
    service
        .status
        .as_ref()
        .and_then(|status| status.current_revision.clone())
        .context("no revision")
}

pub(crate) async fn size(team: &Team<'_>, wanted: i32) -> Result<()> {
    let what = format!("{wanted} servers are ready");
    team.wait("photos", &what, |service| {
        service
            .status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == wanted && status.replicas == wanted)
    })
    .await
    .map(drop)
}

/// Waits until exactly `count` pods of a service exist, including terminating ones.
pub(crate) async fn settled(team: &Team<'_>, name: &str, count: usize) -> Result<()> {
    let selector = format!("{}={name}", modelservice_operator::crd::SERVICE_LABEL);
    pods_are(team, &selector, |pods| pods == count).await
}

/// Waits until no pod of a revision is left.
async fn gone(team: &Team<'_>, revision: &str) -> Result<()> {
    let selector = format!("{}={revision}", modelservice_operator::crd::REVISION_LABEL);
    pods_are(team, &selector, |pods| pods == 0).await
}

async fn pods_are(team: &Team<'_>, selector: &str, enough: impl Fn(usize) -> bool) -> Result<()> {
    let config = watcher::Config::default().labels(selector);
    let (store, writer) = kube::runtime::reflector::store();
    let changes = watcher(team.api::<Pod>(), config)
        .reflect(writer)
        .default_backoff();
    let waiting = async {
        let mut changes = std::pin::pin!(changes);
        while changes.try_next().await?.is_some() {
            // The first list is complete only when the store says so.
            let complete = tokio::time::timeout(Duration::ZERO, store.wait_until_ready())
                .await
                .is_ok();
            if complete && enough(store.len()) {
                break;
            }
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(result) => result,
        Err(_) => bail!(
            "{} pods of {selector} after {PATIENCE:?}\n{}",
            store.len(),
            team.describe()
        ),
    }
}

/// Every value that a Deployment's `spec.replicas` takes, seen by a watch.
struct Sizes {
    seen: Arc<Mutex<Vec<i32>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Sizes {
    fn watch(team: &Team<'_>, deployment: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (api, shared) = (team.api::<Deployment>(), Arc::clone(&seen));
        let config = watcher::Config::default().fields(&format!("metadata.name={deployment}"));
        let task = tokio::spawn(async move {
            let mut objects = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
            while let Some(object) = objects.next().await {
                let size = object.ok().and_then(|deployment| deployment.spec.replicas);
                shared.lock().unwrap().extend(size);
            }
        });
        Self { seen, task }
    }

    fn stop(self) -> Result<Vec<i32>> {
        self.task.abort();
        let seen = self.seen.lock().unwrap().clone();
        ensure!(!seen.is_empty(), "the watch saw nothing");
        Ok(seen)
    }
}
