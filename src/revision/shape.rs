//! Shape: what a pod template of this operator looks like, now and in earlier versions. Anyone who may edit a
//! Deployment can edit the template that is frozen in it; the operator applies only templates that it could have
//! written itself. Pure.

use crate::crd::{
    DEVICE_CLAIM, FETCH_ARGUMENTS, FETCH_CONTAINER, FETCH_PROGRAM, SERVER_CONTAINER, VERIFY_CONTAINER,
    is_refused_annotation, is_refused_class_variable,
};
use modelservice_contract::{
    CACHE_PATH, CONFIG_ENV, CREDENTIALS_PATH, FETCH_CONFIG_ENV, MODEL_CACHE_PATH, MODEL_PATH,
    PULL_SECRETS_PATH,
};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Any value: it depends on the revision.
const ANY: &str = "<any>";
/// Fields that must be present, with the value in the shape.
const REQUIRED: [&str; 3] = [
    "automountServiceAccountToken",
    "securityContext.runAsNonRoot",
    "securityContext.seccompProfile.type",
];
/// The same in each container.
const REQUIRED_OF_CONTAINERS: [&str; 3] = [
    "securityContext.allowPrivilegeEscalation",
    "securityContext.readOnlyRootFilesystem",
    "securityContext.capabilities.drop",
];
/// The same in each container that fetches or verifies: without them, the image would run something else.
const REQUIRED_OF_FETCHERS: [&str; 3] = ["command", "args", "env"];

/// Path of the first field of a template that this operator could not have written; `None` if it could have written
/// all of it.
pub(super) fn first_foreign_field(template: &Value) -> Option<String> {
    let path = foreign(template, &SHAPE)
        .or_else(|| foreign_name(template))
        .or_else(|| missing(template));
    path.map(|path| path.trim_start_matches('.').to_owned())
}

/// The same for what a revision's pods claim by DRA.
pub(super) fn first_foreign_field_of_claim(claim: &Value) -> Option<String> {
    let path = foreign(claim, &CLAIM_SHAPE)?;
    Some(path.trim_start_matches('.').to_owned())
}

/// A claim as src/plan/claim.rs makes it.
static CLAIM_SHAPE: LazyLock<Value> = LazyLock::new(|| {
    let devices =
        json!({"deviceClassName": ANY, "selectors": ANY, "allocationMode": "ExactCount", "count": ANY});
    let mut alternative = devices.clone();
    alternative["name"] = ANY.into();
    let request = json!({"name": DEVICE_CLAIM, "exactly": devices, "firstAvailable": [alternative]});
    json!({
        "metadata": {"labels": ANY, "creationTimestamp": null},
        "spec": {"devices": {"requests": [request]}},
    })
});

/// A template as src/plan/template.rs makes it, with the defaults that the API server adds. Each item of a list has
/// one of the listed shapes.
static SHAPE: LazyLock<Value> = LazyLock::new(shape);

fn shape() -> Value {
    json!({
        "metadata": {"labels": ANY, "annotations": ANY, "creationTimestamp": null},
        "spec": {
            "containers": [container()],
            "initContainers": [
                fetcher(FETCH_CONTAINER, &FETCH_ARGUMENTS, &[
                    json!({"name": "model", "mountPath": MODEL_PATH}),
                    json!({"name": "model-cache", "mountPath": MODEL_CACHE_PATH}),
                    json!({"name": "credentials", "mountPath": CREDENTIALS_PATH, "readOnly": true}),
                    json!({"name": "pull-secrets", "mountPath": PULL_SECRETS_PATH, "readOnly": true}),
                ]),
                fetcher(VERIFY_CONTAINER, &[VERIFY_CONTAINER], &[mounted_model()]),
            ],
            "volumes": volumes(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": ANY,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": ANY,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "nodeSelector": ANY,
            "tolerations": ANY,
            "affinity": ANY,
            "topologySpreadConstraints": ANY,
            "priorityClassName": ANY,
            "schedulerName": ANY,
            "serviceAccountName": ANY,
            "serviceAccount": ANY,
            "imagePullSecrets": ANY,
            "runtimeClassName": ANY,
            "resourceClaims": [{"name": DEVICE_CLAIM, "resourceClaimTemplateName": ANY}],
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
        },
    })
}

fn volumes() -> Value {
    let ephemeral = json!({
        "metadata": {"creationTimestamp": null},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": ANY, "resources": {"requests": {"storage": ANY}},
            "volumeMode": "Filesystem"},
    });
    let pull_secret = json!({"secret": {"name": ANY, "items": ANY, "optional": true}});
    json!([
        {"name": "model", "image": {"reference": ANY, "pullPolicy": "IfNotPresent"}},
        {"name": "model", "emptyDir": {"sizeLimit": ANY}},
        {"name": "model", "persistentVolumeClaim": {"claimName": ANY, "readOnly": true}},
        {"name": "model-cache", "persistentVolumeClaim": {"claimName": ANY}},
        {"name": "model", "ephemeral": {"volumeClaimTemplate": ephemeral}},
        {"name": "credentials", "secret": {"secretName": ANY, "optional": true, "defaultMode": 420}},
        {"name": "pull-secrets", "projected": {"sources": [pull_secret], "defaultMode": 420}},
        {"name": "cache", "emptyDir": {"sizeLimit": ANY}},
        {"name": "cache", "persistentVolumeClaim": {"claimName": ANY}},
        {"name": "tokens", "secret": {"secretName": ANY, "items": ANY, "optional": true, "defaultMode": 420}},
    ])
}

/// A container that runs the operator's own program, with nothing in its environment but its configuration.
fn fetcher(name: &str, arguments: &[&str], mounts: &[Value]) -> Value {
    let mut security = security();
    security["runAsUser"] = ANY.into();
    json!({
        "name": name,
        "image": ANY,
        "imagePullPolicy": "IfNotPresent",
        "command": [FETCH_PROGRAM],
        "args": arguments,
        "env": [{"name": FETCH_CONFIG_ENV, "value": ANY}],
        "resources": {"requests": ANY, "limits": ANY},
        "securityContext": security,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    })
}

fn security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

fn mounted_model() -> Value {
    json!({"name": "model", "mountPath": MODEL_PATH, "readOnly": true, "subPath": ANY})
}

fn container() -> Value {
    let probe = json!({
        "httpGet": {"path": ANY, "port": "management", "scheme": "HTTP"},
        "initialDelaySeconds": ANY,
        "periodSeconds": ANY,
        "timeoutSeconds": ANY,
        "successThreshold": ANY,
        "failureThreshold": ANY,
    });
    json!({
        "name": SERVER_CONTAINER,
        "image": ANY,
        "imagePullPolicy": ANY,
        "env": ANY,
        "ports": [{"name": ANY, "containerPort": ANY, "protocol": "TCP"}],
        "resources": {"requests": ANY, "limits": ANY, "claims": [{"name": DEVICE_CLAIM}]},
        "startupProbe": probe,
        "readinessProbe": probe,
        "livenessProbe": probe,
        "lifecycle": {"preStop": {"sleep": {"seconds": ANY}}},
        "securityContext": security(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            mounted_model(),
            {"name": "cache", "mountPath": CACHE_PATH},
            {"name": "tokens", "mountPath": "/etc/modelservice/auth", "readOnly": true},
        ],
    })
}

/// Path of the first field that is not in the shape, or has another value there.
fn foreign(value: &Value, shape: &Value) -> Option<String> {
    if *shape == ANY || value == shape {
        return None;
    }
    match (value, shape) {
        (Value::Object(fields), Value::Object(shapes)) => fields.iter().find_map(|(key, field)| {
            let path = match shapes.get(key) {
                Some(shape) => foreign(field, shape),
                None => Some(String::new()),
            };
            path.map(|path| format!(".{key}{path}"))
        }),
        // Lists of texts, such as a command, are as they are.
        (Value::Array(items), Value::Array(shapes)) if shapes.iter().any(Value::is_object) => {
            items.iter().enumerate().find_map(|(index, item)| {
                let mut paths = shapes.iter().map(|shape| foreign(item, shape));
                // With several shapes, the exact place of the error is not known.
                let path = match shapes.as_slice() {
                    [_] => paths.next().flatten(),
                    _ => paths.all(|path| path.is_some()).then(String::new),
                };
                path.map(|path| format!("[{index}]{path}"))
            })
        }
        _ => Some(String::new()),
    }
}

/// Path of the first variable or annotation that neither a ModelService nor an AcceleratorClass may have.
fn foreign_name(template: &Value) -> Option<String> {
    let annotations = template["metadata"]["annotations"].as_object();
    let annotation = annotations
        .into_iter()
        .flat_map(|annotations| annotations.keys())
        .find(|key| is_refused_annotation(key));
    let variables = template["spec"]["containers"][0]["env"].as_array();
    let variable = variables
        .into_iter()
        .flatten()
        .filter_map(|variable| variable["name"].as_str())
        .find(|name| *name != CONFIG_ENV && is_refused_class_variable(name));
    annotation
        .map(|key| format!("metadata.annotations[{key}]"))
        .or_else(|| variable.map(|name| format!("spec.containers[0].env[{name}]")))
}

/// Path of the first required field that is missing.
fn missing(template: &Value) -> Option<String> {
    let pod = &template["spec"];
    let lacks =
        |value: &Value, field: &&&str| value.pointer(&format!("/{}", field.replace('.', "/"))).is_none();
    let of_pod = REQUIRED.iter().find(|field| lacks(pod, field));
    let of_pod = of_pod.map(|field| format!("spec.{field}"));
    of_pod.or_else(|| {
        [
            ("containers", &[][..]),
            ("initContainers", &REQUIRED_OF_FETCHERS[..]),
        ]
        .into_iter()
        .find_map(|(list, more)| {
            let containers = pod[list].as_array().into_iter().flatten().enumerate();
            let required = || REQUIRED_OF_CONTAINERS.iter().chain(more);
            containers.into_iter().find_map(|(index, container)| {
                let field = required().find(|field| lacks(container, field))?;
                Some(format!("spec.{list}[{index}].{field}"))
            })
        })
    })
}
