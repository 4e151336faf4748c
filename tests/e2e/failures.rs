//! What can go wrong, and what the owner then reads: each case is a row in docs/troubleshooting.md.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use modelservice_operator::crd::ModelService;
use serde_json::{Value, json};

use crate::Test;
use crate::fixture::{Fixture, PATIENCE, condition, service};
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    ("failures::an_image_without_a_model_is_ModelInvalid", |fixture| {
        Box::pin(model(
            fixture,
            "no-model",
            &fixture.models.without_model,
            "ModelInvalid",
            "model.onnx",
        ))
    }),
    (
        "failures::an_oci_artifact_that_mounts_empty_is_ModelInvalid",
        |fixture| {
            Box::pin(model(
                fixture,
                "artifact",
                &fixture.models.artifact,
                "ModelInvalid",
                "model.onnx",
            ))
        },
    ),
    ("failures::a_file_that_is_no_onnx_is_ModelInvalid", |fixture| {
        Box::pin(model(
            fixture,
            "not-onnx",
            &fixture.models.not_onnx,
            "ModelInvalid",
            "onnx.checker",
        ))
    }),
    (
        "failures::an_operator_set_that_is_too_new_is_ModelInvalid",
        |fixture| {
            Box::pin(model(
                fixture,
                "too-new",
                &fixture.models.too_new,
                "ModelInvalid",
                "opset",
            ))
        },
    ),
    ("failures::another_digest_is_ModelDigestMismatch", |fixture| {
        Box::pin(digest(fixture))
    }),
    ("failures::a_missing_model_image_is_ModelFetchFailed", |fixture| {
        Box::pin(missing_model(fixture))
    }),
    (
        "failures::a_missing_runtime_image_is_ImagePullFailed",
        |fixture| Box::pin(missing_runtime(fixture)),
    ),
    (
        "failures::a_provider_that_the_runtime_lacks_is_AcceleratorUnavailable",
        |fixture| Box::pin(provider(fixture)),
    ),
    (
        "failures::an_unknown_class_is_AcceleratorClassNotFound",
        |fixture| Box::pin(unknown_class(fixture)),
    ),
    (
        "failures::a_device_that_no_node_has_is_Unschedulable",
        |fixture| Box::pin(no_node(fixture)),
    ),
    (
        "failures::a_used_up_quota_is_QuotaExceeded_until_it_is_raised",
        |fixture| Box::pin(quota(fixture)),
    ),
    (
        "failures::a_limit_range_that_forbids_the_pods_is_PodsForbidden",
        |fixture| Box::pin(limit_range(fixture)),
    ),
    (
        "failures::too_little_memory_for_the_model_is_OutOfMemory",
        |fixture| Box::pin(memory(fixture)),
    ),
    (
        "failures::a_foreign_service_of_that_name_is_NameConflict_and_stays_as_it_is",
        |fixture| Box::pin(foreign_service(fixture)),
    ),
    ("failures::a_healthy_neighbour_is_not_disturbed", |fixture| {
        Box::pin(neighbour(fixture))
    }),
];

/// Waits for a reason and checks what an owner reads with it. Only a change helps where it is `stalled`.
pub(crate) async fn fails(
    team: &Team<'_>,
    name: &str,
    reason: &str,
    says: &str,
    stalled: bool,
) -> Result<()> {
    let failed = team
        .wait(name, reason, |service| {
            condition(service, "Ready").is_some_and(|(status, found, _)| status == "False" && found == reason)
                && condition(service, "Stalled").is_some() == stalled
        })
        .await?;
    let (_, _, message) = condition(&failed, "Ready").context("no condition")?;
    ensure!(
        message.contains(says),
        "the message of {reason} does not say {says:?}: {message}"
    );
    ensure!(
        condition(&failed, "Available").is_some_and(|(status, ..)| status == "False"),
        "{failed:?}"
    );
    Ok(())
}

async fn model(fixture: &Fixture, name: &str, image: &str, reason: &str, says: &str) -> Result<()> {
    let team = fixture.team(&format!("team-{name}"), &[]).await?;
    team.apply(&service("broken", image)).await?;
    fails(&team, "broken", reason, says, true).await?;
    team.delete("broken").await
}

async fn digest(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-digest", &[]).await?;
    let mut wanted = service("broken", &fixture.models.plus_one);
    let other = format!("sha256:{}", "ab".repeat(32));
    wanted.spec.model.digest = Some(other.clone());
    team.apply(&wanted).await?;
    fails(&team, "broken", "ModelDigestMismatch", &other, true).await?;
    team.delete("broken").await
}

async fn missing_model(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-missing-model", &[]).await?;
    let image = format!(
        "{}/models/nowhere@sha256:{}",
        fixture.cluster.registry_host(),
        "cd".repeat(32)
    );
    team.apply(&service("broken", &image)).await?;
    fails(&team, "broken", "ModelFetchFailed", &image, true).await?;
    team.delete("broken").await
}

async fn missing_runtime(fixture: &Fixture) -> Result<()> {
    let image = format!("{}/runtime/nowhere:1", fixture.cluster.registry_host());
    let spec = json!({"runtime": {"image": image}});
    class(fixture, "missing-runtime", spec, "ImagePullFailed", &image, true).await
}

async fn provider(fixture: &Fixture) -> Result<()> {
    let spec = json!({"runtime": {"executionProvider": "CUDAExecutionProvider"}});
    class(
        fixture,
        "no-cuda",
        spec,
        "AcceleratorUnavailable",
        "CUDAExecutionProvider",
        true,
    )
    .await
}

async fn no_node(fixture: &Fixture) -> Result<()> {
    let spec = json!({"resource": {"name": "example.com/nowhere"}});
    class(
        fixture,
        "nowhere",
        spec,
        "Unschedulable",
        "example.com/nowhere",
        false,
    )
    .await
}

/// A healthy model on a kind of device that does not work.
async fn class(
    fixture: &Fixture,
    name: &str,
    spec: Value,
    reason: &str,
    says: &str,
    stalled: bool,
) -> Result<()> {
    fixture.class(name, spec).await?;
    let team = fixture.team(&format!("team-{name}"), &[]).await?;
    team.apply(&on(name, fixture)).await?;
    fails(&team, "broken", reason, says, stalled).await?;
    team.delete("broken").await
}

fn on(class: &str, fixture: &Fixture) -> ModelService {
    let mut wanted = service("broken", &fixture.models.plus_one);
    wanted.spec.accelerators = vec![class.to_owned()];
    wanted
}

async fn unknown_class(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-unknown-class", &[]).await?;
    team.apply(&on("made-later", fixture)).await?;
    team.wait("broken", "AcceleratorClassNotFound", |service| {
        condition(service, "Ready").is_some_and(|(_, reason, message)| {
            reason == "AcceleratorClassNotFound" && message.contains("made-later")
        })
    })
    .await?;
    // Here somebody other than the owner has to do something.
    fixture.class("made-later", json!({})).await?;
    team.ready("broken").await?;
    team.delete("broken").await
}

async fn quota(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-quota", &[]).await?;
    let mut quota = ResourceQuota::default();
    quota.metadata.name = Some("small".to_owned());
    quota.spec.get_or_insert_default().hard = Some([("pods".to_owned(), Quantity("0".to_owned()))].into());
    team.api::<ResourceQuota>()
        .create(&Default::default(), &quota)
        .await?;
    team.until::<ResourceQuota>("small", "the quota counts", |quota: Option<&ResourceQuota>| {
        quota
            .and_then(|quota| quota.status.as_ref()?.used.as_ref())
            .is_some()
    })
    .await?;
    team.apply(&service("broken", &fixture.models.plus_one)).await?;
    fails(&team, "broken", "QuotaExceeded", "exceeded quota: small", false).await?;
    team.api::<ResourceQuota>()
        .delete("small", &Default::default())
        .await?;
    team.ready("broken").await?;
    team.delete("broken").await
}

async fn limit_range(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-limit-range", &[]).await?;
    let range: LimitRange = serde_json::from_value(json!({
        "metadata": {"name": "tight"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "32Mi"}}]},
    }))?;
    team.api().create(&Default::default(), &range).await?;
    team.apply(&service("broken", &fixture.models.plus_one)).await?;
    fails(
        &team,
        "broken",
        "PodsForbidden",
        "maximum memory usage per Container is 32Mi",
        true,
    )
    .await?;
    team.delete("broken").await
}

async fn memory(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-memory", &[]).await?;
    let mut wanted = service("broken", &fixture.models.photos);
    for set in [
        &mut wanted.spec.resources.requests,
        &mut wanted.spec.resources.limits,
    ] {
        set.insert("memory".to_owned(), Quantity("32Mi".to_owned()));
    }
    team.apply(&wanted).await?;
    fails(
        &team,
        "broken",
        "OutOfMemory",
        "spec.resources.limits.memory",
        true,
    )
    .await?;
    team.delete("broken").await
}

async fn foreign_service(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-conflict", &[]).await?;
    let mut foreign: Service =
        serde_json::from_value(json!({"metadata": {"name": "broken"}, "spec": {"ports": [{"port": 8443}]}}))?;
    foreign = team.api().create(&Default::default(), &foreign).await?;
    team.apply(&service("broken", &fixture.models.plus_one)).await?;
    fails(&team, "broken", "NameConflict", "broken", true).await?;
    let after = team.api::<Service>().get("broken").await?;
    ensure!(after == foreign, "the foreign Service was changed: {after:?}");

    // Once the name is free, the service takes it.
    team.api::<Service>()
        .delete("broken", &Default::default())
        .await?;
    team.ready("broken").await?;
    team.delete("broken").await
}

async fn neighbour(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-neighbour", &[]).await?;
    team.serve(&service("healthy", &fixture.models.plus_one)).await?;
    let before = team.pods("healthy").await?;
    let load = team.load_adder("healthy", 5.0).await?;
    let image = format!(
        "{}/models/nowhere@sha256:{}",
        fixture.cluster.registry_host(),
        "ef".repeat(32)
    );
    team.apply(&service("broken-one", &image)).await?;
    team.apply(&service("broken-two", &fixture.models.without_model))
        .await?;
    fails(&team, "broken-one", "ModelFetchFailed", &image, true).await?;
    fails(&team, "broken-two", "ModelInvalid", "model.onnx", true).await?;
    tokio::task::block_in_place(|| load.wait_answers(10))?;
    tokio::task::block_in_place(|| load.finish("a neighbour of broken services"))?;
    let after = team.pods("healthy").await?;
    let servers = |pods: &[k8s_openapi::api::core::v1::Pod]| -> Vec<_> {
        pods.iter()
            .map(|pod| (pod.metadata.uid.clone(), restarts(pod)))
            .collect()
    };
    ensure!(
        servers(&before) == servers(&after),
        "the neighbour's servers changed within {PATIENCE:?}: {after:?}"
    );
    for name in ["healthy", "broken-one", "broken-two"] {
        team.delete(name).await?;
    }
    Ok(())
}

fn restarts(pod: &k8s_openapi::api::core::v1::Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .map(|status| status.restart_count)
        .sum()
}
