//! Status: what the status of an AcceleratorClass says, from the nodes and DeviceClasses of the cluster. Pure.

use super::{
    demand::{Demand, whole},
    node::{DeviceClass, Node},
    selection::selects,
};
use crate::{
    crd::{AcceleratorClass, AcceleratorClassStatus, DeviceRequest, DeviceResource},
    reason::{NO_DRA, Reason},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use std::sync::Arc;

/// What the cluster has.
pub(super) struct Supply<'a> {
    /// Its nodes.
    pub nodes: &'a [Arc<Node>],
    /// Its DeviceClasses.
    pub device_classes: &'a [Arc<DeviceClass>],
    /// Whether it has Dynamic Resource Allocation.
    pub has_dra: bool,
}

/// Computes the status of a class.
pub(super) fn status(
    class: &AcceleratorClass,
    supply: &Supply<'_>,
    demand: &Demand,
    now: Timestamp,
) -> AcceleratorClassStatus {
    let counted = class.spec.device_request.is_none().then(|| count(class, supply));
    let (is_ready, reason, message) = verdict(class, supply, counted.as_ref());
    AcceleratorClassStatus {
        observed_generation: class.metadata.generation,
        conditions: vec![condition(class, is_ready, reason, message, now)],
        nodes: counted.as_ref().map(|counted| counted.nodes),
        allocatable: counted.and_then(|counted| counted.allocatable),
        in_use: demand.get(&class.name_any()).copied().flatten(),
    }
}

/// What the nodes that a class selects have of its resource.
struct Counted {
    /// Nodes with enough of it for one server.
    nodes: i32,
    /// All of it on these nodes.
    allocatable: Option<i64>,
    /// The most that a node has, even if that is not enough.
    most: i64,
}

fn count(class: &AcceleratorClass, supply: &Supply<'_>) -> Counted {
    let selected = supply.nodes.iter().filter(|node| selects(&class.spec, node));
    let Some(resource) = &class.spec.resource else {
        return Counted {
            nodes: i32::try_from(selected.count()).unwrap_or(i32::MAX),
            allocatable: None,
            most: 0,
        };
    };
    let offered = selected.filter_map(|node| node.status.allocatable.get(&resource.name));
    let offered: Vec<i64> = offered.map(|quantity| whole(&quantity.0)).collect();
    let enough = || {
        offered
            .iter()
            .filter(|devices| **devices >= i64::from(resource.count))
    };
    Counted {
        nodes: i32::try_from(enough().count()).unwrap_or(i32::MAX),
        allocatable: Some(enough().sum()),
        most: offered.iter().copied().max().unwrap_or(0),
    }
}

fn verdict(
    class: &AcceleratorClass,
    supply: &Supply<'_>,
    counted: Option<&Counted>,
) -> (bool, Reason, String) {
    if let Some(request) = &class.spec.device_request {
        return of_request(request, supply);
    }
    if counted.is_some_and(|counted| counted.nodes > 0) {
        let message = "nodes have what the class asks for";
        return (true, Reason::NodesFound, message.to_owned());
    }
    let Some(resource) = &class.spec.resource else {
        let message =
            "no node meets spec.nodeSelector and spec.nodeAffinity: label nodes, or change the class";
        return (false, Reason::NoNodes, message.to_owned());
    };
    match offering(supply, &resource.name) {
        Some(device_class) => (true, Reason::DeviceClassFound, offered_by(device_class, resource)),
        None => (
            false,
            Reason::NoNodes,
            not_offered(resource, counted.map_or(0, |counted| counted.most)),
        ),
    }
}

/// The DeviceClass whose devices pods may request as this extended resource.
fn offering<'a>(supply: &Supply<'a>, resource: &str) -> Option<&'a DeviceClass> {
    let mut device_classes = supply.device_classes.iter().map(AsRef::as_ref);
    device_classes.find(|known: &&DeviceClass| known.spec.extended_resource_name.as_deref() == Some(resource))
}

fn offered_by(device_class: &DeviceClass, resource: &DeviceResource) -> String {
    format!(
        "DeviceClass \"{}\" offers {}; which nodes have its devices is known to the scheduler only",
        device_class.name_any(),
        resource.name
    )
}

fn not_offered(resource: &DeviceResource, most: i64) -> String {
    let DeviceResource { name, count } = resource;
    if most > 0 {
        return format!(
            "no node that spec.nodeSelector and spec.nodeAffinity allow has {count} of {name}, the most is {most}: lower \
             spec.resource.count"
        );
    }
    format!(
        "no node that spec.nodeSelector and spec.nodeAffinity allow offers {name}: see whether its device plug-in runs, \
         and compare the name with `kubectl describe nodes`"
    )
}

fn of_request(request: &DeviceRequest, supply: &Supply<'_>) -> (bool, Reason, String) {
    if !supply.has_dra {
        return (
            false,
            Reason::UnsupportedCluster,
            format!("the class asks for devices by {NO_DRA}"),
        );
    }
    let names = request.device_classes();
    let exists = |name: &&str| {
        supply
            .device_classes
            .iter()
            .any(|known| known.name_any() == **name)
    };
    if names.iter().any(exists) {
        let message =
            "the DeviceClass exists; which devices meet the selectors is known to the scheduler only";
        return (true, Reason::DeviceClassFound, message.to_owned());
    }
    let message = format!(
        "there is no DeviceClass {}: install the driver of the devices, or correct spec.deviceRequest; `kubectl get \
         deviceclasses` lists them",
        names.join(" or ")
    );
    (false, Reason::DeviceClassNotFound, message)
}

/// `Ready`; `lastTransitionTime` changes only when its status does.
fn condition(
    class: &AcceleratorClass,
    is_ready: bool,
    reason: Reason,
    message: String,
    now: Timestamp,
) -> Condition {
    let status = if is_ready { "True" } else { "False" };
    let conditions = class.status.iter().flat_map(|status| &status.conditions);
    let mut same = conditions.filter(|known| known.type_ == "Ready" && known.status == status);
    let whole_seconds = || Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: class.metadata.generation,
        last_transition_time: same.next().map_or_else(
            || Time(whole_seconds()),
            |known| known.last_transition_time.clone(),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn class(spec: Value) -> AcceleratorClass {
        AcceleratorClass::new("tpu", serde_json::from_value(spec).unwrap())
    }

    fn node(name: &str, allocatable: Value) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "labels": {"pool": name}}, "status": {"allocatable": allocatable}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn device_class(name: &str, resource: Option<&str>) -> Arc<DeviceClass> {
        let class = json!({"metadata": {"name": name}, "spec": {"extendedResourceName": resource}});
        Arc::new(serde_json::from_value(class).unwrap())
    }

    fn said(spec: Value, has_dra: bool) -> (AcceleratorClassStatus, String, String) {
        let nodes = [
            node("a", json!({"example.com/tpu": "2"})),
            node("b", json!({"example.com/tpu": "0"})),
            node("c", json!({"example.com/tpu": "4", "example.com/other": "1"})),
        ];
        let device_classes = [device_class("gpu.example.com", Some("example.com/gpu"))];
        let supply = Supply {
            nodes: &nodes,
            device_classes: if has_dra { &device_classes } else { &[] },
            has_dra,
        };
        let demand = [("tpu".to_owned(), Some(3))].into();
        let status = status(&class(spec), &supply, &demand, Timestamp::UNIX_EPOCH);
        let ready = status.conditions[0].clone();
        (
            status,
            format!("{} {}", ready.status, ready.reason),
            ready.message,
        )
    }

    /// docs/accelerators.md: what an administrator sees of a class that works, and of each that does not.
    #[test]
    fn a_class_says_which_nodes_have_it() {
        let tpu = json!({"resource": {"name": "example.com/tpu"}});
        let (status, ready, _) = said(tpu, true);
        assert_eq!(
            (status.nodes, status.allocatable, status.in_use),
            (Some(2), Some(6), Some(3))
        );
        assert_eq!(ready, "True NodesFound");

        let pool = json!({"resource": {"name": "example.com/tpu"}, "nodeSelector": {"pool": "a"}});
        let (status, ..) = said(pool, true);
        assert_eq!((status.nodes, status.allocatable), (Some(1), Some(2)));

        let (status, ready, message) = said(json!({"resource": {"name": "example.com/tpuu"}}), true);
        assert_eq!((status.nodes, status.allocatable), (Some(0), Some(0)));
        assert_eq!(ready, "False NoNodes");
        assert!(message.contains("example.com/tpuu"), "{message}");

        let many = |count: i32| json!({"resource": {"name": "example.com/tpu", "count": count}});
        let (status, ready, _) = said(many(3), true);
        assert_eq!((status.nodes, status.allocatable), (Some(1), Some(4)));
        assert_eq!(ready, "True NodesFound");
        let (status, ready, message) = said(many(5), true);
        assert_eq!((status.nodes, status.allocatable), (Some(0), Some(0)));
        assert_eq!(ready, "False NoNodes");
        assert!(
            message.contains("has 5 of example.com/tpu, the most is 4"),
            "{message}"
        );

        let (status, ready, _) = said(json!({"nodeSelector": {"pool": "d"}}), true);
        assert_eq!((status.nodes, status.allocatable), (Some(0), None));
        assert_eq!(ready, "False NoNodes");
    }

    /// A resource that a DeviceClass offers is in no node's allocatable.
    #[test]
    fn a_resource_that_a_device_class_offers_is_not_missing() {
        let gpu = || json!({"resource": {"name": "example.com/gpu"}});
        let (status, ready, message) = said(gpu(), true);
        assert_eq!((status.nodes, ready.as_str()), (Some(0), "True DeviceClassFound"));
        assert!(message.contains("gpu.example.com"), "{message}");
        assert_eq!(said(gpu(), false).1, "False NoNodes");
    }

    #[test]
    fn a_class_that_asks_by_dra_needs_dra_and_one_of_its_device_classes() {
        let exactly = |name: &str| json!({"deviceRequest": {"exactly": {"deviceClassName": name}}});
        let (status, ready, _) = said(exactly("gpu.example.com"), true);
        assert_eq!(
            (status.nodes, status.allocatable, status.in_use),
            (None, None, Some(3))
        );
        assert_eq!(ready, "True DeviceClassFound");
        let (_, ready, message) = said(exactly("npu.example.com"), true);
        assert_eq!(ready, "False DeviceClassNotFound");
        assert!(message.contains("npu.example.com"), "{message}");
        let alternatives = json!({"deviceRequest": {"firstAvailable": [
            {"name": "best", "deviceClassName": "npu.example.com"}, {"name": "good", "deviceClassName": "gpu.example.com"}]}});
        assert_eq!(said(alternatives, true).1, "True DeviceClassFound");
        let (_, ready, message) = said(exactly("gpu.example.com"), false);
        assert_eq!(ready, "False UnsupportedCluster");
        assert!(message.contains("1.34"), "{message}");
    }

    /// Otherwise it is written again and again.
    #[test]
    fn a_status_that_stays_keeps_its_time() {
        let mut class = class(json!({"resource": {"name": "example.com/tpu"}}));
        let supply = Supply {
            nodes: &[],
            device_classes: &[],
            has_dra: false,
        };
        let first = status(&class, &supply, &Demand::new(), Timestamp::UNIX_EPOCH);
        class.status = Some(first.clone());
        assert_eq!(status(&class, &supply, &Demand::new(), Timestamp::MAX), first);
    }
}
