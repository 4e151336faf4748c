#![allow(clippy::unwrap_used, clippy::panic)]
use crate::{
    fixtures::{observed, runtime},
    observe::Observed,
    plan::{Plan, plan, rollout::Scale, simulator::Cluster},
    revision::{FrozenSource, Source},
    validate::validate,
};
use jiff::SignedDuration;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn spec() -> Value {
    json!({"model": {"uri": "s3://models/net.onnx"}, "replicas": 2})
}

fn wanted(plan: &Plan) -> Option<String> {
    plan.resolver.wanted.as_ref().map(|pod| pod.name_any())
}

/// A change here changes users' pods.
#[test]
fn the_whole_pod_that_looks_for_a_model() {
    let plan = observed(json!({
        "model": {"uri": "oci://r.example/net:v1", "endpoint": "http://mirror.example:5000", "digest": "sha256:cc"},
        "accelerators": ["tpu"],
        "rollout": {"fetchDeadlineSeconds": 99},
        "fetch": {"credentials": {"secretName": "known"}, "identity": "Pod", "runAsUser": 1337,
            "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}}},
        "pod": {"labels": {"team": "vision", "azure.workload.identity/use": "true"},
            "annotations": {"sidecar.istio.io/inject": "false"}, "nodeSelector": {"zone": "z1"},
            "tolerations": [{"key": "mine"}], "priorityClassName": "high", "schedulerName": "mine",
            "serviceAccountName": "models", "imagePullSecrets": [{"name": "registry"}],
            "env": [{"name": "A", "value": "b"}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}},
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname"}]}}},
    }))
    .class("tpu", json!({"resource": {"name": "example.com/tpu"}, "tolerations": [{"key": "tpu"}],
        "runtimeClassName": "tpu", "runtime": {"image": "runtime.example/tpu:1"}}))
    .planned();
    assert!(plan.revisions.is_empty());
    insta::assert_yaml_snapshot!(plan.resolver.wanted.unwrap());
}

/// Otherwise requests go to a pod that answers none, or it counts as a server.
#[test]
fn no_selector_of_the_service_selects_it() {
    for strategy in ["BlueGreen", "Rolling"] {
        let mut cluster =
            Cluster::new(json!({"replicas": 2, "accelerators": ["tpu"], "rollout": {"strategy": strategy}}))
                .has("tpu", 2);
        cluster.until("it serves", |cluster| cluster.answering() == 2);
        let mut selectors: Vec<BTreeMap<String, String>> = Vec::new();
        cluster.model('b');
        for _ in 0..30 {
            let plan = cluster.second();
            let budget = plan
                .disruption_budget
                .and_then(|budget| budget.spec?.selector?.match_labels);
            let deployments = plan
                .revisions
                .iter()
                .filter_map(|planned| planned.deployment.spec.selector.match_labels.clone());
            selectors.extend(
                deployments
                    .chain(budget)
                    .chain(plan.endpoint.spec.and_then(|spec| spec.selector)),
            );
        }
        selectors.sort();
        selectors.dedup();
        assert!(selectors.len() >= 2, "{selectors:?}");
        let pod = observed(spec()).planned().resolver.wanted.unwrap();
        for selector in selectors {
            let is_selected = selector
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value));
            assert!(!is_selected, "{selector:?}");
        }
    }
}

/// What is in the template is what every server of the revision fetches.
#[test]
fn the_version_that_was_found_is_frozen_with_the_revision() {
    let found = observed(spec()).found(false);
    let plan = found.planned();
    let deployment = &plan.revisions[0].deployment;
    let Source::Fetched { uri, identity } = FrozenSource::of(deployment).unwrap().source else {
        panic!("it is mounted");
    };
    assert_eq!(
        (uri.as_str(), identity.value.as_str()),
        ("s3://models/net.onnx", "\"e-1\"")
    );
    assert_eq!(plan.revisions[0].scale, Scale::Fixed(2));
    assert_eq!(wanted(&plan), None);

    let again = found.running(&plan, 2, 0).planned();
    assert_eq!(
        &again.revisions[0].deployment, deployment,
        "it is never looked for again"
    );
    assert_eq!(again.resolver.retired.len(), 1, "the pod has been read");
}

/// A pod that has found the version is the only one that knows it, until the Deployment exists.
#[test]
fn a_pod_that_has_been_read_goes_when_the_deployment_is_there() {
    let plan = observed(spec()).found(true).planned();
    assert_eq!(plan.revisions.len(), 1);
    assert_eq!(plan.resolver.retired.len(), 1, "applied after the Deployment");
}

#[test]
fn nobody_looks_for_what_the_spec_says() {
    let specs = [
        json!({}),
        json!({"model": {"volumeClaim": {"name": "models"}}}),
        json!({"model": {"uri": format!("oci://r.example/net@sha256:{}", "a".repeat(64))}}),
        json!({"model": {"uri": format!("hf://org/net@{}", "a".repeat(40))}}),
    ];
    for spec in specs {
        let plan = observed(spec.clone()).planned();
        assert_eq!((wanted(&plan), plan.revisions.len()), (None, 1), "{spec}");
    }
    let suspended = observed(json!({"model": {"uri": "s3://models/net.onnx"}, "suspend": true})).planned();
    assert_eq!((wanted(&suspended), suspended.revisions.len()), (None, 0));
}

/// An autoscaler complains about a Deployment that does not exist.
#[test]
fn nothing_scales_before_there_are_servers() {
    let mut spec = spec();
    spec["replicas"] = Value::Null;
    spec["autoscaling"] = json!({"minReplicas": 1, "maxReplicas": 3, "target": {"cpuUtilization": 70}});
    assert!(observed(spec.clone()).planned().autoscaler.is_none());
    assert!(observed(spec).found(true).planned().autoscaler.is_some());
}

/// Sizes, and where the traffic goes, of everything that exists.
fn kept(plan: &Plan) -> (BTreeMap<String, Scale>, Option<BTreeMap<String, String>>) {
    let sizes = plan
        .revisions
        .iter()
        .map(|planned| (planned.deployment.name_any(), planned.scale));
    (
        sizes.collect(),
        plan.endpoint.spec.clone().and_then(|spec| spec.selector),
    )
}

/// A bucket that is down must not stop what serves, whatever the strategy.
#[test]
fn while_a_source_is_not_found_what_serves_stays_as_it_is() {
    for strategy in ["BlueGreen", "Recreate", "Rolling"] {
        let with = |model: Value| json!({"model": model, "replicas": 2, "rollout": {"strategy": strategy}});
        let old = observed(with(json!({"uri": "s3://models/net.onnx"})))
            .found(true)
            .planned();
        let settled = observed(with(json!({"uri": "s3://models/net.onnx"})))
            .running(&old, 2, 2)
            .routed(&old);
        let changed = observed(with(json!({"uri": "s3://models/other.onnx"})))
            .running(&old, 2, 2)
            .routed(&old);
        let failed = |observed: Observed| {
            observed.resolver(1, json!({"terminated": {"exitCode": 34, "message": "{}"}}))
        };
        for observed in [changed.clone(), failed(changed.clone())] {
            let plan = observed.planned();
            assert_eq!(kept(&plan), kept(&settled.planned()), "{strategy}");
            assert_ne!(plan.rollout.target, plan.rollout.traffic, "{strategy}");
        }
    }
}

/// From the first second to the last, with a store that is down for a while.
#[test]
fn a_rollout_waits_for_the_store_and_then_goes_on() {
    for strategy in ["BlueGreen", "Recreate", "Rolling"] {
        let mut cluster = Cluster::new(json!({"replicas": 2, "model": {"uri": "s3://models/a.onnx"},
            "accelerators": ["tpu"], "rollout": {"strategy": strategy}}))
        .has("tpu", 4);
        cluster.until("it serves", |cluster| cluster.answering() == 2);
        cluster.wait(20);
        cluster.is_store_up = false;
        cluster.edit(|spec| spec["model"]["uri"] = "s3://models/b.onnx".into());
        for second in 0..1000 {
            cluster.second();
            assert_eq!(cluster.answering(), 2, "{strategy}, second {second}");
            assert!(
                cluster.observed.resolvers.len() <= 2,
                "{strategy}: {}",
                cluster.observed.resolvers.len()
            );
        }
        cluster.is_store_up = true;
        let passed = cluster.until("the new one serves", |cluster| {
            cluster.new_and_old() == (2, 0) && cluster.observed.deployments.len() == 2
        });
        assert!(
            passed <= 400,
            "{strategy}: the store was asked again after {passed} s"
        );
        cluster.second();
        assert!(cluster.observed.resolvers.is_empty(), "{strategy}");
    }
}

/// Only a new value asks again: otherwise servers of one revision differ.
#[test]
fn refresh_makes_a_revision_with_the_version_of_then() {
    let first = observed(spec()).found(true).planned();
    let mut refreshed = spec();
    refreshed["model"]["refresh"] = "2".into();
    let plan = observed(refreshed).running(&first, 2, 2).routed(&first).planned();
    assert_ne!(plan.rollout.target, first.rollout.target);
    assert!(wanted(&plan).unwrap().ends_with("-resolve"));
}

/// Pods of a spec that nobody asks for any more.
#[test]
fn pods_for_another_revision_are_removed() {
    let stale = observed(json!({"model": {"uri": "s3://models/stale.onnx"}})).found(true);
    let mut now = observed(spec());
    now.resolvers = stale.resolvers;
    let plan = now.planned();
    assert_eq!(plan.resolver.retired.len(), 1);
    assert!(wanted(&plan).is_some());
}

#[test]
fn a_failed_attempt_is_followed_by_another_in_time() {
    let mut failed = observed(spec());
    failed = failed.clone().resolver(
        1,
        json!({"terminated": {"exitCode": 31, "message": "{}", "finishedAt": failed.now}}),
    );
    let plan = failed.planned();
    let wait = plan.rollout.look_again.unwrap();
    assert!(
        wait > SignedDuration::from_secs(9) && wait < SignedDuration::from_secs(11),
        "{wait:?}"
    );
    assert_eq!(wanted(&plan), None);
    failed.now += wait;
    assert!(wanted(&failed.planned()).unwrap().ends_with("-resolve-2"));
}

/// Whoever changes the operator's own image changes what new pods run, whatever the class says.
#[test]
fn it_runs_the_operators_image() {
    let observed = observed(spec()).class("cpu", json!({"runtime": {"image": "somebody.example/else:1"}}));
    let service = validate(&observed).unwrap();
    let pod = plan(&service, &observed, &runtime())
        .resolver
        .wanted
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(
        pod.containers[0].image.as_deref(),
        Some("runtime.example/server:1")
    );
    assert_eq!(pod.active_deadline_seconds, Some(3600));
}
