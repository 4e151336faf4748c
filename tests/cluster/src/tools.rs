//! Where the cluster's programs are, and whether this machine can run a cluster at all.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Without these, root cannot create namespaces, mounts or device nodes for containers.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (27, "CAP_MKNOD")];

/// The folder that `make tools` fills.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("LOCAL_CLUSTER_TOOLS")
        .map_or_else(|| repository().join(".cache/tools/bin"), PathBuf::from)
}

/// The root of the repository that this crate was built from.
pub(crate) fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// The path of one of the cluster's programs, for example `kubectl` or `helm`.
///
/// # Errors
/// When it is not built; the message says how to build it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = folder().join(name);
    if !path.is_file() {
        bail!(
            "{} is missing; build the cluster's programs with `make tools`",
            path.display()
        );
    }
    Ok(path)
}

/// What a level needs from this machine.
pub(crate) struct Needs {
    pub(crate) programs: &'static [(&'static str, &'static str)],
    pub(crate) tools: &'static [&'static str],
}

impl Needs {
    const fn tool(tools: &'static [&'static str]) -> Self {
        Self { programs: &[], tools }
    }
}

pub(crate) const CONTROL_PLANE: Needs = Needs {
    programs: &[
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("setsid", "util-linux"),
        ("sysctl", "procps"),
    ],
    tools: &[
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
    ],
};

pub(crate) const NODES: Needs = Needs {
    programs: &[
        ("runc", "runc"),
        ("iptables", "iptables"),
        ("conntrack", "conntrack"),
        ("ethtool", "ethtool"),
        ("socat", "socat"),
        ("unshare", "util-linux"),
        ("mount", "mount"),
        ("buildah", "buildah"),
        ("busybox", "busybox-static"),
        ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ],
    tools: &[
        "containerd",
        "containerd-shim-runc-v2",
        "ctr",
        "kubelet",
        "kube-proxy",
        "registry",
        "coredns",
    ],
};

/// What optional parts of a cluster need in addition.
pub(crate) const METRICS: Needs = Needs::tool(&["metrics-server"]);
pub(crate) const DEVICE: Needs = Needs::tool(&["device-plugin"]);
pub(crate) const DRA: Needs = Needs::tool(&["dra-example-kubeletplugin"]);
pub(crate) const FAKE_NODES: Needs = Needs::tool(&["kwok"]);

/// Checks all `needs` at once, so that one message lists everything that is missing.
pub(crate) fn check(needs: &[&Needs]) -> Result<()> {
    let mut missing = missing_rights();
    let packages: Vec<&str> = needs
        .iter()
        .flat_map(|needs| needs.programs)
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !packages.is_empty() {
        missing.push(format!(
            "Debian packages are missing; run `scripts/packages`, or install: {}",
            packages.join(" ")
        ));
    }
    let tools: Vec<&str> = needs
        .iter()
        .flat_map(|needs| needs.tools)
        .copied()
        .filter(|name| tool(name).is_err())
        .collect();
    if !tools.is_empty() {
        missing.push(format!(
            "programs are not built; run `make tools`, which builds: {}",
            tools.join(" ")
        ));
    }
    if !missing.is_empty() {
        bail!(
            "this machine cannot run a local cluster yet:\n  - {}",
            missing.join("\n  - ")
        );
    }
    Ok(())
}

fn missing_rights() -> Vec<String> {
    if !rustix::process::geteuid().is_root() {
        return vec![
            "a cluster needs root (namespaces, mounts, control groups); run it with sudo".to_owned(),
        ];
    }
    let held = effective_capabilities();
    let lacking = CAPABILITIES.iter().filter(|(bit, _)| held & (1 << bit) == 0);
    lacking
        .map(|(_, name)| format!("{name} is missing; in a container, start it with `--privileged`"))
        .collect()
}

fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    // If /proc does not say, the first failing command will.
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

fn find_program(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    search_path()
        .split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

/// PATH with the folders of administration programs, which a user's shell may lack.
pub(crate) fn search_path() -> String {
    format!(
        "{}:/usr/sbin:/usr/bin:/sbin:/bin",
        std::env::var("PATH").unwrap_or_default()
    )
}
