//! The fields of a spec that make a revision, and the hash that names it. Pure.

use super::canonical::canonical;
use crate::crd::{
    FetchSettings, Model, ModelService, ModelServiceSpec, PodSettings, Resources, ServerSettings,
};
use k8s_openapi::ByteString;
use kube::ResourceExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The fields whose change makes a new revision. A field that is added later is omitted while it is unset, so that
/// the hashes of existing services stay the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    model: &'a Model,
    #[serde(skip_serializing_if = "is_unset")]
    fetch: &'a FetchSettings,
    accelerators: &'a [String],
    resources: &'a Resources,
    server: &'a ServerSettings,
    pod: &'a PodSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    adopt_runtime: Option<&'a str>,
}

// serde's `skip_serializing_if` passes a reference to the field.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_unset(fetch: &&FetchSettings) -> bool {
    **fetch == FetchSettings::default()
}

/// Names the revision that a service's spec asks for.
#[must_use]
pub fn asked_for(service: &ModelService) -> String {
    let mut spec = service.spec.clone();
    // Without a model name, the service's name is used.
    spec.server.model_name = spec.server.model_name.filter(|name| *name != service.name_any());
    name(&spec)
}

/// Names a revision by the fields of a spec that make one, in their canonical form: specs that mean the same have the
/// same name.
#[must_use]
pub fn name(spec: &ModelServiceSpec) -> String {
    let fields = Fields {
        model: &spec.model,
        fetch: &spec.fetch,
        accelerators: &spec.accelerators,
        resources: &spec.resources,
        server: &spec.server,
        pod: &spec.pod,
        adopt_runtime: spec.adopt_runtime.as_deref(),
    };
    // Serialising our types cannot fail.
    hash(&canonical(serde_json::to_value(&fields).unwrap_or_default()))
}

/// Ten base-32 characters (50 bits) of the SHA-256 over a value's canonical JSON.
#[must_use]
pub fn hash<T: Serialize>(value: &T) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    Sha256::digest(canonical_json(value).as_bytes())
        .iter()
        .take(10)
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// SHA-256, in hex, of a public key's DER.
#[must_use]
pub fn hash_of_key(pem: &str) -> Option<String> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let der: ByteString = serde_json::from_value(body.into()).ok()?;
    Some(
        Sha256::digest(&der.0)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    )
}

/// JSON with sorted keys.
pub(super) fn canonical_json<T: Serialize>(value: &T) -> String {
    // Through `Value`, whose maps are sorted. Serialising our types cannot fail.
    serde_json::to_value(value)
        .map(|value| value.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn named(spec: serde_json::Value) -> String {
        name(&serde_json::from_value(spec).unwrap())
    }

    /// If a name changes, the next operator upgrade restarts all pods of all users.
    #[test]
    fn the_hash_of_a_known_spec_never_changes() {
        let known = [
            (json!({"model": {"image": "r.example/m@sha256:aa"}}), "qsq7rsdphx"),
            (
                json!({"model": {"image": "r.example/m@sha256:aa", "digest": "sha256:0"}, "accelerators": ["tpu", "cpu"]}),
                "km4hy4d53p",
            ),
            (
                json!({"model": {"image": "r.example/m@sha256:aa"}, "adoptRuntime": "2",
                    "server": {"queueLength": 4}, "pod": {"labels": {"a": "b"}}}),
                "ozj3wausk5",
            ),
            (json!({"model": {"uri": "s3://models/net/"}}), "urs7pn37q4"),
            (
                json!({"model": {"uri": "s3://models/net.onnx", "endpoint": "http://minio:9000", "refresh": "2"},
                    "fetch": {"credentials": {"secretName": "s3"}, "identity": "Pod", "runAsUser": 7,
                        "resources": {"limits": {"memory": "1Gi"}}, "volume": {"size": "2Gi"}}}),
                "nm6ykiz2nn",
            ),
            (
                json!({"model": {"volumeClaim": {"name": "models", "path": "net"}, "verification": {"publicKey": "k"}},
                    "fetch": {"cache": {"volumeClaim": {"name": "cache"}, "maximumSize": "9Gi"}}}),
                "str7lws5th",
            ),
        ];
        for (spec, name) in known {
            assert_eq!(named(spec.clone()), name, "{spec}");
        }
    }

    #[test]
    fn field_order_and_unset_fields_do_not_matter() {
        let one: ModelServiceSpec = serde_json::from_str(
            r#"{"pod":{"labels":{"b":"2","a":"1"}},"model":{"image":"i"},"suspend":false}"#,
        )
        .unwrap();
        let two: ModelServiceSpec =
            serde_json::from_str(r#"{"model":{"image":"i"},"pod":{"labels":{"a":"1","b":"2"}}}"#).unwrap();
        assert_eq!(name(&one), name(&two));
    }

    /// The documented table in docs/revisions.md, row by row.
    #[test]
    fn only_the_documented_fields_make_a_revision() {
        let base = json!({"model": {"image": "i"}});
        let with = |key: &str, value: serde_json::Value| {
            let mut spec = base.clone();
            spec[key] = value;
            named(spec) != named(base.clone())
        };
        assert!(with("model", json!({"image": "j"})));
        assert!(with("model", json!({"image": "i", "digest": "sha256:0"})));
        for model in [
            json!({"uri": "s3://a/b"}),
            json!({"volumeClaim": {"name": "a"}}),
            json!({"image": "i", "endpoint": "http://a"}),
            json!({"image": "i", "refresh": "1"}),
            json!({"image": "i", "delivery": "Fetch"}),
            json!({"image": "i", "verification": {"publicKey": "k"}}),
        ] {
            assert!(with("model", model.clone()), "{model}");
        }
        assert!(!with("model", json!({"image": "i", "delivery": "Auto"})));
        assert!(with("fetch", json!({"credentials": {"secretName": "s"}})));
        assert!(!with("fetch", json!({"identity": "None"})));
        assert!(with("accelerators", json!(["tpu"])));
        assert!(with("resources", json!({"requests": {"cpu": "1"}})));
        assert!(with("server", json!({"queueLength": 4})));
        assert!(with(
            "server",
            json!({"cache": {"volumeClaim": {"name": "graphs"}}})
        ));
        assert!(!with("server", json!({"cache": {}})));
        assert!(with("pod", json!({"labels": {"a": "b"}})));
        assert!(with("adoptRuntime", json!("0.2.0")));
        assert!(!with("replicas", json!(4)));
        assert!(!with("autoscaling", json!({"maxReplicas": 4})));
        assert!(!with("suspend", json!(true)));
        assert!(!with(
            "rollout",
            json!({"strategy": "Recreate", "startupDeadlineSeconds": 60, "fetchDeadlineSeconds": 60})
        ));
        assert!(!with("revisionHistoryLimit", json!(9)));
    }
}
