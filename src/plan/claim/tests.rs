#![allow(clippy::unwrap_used)]
use crate::{
    crd::CLAIM_ANNOTATION,
    fixtures::observed,
    observe::Observed,
    plan::{Plan, PlannedRevision},
    reason::Problem,
    validate::validate,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::sync::Arc;

const SPEC: fn() -> Value = || json!({"accelerators": ["made-up-gpu"]});

fn exactly(count: i32) -> Value {
    let selector = json!({"cel": {"expression": "device.driver == \"gpu.example.com\""}});
    json!({"deviceRequest": {"exactly": {"deviceClassName": "gpu.example.com", "count": count, "selectors": [selector]}}})
}

fn on(class: Value) -> Observed {
    observed(SPEC()).class("made-up-gpu", class)
}

fn first(plan: &Plan) -> &PlannedRevision {
    &plan.revisions[0]
}

/// The ResourceClaimTemplate of a plan as it exists in the cluster.
fn with_claim(mut observed: Observed, plan: &Plan) -> Observed {
    observed.claim_templates = vec![Arc::new(first(plan).claim.clone().unwrap())];
    observed
}

/// Otherwise pods wait for a claim for ever, or get another than the class asks for.
#[test]
fn pods_claim_what_the_class_asks_for_from_a_template_of_their_deployments_name() {
    let plan = on(exactly(2)).planned();
    let PlannedRevision {
        claim, deployment, ..
    } = first(&plan);
    let claim = claim.as_ref().unwrap();
    assert_eq!(claim.metadata.name, deployment.metadata.name);
    assert_eq!(
        claim.metadata.owner_references,
        deployment.metadata.owner_references
    );
    let spec = serde_json::to_value(claim.spec.as_ref().unwrap()).unwrap();
    let asked = json!({"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 2,
        "selectors": [{"cel": {"expression": "device.driver == \"gpu.example.com\""}}]});
    assert_eq!(
        spec["spec"],
        json!({"devices": {"requests": [{"name": "device", "exactly": asked}]}})
    );
    let pod = serde_json::to_value(deployment.spec.template.spec.as_ref().unwrap()).unwrap();
    let reference = json!([{"name": "device", "resourceClaimTemplateName": deployment.name_any()}]);
    assert_eq!(pod["resourceClaims"], reference);
    assert_eq!(
        pod["containers"][0]["resources"]["claims"],
        json!([{"name": "device"}])
    );
}

#[test]
fn alternatives_keep_their_order() {
    let alternative = |name: &str, count: i32| json!({"name": name, "deviceClassName": format!("{name}.example.com"), "count": count});
    let request = json!({"firstAvailable": [alternative("large", 1), alternative("small", 2)]});
    let plan = on(json!({"deviceRequest": request})).planned();
    let spec = serde_json::to_value(first(&plan).claim.as_ref().unwrap().spec.as_ref().unwrap()).unwrap();
    let asked = |name: &str, count: i32| {
        json!({"name": name, "deviceClassName": format!("{name}.example.com"),
        "allocationMode": "ExactCount", "count": count})
    };
    let requests = &spec["spec"]["devices"]["requests"];
    assert_eq!(
        *requests,
        json!([{"name": "device", "firstAvailable": [asked("large", 1), asked("small", 2)]}])
    );
}

/// The spec of a ResourceClaimTemplate cannot be changed, so an edited class must not try to.
#[test]
fn an_edited_class_changes_no_claim_and_is_told() {
    let plan = on(exactly(1)).planned();
    let edited = with_claim(on(exactly(4)).running(&plan, 1, 1).routed(&plan), &plan);
    let again = edited.planned();
    assert_eq!(first(&again).claim, first(&plan).claim);
    assert_eq!(first(&again).deployment, first(&plan).deployment);
    assert!(again.retired_claims.is_empty());
    assert!(again.runtime_update.unwrap().contains("spec.adoptRuntime"));
    assert_eq!(
        with_claim(on(exactly(1)).running(&plan, 1, 1), &plan)
            .planned()
            .runtime_update,
        None
    );
}

/// Without its template, no further pod of the revision gets a device.
#[test]
fn a_template_that_is_gone_is_restored_from_the_frozen_copy_and_the_copy_from_the_template() {
    let plan = on(exactly(1)).planned();
    assert_eq!(
        first(&on(exactly(1)).running(&plan, 1, 1).planned()).claim,
        first(&plan).claim
    );

    let mut bare = plan.clone();
    let annotations = bare.revisions[0].deployment.annotations_mut();
    annotations.remove(CLAIM_ANNOTATION);
    let again = with_claim(on(exactly(4)).running(&bare, 1, 1), &plan).planned();
    assert_eq!(first(&again).deployment, first(&plan).deployment);
    let problem = validate(&on(exactly(1)).running(&bare, 1, 1)).unwrap_err();
    assert!(
        matches!(&problem, Problem::TemplateChanged { field, .. } if field.contains("claim-template")),
        "{problem}"
    );
}

/// Someone who may edit Deployments must not get devices by the operator's rights that they could not claim themselves.
#[test]
fn a_claim_that_somebody_else_wrote_is_never_applied() {
    let plan = on(exactly(1)).planned();
    let frozen: Value =
        serde_json::from_str(&first(&plan).deployment.annotations()[CLAIM_ANNOTATION]).unwrap();
    let changes = [
        ("/spec/devices/requests/0/exactly/adminAccess", json!(true)),
        ("/spec/devices/requests/0/exactly/allocationMode", json!("All")),
        ("/spec/devices/requests/0/name", json!("second")),
        (
            "/spec/devices/config",
            json!([{"opaque": {"driver": "gpu.example.com", "parameters": {}}}]),
        ),
        ("/metadata/annotations", json!({"a": "b"})),
    ];
    for (path, value) in changes {
        let mut foreign = frozen.clone();
        let (parent, key) = path.rsplit_once('/').unwrap();
        foreign.pointer_mut(parent).unwrap()[key] = value;
        let mut changed = plan.clone();
        let annotations = changed.revisions[0].deployment.annotations_mut();
        annotations.insert(CLAIM_ANNOTATION.into(), foreign.to_string());
        let alone = on(exactly(1)).running(&changed, 1, 1);
        assert!(validate(&alone).is_err(), "{path}");
        let again = with_claim(alone, &plan).planned();
        assert_eq!(
            first(&again).deployment,
            first(&plan).deployment,
            "{path}: the live template is the copy"
        );
    }
}

/// Otherwise templates of old revisions pile up.
#[test]
fn a_template_goes_with_its_deployment() {
    let plan = on(exactly(1)).planned();
    let without = json!({"accelerators": ["cpu"], "revisionHistoryLimit": 0});
    let old = with_claim(observed(without.clone()).running(&plan, 0, 0), &plan);
    let newer = old.planned();
    assert_eq!(newer.retired.len(), 1);
    assert_eq!(newer.retired_claims.len(), 1);
    assert_eq!(
        with_claim(observed(without), &plan)
            .planned()
            .retired_claims
            .len(),
        1,
        "its Deployment was deleted"
    );
}

#[test]
fn a_cluster_without_dra_is_told_with_the_class() {
    let mut old = on(exactly(1));
    old.cluster.has_dra = false;
    let problem = validate(&old).unwrap_err();
    let message = problem.to_string();
    assert!(matches!(problem, Problem::UnsupportedCluster(_)));
    assert!(
        message.contains("made-up-gpu") && message.contains("1.34"),
        "{message}"
    );
    // What runs needs its class no longer.
    let plan = on(exactly(1)).planned();
    let mut running = with_claim(on(exactly(1)).running(&plan, 1, 1), &plan);
    running.cluster.has_dra = false;
    assert!(validate(&running).is_ok());
}
