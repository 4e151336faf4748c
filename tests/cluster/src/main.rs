//! The command `local-cluster`: starts, shows and removes local Kubernetes clusters.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use local_cluster::{Cluster, ClusterOptions, ControlPlaneOptions, Device, FakeNodes, Summary};

/// A real Kubernetes on this machine, in network namespaces, removed without a trace. To try it:
///
///   make tools build the cluster's programs (once, about 20 minutes) local-cluster up a cluster with one node, in
///   some seconds export KUBECONFIG=$(local-cluster kubeconfig) kubectl get nodes local-cluster exec -- curl
///   http://SERVICE.NAMESPACE.svc local-cluster down
#[derive(Parser)]
#[command(name = "local-cluster", version, verbatim_doc_comment)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Start a cluster that runs until `down`. Does nothing if it is already running
    Up(Up),
    /// Remove a cluster: processes, mounts, network, control groups, files
    Down {
        #[command(flatten)]
        cluster: Named,
        /// Remove every cluster on this machine, including those of running tests
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Show what is running, and where its logs are
    Status {
        /// Print nothing; succeed if this cluster is running
        #[arg(long, value_name = "NAME")]
        running: Option<String>,
    },
    /// Load the images of an archive (docker-archive or oci-archive) into every node
    LoadImage {
        /// The archive
        archive: PathBuf,
        #[command(flatten)]
        cluster: Named,
    },
    /// Push an image to the cluster's registry and print its name with the digest, as pods need it
    Push {
        /// A name in buildah's storage, or an archive
        image: String,
        /// The name in the registry, for example models/photos:1
        target: String,
        #[command(flatten)]
        cluster: Named,
    },
    /// Print the path of the kubeconfig
    Kubeconfig {
        #[command(flatten)]
        cluster: Named,
    },
    /// Run a command on a node, where Services are reached by address and by name
    Exec {
        #[command(flatten)]
        cluster: Named,
        /// Number of the node, counted from 1
        #[arg(long, default_value_t = 1)]
        node: usize,
        /// The command and its arguments, after `--`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args)]
struct Named {
    /// Name of the cluster
    #[arg(long, default_value = "default", env = "LOCAL_CLUSTER")]
    name: String,
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    cluster: Named,
    /// Nodes on which pods really run; 0 starts only a control plane with a registry and DNS
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Simulated nodes, for experiments with many pods
    #[arg(long, default_value_t = 0)]
    fake_nodes: usize,
    /// A made-up device on every node, for example example.com/tpu=2
    #[arg(long, value_name = "RESOURCE=COUNT")]
    device: Option<String>,
    /// Devices for Dynamic Resource Allocation on every node, of the DeviceClass gpu.example.com
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    dra_devices: usize,
    /// Run the horizontal pod autoscaler every 2 s instead of every 15 s
    #[arg(long)]
    fast_autoscaling: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("local-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Subcommands) -> Result<ExitCode> {
    match command {
        Subcommands::Up(up) => start(&up)?,
        Subcommands::Down { all: true, .. } => {
            local_cluster::clusters()
                .iter()
                .try_for_each(|cluster| remove(&cluster.name))?;
        }
        Subcommands::Down { cluster, .. } => remove(&cluster.name)?,
        Subcommands::Status { running: Some(name) } => return Ok(running(&name)),
        Subcommands::Status { running: None } => status()?,
        Subcommands::LoadImage { archive, cluster } => Cluster::open(&cluster.name)?.load_image(&archive)?,
        Subcommands::Push {
            image,
            target,
            cluster,
        } => {
            println(&Cluster::open(&cluster.name)?.push(&image, &target)?)?;
        }
        Subcommands::Kubeconfig { cluster } => {
            println(
                &Cluster::open(&cluster.name)?
                    .kubeconfig_path()
                    .display()
                    .to_string(),
            )?;
        }
        Subcommands::Exec {
            cluster,
            node,
            command,
        } => return execute(&cluster.name, node, &command),
    }
    Ok(ExitCode::SUCCESS)
}

fn start(up: &Up) -> Result<()> {
    let name = &up.cluster.name;
    if let Ok(cluster) = Cluster::open(name) {
        println(&format!(
            "{name} is already running. KUBECONFIG={}",
            cluster.kubeconfig_path().display()
        ))?;
        return Ok(());
    }
    let started = Instant::now();
    let fake_nodes = (up.fake_nodes > 0).then(|| FakeNodes::new(up.fake_nodes));
    let cluster = Cluster::start(ClusterOptions {
        control_plane: ControlPlaneOptions {
            fake_nodes,
            ..ControlPlaneOptions::named(name)
        },
        nodes: up.nodes,
        device: up.device.as_deref().map(device).transpose()?,
        dra_devices: up.dra_devices,
        fast_autoscaling: up.fast_autoscaling,
        ..ClusterOptions::default()
    })?;
    cluster.keep()?;
    let seconds = started.elapsed().as_secs_f32();
    println(&format!(
        "{name} started in {seconds:.1} s. KUBECONFIG={}",
        cluster.kubeconfig_path().display()
    ))
}

fn device(text: &str) -> Result<Device> {
    let parsed = text
        .split_once('=')
        .and_then(|(resource, count)| Some((resource, count.parse().ok()?)));
    let (resource, count) =
        parsed.with_context(|| format!("{text:?} is not a device; write it like example.com/tpu=2"))?;
    Ok(Device {
        resource: resource.to_owned(),
        count,
    })
}

fn remove(name: &str) -> Result<()> {
    println(if local_cluster::remove(name)? {
        "removed"
    } else {
        "there was none"
    })
}

fn running(name: &str) -> ExitCode {
    let runs = local_cluster::clusters()
        .iter()
        .any(|cluster| cluster.name == name && cluster.is_running());
    if runs {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn status() -> Result<()> {
    let clusters = local_cluster::clusters();
    if clusters.is_empty() {
        return println("No cluster is running. Start one with `local-cluster up`.");
    }
    clusters
        .iter()
        .try_for_each(|cluster| println(&describe(cluster)))
}

fn describe(cluster: &Summary) -> String {
    let mut lines = vec![format!(
        "{} (state and logs: {})",
        cluster.name,
        cluster.folder.display()
    )];
    lines.extend(cluster.parts.iter().map(|part| {
        let state = part.pid.map_or("ENDED".to_owned(), |pid| format!("pid {pid}"));
        format!("  {:<28} {state}", part.name)
    }));
    lines.join("\n")
}

fn execute(name: &str, node: usize, command: &[String]) -> Result<ExitCode> {
    let cluster = Cluster::open(name)?;
    let (Some(index), Some((program, arguments))) = (node.checked_sub(1), command.split_first()) else {
        bail!("nodes are counted from 1");
    };
    let status = cluster.node(index).command(program)?.args(arguments).status()?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Unlike `println!`, returns an error instead of panicking when nobody reads the output.
fn println(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}
