//! Models in the cluster's registry and on claims, on real kubelets. `stores.rs` has those in other stores.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use modelservice_operator::crd::{Delivery, ModelService};
use serde_json::json;

use crate::Test;
use crate::fixture::{EXAMPLE, Fixture, condition, example, is_ready, service};
use crate::models::{self, push_artifact};
use crate::onnx;
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    (
        "sources::an_artifact_by_its_tag_is_fetched_and_stays_when_the_tag_moves",
        |fixture| Box::pin(moved_tag(fixture)),
    ),
    ("sources::an_image_is_fetched_instead_of_mounted", |fixture| {
        Box::pin(fetched_image(fixture))
    }),
    ("sources::a_folder_of_a_claim_is_served", |fixture| {
        Box::pin(claim(fixture))
    }),
    (
        "sources::a_tag_that_does_not_exist_is_ModelFetchFailed",
        |fixture| Box::pin(missing_tag(fixture)),
    ),
];

/// The example of an artifact by its tag, in the repository of this name: the cluster's registry speaks plain HTTP.
fn by_tag(fixture: &Fixture, repository: &str) -> Result<ModelService> {
    let host = fixture.cluster.registry_host();
    let words = [("registry.example", host), ("efficientnet-lite0", repository)];
    let mut wanted = example("oci.yaml", &words)?;
    wanted.spec.model.endpoint = Some(format!("http://{host}"));
    Ok(wanted)
}

/// The digest of the model that a service serves, as its servers report it.
async fn digest(team: &Team<'_>, name: &str) -> Result<String> {
    let has_model = |service: &ModelService| {
        is_ready(service)
            && service
                .status
                .as_ref()
                .is_some_and(|status| status.model.is_some())
    };
    let service = team.wait(name, "the model is reported", has_model).await?;
    let model = service
        .status
        .and_then(|status| status.model)
        .context("no model")?;
    ensure!(model.delivery.as_deref() == Some("Fetch"), "{model:?}");
    Ok(model.digest)
}

// A moved tag must not reach servers that start later: they would answer differently from the others.
async fn moved_tag(fixture: &Fixture) -> Result<()> {
    let restricted = ("pod-security.kubernetes.io/enforce", "restricted");
    let team = fixture.team("team-moved-tag", &[restricted]).await?;
    push_artifact(&fixture.cluster, "moved", &onnx::adder(1.0, onnx::OPSET))?;
    let mut wanted = by_tag(fixture, "moved")?;
    team.serve(&wanted).await?;
    let first = digest(&team, EXAMPLE).await?;

    push_artifact(&fixture.cluster, "moved", &onnx::adder(10.0, onnx::OPSET))?;
    wanted.spec.replicas = Some(2);
    team.apply(&wanted).await?;
    let two = |service: &ModelService| {
        is_ready(service)
            && service
                .status
                .as_ref()
                .is_some_and(|status| status.ready_replicas == 2)
    };
    team.wait(EXAMPLE, "two servers are ready", two).await?;
    for pod in team.pods(EXAMPLE).await? {
        let report: modelservice_contract::Report =
            serde_json::from_str(&team.management(&pod, modelservice_contract::REPORT_PATH)?)?;
        let served = &report.models.first().context("no model")?.digest;
        ensure!(
            *served == first,
            "{} serves {served}, not {first}",
            pod.name_any()
        );
    }
    ensure!(
        resolvers(&team).await? == 0,
        "the pod that found the version is still there"
    );

    wanted.spec.model.refresh = Some("2".into());
    wanted.spec.replicas = None;
    team.apply(&wanted).await?;
    let refreshed = |service: &ModelService| {
        let model = service.status.as_ref().and_then(|status| status.model.as_ref());
        is_ready(service) && model.is_some_and(|model| model.digest != first)
    };
    team.wait(EXAMPLE, "the new version is served", refreshed).await?;
    team.delete(EXAMPLE).await
}

async fn resolvers(team: &Team<'_>) -> Result<usize> {
    let pods = team.api::<Pod>().list(&Default::default()).await?;
    let is_resolver = |pod: &&Pod| pod.name_any().contains("-resolve");
    Ok(pods.items.iter().filter(is_resolver).count())
}

async fn fetched_image(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-fetched-image", &[]).await?;
    let mut wanted = service("adder", &fixture.models.plus_one);
    wanted.spec.model.delivery = Delivery::Fetch;
    // The cluster's registry speaks plain HTTP.
    wanted.spec.model.endpoint = Some(format!("http://{}", fixture.cluster.registry_host()));
    team.serve(&wanted).await?;
    digest(&team, "adder").await?;
    team.delete("adder").await
}

async fn claim(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-volume", &[]).await?;
    let folder = fixture.cluster.folder().join("models");
    let model = onnx::adder(1.0, onnx::OPSET);
    std::fs::create_dir_all(folder.join("efficientnet-lite0"))?;
    std::fs::write(folder.join("efficientnet-lite0/model.onnx"), &model)?;
    let volumes: Api<PersistentVolume> = Api::all(fixture.client.clone());
    let volume = json!({"metadata": {"name": "models"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "models",
        "local": {"path": folder},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}]}]}}}});
    volumes
        .create(&Default::default(), &serde_json::from_value(volume)?)
        .await?;
    let claim = json!({"metadata": {"name": "models"}, "spec": {"accessModes": ["ReadOnlyMany"],
        "storageClassName": "models", "volumeName": "models", "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = team.api::<PersistentVolumeClaim>();
    claims
        .create(&Default::default(), &serde_json::from_value(claim)?)
        .await?;
    let digest = models::digest(&model);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let mut wanted = example("volume.yaml", &[(&zeros, &digest)])?;
    let served = team.serve(&wanted).await?;
    ensure!(condition(&served, "SourceNotRetained").is_none(), "{served:?}");
    wanted.spec.model.digest = None;
    let served = team.serve(&wanted).await?;
    let told = condition(&served, "SourceNotRetained").context("nothing pins the files")?;
    ensure!(told.2.contains("spec.model.digest"), "{told:?}");
    team.delete(EXAMPLE).await?;
    claims.delete("models", &DeleteParams::default()).await?;
    volumes.delete("models", &DeleteParams::default()).await?;
    Ok(())
}

async fn missing_tag(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-missing-tag", &[]).await?;
    team.apply(&by_tag(fixture, "nowhere")?).await?;
    let fails = |service: &ModelService| {
        condition(service, "Stalled").is_some_and(|(_, reason, message)| {
            reason == "ModelFetchFailed" && message.contains("models/nowhere")
        })
    };
    team.wait(EXAMPLE, "the store's words", fails).await?;
    team.delete(EXAMPLE).await
}
