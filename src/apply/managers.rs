//! Managers: who set a field, by an object's managed fields. Pure.

use super::field::{Field, Step};
use crate::crd::{FIELD_MANAGER, SCALE_FIELD_MANAGER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

const OURS: [&str; 2] = [FIELD_MANAGER, SCALE_FIELD_MANAGER];
/// Fields from this depth on belong to somebody in particular: `spec.ports`, but not `spec`.
const PARTICULAR: usize = 2;

/// The field manager that set a field last, other than the operator; if nobody owns it, because it was removed, the
/// one that set something beside it.
pub(super) fn owner(entries: &[ManagedFieldsEntry], field: &Field) -> Option<String> {
    let steps = field.steps();
    (PARTICULAR.min(steps.len())..=steps.len())
        .rev()
        .find_map(|depth| newest(entries, &steps[..depth]))
}

fn newest(entries: &[ManagedFieldsEntry], steps: &[Step]) -> Option<String> {
    entries
        .iter()
        .filter(|entry| !OURS.contains(&entry.manager.as_deref().unwrap_or_default()))
        // The controllers of Kubernetes annotate what they report on.
        .filter(|entry| entry.subresource.as_deref() != Some("status"))
        .filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| owns(&fields.0, steps))
        })
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?
        .manager
        .clone()
}

/// Whether a set of fields has this one: all of a map or list that has no fields of its own there.
fn owns(fields: &Value, steps: &[Step]) -> bool {
    let (Some((step, rest)), Some(fields)) = (steps.split_first(), fields.as_object()) else {
        return true;
    };
    let mut inside = fields.iter().filter(|(key, _)| key.as_str() != ".").peekable();
    inside.peek().is_none() || inside.any(|(key, fields)| is_step(key, step) && owns(fields, rest))
}

/// Items are named by their keys: a container by its name, a port of a Service by its number, which we do not know.
fn is_step(key: &str, step: &Step) -> bool {
    match step {
        Step::Key(name) => key.strip_prefix("f:") == Some(name),
        Step::Item(item) => {
            let keys = key
                .strip_prefix("k:")
                .and_then(|keys| serde_json::from_str::<Value>(keys).ok());
            keys.is_some_and(|keys| keys.get("name").is_none_or(|name| name == item.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::apply::difference::differences;
    use serde_json::json;

    fn field(wanted: Value, live: Value) -> Field {
        differences(&wanted, &live).remove(0).field
    }

    /// A wrong name sends whoever is on call to the wrong team.
    #[test]
    fn the_manager_that_set_the_field_last_is_named() {
        let entry = |manager: &str, time: &str, fields: Value| {
            json!({"manager": manager, "operation": "Update",
            "time": format!("2026-01-01T00:00:{time}Z"), "fieldsType": "FieldsV1", "fieldsV1": fields})
        };
        let entries = json!([
            entry(
                FIELD_MANAGER,
                "09",
                json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:ports": {}}})
            ),
            entry("older", "01", json!({"f:spec": {"f:replicas": {}}})),
            entry("scaler", "02", json!({"f:spec": {"f:replicas": {}}})),
            entry(
                "mesh",
                "03",
                json!({"f:spec": {"f:selector": {}, "f:ports": {".": {},
                "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:targetPort": {}}}}})
            ),
            entry(
                "images",
                "04",
                json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"other\"}": {"f:image": {}}}}}}})
            ),
            entry(
                "mirror",
                "01",
                json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"server\"}": {"f:image": {}}}}}}})
            ),
            entry(
                "kube-controller-manager",
                "05",
                json!({"f:status": {"f:replicas": {}}})
            ),
        ]);
        let entries: Vec<ManagedFieldsEntry> = serde_json::from_value(entries).unwrap();
        let container = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "server", "image": image}]}}}});
        let port =
            |name: &str, target: &str| json!({"spec": {"ports": [{"name": name, "targetPort": target}]}});
        let table = [
            (
                json!({"spec": {"replicas": 2}}),
                json!({"spec": {"replicas": 1}}),
                Some("scaler"),
            ),
            (
                json!({"spec": {"selector": {"a": "b"}}}),
                json!({"spec": {"selector": {"a": "b", "c": "d"}}}),
                Some("mesh"),
            ),
            (container("a"), container("b"), Some("mirror")),
            (port("http", "http"), port("http", "other"), Some("mesh")),
            // It removed this port.
            (port("grpc", "http"), port("http", "http"), Some("mesh")),
            (
                json!({"spec": {"maxReplicas": 2}}),
                json!({"spec": {"maxReplicas": 1}}),
                None,
            ),
        ];
        for (wanted, live, manager) in table {
            let field = field(wanted, live);
            assert_eq!(owner(&entries, &field).as_deref(), manager, "{field}");
        }
    }
}
