//! Models that are fetched: the pod that finds a version, what is frozen of it, and what its failures do not touch. Nobody
//! runs containers here: the tests say in a pod's status what the kubelet would.

use crate::fixture::{Place, Spec, World, condition, control_plane, eventually, model, service};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use modelservice_operator::{
    crd::{ModelService, ModelServiceSpec},
    revision,
};
use serde_json::{Value, json};
use std::sync::Arc;

crate::tests!(
    a_model_is_found_by_a_pod_and_its_version_is_frozen,
    a_model_that_is_not_found_leaves_what_serves_as_it_is,
    the_pod_that_finds_a_model_runs_in_a_restricted_namespace,
    a_quota_that_has_no_room_for_the_pod_is_told,
    a_pod_of_somebody_else_with_its_name_is_told,
    an_image_is_fetched_on_a_cluster_without_image_volumes,
    a_claim_is_mounted_and_nothing_is_fetched,
);

fn fetched(uri: &str) -> Spec {
    Spec {
        name: "photos".to_owned(),
        spec: json!({"model": {"uri": uri}, "fetch": {"credentials": {"secretName": "known"}}}),
    }
}

/// Pods that look for a model, by name.
async fn resolvers(place: &Place) -> Vec<Pod> {
    let of_service = "serving.modelservice.dev/service=photos,app.kubernetes.io/component=resolver";
    let mut pods = place
        .api::<Pod>()
        .list(&ListParams::default().labels(of_service))
        .await
        .unwrap()
        .items;
    pods.sort_by_key(|pod| pod.name_any());
    pods
}

/// Waits for a pod that looks for a model and runs, whose name ends like this.
async fn resolver(place: &Place, suffix: &str) -> Pod {
    eventually(&format!("a pod …{suffix}"), async || {
        let pods = resolvers(place).await;
        let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        let is_running =
            |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let mut fits = pods
            .into_iter()
            .filter(|pod| pod.name_any().ends_with(suffix) && is_running(pod));
        fits.next().ok_or_else(|| format!("{names:?}"))
    })
    .await
}

/// The kubelet says that the container of this pod has ended.
async fn ends(place: &Place, pod: &Pod, code: i32, message: &Value) {
    let now = jiff::Timestamp::now().to_string();
    let status = json!({"status": {
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{"name": "resolve", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "finishedAt": now, "message": message.to_string()}}}]}});
    let patch = Patch::Merge(status);
    place
        .api::<Pod>()
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn found(version: &str) -> Value {
    json!({"identity": {"kind": "Version", "value": version, "isRetained": true}, "objects": 2, "bytes": 10})
}

/// The configuration of the container that fetches the model.
fn config(deployment: &Deployment) -> Value {
    let pod = deployment.spec.template.spec.clone().unwrap();
    let fetch = pod.init_containers.unwrap().remove(0);
    assert_eq!(fetch.name, "fetch");
    serde_json::from_str(fetch.env.unwrap()[0].value.as_deref().unwrap()).unwrap()
}

/// Everything that a service promises about what is served.
async fn a_model_is_found_by_a_pod_and_its_version_is_frozen(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&fetched("s3://models/net/")).await;
    let pod = resolver(&place, "-resolve").await;
    let told = place.wait_ready("photos", "False", "Progressing").await;
    let message = condition(&told, "Ready").unwrap().2;
    assert!(message.contains("s3://models/net/"), "{message}");
    assert!(place.deployments("photos").await.is_empty());
    let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller),
        ("ModelService", Some(true))
    );

    ends(&place, &pod, 0, &found("v-1")).await;
    let serving = place.serving("photos").await;
    let deployment = place.deployment("photos").await;
    let fetches = config(&deployment);
    assert_eq!(fetches["uri"], "s3://models/net/");
    assert_eq!(
        fetches["identity"],
        json!({"kind": "Version", "value": "v-1", "isRetained": true})
    );
    assert_eq!(deployment.spec.progress_deadline_seconds, Some(600 + 3600));
    assert!(condition(&serving, "SourceNotRetained").is_none());
    assert_eq!(
        serving.status.unwrap().revisions[0].source.as_deref(),
        Some("s3://models/net/")
    );
    eventually("the pod is gone", async || match resolvers(&place).await.len() {
        0 => Ok(()),
        pods => Err(pods),
    })
    .await;
    operator.writes_nothing_more(&place, "photos").await;
    let again = place.deployment("photos").await;
    assert_eq!(
        again.metadata.generation, deployment.metadata.generation,
        "a restart of the operator changes nothing"
    );

    // Only the two fields of the spec that mean it ask again.
    place
        .apply(&fetched("s3://models/net/").with("model.refresh", "2".into()))
        .await;
    let pod = resolver(&place, "-resolve").await;
    let version = json!({"identity": {"kind": "ETag", "value": "\"e\"", "isRetained": false}, "objects": 1});
    ends(&place, &pod, 0, &version).await;
    eventually("the next version serves", async || {
        let service = place.serving("photos").await;
        let told = condition(&service, "SourceNotRetained");
        told.ok_or_else(|| format!("{:?}", service.status))
    })
    .await;
    let newest = &place.deployments("photos").await[0];
    assert_eq!(config(newest)["identity"]["value"], "\"e\"");
}

/// A store that is down, or a typo, must not be an outage.
async fn a_model_that_is_not_found_leaves_what_serves_as_it_is(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place
        .apply(&service("photos").with("rollout.strategy", "Recreate".into()))
        .await;
    let revision = place.serving_revision("photos").await;
    let before = place.deployment("photos").await;
    let changed = fetched("s3://models/missing.onnx").with("rollout.strategy", "Recreate".into());
    // The image is replaced, not kept beside the URI.
    place.apply(&changed).await;
    let pod = resolver(&place, "-resolve").await;
    let failure = json!({"reason": "Denied", "message": "403 Forbidden: AccessDenied"});
    ends(&place, &pod, 32, &failure).await;
    let told = place.wait_ready("photos", "False", "ModelFetchFailed").await;
    let message = condition(&told, "Stalled").unwrap().2;
    for words in [
        "403 Forbidden: AccessDenied (exit code 32)",
        "Secret \"known\" (spec.fetch.credentials)",
        &format!("revision {revision} keeps serving"),
    ] {
        assert!(message.contains(words), "{words} in {message}");
    }
    assert_eq!(condition(&told, "Available").unwrap().0, "True");
    operator.writes_nothing_more(&place, "photos").await;

    // It is tried again, and nothing that was said changes until that has ended.
    let pod = resolver(&place, "-resolve-2").await;
    let meanwhile = place.service("photos").await;
    assert_eq!(condition(&meanwhile, "Ready"), condition(&told, "Ready"));
    let after = place.deployment("photos").await;
    assert_eq!(after.metadata.generation, before.metadata.generation);
    ends(&place, &pod, 0, &found("v-2")).await;
    eventually("the new revision serves", async || {
        let serving = place.serving_revision("photos").await;
        if serving == revision { Err(serving) } else { Ok(()) }
    })
    .await;
}

/// Most namespaces enforce it.
async fn the_pod_that_finds_a_model_runs_in_a_restricted_namespace(world: Arc<World>) {
    let place = world.namespace().await;
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    namespaces
        .patch(&place.name, &PatchParams::default(), &Patch::Merge(labels))
        .await
        .unwrap();
    let _operator = place.operator(&[]);
    place
        .apply(&fetched("s3://models/net/").with("fetch.runAsUser", 1337.into()))
        .await;
    let pod = resolver(&place, "-resolve").await;
    ends(&place, &pod, 0, &found("v-1")).await;
    // Its servers' pods, with their init container, too.
    place.serving("photos").await;
}

async fn a_quota_that_has_no_room_for_the_pod_is_told(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    place
        .api::<ResourceQuota>()
        .create(&PostParams::default(), &quota)
        .await
        .unwrap();
    eventually("the quota is in force", async || {
        let quota = place.api::<ResourceQuota>().get("none").await.unwrap();
        quota.status.and_then(|status| status.hard).ok_or("not yet")
    })
    .await;
    place.apply(&fetched("s3://models/net/")).await;
    let told = place.wait_ready("photos", "False", "QuotaExceeded").await;
    let message = condition(&told, "Ready").unwrap().2;
    assert!(message.contains("exceeded quota"), "{message}");
    place.delete::<ResourceQuota>("none").await;
    resolver(&place, "-resolve").await;
}

/// Waiting would never end: nobody deletes it.
async fn a_pod_of_somebody_else_with_its_name_is_told(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let fetched = fetched("s3://models/net/");
    let spec: ModelServiceSpec = serde_json::from_value(fetched.spec.clone()).unwrap();
    let name = format!("photos-{}-resolve", revision::name(&spec));
    let container = json!({"name": "mine", "image": "mine.example/pod:1"});
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [container]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    place
        .api::<Pod>()
        .create(&PostParams::default(), &pod)
        .await
        .unwrap();
    place.apply(&fetched).await;
    let told = place.wait_ready("photos", "False", "NameConflict").await;
    let message = condition(&told, "Stalled").unwrap().2;
    assert!(
        message.contains(&format!(
            "Pod \"{name}\" already exists and belongs to somebody else"
        )),
        "{message}"
    );
    place.delete::<Pod>(&name).await;
    resolver(&place, "-resolve").await;
}

/// Kubernetes 1.34 and its successors run the same specs.
async fn an_image_is_fetched_on_a_cluster_without_image_volumes(_: Arc<World>) {
    let old = tokio::task::spawn_blocking(|| {
        World::with(control_plane("old").flag("kube-apiserver", "--emulated-version=1.34"))
    });
    let old = old.await.unwrap().unwrap();
    let (place, _operator) = old.place().await;
    place.apply(&service("photos")).await;
    let deployment = eventually("a Deployment", async || {
        place.deployments("photos").await.pop().ok_or("none yet")
    })
    .await;
    let fetches = config(&deployment);
    assert_eq!(fetches["uri"], format!("oci://{}", model('a')));
    assert_eq!(fetches["identity"]["kind"], "OciDigest");
    assert!(resolvers(&place).await.is_empty(), "its digest is its version");
    let service = place.service("photos").await;
    assert_eq!(condition(&service, "Stalled"), None, "{:?}", service.status);

    // Who insists on an image volume is told why there is none.
    place
        .apply(&crate::fixture::service("letters").with("model.delivery", "ImageVolume".into()))
        .await;
    let stalled = place.wait_ready("letters", "False", "UnsupportedCluster").await;
    let message = condition(&stalled, "Stalled").unwrap().2;
    assert!(
        message.contains("v1.3") && message.contains("ImageVolume") && message.contains("set it to Auto"),
        "{message}"
    );
    tokio::task::spawn_blocking(move || drop(old)).await.unwrap();
}

async fn a_claim_is_mounted_and_nothing_is_fetched(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let spec = json!({"model": {"volumeClaim": {"name": "models", "path": "nets/one"}}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": "none",
            "resources": {"requests": {"storage": "1Gi"}}}});
    let claims: Api<k8s_openapi::api::core::v1::PersistentVolumeClaim> = place.api();
    claims
        .create(&PostParams::default(), &serde_json::from_value(claim).unwrap())
        .await
        .unwrap();
    place
        .apply(&Spec {
            name: "photos".to_owned(),
            spec,
        })
        .await;
    let deployment = eventually("a Deployment", async || {
        place.deployments("photos").await.pop().ok_or("none yet")
    })
    .await;
    let pod = deployment.spec.template.spec.unwrap();
    assert!(pod.init_containers.is_none());
    let mount = &pod.containers[0].volume_mounts.as_ref().unwrap()[0];
    assert_eq!(
        (mount.sub_path.as_deref(), mount.read_only),
        (Some("nets/one"), Some(true))
    );
    assert!(
        resolvers(&place).await.is_empty(),
        "it would bind a claim that waits for its first pod"
    );
    let told: ModelService = eventually("SourceNotRetained", async || {
        let service = place.service("photos").await;
        match condition(&service, "SourceNotRetained") {
            Some(_) => Ok(service),
            None => Err(format!("{:?}", service.status)),
        }
    })
    .await;
    let message = condition(&told, "SourceNotRetained").unwrap().2;
    assert!(message.contains("spec.model.digest"), "{message}");
}
