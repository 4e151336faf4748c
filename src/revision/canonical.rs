//! Canonical form of the fields that make a revision: values that mean the same to Kubernetes and to the server are
//! written the same. docs/revisions.md lists the rules. Any change here renames revisions, and so restarts every
//! affected server. Pure.

use super::quantity::thousandths;
use crate::crd::SERVER_CONTAINER;
use serde_json::{Map, Value, json};

/// Brings the fields into their canonical form.
pub(super) fn canonical(mut fields: Value) -> Value {
    without_tag(&mut fields["model"]["image"]);
    if is_registry(&fields["model"]["uri"]) {
        without_tag(&mut fields["model"]["uri"]);
    }
    resources(&mut fields["resources"]);
    let claimed = [
        &fields["server"]["cache"]["volumeClaim"],
        &fields["fetch"]["cache"],
        &fields["fetch"]["volume"],
    ]
    .into_iter()
    .any(Value::is_object);
    fetch(&mut fields["fetch"]);
    remove_equal(&mut fields["server"], &server_defaults());
    pod(&mut fields["pod"], claimed);
    prune(&mut fields);
    fields
}

/// The server's values for whatever [`crate::crd::ServerSettings`] leave out. The API's description promises them, so
/// they stay as long as the API's version does.
fn server_defaults() -> Value {
    json!({
        "maxBodyBytes": 67_108_864,
        "maxImagePixels": 67_108_864,
        "maxImagesPerRequest": 16,
        "maxBatchSize": 8,
        "queueLength": 128,
        "connections": {"maxAgeSeconds": 300, "maxRequests": 0, "idleSeconds": 620},
        "accessLog": {"sampleRatio": 0.0, "failures": true},
        "tracing": {"sampleRatio": 0.01},
    })
}

/// An image is pulled by its digest; a tag beside it is never looked up.
fn without_tag(image: &mut Value) {
    if let Some(known) = image.as_str() {
        *image = untagged(known).into();
    }
}

/// The name of an image that has a digest, without a tag.
pub(super) fn untagged(image: &str) -> String {
    let Some((name, digest)) = image.split_once('@') else {
        return image.to_owned();
    };
    // A colon before the last slash belongs to the registry's port.
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    format!("{repository}@{digest}")
}

/// Elsewhere, an `@` may be part of a name.
fn is_registry(uri: &Value) -> bool {
    uri.as_str().is_some_and(|uri| uri.starts_with("oci://"))
}

/// Sizes by their value.
fn fetch(fetch: &mut Value) {
    fields(&mut fetch["resources"]["requests"]).for_each(quantity);
    fields(&mut fetch["resources"]["limits"]).for_each(quantity);
    quantity(&mut fetch["volume"]["size"]);
    quantity(&mut fetch["cache"]["maximumSize"]);
}

/// A missing request equals the limit; missing ephemeral storage has the values in the API's description.
fn resources(resources: &mut Value) {
    const STORAGE: &str = "ephemeral-storage";
    let mut storage = json!({"requests": {STORAGE: "64Mi"}, "limits": {STORAGE: "10Gi"}});
    for quantities in [&mut *resources, &mut storage] {
        fields(&mut quantities["requests"]).for_each(quantity);
        fields(&mut quantities["limits"]).for_each(quantity);
    }
    if ["requests", "limits"]
        .iter()
        .all(|side| resources[side][STORAGE] == storage[side][STORAGE])
    {
        remove_equal(resources, &storage);
    }
    let limits = resources["limits"].clone();
    remove_equal(&mut resources["requests"], &limits);
}

fn pod(pod: &mut Value, claimed: bool) {
    let defaults = json!({
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "fsGroup": if claimed { json!(65532) } else { Value::Null },
    });
    remove_equal(pod, &defaults);
    environment(&mut pod["env"]);
    for toleration in items(&mut pod["tolerations"]) {
        remove_equal(
            toleration,
            &json!({"operator": "Equal", "key": "", "value": "", "effect": ""}),
        );
        remove_equal(toleration, &json!({"operator": ""}));
    }
    for constraint in items(&mut pod["topologySpreadConstraints"]) {
        let defaults = json!({"minDomains": 1, "nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Ignore"});
        remove_equal(constraint, &defaults);
    }
    for set in [
        "tolerations",
        "topologySpreadConstraints",
        "affinity",
        "imagePullSecrets",
    ] {
        prune(&mut pod[set]);
        sort(set, &mut pod[set]);
    }
}

/// The order of variables matters only if one refers to another.
fn environment(variables: &mut Value) {
    let mut refer = false;
    for variable in items(variables) {
        refer |= variable["value"]
            .as_str()
            .is_some_and(|value| value.contains("$("));
        remove_equal(variable, &json!({"value": ""}));
        let source = &mut variable["valueFrom"];
        quantity(&mut source["resourceFieldRef"]["divisor"]);
        let defaults = json!({
            "fieldRef": {"apiVersion": "v1"},
            "resourceFieldRef": {"containerName": SERVER_CONTAINER, "divisor": "1000"},
            "configMapKeyRef": {"optional": false},
            "secretKeyRef": {"optional": false},
            "fileKeyRef": {"optional": false},
        });
        remove_equal(source, &defaults);
        // These come from the same defaults.
        remove_equal(
            source,
            &json!({"resourceFieldRef": {"containerName": "", "divisor": "0"}}),
        );
        prune(variable);
    }
    if !refer {
        sort("env", variables);
    }
}

/// Writes a quantity in thousandths.
fn quantity(value: &mut Value) {
    if let Some(number) = value.as_str().and_then(thousandths) {
        *value = number.to_string().into();
    }
}

/// Removes fields that are set to their defaults.
fn remove_equal(value: &mut Value, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) else {
        return;
    };
    for (key, default) in defaults {
        match fields.get_mut(key) {
            Some(field) if field == default => drop(fields.remove(key)),
            Some(field) => remove_equal(field, default),
            None => {}
        }
    }
}

/// Removes empty values. Items of lists stay, and so does an empty selector, which selects everything.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|key, field| match field {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(inner) => {
                    !inner.is_empty() || matches!(key.as_str(), "labelSelector" | "namespaceSelector")
                }
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Sorts lists whose order does not matter. Duplicates are removed, except preferences, whose weights add up.
fn sort(key: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, field)| sort(key, field)),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| sort("", item));
            items.sort_by_cached_key(Value::to_string);
            if !key.starts_with("preferred") {
                items.dedup();
            }
        }
        _ => {}
    }
}

fn items(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

fn fields(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    object.as_object_mut().into_iter().flat_map(Map::values_mut)
}
