//! Difference: what of the wanted object the one that exists has not, or has otherwise. Pure.
//!
//! Both are compared as the API server normalises them: quantities by value; an unset field equals an empty one and
//! its type's zero; items with names by name.

use super::field::{Field, Step};
use crate::revision::{hash, thousandths};
use serde_json::Value;

/// A field of the wanted object that the live one has not, or has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Which one.
    pub field: Field,
    /// Hash of the value that is wanted.
    pub wanted: String,
}

impl Difference {
    /// Of a whole value, which is wanted like this.
    pub(super) fn whole(wanted: &Value) -> Self {
        Self {
            field: Field::default(),
            wanted: hash(wanted),
        }
    }

    /// Of an object that is not there.
    pub(super) fn missing() -> Self {
        Self::whole(&Value::Null)
    }

    /// The same, seen from the value that holds this one.
    fn below(mut self, step: Step) -> Self {
        self.field = self.field.below(step);
        self
    }
}

/// Every field of `wanted` that differs in `live`.
#[must_use]
pub(super) fn differences(wanted: &Value, live: &Value) -> Vec<Difference> {
    compare(wanted, Some(live), Kind::Plain)
}

/// How scalars below a field are compared.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Quantities,
}

fn compare(wanted: &Value, live: Option<&Value>, kind: Kind) -> Vec<Difference> {
    let differs = if is_empty(wanted) && !(wanted.is_object() && live.is_some_and(Value::is_object)) {
        is_scalar(wanted) && live.is_some_and(|live| !is_empty(live))
    } else {
        match (wanted, live) {
            (Value::Object(wanted), Some(Value::Object(live))) => {
                let keys = wanted.iter();
                return keys
                    .flat_map(|(key, value)| compare_key(key, value, live.get(key), kind))
                    .collect();
            }
            (Value::Array(wanted), Some(Value::Array(live))) if is_named(wanted) => {
                return compare_named(wanted, live, kind);
            }
            (Value::Array(wanted), Some(Value::Array(live))) if wanted.len() == live.len() => {
                return compare_numbered(wanted, live, kind);
            }
            (Value::String(wanted), Some(Value::String(live))) if matches!(kind, Kind::Quantities) => {
                wanted != live && (thousandths(wanted) != thousandths(live) || thousandths(wanted).is_none())
            }
            (wanted, live) => Some(wanted) != live,
        }
    };
    differs.then(|| Difference::whole(wanted)).into_iter().collect()
}

fn compare_key(key: &str, wanted: &Value, live: Option<&Value>, kind: Kind) -> Vec<Difference> {
    let kind = if QUANTITIES.contains(&key) {
        Kind::Quantities
    } else {
        kind
    };
    let mut found = compare(wanted, live, kind);
    if ATOMIC.contains(&key) && (!found.is_empty() || fields(live) > fields(Some(wanted))) {
        found = vec![Difference::whole(wanted)];
    }
    below(found, || Step::Key(key.to_owned()))
}

fn compare_named(wanted: &[Value], live: &[Value], kind: Kind) -> Vec<Difference> {
    let compare_item = |item| {
        let same = live.iter().find(|candidate| name(candidate) == name(item));
        below(compare(item, same, kind), || {
            Step::Item(name(item).unwrap_or_default().to_owned())
        })
    };
    wanted.iter().flat_map(compare_item).collect()
}

fn compare_numbered(wanted: &[Value], live: &[Value], kind: Kind) -> Vec<Difference> {
    let pairs = wanted.iter().zip(live).enumerate();
    pairs
        .flat_map(|(index, (wanted, live))| {
            below(compare(wanted, Some(live), kind), || {
                Step::Item(index.to_string())
            })
        })
        .collect()
}

fn below(found: Vec<Difference>, step: impl Fn() -> Step) -> Vec<Difference> {
    found
        .into_iter()
        .map(|difference| difference.below(step()))
        .collect()
}

fn is_named(items: &[Value]) -> bool {
    items.iter().all(|item| name(item).is_some())
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").and_then(Value::as_str)
}

/// Fields that are quantities, or maps of them.
const QUANTITIES: [&str; 4] = ["requests", "limits", "sizeLimit", "divisor"];
/// Maps that Kubernetes treats as one value: an additional key in one of them is a difference.
const ATOMIC: [&str; 3] = ["selector", "matchLabels", "nodeSelector"];

fn fields(value: Option<&Value>) -> usize {
    value.and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// Whether the API server may omit the value.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(items) => items.is_empty(),
        // `{}` may have a meaning (an emptyDir), but contains nothing that could differ.
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differs(wanted: Value, live: Value) -> Option<String> {
        let found = differences(&wanted, &live);
        found.first().map(|difference| difference.field.to_string())
    }

    /// Each row would cause a write in every reconcile: a hot loop.
    #[test]
    fn what_the_api_server_normalises_does_not_differ() {
        let same = [
            (
                json!({"requests": {"cpu": "1000m"}}),
                json!({"requests": {"cpu": "1"}}),
            ),
            (
                json!({"requests": {"cpu": "0.5"}}),
                json!({"requests": {"cpu": "500m"}}),
            ),
            (
                json!({"limits": {"memory": "1024Mi"}}),
                json!({"limits": {"memory": "1Gi"}}),
            ),
            (
                json!({"limits": {"memory": "1e3"}}),
                json!({"limits": {"memory": "1k"}}),
            ),
            (
                json!({"emptyDir": {"sizeLimit": "10240Mi"}}),
                json!({"emptyDir": {"sizeLimit": "10Gi"}}),
            ),
            (
                json!({"resourceFieldRef": {"divisor": "1000m"}}),
                json!({"resourceFieldRef": {"divisor": "1"}}),
            ),
            (json!({"a": ""}), json!({})),
            (json!({"a": null}), json!({"a": "defaulted"})),
            (json!({"a": []}), json!({})),
            (json!({"a": {"b": 0, "c": false}}), json!({})),
            (json!({"a": 1}), json!({"a": 1, "added": "by another"})),
            (
                json!({"env": [{"name": "X", "value": ""}]}),
                json!({"env": [{"name": "W", "value": "1"}, {"name": "X"}]}),
            ),
        ];
        for (wanted, live) in same {
            assert_eq!(differs(wanted.clone(), live.clone()), None, "{wanted} {live}");
        }
    }

    /// Each row is drift that has to be repaired.
    #[test]
    fn what_somebody_else_changed_differs() {
        let different = [
            (json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), "a.b"),
            (json!({"a": 1}), json!({}), "a"),
            (json!({"suspend": false}), json!({"suspend": true}), "suspend"),
            (json!({"replicas": 0}), json!({"replicas": 3}), "replicas"),
            (
                json!({"requests": {"cpu": "1"}}),
                json!({"requests": {"cpu": "2"}}),
                "requests.cpu",
            ),
            (
                json!({"name": {"cpu": "1000m"}}),
                json!({"name": {"cpu": "1"}}),
                "name.cpu",
            ),
            (
                json!({"selector": {"a": "1"}}),
                json!({"selector": {"a": "1", "b": "2"}}),
                "selector",
            ),
            (
                json!({"selector": {"a": "1"}}),
                json!({"selector": {"b": "2"}}),
                "selector",
            ),
            (json!({"l": [1, 2]}), json!({"l": [1]}), "l"),
            (
                json!({"l": [{"name": "x", "v": 1}]}),
                json!({"l": [{"name": "x", "v": 2}]}),
                "l[x].v",
            ),
            (
                json!({"l": [{"name": "x", "v": 1}]}),
                json!({"l": [{"name": "y", "v": 1}]}),
                "l[x]",
            ),
        ];
        for (wanted, live, path) in different {
            assert_eq!(
                differs(wanted.clone(), live.clone()).as_deref(),
                Some(path),
                "{wanted} {live}"
            );
        }
    }
    /// Otherwise a field that is disputed hides another that is not, which is never repaired.
    #[test]
    fn every_field_that_differs_is_found() {
        let wanted = json!({"a": 1, "l": [{"name": "x", "v": 1, "w": 2}], "m": [3, 4], "same": true});
        let live = json!({"a": 2, "l": [{"name": "x", "v": 3}], "m": [3, 5], "same": true});
        let found = differences(&wanted, &live);
        let fields: Vec<_> = found.iter().map(|found| found.field.to_string()).collect();
        assert_eq!(fields, ["a", "l[x].v", "l[x].w", "m[1]"]);
    }
}
