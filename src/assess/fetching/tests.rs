//! What the pods of a service say whose model is fetched, and what the service's status must say.
#![allow(clippy::unwrap_used)]
use crate::{apply::Applied, assess::assess, crd::ModelServiceStatus, fixtures::observed, observe::Observed};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use std::sync::Arc;

const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n";

fn spec() -> Value {
    json!({"model": {"uri": "s3://models/net.onnx"}, "fetch": {"credentials": {"secretName": "known"}}})
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

/// The status of a service with this spec and one server, whose init containers are like this.
fn with_init(spec: &Value, init: Value) -> ModelServiceStatus {
    let found = observed(spec.clone()).found(true);
    let plan = found.planned();
    let mut observed = found.running(&plan, 1, 0).routed(&plan);
    observed.resolvers.clear();
    let server =
        json!({"name": "server", "ready": false, "state": {"waiting": {"reason": "PodInitializing"}}});
    status(&observed.pod(
        &plan,
        json!({"containerStatuses": [server], "initContainerStatuses": init}),
    ))
}

fn ended(name: &str, code: i32, message: &str) -> Value {
    json!([{"name": name, "ready": false, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}}])
}

fn words(reason: &str) -> String {
    json!({"reason": reason, "message": "said the store"}).to_string()
}

/// docs/troubleshooting.md: every way in which a fetch fails.
#[test]
fn every_way_in_which_a_fetch_fails_has_its_reason() {
    let table = [
        (
            "ConfigInvalid",
            30,
            "InvalidSpec",
            "said the store (exit code 30)",
            true,
        ),
        (
            "NotFound",
            31,
            "ModelFetchFailed",
            "said the store (exit code 31)",
            true,
        ),
        (
            "Denied",
            32,
            "ModelFetchFailed",
            "Secret \"known\" (spec.fetch.credentials)",
            true,
        ),
        ("Forbidden", 33, "ModelFetchFailed", "said the store", true),
        ("Unavailable", 34, "ModelFetchFailed", "said the store", false),
        (
            "SourceChanged",
            35,
            "SourceChanged",
            "set spec.model.refresh to a new value",
            true,
        ),
        ("PackageInvalid", 36, "ModelInvalid", "said the store", true),
        (
            "DigestMismatch",
            37,
            "ModelDigestMismatch",
            "said the store",
            true,
        ),
        ("SignatureInvalid", 38, "SignatureInvalid", "said the store", true),
        ("SystemError", 39, "ModelFetchFailed", "said the store", true),
    ];
    for (said, code, reason, message, stalled) in table {
        let status = with_init(&spec(), ended("fetch", code, &words(said)));
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, reason, "{said}");
        assert!(ready.message.contains(message), "{said}: {}", ready.message);
        assert_eq!(condition(&status, "Stalled").is_some(), stalled, "{said}");
    }
}

#[test]
fn a_fetcher_that_says_nothing_is_explained_by_what_the_kubelet_says() {
    let oom = json!([{"name": "fetch", "ready": false, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]);
    let waiting = |reason: &str, message: &str| json!([{"name": "fetch", "ready": false, "state": {"waiting": {"reason": reason, "message": message}}}]);
    let table = [
        (oom, "OutOfMemory", "spec.fetch.resources.limits.memory"),
        (
            waiting("ErrImagePull", "runtime.example/server:1: not found"),
            "ImagePullFailed",
            "the runtime image runtime.example/server:1 cannot be pulled",
        ),
        (
            waiting(
                "CreateContainerConfigError",
                "container has runAsNonRoot and image will run as root",
            ),
            "InvalidSpec",
            "will run as root",
        ),
        (
            ended("fetch", 139, ""),
            "ModelFetchFailed",
            "the container fetch terminates with exit code 139 (SIGSEGV",
        ),
        (
            ended("istio-init", 1, "no iptables"),
            "InjectedContainerFailed",
            "the injected init container istio-init terminates with exit code 1: no iptables",
        ),
    ];
    for (init, reason, message) in table {
        let status = with_init(&spec(), init.clone());
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, reason, "{init}");
        assert!(ready.message.contains(message), "{}", ready.message);
    }
}

/// A large model takes an hour: that is no failure, and nobody has injected it.
#[test]
fn a_fetch_that_goes_on_is_progress() {
    let running = |seconds: i64, last: Value| {
        let since = observed(spec()).now - SignedDuration::from_secs(seconds);
        json!([{"name": "fetch", "ready": false, "started": true, "state": {"running": {"startedAt": since}},
            "lastState": {"terminated": last}}])
    };
    let failed = json!({"exitCode": 34, "reason": "Error", "message": words("Unavailable")});
    let recovered = json!({"exitCode": 31, "reason": "Error", "message": words("NotFound")});
    for (seconds, last) in [(3000, Value::Null), (700, recovered)] {
        let status = with_init(&spec(), running(seconds, last));
        let told = condition(&status, "Reconciling").unwrap();
        assert_eq!(told.reason, "Progressing");
        assert!(
            told.message.contains("being fetched from s3://models/net.onnx"),
            "{}",
            told.message
        );
        assert!(condition(&status, "Stalled").is_none());
    }
    // What needed a change may be changed now: a Secret, for example.
    let corrected = with_init(
        &spec(),
        running(
            5,
            json!({"exitCode": 32, "reason": "Error", "message": words("Denied")}),
        ),
    );
    let told = condition(&corrected, "Reconciling").unwrap();
    assert_eq!(told.reason, "ModelFetchFailed");
    assert!(told.message.contains("said the store"), "{}", told.message);
    assert!(condition(&corrected, "Stalled").is_none());
    // Tried again: not Stalled, and the same words as between two tries, so that no status is written for each.
    let again = with_init(&spec(), running(5, failed));
    let between = with_init(&spec(), ended("fetch", 34, &words("Unavailable")));
    assert_eq!(
        condition(&again, "Ready").unwrap().message,
        condition(&between, "Ready").unwrap().message
    );
    assert!(condition(&again, "Stalled").is_none());
}

/// Without a fetch in the revision, whoever injects a container of this name has to fix it.
#[test]
fn a_container_of_the_same_name_in_a_pod_without_a_fetch_is_injected() {
    let status = with_init(&json!({}), ended("fetch", 31, &words("NotFound")));
    assert_eq!(
        condition(&status, "Ready").unwrap().reason,
        "InjectedContainerFailed"
    );
}

/// What the operator cannot know of a registry.
#[test]
fn a_registry_that_refuses_is_told_with_what_a_fetch_does_not_use() {
    let spec = json!({"model": {"image": "models.example/net@sha256:aa", "delivery": "Fetch"}});
    let status = with_init(&spec, ended("fetch", 32, &words("Denied")));
    let message = &condition(&status, "Ready").unwrap().message;
    assert!(
        message.contains("spec.pod.imagePullSecrets") && message.contains("mirrors"),
        "{message}"
    );
}

#[test]
fn a_signature_that_is_wrong_is_told_wherever_the_model_comes_from() {
    for (spec, container) in [
        (
            json!({"model": {"image": "models.example/net@sha256:aa", "verification": {"publicKey": KEY}}}),
            "verify",
        ),
        (
            json!({"model": {"uri": "s3://models/net.onnx", "verification": {"publicKey": KEY}}}),
            "fetch",
        ),
    ] {
        let status = with_init(&spec, ended(container, 38, &words("SignatureInvalid")));
        let verified = condition(&status, "ModelVerified").unwrap();
        assert_eq!(
            (verified.status.as_str(), verified.reason.as_str()),
            ("False", "SignatureInvalid")
        );
        assert!(
            verified.message.contains("said the store"),
            "{}",
            verified.message
        );
    }
}

/// Between the two, nothing is claimed.
#[test]
fn a_model_is_verified_once_a_server_has_it() {
    let spec = json!({"model": {"uri": "s3://models/net.onnx", "verification": {"publicKey": KEY}}});
    let found = observed(spec).found(true);
    let plan = found.planned();
    let at = |available| {
        let status = status(&found.clone().running(&plan, 1, available).routed(&plan));
        let verified = condition(&status, "ModelVerified").unwrap().clone();
        (verified.status, verified.reason, verified.message)
    };
    assert_eq!(at(0).0, "False");
    let (is_verified, reason, message) = at(1);
    assert_eq!(
        (is_verified.as_str(), reason.as_str()),
        ("True", "SignatureValid")
    );
    assert!(message.contains("public key sha256:"), "{message}");
    let plan = observed(json!({})).planned();
    let without = status(&observed(json!({})).running(&plan, 1, 1).routed(&plan));
    assert!(condition(&without, "ModelVerified").is_none());
}

/// Who watches signatures must not be alarmed by a revision that never serves, or by a service at rest.
#[test]
fn what_was_verified_stays_so_whatever_becomes_of_the_next_revision() {
    let spec = |path: &str| json!({"model": {"image": format!("models.example/{path}@sha256:aa"), "verification": {"publicKey": KEY}}});
    let old = observed(spec("old")).planned();
    let before = observed(spec("old")).running(&old, 1, 1).routed(&old);
    let said = status(&before);
    let with_previous = |mut observed: Observed| {
        let mut service = observed.service.as_ref().clone();
        service.status = Some(said.clone());
        observed.service = Arc::new(service);
        observed
    };
    let verified = |observed: &Observed| {
        let status = status(observed);
        let ready = condition(&status, "Ready").unwrap().reason.clone();
        (condition(&status, "ModelVerified").unwrap().clone(), ready)
    };
    let changed = with_previous(observed(spec("new")))
        .running(&old, 1, 1)
        .routed(&old);
    let new = changed.planned();
    let failing = json!({"initContainerStatuses": ended("verify", 38, &words("SignatureInvalid"))});
    let refused = changed.running(&new, 1, 0).pod(&new, failing.clone());
    let (told, ready) = verified(&refused);
    assert_eq!(
        (told.status.as_str(), ready.as_str()),
        ("True", "SignatureInvalid")
    );
    assert!(told.message.contains(&old.rollout.target), "{}", told.message);

    let mut suspended = spec("old");
    suspended["suspend"] = true.into();
    let suspended = with_previous(observed(suspended))
        .running(&old, 0, 0)
        .routed(&old);
    assert_eq!(
        verified(&suspended).0,
        condition(&said, "ModelVerified").unwrap().clone()
    );

    // But not if it is the revision itself that nobody can verify any more.
    let itself = with_previous(observed(spec("old")))
        .running(&old, 1, 0)
        .routed(&old);
    let (told, _) = verified(&itself.pod(&old, failing));
    assert_eq!(
        (told.status.as_str(), told.reason.as_str()),
        ("False", "SignatureInvalid")
    );
}

/// Otherwise people learn of it when no server starts any more.
#[test]
fn a_source_that_does_not_keep_its_version_is_told_beforehand() {
    let told = |spec: Value, is_retained: bool| {
        let found = observed(spec).found(is_retained);
        let plan = found.planned();
        let status = status(&found.running(&plan, 1, 1).routed(&plan));
        condition(&status, "SourceNotRetained").map(|condition| condition.message.clone())
    };
    let of_uri = told(spec(), false).unwrap();
    assert!(
        of_uri.contains("ETag \"e-1\"") && of_uri.contains("spec.fetch.cache"),
        "{of_uri}"
    );
    let of_claim = told(json!({"model": {"volumeClaim": {"name": "models"}}}), true).unwrap();
    assert!(
        of_claim.contains("volume://models/") && of_claim.contains("spec.model.digest"),
        "{of_claim}"
    );
    // A cache with a limit may have removed it.
    let mut limited = spec();
    limited["fetch"]["cache"] = json!({"volumeClaim": {"name": "shared"}, "maximumSize": "9Gi"});
    let of_limited = told(limited, false).unwrap();
    assert!(
        of_limited.contains("spec.fetch.cache without maximumSize"),
        "{of_limited}"
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut cached = spec();
    cached["fetch"]["cache"] = json!({"volumeClaim": {"name": "shared"}});
    for (spec, is_retained) in [
        (spec(), true),
        (cached, false),
        (
            json!({"model": {"volumeClaim": {"name": "models"}, "digest": digest}}),
            true,
        ),
        (json!({}), true),
    ] {
        assert_eq!(told(spec.clone(), is_retained), None, "{spec}");
    }
}

/// Versioning does not help where there is none, and a folder's version is that of its list.
#[test]
fn the_remedy_for_a_version_that_is_not_kept_fits_the_source() {
    let told = |uri: &str, kind: &str| {
        let message =
            json!({"identity": {"kind": kind, "value": "e", "isRetained": false}, "objects": 1}).to_string();
        let found = observed(json!({"model": {"uri": uri}}));
        let finished = json!(found.now);
        let ended = json!({"terminated": {"exitCode": 0, "message": message, "finishedAt": finished}});
        let found = found.resolver(1, ended);
        let plan = found.planned();
        let status = status(&found.running(&plan, 1, 1).routed(&plan));
        condition(&status, "SourceNotRetained").unwrap().message.clone()
    };
    for (uri, kind, remedy, has_versioning) in [
        (
            "s3://models/net.onnx",
            "ETag",
            "Turn on the store's versioning",
            true,
        ),
        (
            "s3://models/net/",
            "Folder",
            "Pack the folder into one archive",
            false,
        ),
        (
            "https://host/net.onnx",
            "ETag",
            "Never write to this name again",
            false,
        ),
        (
            "https://host/net.onnx",
            "Digest",
            "Never write to this name again",
            false,
        ),
    ] {
        let message = told(uri, kind);
        assert!(message.contains(remedy), "{uri}: {message}");
        assert_eq!(
            message.contains("the store's versioning"),
            has_versioning,
            "{message}"
        );
        assert!(
            message.contains("spec.fetch.cache without maximumSize"),
            "{message}"
        );
    }
}

/// Which version runs is what people ask first.
#[test]
fn the_status_says_which_version_of_which_source_is_served() {
    let found = observed(spec()).found(true);
    let plan = found.planned();
    let mut observed = found.running(&plan, 1, 1).routed(&plan);
    let report = json!({"serverVersion": "1", "onnxRuntimeVersion": "2", "executionProvider": "CPUExecutionProvider",
        "models": [{"name": "photos", "digest": "sha256:ee", "opset": 17, "inputs": [], "outputs": []}]});
    let report: modelservice_contract::Report = serde_json::from_value(report).unwrap();
    observed
        .reported
        .models
        .insert(plan.rollout.target.clone(), Arc::new(report));
    let model = status(&observed).model.unwrap();
    assert_eq!(model.source.as_deref(), Some("s3://models/net.onnx"));
    assert_eq!(
        (model.delivery.as_deref(), model.identity.as_deref()),
        (Some("Fetch"), Some("ETag \"e-1\""))
    );
    assert_eq!(model.verified, None);
}
