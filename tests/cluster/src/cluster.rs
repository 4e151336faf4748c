//! A whole cluster: a control plane, real nodes, DNS, an image registry and, by choice, metrics and devices.

use serde::{Deserialize, Serialize};

use crate::control_plane::ControlPlaneOptions;

/// What kind of cluster is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterOptions {
    /// The name, and what the control plane is like.
    pub control_plane: ControlPlaneOptions,
    /// How many nodes; they are named `node-1`, `node-2`, …
    pub nodes: usize,
    /// Names of Services resolve inside pods.
    pub dns: bool,
    /// `kubectl top` and autoscaling by CPU work.
    pub metrics: bool,
    /// The autoscaler looks every 2 s instead of every 15 s and takes new pods into account at once.
    pub fast_autoscaling: bool,
    /// A made-up device on every node, for example 2 of `example.com/tpu`.
    pub device: Option<Device>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            control_plane: ControlPlaneOptions::default(),
            nodes: 1,
            dns: true,
            metrics: true,
            fast_autoscaling: false,
            device: None,
        }
    }
}

impl ClusterOptions {
    /// The defaults, under a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::of_control_plane(ControlPlaneOptions::named(name))
    }

    pub(crate) fn of_control_plane(control_plane: ControlPlaneOptions) -> Self {
        Self {
            control_plane,
            ..Self::default()
        }
    }
}

/// An extended resource that a device plug-in offers on every node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// For example `example.com/tpu`.
    pub resource: String,
    /// How many each node has.
    pub count: usize,
}
