//! Selection: which nodes an AcceleratorClass allows, by the rules of Kubernetes' scheduler. Taints aside. Pure.

use super::node::Node;
use crate::crd::AcceleratorClassSpec;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use kube::ResourceExt as _;

/// Whether a node meets the class's node selector and node affinity.
pub(super) fn selects(class: &AcceleratorClassSpec, node: &Node) -> bool {
    let labels = node.labels();
    let affinity = class.node_affinity.as_ref();
    let required = affinity.and_then(|affinity| {
        let required = &affinity.required_during_scheduling_ignored_during_execution;
        required.as_ref()
    });
    class
        .node_selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| meets(node, term)))
}

/// Whether a node meets all rules of a term. An empty one matches nothing.
fn meets(node: &Node, term: &NodeSelectorTerm) -> bool {
    let labels = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let mut rules = labels
        .map(|rule| (node.labels().get(&rule.key).map(String::as_str), rule))
        .chain(fields.map(|rule| (node.metadata.name.as_deref(), rule)))
        .peekable();
    rules.peek().is_some() && rules.all(|(found, rule)| obeys(found, rule))
}

fn obeys(found: Option<&str>, rule: &NodeSelectorRequirement) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let is_listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let compared = || {
        let limit = values.first()?.parse::<i64>().ok()?;
        Some(found?.parse::<i64>().ok()?.cmp(&limit))
    };
    match rule.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn is_selected(class: Value) -> bool {
        let class: AcceleratorClassSpec = serde_json::from_value(class).unwrap();
        let labels = json!({"gpu": "a10", "cores": "72"});
        let node = json!({"metadata": {"name": "node-1", "labels": labels}});
        selects(&class, &serde_json::from_value(node).unwrap())
    }

    fn required(terms: Value) -> Value {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
    }

    fn rule(key: &str, operator: &str, values: &[&str]) -> Value {
        required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    }

    /// Otherwise a class counts nodes on which its servers can never run.
    #[test]
    fn nodes_are_selected_as_the_scheduler_does() {
        let selected = [
            json!({}),
            json!({"nodeSelector": {"gpu": "a10"}}),
            rule("gpu", "In", &["l4", "a10"]),
            rule("gpu", "NotIn", &["l4"]),
            rule("tpu", "NotIn", &["v5"]),
            rule("gpu", "Exists", &[]),
            rule("tpu", "DoesNotExist", &[]),
            rule("cores", "Gt", &["64"]),
            rule("cores", "Lt", &["96"]),
            required(
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]),
            ),
            required(json!([{}, {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}])),
        ];
        for class in selected {
            assert!(is_selected(class.clone()), "{class}");
        }
        let refused = [
            json!({"nodeSelector": {"gpu": "l4"}}),
            json!({"nodeSelector": {"gpu": "a10", "zone": "a"}}),
            rule("gpu", "In", &["l4"]),
            rule("gpu", "NotIn", &["a10"]),
            rule("tpu", "Exists", &[]),
            rule("gpu", "Gt", &["1"]),
            rule("cores", "Gt", &["72"]),
            required(json!([{}])),
            required(
                json!([{"matchExpressions": [{"key": "gpu", "operator": "Exists"}, {"key": "tpu", "operator": "Exists"}]}]),
            ),
        ];
        for class in refused {
            assert!(!is_selected(class.clone()), "{class}");
        }
    }
}
