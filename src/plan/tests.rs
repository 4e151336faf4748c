#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    fixtures::{observed, runtime},
    validate::validate,
};
use serde_json::{Value, json};

/// The plan as one document.
fn document(plan: &Plan) -> Value {
    let revisions: Vec<Value> = plan
        .revisions
        .iter()
        .map(|planned| {
            let mut deployment = serde_json::to_value(&planned.deployment).unwrap();
            // The frozen template is the template once more.
            deployment["metadata"]["annotations"]["serving.modelservice.dev/pod-template"] =
                "(see below)".into();
            json!({"scale": format!("{:?}", planned.scale), "deployment": deployment})
        })
        .collect();
    json!({
        "revisions": revisions,
        "endpoint": plan.endpoint,
        "autoscaler": plan.autoscaler,
        "disruptionBudget": plan.disruption_budget,
    })
}

/// A line that changes here changes the pods of users at their next revision.
#[test]
fn the_whole_plan_of_a_plain_service() {
    insta::assert_yaml_snapshot!(document(&observed(json!({})).planned()));
}

#[test]
fn the_whole_plan_of_a_rich_service_on_a_device() {
    let mut observed = observed(json!({
        "model": {"image": "models.example/net@sha256:bb", "digest": "sha256:cc"},
        "accelerators": ["tpu"],
        "autoscaling": {"minReplicas": 2, "maxReplicas": 9, "target": {"cpuUtilization": 60},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 10}}},
        "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "3Gi"}},
        "server": {"modelName": "net", "queueLength": 7, "maxBodyBytes": 4096, "maxBatchSize": 4,
            "connections": {"maxAgeSeconds": 60}, "auth": {"tokenSecretName": "known"},
            "accessLog": {"sampleRatio": 0.1}, "tracing": {"endpoint": "http://collector:4317"},
            "cache": {"volumeClaim": {"name": "graphs"}}},
        "rollout": {"startupDeadlineSeconds": 33, "progressDeadlineSeconds": 44},
        "pod": {"labels": {"team": "vision"}, "nodeSelector": {"zone": "z1"}, "fsGroup": 7,
            "env": [{"name": "A", "value": "b"}], "tolerations": [{"key": "mine"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]},
    }));
    let class = json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "AcceleratorClass",
        "metadata": {"name": "tpu"},
        "spec": {"resource": {"name": "example.com/tpu", "count": 2}, "nodeSelector": {"tpu": "yes"},
            "tolerations": [{"key": "tpu"}], "runtimeClassName": "tpu-runtime",
            "runtime": {"image": "runtime.example/tpu:1", "executionProvider": "TpuExecutionProvider", "options": {"cores": "2"}}}});
    observed
        .classes
        .insert("tpu".into(), Arc::new(serde_json::from_value(class).unwrap()));
    insta::assert_yaml_snapshot!(document(&observed.planned()));
}

/// An operator upgrade or an edited class restarts no pod.
#[test]
fn a_template_that_was_made_is_never_rendered_again() {
    let first = observed(json!({})).planned();
    let observed = observed(json!({})).running(&first, 1, 1);
    let newer = DefaultRuntime {
        image: "runtime.example/server:2".into(),
        version: "10.0.0".into(),
    };
    let service = validate(&observed).unwrap();
    let again = plan(&service, &observed, &newer);
    assert_eq!(again.revisions[0].deployment, first.revisions[0].deployment);
    assert!(
        again
            .runtime_update
            .unwrap()
            .contains("set spec.adoptRuntime to \"10.0.0\"")
    );
    assert_eq!(plan(&service, &observed, &runtime()).runtime_update, None);
}

/// A default that is newer than the revision takes effect with the next revision, and restarts nothing before.
#[test]
fn a_template_of_an_operator_without_todays_defaults_stays_as_it_is() {
    let mut first = observed(json!({})).planned();
    let deployment = &mut first.revisions[0].deployment;
    let pod = deployment.spec.template.spec.as_mut().unwrap();
    pod.security_context.as_mut().unwrap().run_as_user = None;
    pod.containers[0].resources.as_mut().unwrap().limits = None;
    let frozen = serde_json::to_string(&deployment.spec.template).unwrap();
    let annotations = deployment.metadata.annotations.as_mut().unwrap();
    annotations.insert(crate::crd::TEMPLATE_ANNOTATION.into(), frozen);
    let again = observed(json!({})).running(&first, 1, 1).planned();
    assert_eq!(again.revisions[0].deployment, first.revisions[0].deployment);
    assert!(again.runtime_update.unwrap().contains("the pod template made by"));
}

/// Half of a user's wish with half of ours can contradict itself: a request above a limit is refused.
#[test]
fn ephemeral_storage_is_the_users_as_soon_as_they_name_it() {
    let named = |resources: Value| {
        let template = observed(json!({"resources": resources})).planned().revisions[0]
            .deployment
            .spec
            .template
            .clone();
        let pod = template.spec.unwrap();
        let resources = pod.containers[0].resources.clone().unwrap();
        let limit = resources
            .limits
            .as_ref()
            .and_then(|limits| limits.get("ephemeral-storage"));
        let cache = pod.volumes.unwrap().remove(1).empty_dir.unwrap();
        assert_eq!(cache.size_limit.as_ref(), limit);
        [resources.requests, resources.limits].map(|side| Some(side?.get("ephemeral-storage")?.0.clone()))
    };
    let some = |quantity: &str| Some(quantity.to_owned());
    assert_eq!(named(json!({})), [some("64Mi"), some("10Gi")]);
    let requested = json!({"requests": {"ephemeral-storage": "20Gi"}});
    assert_eq!(named(requested), [some("20Gi"), None]);
    let limited = json!({"limits": {"ephemeral-storage": "1Mi"}});
    assert_eq!(named(limited), [None, some("1Mi")]);
}

/// Without the group a server cannot write to its claim; without the annotation its node is never removed.
#[test]
fn a_cache_is_writable_and_holds_no_node() {
    let pod = |spec: Value| {
        let template = observed(spec).planned().revisions[0]
            .deployment
            .spec
            .template
            .clone();
        let group = template.spec.unwrap().security_context.unwrap().fs_group;
        let annotations = template.metadata.unwrap().annotations.unwrap_or_default();
        let local = annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes");
        (group, local.cloned())
    };
    let claimed = json!({"cache": {"volumeClaim": {"name": "graphs"}}});
    let annotation = json!({"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": ""});
    assert_eq!(pod(json!({})), (None, Some("cache".into())));
    assert_eq!(
        pod(json!({"pod": {"annotations": annotation}})),
        (None, Some(String::new()))
    );
    assert_eq!(pod(json!({"server": claimed})), (Some(65532), None));
    assert_eq!(
        pod(json!({"server": claimed, "pod": {"fsGroup": 7}})),
        (Some(7), None)
    );
}

#[test]
fn the_same_observation_gives_the_same_plan() {
    let plan = || serde_json::to_string(&document(&observed(json!({"replicas": 3})).planned())).unwrap();
    assert_eq!(plan(), plan());
}

#[test]
fn a_budget_is_wanted_for_more_than_one_server() {
    let has = |spec: Value| observed(spec).planned().disruption_budget.is_some();
    assert!(!has(json!({})));
    assert!(has(json!({"replicas": 2})));
    assert!(!has(json!({"replicas": 2, "suspend": true})));
    assert!(has(json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 3}})));
    assert!(
        !has(json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}})),
        "not before it has grown"
    );
}
