//! What runs a model's compute nodes, according to ONNX Runtime's graph assignment, and whether that is enough. Pure.

use super::c_api::AssignedNode;
use super::provider::CPU;
use modelservice_contract::Assignment;
use std::collections::BTreeMap;

/// Nodes of a model with the same operator and name: many models name none of their nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alike {
    pub(super) all: u64,
    /// Those that only compute shapes.
    pub(super) of_shapes: u64,
}

/// By operator and name.
pub(super) type Nodes = BTreeMap<(String, String), Alike>;

/// Counts compute nodes. On the CPU, nodes that only compute shapes do not count: kernels read their results there.
pub(super) fn assignment(provider: &str, assigned: &[AssignedNode], model: &Nodes) -> Assignment {
    let (own, others): (Vec<_>, Vec<_>) = assigned.iter().partition(|node| node.provider == provider);
    let mut alike: BTreeMap<(String, String), u64> = BTreeMap::new();
    for node in others {
        *alike.entry(key(node)).or_default() += 1;
    }
    let mut elsewhere = BTreeMap::new();
    for (key, count) in alike {
        let computing = model.get(&key).map_or(count, |alike| computing(count, alike));
        if computing > 0 {
            *elsewhere.entry(key.0).or_default() += computing;
        }
    }
    Assignment {
        provider: provider.to_owned(),
        device: None,
        nodes: own.len() as u64,
        elsewhere,
    }
}

/// How many of `count` such nodes may be compute nodes: as many as the model has.
fn computing(count: u64, alike: &Alike) -> u64 {
    count.min(alike.all.max(count) - alike.of_shapes)
}

/// The key of a node in [`Nodes`].
pub(super) fn key(node: &AssignedNode) -> (String, String) {
    (node.operator.clone(), node.name.clone())
}

/// Checks that the provider runs enough of the model.
///
/// # Errors
/// What it does not run, and what to do.
pub(super) fn check(assignment: &Assignment, allow_cpu_percent: u32) -> Result<(), String> {
    let Assignment {
        provider,
        nodes,
        elsewhere,
        ..
    } = assignment;
    let missing: u64 = elsewhere.values().sum();
    let all = nodes + missing;
    let is_allowed = missing * 100 <= all * u64::from(allow_cpu_percent);
    if provider == CPU || (*nodes > 0 && is_allowed) {
        return Ok(());
    }
    let runs = if *nodes == 0 {
        format!("none of the model's {all} compute nodes")
    } else {
        format!("{nodes} of the model's {all} compute nodes")
    };
    let operators: Vec<String> = elsewhere
        .iter()
        .map(|(operator, count)| format!("{operator} ({count})"))
        .collect();
    let operators = if operators.is_empty() {
        "nothing".to_owned()
    } else {
        operators.join(", ")
    };
    let share = match *nodes {
        0 => "",
        _ => "allow a larger share on the CPU with allowCpuPercent, ",
    };
    Err(format!(
        "{provider} runs {runs}, and the CPU would run {operators}: use a model whose operators it supports, {share}or \
         ask for {CPU}"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(provider: &str, operator: &str, name: &str) -> AssignedNode {
        AssignedNode {
            provider: provider.to_owned(),
            operator: operator.to_owned(),
            name: name.to_owned(),
        }
    }

    fn nodes(entries: &[(&str, &str, u64, u64)]) -> Nodes {
        let entry = |&(operator, name, all, of_shapes): &(&str, &str, u64, u64)| {
            ((operator.to_owned(), name.to_owned()), Alike { all, of_shapes })
        };
        entries.iter().map(entry).collect()
    }

    /// A model is not refused because the sizes for a Reshape are computed on the CPU.
    #[test]
    fn on_the_cpu_only_compute_nodes_count() {
        let model = nodes(&[("Concat", "", 3, 2), ("Gather", "g", 1, 1), ("Relu", "", 1, 0)]);
        let tpu = node("tpu", "Conv", "");
        let on_cpu = |operators: &[(&str, &str)]| {
            let others = operators.iter().map(|(operator, name)| node(CPU, operator, name));
            let assigned: Vec<_> = others.chain([tpu.clone()]).collect();
            let found = assignment("tpu", &assigned, &model);
            assert_eq!(found.nodes, 1);
            found.elsewhere.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(on_cpu(&[("Gather", "g")]), []);
        let relu = ("Relu".to_owned(), 1);
        assert_eq!(on_cpu(&[("Relu", ""), ("Gather", "g")]), [relu]);
        // Which of the three they are is not known, but only one computes.
        let concat = |count| [("Concat".to_owned(), count)];
        assert_eq!(on_cpu(&[("Concat", ""); 1]), concat(1));
        assert_eq!(on_cpu(&[("Concat", ""); 2]), concat(1));
        assert_eq!(on_cpu(&[("Concat", ""); 3]), concat(1));
        // ONNX Runtime has added two of its own.
        assert_eq!(on_cpu(&[("Concat", ""); 5]), concat(3));
        assert_eq!(on_cpu(&[("Cast", "")]), [("Cast".to_owned(), 1)]);
    }

    #[test]
    fn a_provider_must_run_all_but_the_allowed_share_and_at_least_one_node() {
        let assignment = |nodes, elsewhere: &[(&str, u64)]| Assignment {
            provider: "tpu".to_owned(),
            device: None,
            nodes,
            elsewhere: elsewhere
                .iter()
                .map(|&(operator, count)| (operator.to_owned(), count))
                .collect(),
        };
        assert_eq!(check(&assignment(4, &[]), 0), Ok(()));
        let part = assignment(3, &[("Add", 1)]);
        assert_eq!(check(&part, 25), Ok(()));
        let refused = check(&part, 24).unwrap_err();
        assert!(refused.contains("3 of the model's 4"), "{refused}");
        assert!(refused.contains("Add (1)"), "{refused}");
        assert!(refused.contains("allowCpuPercent"), "{refused}");
        let none = check(&assignment(0, &[("Add", 1), ("Relu", 2)]), 100).unwrap_err();
        assert!(none.contains("none of the model's 3"), "{none}");
        assert!(none.contains("Add (1), Relu (2)"), "{none}");
        assert!(!none.contains("allowCpuPercent"), "{none}");
        assert!(check(&assignment(0, &[]), 100).is_err());
    }
}
