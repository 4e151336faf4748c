//! A whole cluster: a control plane, real nodes, DNS, an image registry and, optionally, metrics and devices.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::addresses::MAX_NODES;
use crate::command::direct;
use crate::control_plane::{ControlPlane, ControlPlaneOptions};
use crate::instance::Instance;
use crate::node::{self, NodeSetup};
use crate::pki::Authority;
use crate::wait::wait_until;
use crate::{addons, dra, network, registry, tools};

/// The options of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterOptions {
    /// The name, and the options of the control plane.
    pub control_plane: ControlPlaneOptions,
    /// How many nodes; they are named `node-1`, `node-2`, …
    pub nodes: usize,
    /// Whether names of Services resolve inside pods.
    pub dns: bool,
    /// Whether `kubectl top` and autoscaling by CPU work.
    pub metrics: bool,
    /// Whether the autoscaler runs every 2 s instead of every 15 s and counts new pods at once.
    pub fast_autoscaling: bool,
    /// A made-up device on every node, for example 2 of `example.com/tpu`.
    pub device: Option<Device>,
    /// How many devices every node has for Dynamic Resource Allocation. Their DeviceClass is `gpu.example.com`.
    pub dra_devices: usize,
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
            dra_devices: 0,
        }
    }
}

impl ClusterOptions {
    /// The default options, with this name.
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

/// A running cluster. Dropping it tears it down, unless it was started to stay. Everything that a
/// [`ControlPlane`] can do, it can do too.
#[derive(Debug)]
pub struct Cluster {
    plane: ControlPlane,
    nodes: usize,
}

impl Deref for Cluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.plane
    }
}

impl Cluster {
    /// Starts a cluster and returns when its nodes are ready.
    ///
    /// # Errors
    /// When this machine cannot run one (the message says what to do), or a part does not start (the
    /// message has the end of its log).
    pub fn start(options: ClusterOptions) -> Result<Self> {
        if options.nodes > MAX_NODES {
            bail!("a cluster has at most {MAX_NODES} nodes; use fake nodes for more");
        }
        tools::check(&needs(&options))?;
        let instance = Instance::create(&options)?;
        let authority = Authority::create(&instance.folder.join("pki"))?;
        let plane = ControlPlane::boot(instance, &authority)?;
        registry::start(&plane.instance)?;
        if options.dns {
            addons::start_dns(&plane)?;
        }
        start_nodes(&plane, &authority, &options)?;
        if options.metrics {
            addons::start_metrics(&plane)?;
        }
        let cluster = Self {
            plane,
            nodes: options.nodes,
        };
        cluster.wait_nodes_ready()?;
        if options.dra_devices > 0 {
            dra::start(&cluster.plane, &options)?;
        }
        Ok(cluster)
    }

    /// Uses a cluster that was started to stay, for example by `local-cluster up`.
    ///
    /// # Errors
    /// When there is none with that name.
    pub fn open(name: &str) -> Result<Self> {
        let plane = ControlPlane::open(name)?;
        let nodes = plane.instance.options().nodes;
        Ok(Self { plane, nodes })
    }

    /// Leaves the cluster running when this value is dropped and this process ends.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn keep(&self) -> Result<()> {
        self.plane.instance.keep()
    }

    /// The network namespace of the first node, where Services and pods are reached.
    pub fn netns(&self) -> PathBuf {
        self.node(0).netns()
    }

    /// A program that runs on the first node, where it reaches Services and pods by address or by name.
    ///
    /// # Errors
    /// When the cluster has no node.
    pub fn command_in_node(&self, program: &str) -> Result<Command> {
        self.node(0).command(program)
    }

    /// The node `index`, counted from 0.
    pub fn node(&self, index: usize) -> Node<'_> {
        Node {
            plane: &self.plane,
            name: node::name(index),
        }
    }

    /// What the names of images in the cluster's registry start with.
    pub fn registry_host(&self) -> &'static str {
        registry::HOST
    }

    /// Where this machine reaches the same registry over plain HTTP, for clients other than [`Cluster::push`].
    pub fn registry_address(&self) -> String {
        registry::address(self.plane.instance.addresses())
    }

    /// Pushes an image to the cluster's registry as `repository/name:tag`. The image is an archive's path or a name
    /// in buildah's storage. Returns its name with the digest, as a pod spec needs it.
    ///
    /// # Errors
    /// When there is no such image, or the registry does not accept it.
    pub fn push(&self, image: &str, name: &str) -> Result<String> {
        registry::push(&self.plane.instance, image, name)
    }

    /// Makes the images of an archive known to every node, under the names inside the archive.
    ///
    /// # Errors
    /// When a node does not accept it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        (0..self.nodes).try_for_each(|index| node::import(&self.node(index).folder(), archive))
    }

    /// Waits until every node is ready for pods.
    ///
    /// # Errors
    /// When one is not ready within a minute and a half; the message has the end of its kubelet's log.
    pub fn wait_nodes_ready(&self) -> Result<()> {
        for index in 0..self.nodes {
            let node = self.node(index);
            let kubelet = node.part("kubelet");
            let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            wait_until(
                &format!("{} is ready", node.name),
                Duration::from_secs(90),
                || {
                    self.plane.instance.check_alive(&kubelet)?;
                    Ok(self.kubectl(&["get", "node", &node.name, "-o", ready])? == "True")
                },
            )
            .with_context(|| self.plane.instance.log_tail(&kubelet))?;
        }
        Ok(())
    }
}

fn needs(options: &ClusterOptions) -> Vec<&'static tools::Needs> {
    let mut needs = vec![&tools::CONTROL_PLANE, &tools::NODES];
    needs.extend(options.metrics.then_some(&tools::METRICS));
    needs.extend(options.device.as_ref().map(|_| &tools::DEVICE));
    needs.extend((options.dra_devices > 0).then_some(&tools::DRA));
    needs.extend(
        options
            .control_plane
            .fake_nodes
            .as_ref()
            .map(|_| &tools::FAKE_NODES),
    );
    needs
}

/// Starts all nodes concurrently: most of the time they wait.
fn start_nodes(plane: &ControlPlane, authority: &Authority, options: &ClusterOptions) -> Result<()> {
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..options.nodes)
            .map(|index| {
                scope.spawn(move || {
                    let setup = NodeSetup::new(&plane.instance, index);
                    setup.prepare(authority, options.nodes)?;
                    setup.join(options.device.as_ref())
                })
            })
            .collect();
        starts.into_iter().try_for_each(|start| match start.join() {
            Ok(result) => result,
            Err(_) => bail!("a node's start panicked"),
        })
    })
}

/// One node of a running cluster.
#[derive(Debug)]
pub struct Node<'a> {
    plane: &'a ControlPlane,
    /// Its name in the API.
    pub name: String,
}

impl Node<'_> {
    /// The name of one of its parts (`kubelet`, `containerd`, `kube-proxy`, `device-plugin`, `dra-driver`), as
    /// `ControlPlane::signal` and similar functions expect it.
    pub fn part(&self, part: &str) -> String {
        format!("{}/{part}", self.name)
    }

    /// Stops the kubelet; about 45 s later, the node is not ready.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn stop_kubelet(&self) -> Result<()> {
        self.plane.stop(&self.part("kubelet"))
    }

    /// Starts the kubelet again.
    ///
    /// # Errors
    /// When there is no such node, or it does not start.
    pub fn start_kubelet(&self) -> Result<()> {
        self.plane.restart(&self.part("kubelet"))
    }

    /// Has the device plug-in report a device, counted from 0, as unhealthy.
    ///
    /// # Errors
    /// When the node has no device plug-in.
    pub fn break_device(&self, device: usize) -> Result<()> {
        fs::write(self.broken(device)?, "").with_context(|| format!("cannot break device {device}"))
    }

    /// Has the device plug-in report a device that was broken as healthy again.
    ///
    /// # Errors
    /// When the device is not broken.
    pub fn repair_device(&self, device: usize) -> Result<()> {
        fs::remove_file(self.broken(device)?).with_context(|| format!("cannot repair device {device}"))
    }

    /// The file that exists while a device is broken.
    fn broken(&self, device: usize) -> Result<PathBuf> {
        self.plane.instance.component(&self.part("device-plugin"))?;
        Ok(node::unhealthy(&self.folder()).join(format!("device-{device}")))
    }

    /// A program with the node's network and files, and the cluster's name server.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn command(&self, program: &str) -> Result<Command> {
        let words = node::enter(&self.plane.instance, &self.name)?;
        let mut command = direct(&words[0]);
        command.args(&words[1..]).arg(program);
        Ok(command)
    }

    /// Its network namespace, as a path for `nsenter --net=`.
    pub fn netns(&self) -> PathBuf {
        network::path(&self.plane.instance.namespaces().node(&self.name))
    }

    fn folder(&self) -> PathBuf {
        self.plane.folder().join(&self.name)
    }
}
