//! A Kubernetes control plane without nodes: etcd, the API server, the controllers and, optionally, the scheduler and
//! fake nodes. Enough for everything that does not need a pod to run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cluster::ClusterOptions;
use crate::command::{direct, output, output_with_input};
use crate::instance::Instance;
use crate::pki::{Authority, Subject};
use crate::wait::wait_until;
use crate::{Signal, fake_nodes, kubeconfig, network, tools};

/// How long the API server may take to become ready on a busy machine with few cores.
const BOOT: Duration = Duration::from_secs(90);

/// The options of a control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlPlaneOptions {
    /// Its name, unique on this machine: 1 to 24 of a-z, 0-9 and `-`.
    pub name: String,
    /// Whether pods get nodes.
    pub scheduler: bool,
    /// Nodes that exist only in the API, and whose pods are ready at once (kwok).
    pub fake_nodes: Option<FakeNodes>,
    /// Flags that are added to a component's own flags, and override them: `("kube-apiserver",
    /// "--audit-log-path=…")`.
    pub extra_flags: Vec<(String, String)>,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            scheduler: true,
            fake_nodes: None,
            extra_flags: Vec::new(),
        }
    }
}

impl ControlPlaneOptions {
    /// The default options, with this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds a flag to a component such as `kube-controller-manager`.
    #[must_use]
    pub fn flag(mut self, component: &str, flag: impl Into<String>) -> Self {
        self.extra_flags.push((component.to_owned(), flag.into()));
        self
    }
}

/// Nodes that kwok simulates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FakeNodes {
    /// How many; they are named `fake-0`, `fake-1`, …
    pub count: usize,
    /// What each offers besides 32 CPUs, 256 GiB and 1000 pods, for example `example.com/tpu: 8`.
    pub resources: BTreeMap<String, String>,
}

impl FakeNodes {
    /// Nodes without devices.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            resources: BTreeMap::new(),
        }
    }
}

/// A running control plane. Dropping it tears it down.
#[derive(Debug)]
pub struct ControlPlane {
    pub(crate) instance: Instance,
}

impl ControlPlane {
    /// Starts a control plane and returns when its API answers.
    ///
    /// # Errors
    /// When this machine cannot run one (the message says what to do), or a part does not start (the
    /// message has the end of its log).
    pub fn start(options: ControlPlaneOptions) -> Result<Self> {
        let fake = options.fake_nodes.as_ref().map(|_| &tools::FAKE_NODES);
        tools::check(&[&[&tools::CONTROL_PLANE], fake.as_slice()].concat())?;
        let options = ClusterOptions {
            nodes: 0,
            ..ClusterOptions::of_control_plane(options)
        };
        let instance = Instance::create(&options)?;
        let authority = Authority::create(&instance.folder.join("pki"))?;
        Self::boot(instance, &authority)
    }

    /// Brings up the parts of the hub.
    pub(crate) fn boot(instance: Instance, authority: &Authority) -> Result<Self> {
        instance.cgroup().create("hub")?;
        instance.namespaces().create_hub(instance.addresses())?;
        issue_certificates(&instance, authority)?;
        let plane = Self { instance };
        let options = plane.instance.options().control_plane;
        plane.start_part("etcd", etcd_flags(&plane.instance))?;
        plane.start_part("kube-apiserver", api_server_flags(&plane.instance))?;
        plane.wait_ready()?;
        plane.start_part(
            "kube-controller-manager",
            controller_manager_flags(&plane.instance),
        )?;
        if options.scheduler {
            plane.start_part("kube-scheduler", scheduler_flags(&plane.instance))?;
        }
        if let Some(nodes) = &options.fake_nodes {
            fake_nodes::start(&plane, nodes)?;
        }
        // Pods are rejected until the controllers have created it, a moment after the API is ready.
        wait_until("the default service account exists", BOOT, || {
            plane.instance.check_alive("kube-controller-manager")?;
            Ok(plane
                .kubectl(&["-n", "default", "get", "serviceaccount", "default"])
                .is_ok())
        })?;
        Ok(plane)
    }

    /// Starts a component that is named like its program, with the caller's flags after its own.
    pub(crate) fn start_part(&self, name: &str, mut flags: Vec<String>) -> Result<()> {
        let extra = self.instance.options().control_plane.extra_flags;
        flags.extend(
            extra
                .into_iter()
                .filter(|(component, _)| component == name)
                .map(|(_, flag)| flag),
        );
        self.instance.start(name, name, &flags)
    }

    /// Waits until the API server is ready to serve.
    ///
    /// # Errors
    /// When it is not ready within a minute and a half; the message has the end of its log.
    pub fn wait_ready(&self) -> Result<()> {
        wait_until("the API server is ready", BOOT, || {
            self.instance.check_alive("etcd")?;
            self.instance.check_alive("kube-apiserver")?;
            Ok(self.kubectl(&["get", "--raw", "/readyz"]).is_ok())
        })
        .with_context(|| self.instance.log_tail("kube-apiserver"))
    }

    /// Waits until the API server serves every CustomResourceDefinition that it has.
    ///
    /// # Errors
    /// When it does not within a minute and a half.
    pub fn wait_established(&self) -> Result<()> {
        // `kubectl wait` fails on a definition that has no status yet.
        wait_until("the definitions are established", BOOT, || {
            Ok(self
                .kubectl(&["wait", "--for=condition=Established", "crd", "--all"])
                .is_ok())
        })
    }

    /// A control plane that was started to stay, for example by `local-cluster up`.
    pub(crate) fn open(name: &str) -> Result<Self> {
        Ok(Self {
            instance: Instance::open(name)?,
        })
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.instance.name
    }

    /// The administrator's kubeconfig; it works from this machine and from inside the cluster's network.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.instance.folder.join("kubeconfig")
    }

    /// The network namespace of the control plane, as a path for `nsenter --net=`. Pods are reached from
    /// there, Services only from a node's (see `Cluster::command_in_node`).
    pub fn netns(&self) -> PathBuf {
        network::path(&self.instance.namespaces().hub())
    }

    /// Listens on a port of all pods on fake nodes: the local address of an accepted connection is the pod's. They are
    /// reached from the control plane's network namespace. Without it, nothing answers at these addresses.
    ///
    /// # Errors
    /// When the port is in use.
    pub fn listen_as_fake_pods(&self, port: u16) -> Result<TcpListener> {
        let pods = self.instance.addresses().fake_pods();
        self.instance.namespaces().answer_in_hub(pods)?;
        network::inside(&self.netns(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
    }

    /// Takes free ports of the control plane's machine, at an address that pods, nodes and this machine reach. For a
    /// test's own servers: programs that it starts in [`ControlPlane::netns`] end with the cluster.
    pub fn listener(&self) -> impl Fn() -> std::io::Result<TcpListener> + Send + Sync + 'static {
        let (netns, address) = (self.netns(), self.instance.addresses().hub_end());
        move || network::inside(&netns, || TcpListener::bind((address, 0))).map_err(std::io::Error::other)
    }

    /// A folder for a test's own files, such as an audit policy; it is removed with the cluster.
    pub fn folder(&self) -> &Path {
        &self.instance.folder
    }

    /// `kubectl` as administrator, for the caller to run.
    ///
    /// # Errors
    /// When kubectl is not built.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = direct(tools::tool("kubectl")?);
        command.env("KUBECONFIG", self.kubeconfig_path());
        command.arg(format!(
            "--cache-dir={}",
            self.instance.folder.join("kubectl").display()
        ));
        Ok(command)
    }

    /// Runs `kubectl` and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the message has its output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.kubectl_command()?.args(arguments))
    }

    /// Applies objects, server-side, from a YAML or JSON text.
    ///
    /// # Errors
    /// When the API server rejects one.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        output_with_input(&mut command, manifest)
    }

    /// The names of all parts, such as `kube-apiserver`, or `node-1/kubelet` in a cluster with nodes.
    pub fn components(&self) -> Vec<String> {
        self.instance
            .components()
            .into_iter()
            .map(|component| component.name)
            .collect()
    }

    /// The process ids of a part: one while it runs, none when it has ended.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn pids(&self, component: &str) -> Result<Vec<u32>> {
        let process = self.instance.component(component)?.process;
        Ok(if process.is_alive() {
            vec![process.pid]
        } else {
            Vec::new()
        })
    }

    /// Sends a signal to a part, for example `Signal::STOP` to freeze it and `Signal::CONT` to continue.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn signal(&self, component: &str, signal: Signal) -> Result<()> {
        self.instance.component(component)?.process.signal(signal)
    }

    /// Stops a part and starts it again with the same flags.
    ///
    /// # Errors
    /// When there is no such part, or it does not start.
    pub fn restart(&self, component: &str) -> Result<()> {
        self.instance.restart(component)
    }

    /// Stops a part; `restart` starts it again.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn stop(&self, component: &str) -> Result<()> {
        self.instance.stop(component)
    }

    /// Where a part's log is.
    pub fn log_path(&self, component: &str) -> PathBuf {
        self.instance.log(component)
    }

    /// Copies the components' logs to a folder that outlives the cluster, and returns that folder.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn save_logs(&self) -> Result<PathBuf> {
        self.instance.save_logs()
    }

    /// Lists what is left of it on this machine: nothing after teardown. For tests, which drop the control plane
    /// first.
    pub fn leftovers_check(&self) -> impl Fn() -> Result<Vec<String>> + 'static {
        let (name, slot) = (self.instance.name.clone(), self.instance.slot);
        move || crate::teardown::leftovers(&name, slot)
    }
}

/// One certificate per part, each with the name that Kubernetes' default roles expect.
fn issue_certificates(instance: &Instance, authority: &Authority) -> Result<()> {
    let addresses = instance.addresses();
    let own: [IpAddr; 4] = [
        addresses.hub().into(),
        addresses.hub_end().into(),
        addresses.api_service().into(),
        std::net::Ipv4Addr::LOCALHOST.into(),
    ];
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let server = Subject {
        user: "kube-apiserver",
        group: None,
        names: &names,
        addresses: &own,
    };
    authority.issue("apiserver", &server)?;
    authority.issue(
        "kubelet-client",
        &Subject::client("kube-apiserver-kubelet-client", Some("system:masters")),
    )?;
    authority.issue("front-proxy", &Subject::client("front-proxy", None))?;
    authority.service_account_keys()?;
    // The same address works everywhere: nodes have a route to the hub's end of the link.
    let url = format!("https://{}:6443", addresses.hub_end());
    let clients = [
        ("kubeconfig", Subject::client("admin", Some("system:masters"))),
        (
            "controller-manager.kubeconfig",
            Subject::client("system:kube-controller-manager", None),
        ),
        (
            "scheduler.kubeconfig",
            Subject::client("system:kube-scheduler", None),
        ),
        ("proxy.kubeconfig", Subject::client("system:kube-proxy", None)),
    ];
    for (file, subject) in clients {
        let identity = authority.issue(subject.user.trim_start_matches("system:"), &subject)?;
        kubeconfig::write(
            &instance.folder.join(file),
            &instance.name,
            &url,
            authority,
            &identity,
        )?;
    }
    Ok(())
}

fn etcd_flags(instance: &Instance) -> Vec<String> {
    vec![
        format!("--data-dir={}", instance.folder.join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // The data does not have to outlive the machine, and disks of CI machines are slow.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server_flags(instance: &Instance) -> Vec<String> {
    let addresses = instance.addresses();
    let pki = instance.folder.join("pki");
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.join(name).display());
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--advertise-address={}", addresses.hub()),
        format!("--service-cluster-ip-range={}", addresses.services()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        file("client-ca-file", "ca.crt"),
        file("tls-cert-file", "apiserver.crt"),
        file("tls-private-key-file", "apiserver.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("service-account-key-file", "sa.pub"),
        file("service-account-signing-key-file", "sa.key"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        file("kubelet-certificate-authority", "ca.crt"),
        file("kubelet-client-certificate", "kubelet-client.crt"),
        file("kubelet-client-key", "kubelet-client.key"),
        // Aggregated APIs such as metrics are reached at their pods: the hub has no kube-proxy.
        "--enable-aggregator-routing=true".to_owned(),
        file("requestheader-client-ca-file", "ca.crt"),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        file("proxy-client-cert-file", "front-proxy.crt"),
        file("proxy-client-key-file", "front-proxy.key"),
    ]
}

fn controller_manager_flags(instance: &Instance) -> Vec<String> {
    let folder = instance.folder.display();
    let mut flags = vec![
        format!("--kubeconfig={folder}/controller-manager.kubeconfig"),
        format!("--service-account-private-key-file={folder}/pki/sa.key"),
        format!("--root-ca-file={folder}/pki/ca.crt"),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        format!("--cluster-cidr={}", instance.addresses().all_pods()),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    if instance.options().fast_autoscaling {
        flags.extend([
            "--horizontal-pod-autoscaler-sync-period=2s".to_owned(),
            "--horizontal-pod-autoscaler-initial-readiness-delay=0s".to_owned(),
            "--horizontal-pod-autoscaler-cpu-initialization-period=10s".to_owned(),
        ]);
    }
    flags
}

fn scheduler_flags(instance: &Instance) -> Vec<String> {
    vec![
        format!("--kubeconfig={}/scheduler.kubeconfig", instance.folder.display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ]
}
