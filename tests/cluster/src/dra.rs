//! Devices for Dynamic Resource Allocation (DRA): made-up ones, from upstream's example driver.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::ClusterOptions;
use crate::control_plane::ControlPlane;
use crate::node::{self, NodeSetup};
use crate::wait::wait_until;

/// Starts the driver on all nodes, and waits until each has published its devices.
pub(crate) fn start(plane: &ControlPlane, options: &ClusterOptions) -> Result<()> {
    plane.apply(include_str!("../manifests/device-class.yaml"))?;
    for index in 0..options.nodes {
        NodeSetup::new(&plane.instance, index).start_dra_driver(options.dra_devices)?;
    }
    (0..options.nodes).try_for_each(|index| wait_published(plane, &node::name(index)))
}

fn wait_published(plane: &ControlPlane, node: &str) -> Result<()> {
    let driver = format!("{node}/dra-driver");
    let of_node = format!("spec.nodeName={node}");
    let arguments = [
        "get",
        "resourceslices",
        "--field-selector",
        &of_node,
        "-o",
        "name",
    ];
    wait_until(
        &format!("{node} has published its devices"),
        Duration::from_secs(60),
        || {
            plane.instance.check_alive(&driver)?;
            Ok(!plane.kubectl(&arguments)?.is_empty())
        },
    )
    .with_context(|| plane.instance.log_tail(&driver))
}
