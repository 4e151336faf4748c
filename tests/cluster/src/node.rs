//! A node: containerd, the kubelet and kube-proxy in their own network and mount namespaces. In the mount namespace,
//! the node has its own copies of the fixed folders of the kubelet, CNI and containerd, so that several nodes, and a
//! real kubelet on this machine, do not conflict. Its mounts disappear with its processes.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::Device;
use crate::command::output;
use crate::instance::Instance;
use crate::pki::{Authority, Subject};
use crate::wait::wait_until;
use crate::{images, kubeconfig, network, registry, tools};

/// The file system type of a container's own root, on which overlays cannot be stacked.
const OVERLAYFS: i64 = 0x794c_7630;

/// `node-1` is the first.
pub(crate) fn name(index: usize) -> String {
    format!("node-{}", index + 1)
}

/// Where a file for each device that is reported as unhealthy is.
pub(crate) fn unhealthy(folder: &Path) -> PathBuf {
    folder.join("unhealthy")
}

/// One node while it is being started, and its paths.
pub(crate) struct NodeSetup<'a> {
    instance: &'a Instance,
    index: usize,
    name: String,
    folder: PathBuf,
}

impl<'a> NodeSetup<'a> {
    pub(crate) fn new(instance: &'a Instance, index: usize) -> Self {
        let name = name(index);
        Self {
            instance,
            index,
            folder: instance.folder.join(&name),
            name,
        }
    }

    /// Prepares network, control group, mounts and containerd: everything that can be done before the API is
    /// available.
    pub(crate) fn prepare(&self, authority: &Authority, nodes: usize) -> Result<()> {
        for below in [
            "kubelet",
            "cni",
            "cni-data",
            "containerd",
            "log",
            "kernel",
            "plugins",
        ] {
            fs::create_dir_all(self.folder.join(below))?;
        }
        fs::create_dir_all(unhealthy(&self.folder))?;
        self.instance
            .namespaces()
            .create_node(&self.name, self.index, nodes, self.instance.addresses())?;
        self.instance.cgroup().create(&self.name)?;
        self.issue_certificate(authority)?;
        self.write_config()?;
        self.hold_mounts()?;
        self.start(
            "containerd",
            "containerd",
            &[format!("--config={}", self.path("containerd.toml"))],
        )?;
        wait_until(
            &format!("containerd of {} answers", self.name),
            Duration::from_secs(30),
            || {
                self.instance.check_alive(&self.part("containerd"))?;
                Ok(output(ctr(&self.folder)?.arg("version")).is_ok())
            },
        )
        .with_context(|| self.instance.log_tail(&self.part("containerd")))?;
        for archive in images::archives()? {
            import(&self.folder, &archive)?;
        }
        Ok(())
    }

    /// Starts the components that talk to the API.
    pub(crate) fn join(&self, device: Option<&Device>) -> Result<()> {
        let flags = [
            format!("--config={}", self.path("kubelet.json")),
            format!("--kubeconfig={}", self.path("kubelet.kubeconfig")),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.instance.addresses().node(self.index)),
            "--v=2".to_owned(),
        ];
        self.start("kubelet", "kubelet", &flags)?;
        self.start(
            "kube-proxy",
            "kube-proxy",
            &[format!("--config={}", self.path("proxy.json"))],
        )?;
        device.map_or(Ok(()), |device| self.start_device_plugin(device))
    }

    fn start_device_plugin(&self, device: &Device) -> Result<()> {
        let flags = [
            format!("-resource={}", device.resource),
            format!("-count={}", device.count),
            format!("-unhealthy={}", unhealthy(&self.folder).display()),
        ];
        self.start("device-plugin", "device-plugin", &flags)
    }

    /// Starts the driver of devices for Dynamic Resource Allocation, with the rights of the node. The node has to be
    /// registered: it owns what the driver publishes.
    pub(crate) fn start_dra_driver(&self, devices: usize) -> Result<()> {
        let flags = [
            format!("--kubeconfig={}", self.path("kubelet.kubeconfig")),
            format!("--node-name={}", self.name),
            format!("--num-devices={devices}"),
            "--cdi-root=/var/run/cdi".to_owned(),
        ];
        self.start("dra-driver", "dra-example-kubeletplugin", &flags)
    }

    fn part(&self, part: &str) -> String {
        format!("{}/{part}", self.name)
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    fn start(&self, part: &str, program: &str, flags: &[String]) -> Result<()> {
        let mut command = enter(self.instance, &self.name)?;
        command.push(tools::tool(program)?.to_string_lossy().into_owned());
        command.extend_from_slice(flags);
        self.instance.start_command(&self.part(part), command)
    }

    fn issue_certificate(&self, authority: &Authority) -> Result<()> {
        let addresses = self.instance.addresses();
        let subject = Subject {
            user: &format!("system:node:{}", self.name),
            group: Some("system:nodes"),
            names: &[&self.name],
            addresses: &[IpAddr::from(addresses.node(self.index))],
        };
        let identity = authority.issue(&self.name, &subject)?;
        let url = format!("https://{}:6443", addresses.hub_end());
        kubeconfig::write(
            &self.folder.join("kubelet.kubeconfig"),
            &self.instance.name,
            &url,
            authority,
            &identity,
        )
    }

    fn write_config(&self) -> Result<()> {
        let write = |file: &str, text: String| {
            fs::write(self.folder.join(file), text)
                .with_context(|| format!("cannot write {}", self.path(file)))
        };
        write("containerd.toml", self.containerd_config()?)?;
        write("cni/10-pods.conflist", self.pod_network().to_string())?;
        write("kubelet.json", self.kubelet_config().to_string())?;
        write("proxy.json", self.proxy_config().to_string())?;
        let dns = self.instance.addresses().dns_service();
        write(
            "resolv.conf",
            format!(
                "nameserver {dns}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
            ),
        )?;
        registry::tell_containerd(&self.folder.join("certs.d"), self.instance.addresses())
    }

    fn containerd_config(&self) -> Result<String> {
        let folder = self.folder.display();
        let file_system = rustix::fs::statfs(&self.folder)?.f_type as i64;
        let snapshotter = if file_system == OVERLAYFS {
            "native"
        } else {
            "overlayfs"
        };
        Ok(format!(
            r#"version = 3
root = "{folder}/containerd/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "{snapshotter}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{folder}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  # Root without CAP_SYS_RESOURCE, as in many sandboxes, may not lower a score.
  restrict_oom_score_adj = true
  enable_cdi = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{folder}/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#,
            pause = images::PAUSE,
        ))
    }

    /// Point-to-point links: every packet is routed, so that Services need no bridge-netfilter module.
    fn pod_network(&self) -> serde_json::Value {
        json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.instance.addresses().pods_of_node(self.index).to_string()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }},
        ]})
    }

    fn kubelet_config(&self) -> serde_json::Value {
        let pki = self.instance.folder.join("pki");
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": false,
            "failSwapOn": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.instance.cgroup().of_node(&self.name),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki.join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.join(format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": pki.join(format!("{}.key", self.name)),
            "containerRuntimeEndpoint": format!("unix://{}", self.path("containerd.sock")),
            "volumePluginDir": self.folder.join("plugins"),
            "clusterDNS": [self.instance.addresses().dns_service().to_string()],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            // An imported image may be used like one from the registry.
            "imagePullCredentialsVerificationPolicy": "NeverVerify",
            "serializeImagePulls": false,
            // If the machine's disk is full, this cluster must not clean it.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        })
    }

    fn proxy_config(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": self.instance.folder.join("proxy.kubeconfig")},
            "clusterCIDR": self.instance.addresses().all_pods().to_string(),
            "hostnameOverride": self.name,
            // These settings apply to the whole machine.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        })
    }

    /// Starts the process that holds the node's mounts, and waits until they exist.
    fn hold_mounts(&self) -> Result<()> {
        for fixed in ["/var/lib/kubelet", "/var/lib/cni"] {
            fs::create_dir_all(fixed)?;
        }
        let script = self.folder.join("mounts.sh");
        fs::write(&script, include_str!("mounts.sh"))?;
        let net = network::path(&self.instance.namespaces().node(&self.name));
        let words = [
            "nsenter",
            &format!("--net={}", net.display()),
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            &script.display().to_string(),
            &self.folder.display().to_string(),
        ];
        let holder = self.part("mounts");
        self.instance
            .start_command(&holder, words.map(str::to_owned).to_vec())?;
        wait_until(
            &format!("the mounts of {} are made", self.name),
            Duration::from_secs(10),
            || {
                self.instance.check_alive(&holder)?;
                Ok(self.folder.join("mounted").exists())
            },
        )
        .with_context(|| self.instance.log_tail(&holder))
    }
}

/// The prefix of a command line that enters a node's namespaces.
pub(crate) fn enter(instance: &Instance, node: &str) -> Result<Vec<String>> {
    let holder = instance.component(&format!("{node}/mounts"))?.process.pid;
    let net = network::path(&instance.namespaces().node(node));
    Ok(vec![
        "nsenter".to_owned(),
        format!("--net={}", net.display()),
        format!("--mount=/proc/{holder}/ns/mnt"),
    ])
}

/// `ctr` for the containerd whose socket is in a node's folder.
pub(crate) fn ctr(folder: &Path) -> Result<Command> {
    let mut command = Command::new(tools::tool("ctr")?);
    command
        .arg("--address")
        .arg(folder.join("containerd.sock"))
        .args(["--namespace", "k8s.io"]);
    Ok(command)
}

/// Loads the images of an archive into a node.
pub(crate) fn import(folder: &Path, archive: &Path) -> Result<()> {
    // Unpacked when a pod needs it, with the snapshotter of the node's configuration.
    output(
        ctr(folder)?
            .args(["images", "import", "--no-unpack", "--local"])
            .arg(archive),
    )
    .with_context(|| format!("cannot load {}", archive.display()))
    .map(drop)
}
