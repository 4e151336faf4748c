//! Difference: whether the object that exists has all that the wanted one has. Pure.
//!
//! Both are compared as the API server normalises them: quantities by value; an unset field equals an empty one and
//! the zero of its type; lists whose items have names by name.

use crate::revision::thousandths;
use serde_json::Value;

/// Path of the first field of `wanted` that differs in `live`; `None` if none does.
#[must_use]
pub(super) fn first_difference(wanted: &Value, live: &Value) -> Option<String> {
    compare(wanted, Some(live), Kind::Plain).map(|path| path.trim_start_matches('.').to_owned())
}

/// How scalars below a field are read.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Quantities,
}

fn compare(wanted: &Value, live: Option<&Value>, kind: Kind) -> Option<String> {
    if is_empty(wanted) && !(wanted.is_object() && live.is_some_and(Value::is_object)) {
        let differs = is_scalar(wanted) && live.is_some_and(|live| !is_empty(live));
        return differs.then(String::new);
    }
    match (wanted, live) {
        (Value::Object(wanted), Some(Value::Object(live))) => wanted.iter().find_map(|(key, value)| {
            let kind = if QUANTITIES.contains(&key.as_str()) {
                Kind::Quantities
            } else {
                kind
            };
            let live = live.get(key);
            let path = if ATOMIC.contains(&key.as_str()) && fields(live) > fields(Some(value)) {
                Some(String::new())
            } else {
                compare(value, live, kind)
            };
            path.map(|path| format!(".{key}{path}"))
        }),
        (Value::Array(wanted), Some(Value::Array(live))) => compare_lists(wanted, live, kind),
        (wanted, Some(live)) if wanted == live => None,
        (Value::String(wanted), Some(Value::String(live))) if matches!(kind, Kind::Quantities) => {
            (thousandths(wanted) != thousandths(live) || thousandths(wanted).is_none()).then(String::new)
        }
        _ => Some(String::new()),
    }
}

fn compare_lists(wanted: &[Value], live: &[Value], kind: Kind) -> Option<String> {
    let name = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
    if wanted.iter().all(|item| name(item).is_some()) {
        return wanted.iter().find_map(|item| {
            let same = live.iter().find(|candidate| name(candidate) == name(item));
            compare(item, same, kind).map(|path| format!("[{}]{path}", name(item).unwrap_or_default()))
        });
    }
    if wanted.len() != live.len() {
        return Some(String::new());
    }
    wanted
        .iter()
        .zip(live)
        .enumerate()
        .find_map(|(index, (wanted, live))| {
            compare(wanted, Some(live), kind).map(|path| format!("[{index}]{path}"))
        })
}

/// Fields that are quantities, or maps of them.
const QUANTITIES: [&str; 4] = ["requests", "limits", "sizeLimit", "divisor"];
/// Maps that Kubernetes treats as one value: a further key in one of them changes ours.
const ATOMIC: [&str; 3] = ["selector", "matchLabels", "nodeSelector"];

fn fields(value: Option<&Value>) -> usize {
    value.and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// What the API server may leave out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(items) => items.is_empty(),
        // `{}` may mean something (an emptyDir), but has nothing in it that could differ.
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
        first_difference(&wanted, &live)
    }

    /// Each row would be a write on every reconcile: a hot loop.
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
}
