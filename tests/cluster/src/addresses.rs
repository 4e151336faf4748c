//! Which addresses a cluster uses (pure). Every cluster has a slot, and every slot its own part of 198.18.0.0/15, the
//! range that RFC 2544 sets aside for benchmarks: no private network uses it.

use std::net::Ipv4Addr;

/// How many clusters fit side by side on one machine.
pub(crate) const SLOTS: u8 = 16;
/// How many real nodes fit in one cluster.
pub(crate) const MAX_NODES: usize = 6;

/// An IPv4 network, written `198.18.0.0/20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(Ipv4Addr, u8);

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// The addresses of the cluster in one slot: a /20 below 198.18.0.0 for machines and pods, a /20 below
/// 198.19.0.0 for Services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    slot: u8,
}

impl Addresses {
    pub(crate) fn of_slot(slot: u8) -> Self {
        debug_assert!(slot < SLOTS);
        Self { slot }
    }

    fn machine(self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.slot * 16 + third, fourth)
    }

    fn service(self, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.slot * 16, fourth)
    }

    /// The address of the control plane and the registry for nodes and pods.
    pub(crate) fn hub(self) -> Ipv4Addr {
        self.machine(0, 1)
    }

    pub(crate) fn node(self, index: usize) -> Ipv4Addr {
        debug_assert!(index < MAX_NODES);
        self.machine(0, 2 + index as u8)
    }

    /// The link between this machine and the hub.
    pub(crate) fn link(self) -> Network {
        Network(self.machine(0, 128), 30)
    }

    /// This machine's end of the link.
    pub(crate) fn host_end(self) -> Ipv4Addr {
        self.machine(0, 129)
    }

    /// The hub's end of the link, where this machine reaches the API server and the registry.
    pub(crate) fn hub_end(self) -> Ipv4Addr {
        self.machine(0, 130)
    }

    pub(crate) fn pods_of_node(self, index: usize) -> Network {
        debug_assert!(index < MAX_NODES);
        Network(self.machine(1 + index as u8, 0), 24)
    }

    /// Addresses that kwok gives to pods on fake nodes; nothing answers there unless a test asks for it.
    pub(crate) fn fake_pods(self) -> Network {
        Network(self.machine(8, 0), 21)
    }

    pub(crate) fn all_pods(self) -> Network {
        Network(self.machine(0, 0), 20)
    }

    pub(crate) fn services(self) -> Network {
        Network(self.service(0), 20)
    }

    pub(crate) fn api_service(self) -> Ipv4Addr {
        self.service(1)
    }

    pub(crate) fn dns_service(self) -> Ipv4Addr {
        self.service(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If two slots shared an address, two clusters on one machine would answer each other's requests.
    #[test]
    fn slots_do_not_overlap_and_stay_inside_the_benchmark_range() {
        for slot in 0..SLOTS {
            let addresses = Addresses::of_slot(slot);
            assert_eq!(
                addresses.all_pods().to_string(),
                format!("198.18.{}.0/20", u16::from(slot) * 16)
            );
            assert_eq!(
                addresses.services().to_string(),
                format!("198.19.{}.0/20", u16::from(slot) * 16)
            );
            assert_eq!(
                addresses.fake_pods().to_string(),
                format!("198.18.{}.0/21", u16::from(slot) * 16 + 8)
            );
            assert!(addresses.node(MAX_NODES - 1) < addresses.host_end());
        }
    }
}
