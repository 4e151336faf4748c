//! Whether a pod waits for its class's device, by what the scheduler says about the nodes. Pure.
//!
//! `0/4 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 2 Insufficient example.com/tpu.`
//! counts nodes by reason. Filters run in a fixed order, and a node is counted by the first that it fails: a node whose
//! taint or labels exclude the pod is never asked for its resources, and one that is asked names all that it lacks. So
//! the pod waits for the device if every node either lacks the device or was excluded before. A node that has the
//! device and fails for another reason (CPU, memory, a volume, a spread constraint) means that the pod waits for that.

use crate::crd::ModelServiceSpec;
use k8s_openapi::api::core::v1::{Affinity, PodTemplateSpec};
use std::collections::BTreeSet;

/// Why nodes are excluded before their resources are looked at.
const EXCLUDED: &[&str] = &[
    OTHER_NODES,
    "untolerated taint",
    "were unschedulable",
    "didn't match the requested node name",
    "didn't have free ports",
];
/// What the scheduler says of nodes that the pod's node selector or affinity excludes.
const OTHER_NODES: &str = "didn't match Pod's node affinity/selector";
/// What the scheduler says of nodes with no free devices for a claim.
const NO_DEVICES: &str = "cannot allocate all claims";

/// How the pods of a revision ask for the device of their class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Extended resources of device plug-ins.
    pub resources: BTreeSet<String>,
    /// Whether they claim it by DRA.
    pub is_claimed: bool,
    /// Whether the class alone says which nodes they may run on: no other node has the device.
    pub has_own_nodes: bool,
}

impl Device {
    /// As a pod template of this spec asks for it.
    #[must_use]
    pub fn of(template: &PodTemplateSpec, spec: &ModelServiceSpec) -> Self {
        let Some(pod) = &template.spec else {
            return Self::default();
        };
        let limits = pod.containers.iter().filter_map(|container| {
            let resources = container.resources.as_ref()?;
            resources.limits.as_ref()
        });
        let names = limits.flat_map(|limits| limits.keys());
        let of_class = |name: &&String| name.contains('/') && !spec.resources.limits.contains_key(*name);
        let affine = |affinity: &Option<Affinity>| {
            let affinity = affinity.as_ref();
            affinity.is_some_and(|affinity| affinity.node_affinity.is_some())
        };
        let selects = pod.node_selector.is_some() || affine(&pod.affinity);
        let is_users = !spec.pod.node_selector.is_empty() || affine(&spec.pod.affinity);
        Self {
            resources: names.filter(of_class).cloned().collect(),
            is_claimed: pod.resource_claims.is_some(),
            has_own_nodes: selects && !is_users,
        }
    }

    /// Whether both could be given the same device.
    #[must_use]
    pub fn competes_with(&self, other: &Self) -> bool {
        let is_same = self.is_claimed && other.is_claimed;
        is_same || !self.resources.is_disjoint(&other.resources)
    }
}

/// Whether the scheduler's message says that the device is what is missing.
#[must_use]
pub fn waits_for_device(message: &str, device: &Device) -> bool {
    let Some((nodes, reasons)) = counted(message) else {
        return false;
    };
    let count = |fits: &dyn Fn(&str) -> bool| -> u32 {
        let counted = reasons.iter().filter(|(_, reason)| fits(reason));
        counted.map(|(count, _)| count).sum()
    };
    let lacks_device = |reason: &str| {
        let resource = reason.strip_prefix("Insufficient ");
        resource.is_some_and(|resource| device.resources.iter().any(|name| name == resource))
            || (device.is_claimed && reason.contains(NO_DEVICES))
    };
    let is_excluded = |reason: &str| EXCLUDED.iter().any(|words| reason.contains(words));
    let mut lacking = count(&lacks_device);
    let excluded = count(&is_excluded);
    let accounted = lacking + excluded;
    if device.has_own_nodes {
        lacking += count(&|reason| reason.contains(OTHER_NODES));
    }
    lacking > 0 && accounted >= nodes
}

/// The number of nodes, and how many fail for which reason.
fn counted(message: &str) -> Option<(u32, Vec<(u32, &str)>)> {
    let (nodes, reasons) = message.split_once(" nodes are available: ")?;
    let nodes = nodes.rsplit_once('/')?.1.parse().ok()?;
    // What follows the first sentence is about preemption. A resource's name has dots, but none before a space.
    let reasons = reasons.split(". ").next()?.trim_end_matches('.');
    let reasons = reasons.split(", ").filter_map(|reason| {
        let (count, reason) = reason.split_once(' ')?;
        Some((count.parse().ok()?, reason))
    });
    Some((nodes, reasons.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tpu() -> Device {
        Device {
            resources: ["example.com/tpu".to_owned()].into(),
            ..Device::default()
        }
    }

    /// A wrong row ends on the CPU what would soon have its device, or waits for ever for one that does not exist.
    #[test]
    fn a_pod_waits_for_its_device_only_if_nothing_else_is_missing() {
        let table = [
            (
                "0/4 nodes are available: 4 Insufficient example.com/tpu. preemption: 0/4 nodes are available: 4 No preemption victims found for incoming pod.",
                true,
            ),
            (
                "0/4 nodes are available: 4 Insufficient example.com/tpu. no new claims to deallocate, preemption: not helpful",
                true,
            ),
            (
                "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient example.com/tpu.",
                true,
            ),
            (
                "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient example.com/tpu.",
                true,
            ),
            (
                "0/3 nodes are available: 1 node(s) were unschedulable, 1 node(s) didn't match Pod's node affinity/selector, 1 Insufficient example.com/tpu.",
                true,
            ),
            // One node has the device, but no CPU.
            (
                "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient example.com/tpu.",
                false,
            ),
            ("0/2 nodes are available: 2 Insufficient memory.", false),
            (
                "0/2 nodes are available: 1 Too many pods, 1 Insufficient example.com/tpu.",
                false,
            ),
            (
                "0/2 nodes are available: 1 node(s) had volume node affinity conflict, 1 Insufficient example.com/tpu.",
                false,
            ),
            (
                "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 Insufficient example.com/tpu.",
                false,
            ),
            (
                "0/2 nodes are available: persistentvolumeclaim \"graphs\" not found.",
                false,
            ),
            (
                "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
                false,
            ),
            (
                "0/2 nodes are available: 2 Insufficient example.com/tpu-v2.",
                false,
            ),
            ("no nodes available to schedule pods", false),
            ("", false),
        ];
        for (message, expected) in table {
            assert_eq!(waits_for_device(message, &tpu()), expected, "{message}");
        }
    }

    #[test]
    fn devices_that_are_claimed_are_missed_in_other_words() {
        let claimed = Device {
            is_claimed: true,
            ..Device::default()
        };
        let none =
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: 0/2";
        assert!(waits_for_device(none, &claimed));
        assert!(!waits_for_device(none, &tpu()));
        let other = "0/2 nodes are available: 1 Insufficient cpu, 1 cannot allocate all claims.";
        assert!(!waits_for_device(other, &claimed));
        let unmade = "0/2 nodes are available: waiting for resource claim to be created.";
        assert!(!waits_for_device(unmade, &claimed));
    }

    /// Without a node of its kind, a class that selects nodes has no device either; a user's own selector is another
    /// matter.
    #[test]
    fn nodes_of_the_class_alone_are_its_device() {
        let message = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector.";
        let own = |has_own_nodes| Device {
            has_own_nodes,
            ..tpu()
        };
        assert!(waits_for_device(message, &own(true)));
        assert!(!waits_for_device(message, &own(false)));
        let full = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.";
        assert!(!waits_for_device(full, &own(true)));
    }
}
