//! What the pods say that look for a model, and what the service's status must say.
#![allow(clippy::unwrap_used)]
use crate::{
    apply::Applied, assess::assess, cache::pod::Pod, crd::ModelServiceStatus, fixtures::observed,
    observe::Observed, reason::Problem,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};
use std::sync::Arc;

fn spec() -> Value {
    json!({"model": {"uri": "s3://models/net.onnx"}})
}

fn status(observed: &Observed) -> ModelServiceStatus {
    let plan = observed.planned();
    assess(observed, &Applied::as_observed(plan.rollout, None, observed))
}

fn condition<'a>(status: &'a ModelServiceStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn ended(observed: Observed, number: u32, reason: &str) -> Observed {
    let message = json!({"reason": reason, "message": "said the store"}).to_string();
    let now = json!(observed.now);
    observed.resolver(
        number,
        json!({"terminated": {"exitCode": 31, "message": message, "finishedAt": now}}),
    )
}

fn with_status(observed: Observed, status: Value) -> Observed {
    let mut observed = observed.resolver(1, json!({"running": {}}));
    let pod: &mut Pod = Arc::make_mut(&mut observed.resolvers[0]);
    pod.status = serde_json::from_value(status).unwrap();
    observed
}

/// The container has been ended like this.
fn killed(code: i32, reason: &str, message: &str) -> Value {
    json!([{"name": "resolve", "state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}])
}

/// A node that is drained is no failure of the source, and does not hide what the store said before.
#[test]
fn a_pod_that_somebody_deletes_says_nothing() {
    let deleted = |observed: Observed, number: u32, code: i32, reason: &str| {
        let ended = killed(code, reason, "asking s3://models")[0]["state"].clone();
        let mut observed = observed.resolver(number, ended);
        let now = observed.now;
        let pod: &mut Pod = Arc::make_mut(observed.resolvers.last_mut().unwrap());
        pod.metadata.deletion_timestamp = Some(Time(now));
        observed
    };
    for code in [143, 137] {
        let status = status(&deleted(observed(spec()), 1, code, "Error"));
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, "Progressing", "{}", ready.message);
        assert!(condition(&status, "Stalled").is_none());
    }
    let failed = ended(observed(spec()), 1, "NotFound");
    let drained = deleted(failed.clone(), 2, 143, "Error");
    assert_eq!(status(&failed).conditions, status(&drained).conditions);
    let out_of_memory = status(&deleted(observed(spec()), 1, 137, "OOMKilled"));
    assert_eq!(condition(&out_of_memory, "Ready").unwrap().reason, "OutOfMemory");
}

/// The table of what can happen to such a pod.
#[test]
fn every_way_in_which_a_model_is_not_found_has_its_reason() {
    let waiting = |reason: &str, message: &str| json!({"containerStatuses": [{"name": "resolve", "state": {"waiting": {"reason": reason, "message": message}}}]});
    let table = [
        (
            json!({"phase": "Pending"}),
            "Progressing",
            "which version of the model is at s3://models/net.onnx",
            false,
        ),
        (
            json!({"containerStatuses": [{"name": "resolve", "state": {"running": {}}}]}),
            "Progressing",
            "s3://",
            false,
        ),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu"}]}),
            "Unschedulable",
            "no node can run the pod that looks for the model: 0/1 nodes: Insufficient cpu",
            false,
        ),
        (
            waiting("ErrImagePull", "not found"),
            "ImagePullFailed",
            "the runtime image",
            false,
        ),
        (
            waiting("CreateContainerError", "no"),
            "CrashLooping",
            "cannot be started: no",
            true,
        ),
        (
            json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}),
            "ModelFetchFailed",
            "spec.rollout.fetchDeadlineSeconds",
            true,
        ),
        (
            json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "longer than the specified deadline",
                "containerStatuses": killed(143, "Error", "asking s3://models")}),
            "ModelFetchFailed",
            "spec.rollout.fetchDeadlineSeconds",
            true,
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
            "PodFailed",
            "Evicted: low on memory",
            false,
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory",
                "containerStatuses": killed(137, "Error", "")}),
            "PodFailed",
            "Evicted: low on memory",
            false,
        ),
        // What the store said counts, whatever happens to the pod afterwards.
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory",
                "containerStatuses": killed(31, "Error", r#"{"reason": "NotFound", "message": "no such bucket"}"#)}),
            "ModelFetchFailed",
            "no such bucket (exit code 31)",
            true,
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"name": "resolve", "state": {"terminated": {"exitCode": 0}}}]}),
            "ModelFetchFailed",
            "of the operator's version",
            true,
        ),
        (
            json!({"containerStatuses": [{"name": "resolve", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
            "OutOfMemory",
            "spec.fetch.resources.limits.memory",
            true,
        ),
    ];
    for (pod, reason, message, stalled) in table {
        let status = status(&with_status(observed(spec()), pod.clone()));
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason),
            "{pod}"
        );
        assert!(ready.message.contains(message), "{message} in {}", ready.message);
        assert_eq!(condition(&status, "Stalled").is_some(), stalled, "{pod}");
    }
}

/// A store's words, and whether waiting can help.
#[test]
fn what_the_store_says_is_told() {
    for (said, reason, stalled) in [
        ("NotFound", "ModelFetchFailed", true),
        ("Denied", "ModelFetchFailed", true),
        ("Unavailable", "ModelFetchFailed", false),
        ("ConfigInvalid", "InvalidSpec", true),
    ] {
        let status = status(&ended(observed(spec()), 1, said));
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, reason, "{said}");
        assert!(ready.message.contains("said the store"), "{}", ready.message);
        assert_eq!(condition(&status, "Stalled").is_some(), stalled, "{said}");
    }
}

/// Otherwise each attempt writes two statuses.
#[test]
fn an_attempt_that_begins_changes_nothing_that_was_said() {
    let failed = ended(observed(spec()), 1, "NotFound");
    let again = failed.clone().resolver(2, json!({"running": {}}));
    assert_eq!(status(&failed).conditions, status(&again).conditions);
}

/// The old revision answers: Available, not Ready, and people see why.
#[test]
fn what_serves_meanwhile_is_told() {
    let old = observed(json!({})).planned();
    let serving = observed(spec()).running(&old, 1, 1).routed(&old);
    for observed in [serving.clone(), ended(serving, 1, "NotFound")] {
        let status = status(&observed);
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.status, "False");
        assert!(
            ready
                .message
                .ends_with(&format!("; revision {} keeps serving", old.rollout.target)),
            "{}",
            ready.message
        );
        assert_eq!(condition(&status, "Available").unwrap().status, "True");
        assert_eq!(status.current_revision, Some(old.rollout.target.clone()));
    }
}

/// What a namespace refuses of servers it refuses of this pod too.
#[test]
fn refusals_of_the_pod_have_the_reasons_of_servers() {
    let refused = |message: &str| {
        let answer = json!({"status": "Failure", "code": 403, "message": message, "reason": "Forbidden"});
        let answer: kube::core::Status = serde_json::from_value(answer).unwrap();
        Problem::of_request("create", "Pod", &kube::Error::Api(Box::new(answer)))
            .reason()
            .as_str()
    };
    assert_eq!(
        refused("pods \"x\" is forbidden: exceeded quota: small"),
        "QuotaExceeded"
    );
    assert_eq!(
        refused("pods \"x\" is forbidden: failed quota: small: must specify limits.cpu"),
        "QuotaExceeded"
    );
    assert_eq!(
        refused("pods \"x\" is forbidden: violates PodSecurity \"restricted\""),
        "PodsForbidden"
    );
    assert_eq!(
        refused("pods is forbidden: User \"x\" cannot create resource \"pods\""),
        "Forbidden"
    );
}
