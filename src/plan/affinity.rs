//! The affinity of a server's pod: what the user asks for and where the class's devices are, both of them. Pure.

use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, NodeSelector, NodeSelectorTerm};

/// The user's affinity, narrowed to the nodes that the class allows.
pub(super) fn affinity(user: Option<&Affinity>, class: Option<&NodeAffinity>) -> Option<Affinity> {
    let Some(class) = class else {
        return user.cloned();
    };
    let mut both = user.cloned().unwrap_or_default();
    both.node_affinity = Some(narrowed(both.node_affinity.unwrap_or_default(), class));
    Some(both)
}

fn narrowed(user: NodeAffinity, class: &NodeAffinity) -> NodeAffinity {
    let preferred = [
        user.preferred_during_scheduling_ignored_during_execution,
        class.preferred_during_scheduling_ignored_during_execution.clone(),
    ];
    let preferred: Vec<_> = preferred.into_iter().flatten().flatten().collect();
    NodeAffinity {
        required_during_scheduling_ignored_during_execution: match (
            user.required_during_scheduling_ignored_during_execution,
            class.required_during_scheduling_ignored_during_execution.clone(),
        ) {
            (Some(user), Some(class)) => Some(combined(&user, &class)),
            (user, class) => user.or(class),
        },
        preferred_during_scheduling_ignored_during_execution: (!preferred.is_empty()).then_some(preferred),
    }
}

/// A node meets a selector if it meets one of its terms. So it meets both selectors if it meets a term of each.
fn combined(user: &NodeSelector, class: &NodeSelector) -> NodeSelector {
    let mut terms: Vec<NodeSelectorTerm> = Vec::new();
    for user in user.node_selector_terms.iter().filter(|term| !is_empty(term)) {
        let class = class.node_selector_terms.iter().filter(|term| !is_empty(term));
        terms.extend(class.map(|class| both(user, class)));
    }
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    NodeSelector {
        node_selector_terms: terms,
    }
}

/// An empty term matches no node.
fn is_empty(term: &NodeSelectorTerm) -> bool {
    [&term.match_expressions, &term.match_fields]
        .iter()
        .all(|rules| rules.as_ref().is_none_or(Vec::is_empty))
}

fn both(user: &NodeSelectorTerm, class: &NodeSelectorTerm) -> NodeSelectorTerm {
    let join = |user: &Option<Vec<_>>, class: &Option<Vec<_>>| {
        let all: Vec<_> = [user, class].into_iter().flatten().flatten().cloned().collect();
        (!all.is_empty()).then_some(all)
    };
    NodeSelectorTerm {
        match_expressions: join(&user.match_expressions, &class.match_expressions),
        match_fields: join(&user.match_fields, &class.match_fields),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

    fn has(key: &str) -> Value {
        json!({"key": key, "operator": "Exists"})
    }

    fn term(keys: &[&str]) -> Value {
        json!({"matchExpressions": keys.iter().map(|key| has(key)).collect::<Vec<_>>()})
    }

    fn required(terms: &[Value]) -> Value {
        json!({REQUIRED: {"nodeSelectorTerms": terms}})
    }

    fn joined(user: &Value, class: &Value) -> Value {
        let user: Affinity = serde_json::from_value(json!({"nodeAffinity": user})).unwrap();
        let class: NodeAffinity = serde_json::from_value(class.clone()).unwrap();
        serde_json::to_value(affinity(Some(&user), Some(&class)).unwrap().node_affinity).unwrap()
    }

    /// Otherwise a user's alternative leads to nodes without the device.
    #[test]
    fn every_alternative_of_the_user_meets_every_one_of_the_class() {
        let user = required(&[term(&["zone-a"]), term(&["zone-b"])]);
        let class = required(&[term(&["old"]), term(&["new", "large"])]);
        let wanted = required(&[
            term(&["zone-a", "old"]),
            term(&["zone-a", "new", "large"]),
            term(&["zone-b", "old"]),
            term(&["zone-b", "new", "large"]),
        ]);
        assert_eq!(joined(&user, &class), wanted);
    }

    /// An empty term matches no node, so it must not become one that matches some.
    #[test]
    fn what_matches_no_node_still_matches_none() {
        let class = required(&[term(&["device"])]);
        assert_eq!(joined(&required(&[json!({})]), &class), required(&[json!({})]));
        assert_eq!(
            joined(&required(&[json!({}), term(&["a"])]), &class),
            required(&[term(&["a", "device"])])
        );
    }

    #[test]
    fn preferences_add_up_and_names_of_nodes_stay() {
        let preference = |key: &str| json!({"weight": 1, "preference": term(&[key])});
        let user = json!({PREFERRED: [preference("a")], REQUIRED: {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}});
        let class = json!({PREFERRED: [preference("b")], REQUIRED: {"nodeSelectorTerms": [term(&["c"])]}});
        let found = joined(&user, &class);
        assert_eq!(found[PREFERRED], json!([preference("a"), preference("b")]));
        let term = &found[REQUIRED]["nodeSelectorTerms"][0];
        assert_eq!(term["matchFields"][0]["values"], json!(["n"]));
        assert_eq!(term["matchExpressions"], json!([has("c")]));
    }
}
