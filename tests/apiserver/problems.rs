//! Problems that need no kubelet: classes, quotas, policies, rights, unsuitable clusters.

use crate::fixture::{World, condition, eventually, service};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, ResourceQuota};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::sync::Arc;

crate::tests!(
    an_unknown_class_is_named_and_waited_for,
    a_quota_that_forbids_the_pods_is_named,
    a_quota_that_forbids_the_deployment_is_named,
    a_limit_range_that_forbids_the_pods_is_named,
    a_policy_that_forbids_the_pods_is_named,
    pods_comply_with_restricted_pod_security,
    a_claim_that_is_not_there_is_named,
    events_tell_transitions_once,
);

async fn an_unknown_class_is_named_and_waited_for(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place
        .apply(&service("photos").with("accelerators", json!(["not-there-yet"])))
        .await;
    let stalled = place
        .wait_ready("photos", "False", "AcceleratorClassNotFound")
        .await;
    assert!(
        condition(&stalled, "Stalled")
            .unwrap()
            .2
            .contains("not-there-yet")
    );
    world.apply_class("not-there-yet", json!({})).await.unwrap();
    place.serving("photos").await;
    // An existing revision no longer needs its class.
    world
        .classes()
        .delete("not-there-yet", &DeleteParams::default())
        .await
        .unwrap();
    place
        .apply(
            &service("photos")
                .replicas(2)
                .with("accelerators", json!(["not-there-yet"])),
        )
        .await;
    place.serving("photos").await;
}

async fn a_quota_that_forbids_the_pods_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "100m"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    place.api().create(&PostParams::default(), &quota).await.unwrap();
    place.apply(&service("photos")).await;
    let unready = place.wait_ready("photos", "False", "QuotaExceeded").await;
    let message = condition(&unready, "Reconciling").unwrap().2;
    assert!(
        message.contains("exceeded quota: small") && message.contains("raise the quota"),
        "{message}"
    );
    place
        .merge::<ResourceQuota>("small", json!({"spec": {"hard": {"requests.cpu": "4"}}}))
        .await;
    place.serving("photos").await;
}

async fn a_quota_that_forbids_the_deployment_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/deployments.apps": "0"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    place.api().create(&PostParams::default(), &quota).await.unwrap();
    place.apply(&service("photos")).await;
    place.wait_ready("photos", "False", "QuotaExceeded").await;
    place.delete::<ResourceQuota>("none").await;
    place.serving("photos").await;
}

async fn a_limit_range_that_forbids_the_pods_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let limits = json!({"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}});
    let limits: LimitRange = serde_json::from_value(limits).unwrap();
    place.api().create(&PostParams::default(), &limits).await.unwrap();
    place.apply(&service("photos")).await;
    let stalled = place.wait_ready("photos", "False", "PodsForbidden").await;
    assert!(
        condition(&stalled, "Stalled")
            .unwrap()
            .2
            .contains("maximum memory usage")
    );
}

async fn a_policy_that_forbids_the_pods_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let pods =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.name}}});
    let policy = json!({"metadata": {"name": place.name}, "spec": {
        "matchConstraints": {"resourceRules": pods},
        "validations": [{"expression": "'cost-centre' in object.metadata.labels", "message": "pods need a cost centre"}]}});
    let binding = json!({"metadata": {"name": place.name}, "spec": {
        "policyName": place.name, "validationActions": ["Deny"], "matchResources": here}});
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(policy).unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(binding).unwrap();
    let (policies, bindings) = (Api::all(place.client.clone()), Api::all(place.client.clone()));
    policies.create(&PostParams::default(), &policy).await.unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let pod = json!({"metadata": {"name": "try", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the policy is in force", async || {
        match place.api::<Pod>().create(&dry_run, &pod).await {
            Err(error) if error.to_string().contains("cost centre") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    place.apply(&service("photos")).await;
    let stalled = place.wait_ready("photos", "False", "PodsForbidden").await;
    let message = condition(&stalled, "Stalled").unwrap().2;
    assert!(message.contains("pods need a cost centre"), "{message}");
    let labels = json!({"cost-centre": "4711"});
    place.apply(&service("photos").with("pod.labels", labels)).await;
    place.serving("photos").await;
}

async fn pods_comply_with_restricted_pod_security(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    restrict(&place.client, &place.name).await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
}

/// The server would work without its cache, but its pod does not even start.
async fn a_claim_that_is_not_there_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    restrict(&place.client, &place.name).await;
    let claim = json!({"volumeClaim": {"name": "graphs"}});
    place.apply(&service("photos").with("server.cache", claim)).await;
    let unready = place.wait_ready("photos", "False", "Unschedulable").await;
    let message = condition(&unready, "Reconciling").unwrap().2;
    assert!(
        message.contains("persistentvolumeclaim \"graphs\" not found")
            && message.contains("spec.server.cache"),
        "{message}"
    );
}

async fn restrict(client: &kube::Client, namespace: &str) {
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .patch(namespace, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
}

async fn events_tell_transitions_once(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").unschedulable()).await;
    place.wait_ready("photos", "False", "Unschedulable").await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    operator.quiet().await;
    let events = eventually("both events", async || {
        let events = place
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let ours: Vec<_> = events
            .into_iter()
            .filter(|event| event.regarding.as_ref().and_then(|r| r.kind.as_deref()) == Some("ModelService"))
            .map(|event| {
                (
                    event.type_.clone().unwrap(),
                    event.reason.clone().unwrap(),
                    event.name_any(),
                )
            })
            .collect();
        if ours.len() >= 2 {
            Ok(ours)
        } else {
            Err(format!("{ours:?}"))
        }
    })
    .await;
    let mut told: Vec<_> = events
        .iter()
        .map(|(type_, reason, _)| (type_.as_str(), reason.as_str()))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [("Normal", "Serving"), ("Warning", "Unschedulable")]);
}
