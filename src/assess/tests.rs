#![allow(clippy::unwrap_used)]
use super::*;
use crate::{fixtures::observed, reason::Problem};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

/// The status of a service with one server of one revision, whose pod has this status.
fn with_pod(pod: Value) -> ModelServiceStatus {
    let plan = observed(json!({})).planned();
    let observed = observed(json!({}))
        .running(&plan, 1, 0)
        .routed(&plan)
        .pod(&plan, pod);
    let applied = applied(&observed);
    assess(&observed, &applied)
}

fn applied(observed: &Observed) -> Applied {
    let plan = observed.planned();
    Applied::as_observed(plan.rollout, None, observed)
}

fn condition<'a>(status: &'a ModelServiceStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}}}]})
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}]})
}

fn words(reason: &str, message: &str) -> String {
    json!({"reason": reason, "message": message}).to_string()
}

/// docs/troubleshooting.md, row by row: what a pod says, and what the service says then.
#[test]
fn every_way_in_which_a_pod_fails_has_its_reason() {
    let model = "Back-off pulling image \"models.example/net@sha256:aa\": not found";
    let runtime = "Back-off pulling image \"runtime.example/server:1\": not found";
    let table = [
        (
            waiting("ImagePullBackOff", model),
            "ModelFetchFailed",
            "spec.model.image",
            true,
        ),
        (
            waiting("ErrImagePull", runtime),
            "ImagePullFailed",
            "runtime.example/server:1",
            true,
        ),
        (
            waiting("CreateContainerConfigError", "secret \"x\" not found"),
            "InvalidSpec",
            "secret \"x\" not found",
            true,
        ),
        (
            waiting("RunContainerError", "no such file"),
            "CrashLooping",
            "no such file",
            true,
        ),
        (
            ended(12, "Error", &words("ModelDigestMismatch", "another file")),
            "ModelDigestMismatch",
            "another file (exit code 12)",
            true,
        ),
        (
            ended(11, "Error", &words("ModelMissing", "no model.onnx")),
            "ModelInvalid",
            "no model.onnx (exit code 11)",
            true,
        ),
        (
            ended(13, "Error", &words("ModelInvalid", "not a model")),
            "ModelInvalid",
            "not a model",
            true,
        ),
        (
            ended(14, "Error", &words("AcceleratorUnavailable", "no CUDA")),
            "AcceleratorUnavailable",
            "no CUDA",
            true,
        ),
        (
            ended(
                15,
                "Error",
                &words("ExecutionProviderFallback", "7 nodes on the CPU"),
            ),
            "ExecutionProviderFallback",
            "7 nodes",
            true,
        ),
        (
            ended(10, "Error", &words("ConfigInvalid", "unknown key")),
            "InvalidSpec",
            "unknown key",
            true,
        ),
        (
            ended(16, "Error", &words("RuntimeUnavailable", "no library")),
            "CrashLooping",
            "no library",
            true,
        ),
        (
            ended(137, "OOMKilled", ""),
            "OutOfMemory",
            "spec.resources.limits.memory",
            true,
        ),
        (
            ended(13, "Error", "log lines, not JSON"),
            "ModelInvalid",
            "log lines, not JSON",
            true,
        ),
        (
            ended(101, "Error", "thread main panicked"),
            "CrashLooping",
            "thread main panicked",
            true,
        ),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
            "Unschedulable",
            "Insufficient cpu",
            false,
        ),
    ];
    for (pod, reason, message, stalled) in table {
        let status = with_pod(pod.clone());
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason),
            "{pod}"
        );
        assert!(ready.message.contains(message), "{message} in {}", ready.message);
        assert_eq!(condition(&status, "Stalled").is_some(), stalled, "{pod}");
        assert_eq!(condition(&status, "Reconciling").is_some(), !stalled, "{pod}");
        assert_eq!(condition(&status, "Available").unwrap().status, "False");
    }
}

/// Otherwise a status is written each time the kubelet tries again.
#[test]
fn an_attempt_to_pull_and_its_back_off_say_the_same() {
    let attempt = "rpc error: models.example/net@sha256:aa: not found";
    let back_off =
        format!("Back-off pulling image \"models.example/net@sha256:aa\": ErrImagePull: {attempt}");
    assert_eq!(
        with_pod(waiting("ErrImagePull", attempt)),
        with_pod(waiting("ImagePullBackOff", &back_off))
    );
}

/// A pod that merely takes its time must not look broken, and the status must not change from pass to pass.
#[test]
fn a_pod_that_starts_is_progress() {
    for pod in [
        json!({}),
        waiting("ContainerCreating", ""),
        ended(0, "Completed", ""),
    ] {
        let status = with_pod(pod);
        assert_eq!(condition(&status, "Ready").unwrap().reason, "Progressing");
        assert!(condition(&status, "Reconciling").is_some());
    }
}

#[test]
fn a_working_service_is_ready_and_available() {
    let plan = observed(json!({"replicas": 2})).planned();
    let observed = observed(json!({"replicas": 2}))
        .running(&plan, 2, 2)
        .routed(&plan);
    let status = assess(&observed, &applied(&observed));
    assert_eq!(
        status.conditions.len(),
        2,
        "Reconciling and Stalled are there only while True"
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.status == "True" && c.reason == "Serving" && c.observed_generation == Some(4))
    );
    assert_eq!((status.replicas, status.ready_replicas), (2, 2));
    assert_eq!(status.url.as_deref(), Some("http://photos.team-a.svc"));
}

/// `Available` is about requests sent now, whatever the spec says.
#[test]
fn a_problem_beside_a_working_revision_leaves_it_available() {
    let plan = observed(json!({})).planned();
    let observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let refused = Applied::refused(Problem::AcceleratorClassNotFound("gpu".into()), &observed);
    let status = assess(&observed, &refused);
    assert_eq!(condition(&status, "Available").unwrap().status, "True");
    assert_eq!(
        condition(&status, "Ready").unwrap().reason,
        "AcceleratorClassNotFound"
    );
    assert!(
        condition(&status, "Stalled")
            .unwrap()
            .message
            .contains("kubectl get acceleratorclasses")
    );
    let busy = Problem::Api {
        verb: "patch",
        kind: "Service".into(),
        message: "timeout".into(),
    };
    let status = assess(&observed, &applied(&observed).stopped_by(busy));
    assert!(condition(&status, "Reconciling").is_some(), "it is tried again");
}

#[test]
fn last_transition_time_moves_only_on_a_flip() {
    let plan = observed(json!({})).planned();
    let mut observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let first = assess(&observed, &applied(&observed));
    Arc::make_mut(&mut observed.service).status = Some(first.clone());
    observed.now += jiff::SignedDuration::from_secs(60);
    assert_eq!(assess(&observed, &applied(&observed)), first);
    observed.deployments.clear();
    let fallen = observed.running(&plan, 1, 0);
    let second = assess(&fallen, &applied(&fallen));
    assert_ne!(
        condition(&second, "Ready").unwrap().last_transition_time,
        condition(&first, "Ready").unwrap().last_transition_time
    );
}

/// The signature survives a pass without a report, until another revision serves.
#[test]
fn what_a_server_reported_stays_with_its_revision() {
    let plan = observed(json!({})).planned();
    let mut observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let report = json!({"serverVersion": "1", "onnxRuntimeVersion": "2", "executionProvider": "CPUExecutionProvider",
        "models": [{"name": "photos", "digest": "sha256:ee", "opset": 17,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}]});
    observed.reports.insert(
        plan.rollout.target.clone(),
        Arc::new(serde_json::from_value(report).unwrap()),
    );
    let first = assess(&observed, &applied(&observed));
    assert_eq!(first.model.as_ref().unwrap().signature.opset, 17);
    assert_eq!(
        first.accelerator.as_ref().unwrap().execution_provider.as_deref(),
        Some("CPUExecutionProvider")
    );
    observed.reports.clear();
    Arc::make_mut(&mut observed.service).status = Some(first.clone());
    let second = assess(&observed, &applied(&observed));
    assert_eq!(
        (second.model, second.accelerator),
        (first.model, first.accelerator)
    );
}
