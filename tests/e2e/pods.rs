//! What others do to a service's pods: containers that are injected into them, and nodes that evict them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use modelservice_operator::crd::{ModelService, RolloutStrategy};
use serde_json::{Value, json};

use crate::Test;
use crate::failures::fails;
use crate::fixture::{Fixture, PATIENCE, condition, is_ready, service};
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    (
        "pods::injected_containers_that_fail_are_told_by_their_names_and_do_not_speak_for_the_server",
        |fixture| Box::pin(injected(fixture)),
    ),
    (
        "pods::an_evicted_server_neither_speaks_for_the_living_nor_stops_a_recreate_rollout",
        |fixture| Box::pin(evicted(fixture)),
    ),
];

/// Label of the pods into which something is injected; its value says what.
pub(crate) const INJECT: &str = "inject";

async fn injected(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-injected", &[]).await?;
    let eats = "x=x; while true; do x=$x$x; done";
    let stays = "trap 'exit 0' TERM; sleep 3600 & wait";
    let ends = |code: u8, words: &str| format!("echo {words} >/dev/termination-log; exit {code}");
    let crashing = [
        container("aaa-proxy", eats),
        container("zzz-agent", &ends(3, "no certificate")),
    ];
    let healthy = [container("aaa-proxy", stays), container("zzz-agent", stays)];
    let init = [json!([container("first", &ends(4, "no rules"))])];
    tokio::try_join!(
        inject(&team, "crashing", "/spec/containers/-", &crashing),
        inject(&team, "healthy", "/spec/containers/-", &healthy),
        inject(&team, "init", "/spec/initContainers", &init),
    )?;
    for (name, image) in [
        ("crashing", &fixture.models.plus_one),
        ("healthy", &fixture.models.without_model),
        ("init", &fixture.models.plus_one),
    ] {
        let mut wanted = service(name, image);
        wanted.spec.pod.labels.insert(INJECT.to_owned(), name.to_owned());
        team.apply(&wanted).await?;
    }

    let reasons = Reasons::default();
    let told = team.wait("crashing", "both containers are told", |service| {
        reasons.hear(service);
        condition(service, "Stalled").is_some_and(|(_, _, message)| {
            message
                .contains("container aaa-proxy was killed because it needed more memory than its own limit")
                && message.contains("container zzz-agent terminates with exit code 3: no certificate")
        })
    });
    told.await?;
    // Containers without a probe are ready until they end.
    reasons.are_among(&["Progressing", "Serving", "InjectedContainerFailed"])?;
    fails(&team, "healthy", "ModelInvalid", "model.onnx", true).await?;
    fails(
        &team,
        "init",
        "InjectedContainerFailed",
        "the injected init container first terminates with exit code 4: no rules",
        true,
    )
    .await?;
    let healthy = team.api::<ModelService>().get("healthy").await?;
    let (_, _, message) = condition(&healthy, "Ready").context("no condition")?;
    ensure!(!message.contains("injected"), "{message}");
    for name in ["crashing", "healthy", "init"] {
        team.leave(name).await?;
    }
    Ok(())
}

/// A container that runs a script with little memory.
pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({
        "name": name, "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
        "resources": {"limits": {"memory": "32Mi"}},
    })
}

/// Has the API server patch the pods of this namespace that have the label, as a service mesh has it.
pub(crate) async fn inject(team: &Team<'_>, label: &str, path: &str, values: &[Value]) -> Result<()> {
    let operations: Vec<String> = values
        .iter()
        .map(|value| format!("JSONPatch{{op: 'add', path: '{path}', value: {}}}", cel(value)))
        .collect();
    let name = format!("inject-{label}");
    let policy: MutatingAdmissionPolicy = serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}},
                "objectSelector": {"matchLabels": {INJECT: label}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": format!("[{}]", operations.join(", "))}}],
        }}),
    )?;
    let binding: MutatingAdmissionPolicyBinding =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"policyName": name}}))?;
    let client = &team.fixture.client;
    Api::all(client.clone())
        .create(&PostParams::default(), &policy)
        .await?;
    Api::all(client.clone())
        .create(&PostParams::default(), &binding)
        .await?;
    in_force(team, label).await
}

/// Waits until a pod with the label would be patched.
async fn in_force(team: &Team<'_>, label: &str) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "try", "labels": {INJECT: label}},
        "spec": {"containers": [{"name": "server", "image": "localhost/busybox:1"}]},
    }))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let made = team.api::<Pod>().create(&dry_run, &pod).await;
        let containers = |spec: &k8s_openapi::api::core::v1::PodSpec| {
            spec.containers.len() + spec.init_containers.iter().flatten().count()
        };
        if made
            .as_ref()
            .is_ok_and(|made| made.spec.as_ref().map(containers) > Some(1))
        {
            return Ok(());
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "nothing is injected: {made:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A value in CEL's notation. Without `dyn`, its maps and lists hold values of one type only.
fn cel(value: &Value) -> String {
    let items: Vec<String> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| format!("{}: dyn({})", json!(key), cel(value)))
            .collect(),
        Value::Array(items) => items.iter().map(|item| format!("dyn({})", cel(item))).collect(),
        plain => return plain.to_string(),
    };
    let (open, close) = if value.is_object() { ('{', '}') } else { ('[', ']') };
    format!("{open}{}{close}", items.join(", "))
}

async fn evicted(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-evicted", &[]).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.rollout.strategy = RolloutStrategy::Recreate;
    let limits = &mut wanted.spec.resources.limits;
    limits.insert("ephemeral-storage".to_owned(), Quantity("4Mi".to_owned()));
    let first = team.serve(&wanted).await?.status.context("no status")?;
    let pod = team.pods("orders").await?.pop().context("no pod")?;
    evict(&team, &pod).await?;
    team.wait("orders", "the other server serves", is_served).await?;

    wanted.spec.replicas = Some(2);
    team.apply(&wanted).await?;
    let reasons = Reasons::default();
    team.wait("orders", "two servers", |service| {
        reasons.hear(service);
        let ready = service.status.as_ref().map(|status| status.ready_replicas);
        is_served(service) && ready == Some(2)
    })
    .await?;
    reasons.are_among(&["Serving", "Progressing"])?;

    wanted.spec.model.image = Some(fixture.models.plus_ten.clone());
    let second = team.serve(&wanted).await?.status.context("no status")?;
    ensure!(first.current_revision != second.current_revision, "{second:?}");
    let dead = team.api::<Pod>().get(&pod.name_any()).await?;
    ensure!(is_evicted(Some(&dead)), "the evicted pod did not stay: {dead:?}");
    team.leave("orders").await
}

fn is_served(service: &ModelService) -> bool {
    is_ready(service) && condition(service, "Stalled").is_none()
}

/// Has the kubelet evict a pod by making it log more than it may store, and waits for its replacement.
async fn evict(team: &Team<'_>, pod: &Pod) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let number = node.and_then(|node| node.strip_prefix("node-")?.parse::<usize>().ok());
    let number = number.with_context(|| format!("on which node? {node:?}"))?;
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let log = format!("/var/log/pods/{}_{name}_{uid}/server/much.log", team.namespace);
    let mut write = team.fixture.cluster.node(number - 1).command("sh")?;
    crate::fixture::run(write.args(["-c", "head --bytes=8M /dev/zero >\"$0\"", &log]))?;
    team.until::<Pod>(&name, "evicted", is_evicted).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !team.pods("orders").await?.iter().any(is_pod_ready) {
        ensure!(
            tokio::time::Instant::now() < deadline,
            "not replaced\n{}",
            team.describe()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn is_evicted(pod: Option<&Pod>) -> bool {
    let status = pod.and_then(|pod| pod.status.as_ref());
    status.is_some_and(|status| {
        status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some("Evicted")
    })
}

/// Every reason that the conditions of a service have had.
#[derive(Default)]
struct Reasons(Mutex<BTreeSet<String>>);

impl Reasons {
    fn hear(&self, service: &ModelService) {
        let conditions = service.status.iter().flat_map(|status| &status.conditions);
        let reasons = conditions.map(|condition| condition.reason.clone());
        self.0.lock().unwrap().extend(reasons);
    }

    fn are_among(&self, expected: &[&str]) -> Result<()> {
        let heard = self.0.lock().unwrap();
        ensure!(
            heard.iter().all(|reason| expected.contains(&reason.as_str())),
            "not only {expected:?}: {heard:?}"
        );
        Ok(())
    }
}

fn is_pod_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True")
}
