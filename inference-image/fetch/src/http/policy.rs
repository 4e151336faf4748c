//! Which addresses may be reached. Pure, but for [`Policy::of_pod`].

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::lookup_host, time::timeout};

/// Name under which every pod finds the API server.
const API_SERVER: &str = "kubernetes.default.svc";
/// How long the cluster's DNS may take to find it.
const RESOLVES: Duration = Duration::from_secs(5);

/// Fixed addresses of clouds that answer with credentials or with facts about the machine. Link-local ones are refused
/// anyway; they are listed because credential providers use some of them.
const METADATA_V4: [Ipv4Addr; 6] = [
    // AWS, Azure, Google Cloud, OpenStack.
    Ipv4Addr::new(169, 254, 169, 254),
    // Containers of ECS, and EKS Pod Identity.
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Alibaba Cloud, Oracle Cloud, Azure's host agent.
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 5] = [
    // AWS, EKS Pod Identity, Google Cloud.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle Cloud, Scaleway.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Which addresses may be reached. It is asked for each address of each connection, after the name has been resolved, so
/// that neither a redirect nor a name that resolves differently the second time gets past it.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    api_servers: Arc<[IpAddr]>,
    is_loopback_allowed: bool,
    is_for_providers: bool,
}

impl Policy {
    /// Refuses what is never a store, and these addresses of the API server.
    #[must_use]
    pub fn new(api_servers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            api_servers: api_servers.into_iter().map(canonical).collect(),
            ..Self::default()
        }
    }

    /// The policy of a pod: the API server is what the kubelet and the cluster's DNS say it is.
    pub async fn of_pod() -> Self {
        // Set in every pod; elsewhere there is no API server to keep away from.
        let Ok(named) = env::var("KUBERNETES_SERVICE_HOST") else {
            return Self::default();
        };
        let named = named.parse().ok();
        // A pod without the cluster's DNS does not reach the API server by this name either.
        let resolved = timeout(RESOLVES, lookup_host((API_SERVER, 443))).await;
        let resolved = resolved.into_iter().flatten().flatten();
        Self::new(named.into_iter().chain(resolved.map(|address| address.ip())))
    }

    /// Allows the machine's own addresses. For tests: no configuration leads here.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.is_loopback_allowed = true;
        self
    }

    /// Allows only the fixed addresses of clouds' credential providers.
    #[must_use]
    pub fn for_providers(mut self) -> Self {
        self.is_for_providers = true;
        self
    }

    /// Why an address must not be reached, if so.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let address = canonical(address);
        if self.is_for_providers {
            return (!is_metadata(address)).then_some("it is not the address of a credential provider");
        }
        if let Some(refusal) = local_nat64(address).find_map(|v4| self.refusal(v4.into())) {
            return Some(refusal);
        }
        if self.api_servers.contains(&address) {
            return Some("it is the cluster's API server");
        }
        if is_metadata(address) {
            return Some("it is the metadata service of a cloud");
        }
        if address.is_loopback() {
            return (!self.is_loopback_allowed).then_some("it is the machine itself (loopback)");
        }
        match address {
            IpAddr::V4(address) => refusal_v4(address),
            IpAddr::V6(address) => refusal_v6(address),
        }
    }
}

fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => METADATA_V4.contains(&address),
        IpAddr::V6(address) => METADATA_V6.contains(&address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("it is unspecified (0.0.0.0/8)")
    } else if address.is_link_local() {
        Some("it is link-local")
    } else if address.is_multicast() {
        Some("it is multicast")
    } else if address.octets()[0] >= 240 {
        Some("it is broadcast or reserved")
    } else {
        None
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("it is unspecified (::)")
    } else if address.is_unicast_link_local() {
        Some("it is link-local")
    } else if address.is_multicast() {
        Some("it is multicast")
    } else {
        None
    }
}

/// The IPv4 address that an IPv6 address leads to, if it is one that is mapped (`::ffff:0:0/96`), compatible (`::/96`),
/// translated (SIIT, RFC 2765; NAT64, RFC 6052) or tunnelled (6to4, RFC 3056).
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => embedded(g, h),
        // `::` and `::1` are no IPv4 addresses.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => embedded(g, h),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => address,
    }
}

/// The IPv4 addresses to which a translator may send what goes to `64:ff9b:1::/48` (RFC 8215): the network's owner chooses
/// the length of the prefix, and with it the place of the address (RFC 6052, section 2.2).
fn local_nat64(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let places: &[[usize; 4]] = match address {
        IpAddr::V6(v6) if v6.segments()[..3] == [0x64, 0xff9b, 1] => {
            &[[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]]
        }
        _ => &[],
    };
    let octets = match address {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(_) => [0; 16],
    };
    let found = places
        .iter()
        .map(move |place| Ipv4Addr::from(place.map(|at| octets[at])));
    // With another prefix than the network's, most of it is zeros.
    found.filter(|v4| v4.octets()[0] != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn refusal(policy: &Policy, host: &str) -> Option<&'static str> {
        // As the client does it: the URL's host, in whatever notation.
        let url = url::Url::parse(&format!("http://{host}/")).unwrap();
        policy.refusal(match url.host().unwrap() {
            url::Host::Ipv4(address) => address.into(),
            url::Host::Ipv6(address) => address.into(),
            url::Host::Domain(name) => panic!("{name} is a name"),
        })
    }

    #[test]
    fn what_is_never_a_store_is_refused_in_every_notation() {
        let policy = Policy::new(["10.96.0.1".parse().unwrap(), "fd12::1".parse().unwrap()]);
        for (host, part) in [
            ("127.0.0.1", "loopback"),
            ("127.9.8.7", "loopback"),
            ("127.1", "loopback"),
            ("2130706433", "loopback"),
            ("0x7f000001", "loopback"),
            ("0177.0.0.01", "loopback"),
            ("[::1]", "loopback"),
            ("[::ffff:127.0.0.1]", "loopback"),
            ("[::127.0.0.1]", "loopback"),
            ("[64:ff9b::127.0.0.1]", "loopback"),
            ("[2002:7f00:1::]", "loopback"),
            ("0", "unspecified"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("[::]", "unspecified"),
            ("[::ffff:0.0.0.0]", "unspecified"),
            ("169.254.1.1", "link-local"),
            ("[fe80::1]", "link-local"),
            ("[::ffff:169.254.1.1]", "link-local"),
            ("169.254.169.254", "metadata"),
            ("0xa9fea9fe", "metadata"),
            ("[::ffff:169.254.169.254]", "metadata"),
            ("[fd00:ec2::254]", "metadata"),
            ("[fd00:ec2::23]", "metadata"),
            ("[fd20:ce::254]", "metadata"),
            ("[fd00:c1::a9fe:a9fe]", "metadata"),
            ("[fd00:42::42]", "metadata"),
            ("[::ffff:0:169.254.169.254]", "metadata"),
            ("[::ffff:0:127.0.0.1]", "loopback"),
            ("[::ffff:0:10.96.0.1]", "API server"),
            ("[64:ff9b:1::169.254.169.254]", "metadata"),
            ("[64:ff9b:1:7::10.96.0.1]", "API server"),
            ("[64:ff9b:1:a9fe:a9:fe00::]", "metadata"),
            ("[64:ff9b:1:a9:fe:a9fe::]", "metadata"),
            ("[64:ff9b:1:0:a9:fea9:fe00::]", "metadata"),
            ("169.254.170.23", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("224.0.0.1", "multicast"),
            ("[ff02::1]", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("240.0.0.1", "reserved"),
            ("10.96.0.1", "API server"),
            ("[::ffff:10.96.0.1]", "API server"),
            ("[fd12::1]", "API server"),
        ] {
            let refusal = refusal(&policy, host).unwrap_or_else(|| panic!("{host} is allowed"));
            assert!(refusal.contains(part), "{host}: {refusal}");
        }
    }

    /// Stores in the cluster and in the company's network are common.
    #[test]
    fn public_and_private_addresses_are_allowed() {
        let policy = Policy::new(["10.96.0.1".parse().unwrap()]);
        for host in [
            "52.216.0.1",
            "10.96.0.2",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "[fd12::2]",
            "[2600::1]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b:1::10.0.0.1]",
            "[64:ff9b:1:7::52.216.0.1]",
        ] {
            assert_eq!(refusal(&policy, host), None, "{host}");
        }
    }

    #[test]
    fn a_credential_provider_is_reached_at_its_fixed_address_only() {
        let policy = Policy::default().for_providers();
        for host in ["169.254.169.254", "169.254.170.23", "[fd00:ec2::23]"] {
            assert_eq!(refusal(&policy, host), None, "{host}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "169.254.1.1", "52.216.0.1"] {
            assert!(refusal(&policy, host).is_some(), "{host}");
        }
    }

    #[test]
    fn only_loopback_is_allowed_to_tests() {
        let policy = Policy::default().with_loopback();
        assert_eq!(refusal(&policy, "127.0.0.1"), None);
        assert!(refusal(&policy, "169.254.169.254").is_some());
        assert!(refusal(&policy, "0.0.0.0").is_some());
    }
}
