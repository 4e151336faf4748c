//! The cluster's networks: a hub (control plane, registry) and one network namespace per node, joined by a bridge in
//! the hub. This machine's own routes and packet filters are not changed, and nothing inside can reach the outside:
//! every default route is `unreachable`, so that a stray request fails at once.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::addresses::{Addresses, Network};
use crate::command::line;

/// The names of a cluster's namespaces and links, all derived from its name and slot.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    cluster: String,
    slot: u8,
}

impl Namespaces {
    pub(crate) fn new(cluster: &str, slot: u8) -> Self {
        Self {
            cluster: cluster.to_owned(),
            slot,
        }
    }

    pub(crate) fn hub(&self) -> String {
        format!("msvc-{}", self.cluster)
    }

    pub(crate) fn node(&self, node: &str) -> String {
        format!("msvc-{}.{node}", self.cluster)
    }

    /// This machine's end of the link; a link's name has at most 15 characters, so it contains the slot instead of
    /// the name.
    fn link(&self) -> String {
        format!("msvc{}", self.slot)
    }

    /// Creates the hub, its bridge and its link to this machine.
    pub(crate) fn create_hub(&self, addresses: Addresses) -> Result<()> {
        let (hub, link) = (self.hub(), self.link());
        line(&format!("ip netns add {hub}"))?;
        line(&format!(
            "ip link add {link} type veth peer name host netns {hub}"
        ))?;
        line(&format!("ip addr add {}/30 dev {link}", addresses.host_end()))?;
        line(&format!("ip link set {link} up"))?;
        line(&format!(
            "ip -n {hub} addr add {}/30 dev host",
            addresses.hub_end()
        ))?;
        line(&format!("ip -n {hub} link add nodes type bridge"))?;
        line(&format!("ip -n {hub} addr add {}/25 dev nodes", addresses.hub()))?;
        for device in ["lo", "host", "nodes"] {
            line(&format!("ip -n {hub} link set {device} up"))?;
        }
        line(&format!("ip -n {hub} route add unreachable default"))?;
        forward_packets(&hub)
    }

    /// Creates the namespace of node `index` of `nodes`, and the routes to and from its pods.
    pub(crate) fn create_node(
        &self,
        node: &str,
        index: usize,
        nodes: usize,
        addresses: Addresses,
    ) -> Result<()> {
        let (hub, own) = (self.hub(), self.node(node));
        let (address, port) = (addresses.node(index), format!("node{index}"));
        line(&format!("ip netns add {own}"))?;
        line(&format!(
            "ip -n {hub} link add {port} type veth peer name eth0 netns {own}"
        ))?;
        line(&format!("ip -n {hub} link set {port} master nodes up"))?;
        line(&format!("ip -n {own} link set lo up"))?;
        line(&format!("ip -n {own} addr add {address}/25 dev eth0"))?;
        line(&format!("ip -n {own} link set eth0 up"))?;
        line(&format!(
            "ip -n {own} route add {} via {}",
            addresses.link(),
            addresses.hub()
        ))?;
        // Without a route, the kernel would not reach kube-proxy's rules, which then send the packet elsewhere.
        line(&format!(
            "ip -n {own} route add {} dev lo src {address}",
            addresses.services()
        ))?;
        line(&format!("ip -n {own} route add unreachable default"))?;
        line(&format!(
            "ip -n {hub} route add {} via {address}",
            addresses.pods_of_node(index)
        ))?;
        for other in (0..nodes).filter(|other| *other != index) {
            line(&format!(
                "ip -n {own} route add {} via {}",
                addresses.pods_of_node(other),
                addresses.node(other)
            ))?;
        }
        forward_packets(&own)
    }

    /// Makes every address of a network one of the hub's own.
    pub(crate) fn answer_in_hub(&self, network: Network) -> Result<()> {
        line(&format!(
            "ip -n {} route replace local {network} dev lo",
            self.hub()
        ))
        .map(drop)
    }

    /// Every existing namespace of the cluster.
    pub(crate) fn existing(&self) -> Vec<PathBuf> {
        let (hub, nodes) = (self.hub(), format!("{}.", self.hub()));
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| *name == hub || name.starts_with(&nodes))
            .map(|name| path(&name))
            .collect()
    }

    /// Removes the namespaces, and with them every link, route and packet filter inside.
    pub(crate) fn remove(&self) -> Result<()> {
        if Path::new("/sys/class/net").join(self.link()).exists() {
            line(&format!("ip link del {}", self.link()))?;
        }
        for path in self.existing() {
            line(&format!(
                "ip netns del {}",
                path.file_name().unwrap_or_default().to_string_lossy()
            ))?;
        }
        Ok(())
    }

    /// Whether anything of the cluster's network is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.existing().is_empty() && !Path::new("/sys/class/net").join(self.link()).exists()
    }
}

/// Where a named network namespace is found.
pub(crate) fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Does `work` inside a network namespace: sockets that it makes stay there, whoever uses them later.
pub(crate) fn inside<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> Result<T> {
    let namespace = File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    let entered = || {
        // Only this thread enters it.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    let outcome = std::thread::scope(|scope| scope.spawn(entered).join());
    Ok(outcome.map_err(|_| anyhow!("the thread panicked"))??)
}

/// Settings below /proc/sys/net belong to the namespace of the process that writes them. This does not use `ip netns
/// exec`, which remounts /sys and hides the control groups.
fn forward_packets(namespace: &str) -> Result<()> {
    line(&format!(
        "nsenter --net={} sysctl -q -w net.ipv4.ip_forward=1",
        path(namespace).display()
    ))
    .map(drop)
}
