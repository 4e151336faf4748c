//! How GitOps tools judge a status: Flux with kstatus itself, Argo CD with the script in our documentation.

use crate::{docs, helm::fed};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Runs a tool that reads an object and prints JSON.
fn judge(tool: &str, arguments: &[&str], object: &Value) -> Value {
    let mut command = Command::new(local_cluster::tool(tool).unwrap());
    let output = fed(command.args(arguments), &object.to_string());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} cannot judge {object}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What Flux, kpt and every other user of kstatus sees.
pub(crate) fn kstatus(object: &Value) -> Value {
    judge("kstatus", &[], object)
}

/// What Argo CD sees with the script of docs/gitops.md.
pub(crate) fn argo_cd(object: &Value) -> Value {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    let script = SCRIPT.get_or_init(|| {
        let scripts = docs::blocks("docs/gitops.md", "lua");
        assert_eq!(scripts.len(), 1, "docs/gitops.md must have one Lua script");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("argocd-health.lua");
        std::fs::write(&path, &scripts[0].1).unwrap();
        path
    });
    judge("argocd-health", &[script.to_str().unwrap()], object)
}

fn service(generation: i64, observed: Option<i64>, conditions: &[(&str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(type_, status, reason)| {
            json!({
                "type": type_, "status": status, "reason": reason, "message": format!("{reason} it is"),
                "observedGeneration": observed, "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    let mut service = json!({
        "apiVersion": "serving.modelservice.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "orchids", "namespace": "team-a", "generation": generation},
        "spec": {"model": {"image": "registry.example/m@sha256:00"}},
    });
    if let Some(observed) = observed {
        service["status"] = json!({"observedGeneration": observed, "conditions": conditions});
    }
    service
}

/// A pipeline that waits for the wrong condition deploys a broken model, or hangs.
#[test]
fn both_tools_judge_every_kind_of_status_alike() {
    let serving = [("Ready", "True", "Serving"), ("Available", "True", "Serving")];
    let starting = [
        ("Ready", "False", "Progressing"),
        ("Available", "False", "Progressing"),
        ("Reconciling", "True", "Progressing"),
    ];
    let broken = [
        ("Ready", "False", "ModelInvalid"),
        ("Available", "True", "Serving"),
        ("Stalled", "True", "ModelInvalid"),
    ];
    let waiting = [
        ("Ready", "False", "Unschedulable"),
        ("Available", "False", "Unschedulable"),
        ("Reconciling", "True", "Unschedulable"),
    ];
    let incomplete = [
        ("Ready", "True", "Serving"),
        ("Available", "True", "Serving"),
        ("Reconciling", "True", "Progressing"),
    ];
    let failing_beside = [
        ("Ready", "True", "Serving"),
        ("Available", "True", "Serving"),
        ("Stalled", "True", "OutOfMemory"),
    ];
    let suspended = [
        ("Ready", "True", "Suspended"),
        ("Available", "False", "Suspended"),
    ];
    let updatable = [
        ("Ready", "True", "Serving"),
        ("Available", "True", "Serving"),
        ("RuntimeUpdateAvailable", "True", "RuntimeUpdate"),
    ];
    let table = [
        (
            "never seen by the operator",
            service(1, Some(-1), &[]),
            "InProgress",
            "Progressing",
        ),
        (
            "starting",
            service(1, Some(1), &starting),
            "InProgress",
            "Progressing",
        ),
        ("serving", service(1, Some(1), &serving), "Current", "Healthy"),
        (
            "changed, not seen yet",
            service(2, Some(1), &serving),
            "InProgress",
            "Progressing",
        ),
        (
            "a broken revision beside a working one",
            service(2, Some(2), &broken),
            "Failed",
            "Degraded",
        ),
        (
            "no node",
            service(1, Some(1), &waiting),
            "InProgress",
            "Progressing",
        ),
        (
            "a server on its way beside those that answer",
            service(1, Some(1), &incomplete),
            "InProgress",
            "Healthy",
        ),
        (
            "a server that fails beside those that answer",
            service(1, Some(1), &failing_beside),
            "Failed",
            "Degraded",
        ),
        (
            "suspended",
            service(1, Some(1), &suspended),
            "Current",
            "Suspended",
        ),
        (
            "a newer runtime to be had",
            service(1, Some(1), &updatable),
            "Current",
            "Healthy",
        ),
    ];
    for (what, object, flux, argo) in table {
        assert_eq!(kstatus(&object)["status"], flux, "{what}: {}", kstatus(&object));
        assert_eq!(argo_cd(&object)["status"], argo, "{what}: {}", argo_cd(&object));
    }
    let mut going = service(1, Some(1), &serving);
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(kstatus(&going)["status"], "Terminating");
    assert_eq!(argo_cd(&going)["status"], "Progressing");
    let message = argo_cd(&service(2, Some(2), &broken))["message"].clone();
    assert_eq!(
        message, "ModelInvalid: ModelInvalid it is",
        "the cause is shown where people look"
    );
    let message = argo_cd(&service(1, Some(1), &failing_beside))["message"].clone();
    assert_eq!(message, "OutOfMemory: OutOfMemory it is");
}
