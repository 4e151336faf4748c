#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    apply::Applied,
    assess::{assess, look_again},
    fixtures::observed,
    plan::Plan,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use std::sync::Arc;

fn condition<'a>(status: &'a ModelServiceStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn on_gpu() -> Observed {
    observed(json!({"accelerators": ["made-up-gpu"], "replicas": 3})).class(
        "made-up-gpu",
        json!({"resource": {"name": "example.com/gpu"}, "sharing": "Exclusive"}),
    )
}

/// Three servers that are ready, of which these have said what runs their model.
fn served(said: &[Value]) -> (Observed, Plan) {
    let plan = on_gpu().planned();
    let mut served = on_gpu().running(&plan, 3, 3).routed(&plan);
    for number in 0..3 {
        served = served.pod(
            &plan,
            json!({"conditions": [{"type": "Ready", "status": "True"}]}),
        );
        Arc::make_mut(served.pods.last_mut().unwrap()).metadata.uid = Some(format!("pod-{number}"));
    }
    for (number, said) in said.iter().enumerate() {
        let engaged = (!said.is_null()).then(|| {
            Arc::new(Engaged {
                request: said["request"].as_str().map(str::to_owned),
                assignment: serde_json::from_value(said["assignment"].clone()).unwrap(),
            })
        });
        served.devices.insert(format!("pod-{number}"), engaged);
    }
    (served, plan)
}

fn status(observed: &Observed) -> ModelServiceStatus {
    assess(
        observed,
        &Applied::as_observed(observed.planned().rollout, None, observed),
    )
}

fn on(name: &str, request: Option<&str>, elsewhere: Value) -> Value {
    json!({"request": request, "assignment": {"provider": "GpuExecutionProvider", "nodes": 93, "elsewhere": elsewhere,
        "device": {"name": name, "driver": "1.2"}}})
}

/// A person who pays for a device has to see that it is used, and by how many servers.
#[test]
fn servers_with_the_same_device_are_told_together() {
    let (served, _) = served(&[
        on("Large GPU", Some("large"), json!({})),
        on("Small GPU", Some("small"), json!({"Cast": 1, "TopK": 2})),
        on("Large GPU", Some("large"), json!({})),
    ]);
    let status = status(&served);
    let accelerator = serde_json::to_value(status.accelerator.as_ref().unwrap()).unwrap();
    let large = json!({"request": "large", "provider": "GpuExecutionProvider", "name": "Large GPU", "driver": "1.2",
        "nodes": 93, "replicas": 2});
    let small = json!({"request": "small", "provider": "GpuExecutionProvider", "name": "Small GPU", "driver": "1.2",
        "nodes": 93, "elsewhere": {"Cast": 1, "TopK": 2}, "replicas": 1});
    assert_eq!(accelerator["class"], "made-up-gpu");
    assert_eq!(accelerator["devices"], json!([large, small]));
    let engaged = condition(&status, "AcceleratorEngaged").unwrap();
    assert_eq!(
        (engaged.status.as_str(), engaged.reason.as_str()),
        ("True", "DeviceEngaged")
    );
    assert_eq!(
        engaged.message,
        "GpuExecutionProvider runs 93 compute nodes on Large GPU (large); GpuExecutionProvider runs 93 compute nodes \
         on Small GPU (small), the CPU 3 (Cast, TopK)"
    );
}

/// Otherwise each restart of the operator writes the status of every service, with numbers that are too small.
#[test]
fn what_was_said_stays_until_all_servers_have_been_asked() {
    let gpu = || on("GPU", None, json!({}));
    let (all, _) = served(&[gpu(), gpu(), gpu()]);
    let before = status(&all);
    let (mut some, _) = served(&[gpu()]);
    Arc::make_mut(&mut some.service).status = Some(before.clone());
    assert_eq!(status(&some).accelerator, before.accelerator);
    let (mut silent, _) = served(&[gpu(), gpu(), Value::Null]);
    Arc::make_mut(&mut silent.service).status = Some(before);
    assert_eq!(status(&silent).accelerator.unwrap().devices[0].replicas, 2);
}

/// On the CPU there is nothing to engage, and a fallback is told in the server's words.
#[test]
fn a_device_that_is_not_engaged_is_told_and_the_cpu_is_not() {
    let plan = observed(json!({})).planned();
    let cpu = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let cpu = cpu.pod(
        &plan,
        json!({"conditions": [{"type": "Ready", "status": "True"}]}),
    );
    assert_eq!(condition(&status(&cpu), "AcceleratorEngaged"), None);

    for (code, reason) in [(14, "AcceleratorUnavailable"), (15, "ExecutionProviderFallback")] {
        let plan = on_gpu().planned();
        let words = json!({"reason": reason, "message": "in its words"}).to_string();
        let ended = json!({"containerStatuses": [{"name": "server", "ready": false, "restartCount": 3,
            "lastState": {"terminated": {"exitCode": code, "message": words}}}]});
        let failed = on_gpu().running(&plan, 1, 0).routed(&plan).pod(&plan, ended);
        let status = status(&failed);
        let engaged = condition(&status, "AcceleratorEngaged").unwrap();
        assert_eq!(
            (engaged.status.as_str(), engaged.reason.as_str()),
            ("False", reason)
        );
        assert!(engaged.message.contains("in its words"), "{}", engaged.message);
    }
}

/// The class is what a person has to look at, or ask an administrator about.
#[test]
fn a_device_that_no_node_has_is_told_with_the_class() {
    let told = |words: &str, class: Value| {
        let plan = on_gpu().planned();
        let pod = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": words}]});
        let mut observed = on_gpu().running(&plan, 1, 0).routed(&plan).pod(&plan, pod);
        let class_of = observed.classes.get_mut("made-up-gpu").unwrap();
        Arc::make_mut(class_of).status = serde_json::from_value(class).unwrap();
        condition(&status(&observed), "Ready").unwrap().message.clone()
    };
    let message = told("4 Insufficient example.com/gpu", Value::Null);
    assert!(
        message.contains("on AcceleratorClass \"made-up-gpu\": 4 Insufficient example.com/gpu"),
        "{message}"
    );
    assert!(message.contains("a device of its own"), "{message}");
    let message = told("4 cannot allocate all claims", Value::Null);
    assert!(message.contains("a device of its own"), "{message}");
    let ready = |status: &str| {
        json!({"conditions": [{"type": "Ready", "status": status, "reason": "NoNodes", "message": "no node offers it",
            "lastTransitionTime": "2026-01-02T03:04:05Z"}]})
    };
    let message = told("4 Insufficient example.com/gpu", ready("False"));
    assert!(message.ends_with("; no node offers it"), "{message}");
    let message = told("4 Insufficient example.com/gpu", ready("True"));
    assert!(message.contains("a device of its own"), "{message}");
}

/// The scheduler does not look at a pod that has no claim, so nothing else says why it waits.
#[test]
fn a_pod_that_gets_no_claim_is_told_after_a_while() {
    let claiming = || {
        observed(json!({"accelerators": ["made-up-gpu"]})).class(
            "made-up-gpu",
            json!({"deviceRequest": {"exactly": {"deviceClassName": "gpu.example.com"}}}),
        )
    };
    let plan = claiming().planned();
    let reason = |seconds: i64, pod: Value| {
        let observed = claiming()
            .running(&plan, 1, 0)
            .routed(&plan)
            .pod_made(&plan, seconds, pod);
        let reason = condition(&status(&observed), "Ready").unwrap().reason.clone();
        (reason, look_again(&observed).is_some())
    };
    let told = |reason: &str, again: bool| (reason.to_owned(), again);
    assert_eq!(reason(9, json!({})), told("Progressing", true));
    assert_eq!(reason(10, json!({})), told("ResourceClaimMissing", false));
    let claimed =
        json!({"resourceClaimStatuses": [{"name": "device", "resourceClaimName": "photos-0-device-x"}]});
    assert_eq!(reason(60, claimed), told("Progressing", false));
    let scheduled = json!({"conditions": [{"type": "PodScheduled", "status": "True"}]});
    assert_eq!(reason(60, scheduled), told("Progressing", false));
    let plan = observed(json!({})).planned();
    let plain = observed(json!({}))
        .running(&plan, 1, 0)
        .routed(&plan)
        .pod(&plan, json!({}));
    assert_eq!(condition(&status(&plain), "Ready").unwrap().reason, "Progressing");
}
