//! Nodes that exist only in the API: kwok keeps them and their pods ready.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::control_plane::{ControlPlane, FakeNodes};

/// Marks the nodes that kwok simulates, so that real nodes are left alone.
const ANNOTATION: &str = "kwok.x-k8s.io/node";

/// Starts kwok and creates the nodes.
pub(crate) fn start(plane: &ControlPlane, nodes: &FakeNodes) -> Result<()> {
    let folder = plane.folder();
    let stages = folder.join("kwok-stages.yaml");
    fs::write(&stages, include_str!("../manifests/kwok-stages.yaml"))?;
    plane.start_part(
        "kwok",
        vec![
            format!("--kubeconfig={}", plane.kubeconfig_path().display()),
            format!("--config={}", stages.display()),
            format!("--manage-nodes-with-annotation-selector={ANNOTATION}=fake"),
            "--manage-all-nodes=false".to_owned(),
            // Its default is a private network.
            format!("--cidr={}", plane.instance.addresses().fake_pods()),
            "--node-lease-duration-seconds=40".to_owned(),
        ],
    )?;
    let items: Vec<_> = (0..nodes.count).map(|index| node(index, nodes)).collect();
    plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    Ok(())
}

fn node(index: usize, nodes: &FakeNodes) -> serde_json::Value {
    let name = format!("fake-{index}");
    let mut resources = json!({"cpu": "32", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"});
    for (resource, quantity) in &nodes.resources {
        resources[resource] = json!(quantity);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION: "fake"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            },
        },
        "status": {"allocatable": resources, "capacity": resources},
    })
}
