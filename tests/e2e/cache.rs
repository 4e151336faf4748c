//! Optimised graphs: what a container finds after its restart, and what a new pod finds on a claim.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use modelservice_contract::{GraphSource, REPORT_PATH, Report};
use modelservice_operator::crd::VolumeClaim;
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, is_ready, service};
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    (
        "cache::a_container_that_restarts_starts_from_its_optimised_graph",
        |fixture| Box::pin(restarted_container(fixture)),
    ),
    (
        "cache::a_new_pod_starts_from_the_optimised_graph_on_a_claim",
        |fixture| Box::pin(claim(fixture)),
    ),
];

// Under restricted Pod Security and with a read-only root, the server must still have a place to write.
async fn restarted_container(fixture: &Fixture) -> Result<()> {
    let restricted = ("pod-security.kubernetes.io/enforce", "restricted");
    let team = fixture.team("team-restart", &[restricted]).await?;
    team.serve(&service("adder", &fixture.models.plus_one)).await?;
    let pod = only_pod(&team, "adder").await?;
    ensure!(graph(&team, &pod).await? == GraphSource::Optimised);

    let uid = pod.uid().context("no UID")?;
    rustix::process::kill_process(server_of(&uid)?, rustix::process::Signal::KILL)?;
    let restarted = team
        .until::<Pod>(&pod.name_any(), "ready again", |pod: Option<&Pod>| {
            let statuses = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
            statuses.is_some_and(|all| all.iter().all(|one| one.restart_count == 1 && one.ready))
        })
        .await?;
    let source = graph(&team, &restarted.context("no pod")?).await?;
    ensure!(source == GraphSource::Cached, "after the restart: {source:?}");
    team.delete("adder").await
}

/// The server's process in a pod, as this machine sees it.
fn server_of(uid: &str) -> Result<rustix::process::Pid> {
    // Kubelets write the UID with dashes or with underscores.
    let spellings = [uid.to_owned(), uid.replace('-', "_")];
    let is_server = |folder: &PathBuf| {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let groups = read("cgroup");
        // The kernel stores fifteen characters of a name.
        read("comm").starts_with("modelservice-se") && spellings.iter().any(|uid| groups.contains(uid))
    };
    let processes = std::fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    let folder = processes.into_iter().find(is_server).context("no such process")?;
    let pid = folder
        .file_name()
        .and_then(|name| name.to_str())
        .context("no number")?;
    rustix::process::Pid::from_raw(pid.parse()?).context("no process")
}

// An emptyDir does not help new pods; without the claim, every rollout and every added server optimises again.
async fn claim(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-claim", &[]).await?;
    let folder = fixture.cluster.folder().join("graphs");
    std::fs::create_dir_all(&folder)?;
    let volumes: Api<PersistentVolume> = Api::all(fixture.client.clone());
    // It is on one node, like most volumes.
    let volume = json!({"metadata": {"name": "graphs"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "graphs",
        "local": {"path": folder},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}]}]}}}});
    volumes
        .create(&Default::default(), &serde_json::from_value(volume)?)
        .await?;
    let claim = json!({"metadata": {"name": "graphs"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "graphs", "volumeName": "graphs", "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = team.api::<PersistentVolumeClaim>();
    claims
        .create(&Default::default(), &serde_json::from_value(claim)?)
        .await?;

    let mut wanted = service("adder", &fixture.models.plus_one);
    wanted.spec.server.cache.volume_claim = Some(VolumeClaim {
        name: "graphs".into(),
    });
    team.serve(&wanted).await?;
    let first = only_pod(&team, "adder").await?;
    ensure!(graph(&team, &first).await? == GraphSource::Optimised);

    wanted.spec.replicas = Some(2);
    team.apply(&wanted).await?;
    let two = |service: &_| is_ready(service) && ready(service) == 2;
    team.wait("adder", "two servers are ready", two).await?;
    for pod in team.pods("adder").await? {
        let is_new = pod.uid() != first.uid();
        let expected = if is_new {
            GraphSource::Cached
        } else {
            GraphSource::Optimised
        };
        let source = graph(&team, &pod).await?;
        ensure!(source == expected, "{}: {source:?}", pod.name_any());
    }
    team.delete("adder").await?;
    ensure!(
        folder.read_dir()?.next().is_some(),
        "what is in a claim is the user's"
    );
    claims.delete("graphs", &DeleteParams::default()).await?;
    volumes.delete("graphs", &DeleteParams::default()).await?;
    Ok(())
}

fn ready(service: &modelservice_operator::crd::ModelService) -> i32 {
    service.status.as_ref().map_or(0, |status| status.ready_replicas)
}

async fn only_pod(team: &Team<'_>, name: &str) -> Result<Pod> {
    let mut pods = team.pods(name).await?;
    ensure!(pods.len() == 1, "{} pods", pods.len());
    pods.pop().context("no pod")
}

/// Where a server's graph came from, according to its report.
async fn graph(team: &Team<'_>, pod: &Pod) -> Result<GraphSource> {
    let report: Report = serde_json::from_str(&team.management(pod, REPORT_PATH)?)?;
    Ok(report.models.first().context("no model")?.graph)
}
