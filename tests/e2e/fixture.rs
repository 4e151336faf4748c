//! What all tests share: one cluster with two nodes and the operator installed by its chart, and the
//! model images.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::{Client, ResourceExt};
use local_cluster::{Cluster, ClusterOptions, ControlPlane, Device, tool};
use modelservice_operator::crd::{AcceleratorClass, ModelService};
use modelservice_test_stores::place::Place;
use modelservice_test_stores::processes::Servers;
use serde_json::{Value, json};

use crate::models::Models;
use crate::team::Team;

/// Where the operator is installed.
pub(crate) const SYSTEM: &str = "modelservice-system";
/// The name of the service in every example.
pub(crate) const EXAMPLE: &str = "photos";
/// The device that every node has one of.
pub(crate) const DEVICE: &str = "example.com/tpu";
/// The class of the devices for Dynamic Resource Allocation, of which every node has one, too.
pub(crate) const DEVICE_CLASS: &str = "gpu.example.com";
/// Where an image has the execution provider of tests.
pub(crate) const TEST_PROVIDER: &str = "/usr/lib/libmodelservice_test_provider.so";
/// Longer than anything here takes, even on a busy machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The cluster and what is in it.
pub(crate) struct Fixture {
    pub cluster: Cluster,
    pub client: Client,
    pub models: Models,
    /// Held by the test that uses the devices.
    pub devices: tokio::sync::Mutex<()>,
    /// Started by the first test that needs them.
    stores: std::sync::OnceLock<Result<Servers, String>>,
    /// Held while images are built: those of different flavours share files.
    images: std::sync::Mutex<()>,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    /// Builds what is missing, starts the cluster and installs the operator. `fast_autoscaling` is about
    /// HorizontalPodAutoscalers.
    pub(crate) fn start(fast_autoscaling: bool) -> Result<Self> {
        for script in ["scripts/images", "examples/prepare"] {
            eprintln!("e2e: {script}");
            run(Command::new(repository().join(script)).current_dir(repository()))?;
        }
        eprintln!("e2e: starting the cluster");
        let cluster = Cluster::start(ClusterOptions {
            nodes: 2,
            fast_autoscaling,
            device: Some(Device {
                resource: DEVICE.to_owned(),
                count: 1,
            }),
            dra_devices: 1,
            ..ClusterOptions::named("e2e")
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let models = Models::push(&cluster)?;
        install(&cluster)?;
        let client = runtime.block_on(client(&cluster.kubeconfig_path()))?;
        Ok(Self {
            cluster,
            client,
            models,
            devices: tokio::sync::Mutex::default(),
            stores: std::sync::OnceLock::default(),
            images: std::sync::Mutex::default(),
            runtime,
        })
    }

    /// Runs a test's asynchronous part.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Creates a namespace for a test; `labels` are for example those of Pod Security.
    pub(crate) async fn team(&self, name: &str, labels: &[(&str, &str)]) -> Result<Team<'_>> {
        let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
        Api::all(self.client.clone())
            .create(&Default::default(), &namespace)
            .await?;
        Ok(Team {
            fixture: self,
            namespace: name.to_owned(),
        })
    }

    /// Where servers of tests listen: pods and this machine reach them there.
    pub(crate) fn place(&self) -> Place {
        // A node has the same function.
        let plane: &ControlPlane = &self.cluster;
        let enter = ["nsenter".to_owned(), format!("--net={}", plane.netns().display())];
        Place::new(plane.listener(), enter.to_vec())
    }

    /// Object stores in the cluster's network.
    pub(crate) fn stores(&self) -> Result<&Servers> {
        let started = self.stores.get_or_init(|| Servers::start(&self.place()));
        started
            .as_ref()
            .map_err(|error| anyhow::anyhow!("no stores: {error}"))
    }

    /// An image of the server with another flavour of ONNX Runtime, pinned by digest.
    pub(crate) fn runtime_image(&self, flavour: &str) -> Result<String> {
        tokio::task::block_in_place(|| {
            let _images = self.images.lock().unwrap();
            run(Command::new(repository().join("scripts/images"))
                .arg(flavour)
                .current_dir(repository()))?;
            let name = format!("modelservice-server-{flavour}:dev");
            self.cluster.push(&format!("localhost/{name}"), &name)
        })
    }

    /// The server's image with the execution provider of tests, whose library is [`TEST_PROVIDER`], pinned by digest.
    pub(crate) fn test_provider_image(&self) -> Result<String> {
        tokio::task::block_in_place(|| {
            let folder = tempfile::tempdir()?;
            let name = Path::new(TEST_PROVIDER)
                .file_name()
                .context("a library has a name")?;
            let built = std::env::current_exe()?.with_file_name(name);
            std::fs::copy(&built, folder.path().join(name))
                .with_context(|| format!("{} is not there", built.display()))?;
            let recipe = "FROM localhost/modelservice-server:dev\nCOPY *.so /usr/lib/\n";
            std::fs::write(folder.path().join("Containerfile"), recipe)?;
            let image = "localhost/e2e-test-provider:dev";
            let mut build = Command::new("buildah");
            build.args(["build", "--quiet", "--timestamp", "0", "--tag", image]);
            run(build.arg(folder.path()))?;
            self.cluster.push(image, "test-provider:dev")
        })
    }

    /// Creates an AcceleratorClass.
    pub(crate) async fn class(&self, name: &str, spec: Value) -> Result<()> {
        let class: AcceleratorClass = serde_json::from_value(json!({
            "apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "AcceleratorClass",
            "metadata": {"name": name}, "spec": spec,
        }))?;
        Api::all(self.client.clone())
            .create(&Default::default(), &class)
            .await?;
        Ok(())
    }

    /// The end of the operator's log, for the message of a failed test.
    pub(crate) fn operator_log(&self) -> String {
        let arguments = [
            "-n",
            SYSTEM,
            "logs",
            "deployment/modelservice-operator",
            "--tail=30",
        ];
        self.cluster
            .kubectl(&arguments)
            .unwrap_or_else(|error| format!("{error:#}"))
    }
}

/// A service that needs few resources: several of them can start at once on a machine with two cores.
pub(crate) fn service(name: &str, image: &str) -> ModelService {
    serde_json::from_value(json!({
        "apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService",
        "metadata": {"name": name},
        "spec": {
            "model": {"image": image},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
        },
    }))
    .unwrap()
}

/// A manifest of examples/sources, with other words in it, and with resources of which several fit on a small machine.
pub(crate) fn example(file: &str, words: &[(&str, &str)]) -> Result<ModelService> {
    let path = repository().join("examples/sources").join(file);
    let mut manifest = std::fs::read_to_string(&path)?;
    for (word, other) in words {
        ensure!(manifest.contains(word), "{} has no {word}", path.display());
        manifest = manifest.replace(word, other);
    }
    let mut wanted: ModelService = serde_saphyr::from_str(&manifest)?;
    ensure!(wanted.name_any() == EXAMPLE, "{}", path.display());
    wanted.spec.resources = service(EXAMPLE, "").spec.resources;
    Ok(wanted)
}

/// The status of a condition, if it is about the present spec.
pub(crate) fn condition<'a>(service: &'a ModelService, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let status = service.status.as_ref()?;
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)?;
    (status.observed_generation == service.metadata.generation).then_some((
        condition.status.as_str(),
        condition.reason.as_str(),
        condition.message.as_str(),
    ))
}

/// Whether it is served by the current spec's revision, with all the servers that it should have.
pub(crate) fn is_ready(service: &ModelService) -> bool {
    condition(service, "Ready").is_some_and(|(status, ..)| status == "True")
        && condition(service, "Reconciling").is_none()
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A photograph that `examples/prepare` created.
pub(crate) fn photo(name: &str) -> PathBuf {
    repository().join(".cache/examples/photos").join(name)
}

/// Runs a program; its output is shown only if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{command:?} failed: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    // The cluster is on this machine, whatever proxy is configured.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// Installs the chart as users do, with the images that were just built.
fn install(cluster: &Cluster) -> Result<()> {
    let operator = cluster.push("localhost/modelservice-operator:dev", "modelservice-operator:dev")?;
    let server = cluster.push("localhost/modelservice-server:dev", "modelservice-server:dev")?;
    let mut helm = Command::new(tool("helm")?);
    helm.args([
        "upgrade",
        "--install",
        "modelservice-operator",
        "charts/modelservice-operator",
    ])
    .args([
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--wait",
        "--timeout",
        "3m",
    ])
    .current_dir(repository())
    .env("KUBECONFIG", cluster.kubeconfig_path());
    for (value, image) in [("image", &operator), ("runtimeImage", &server)] {
        let (repository, digest) = image.split_once('@').context("not pinned")?;
        helm.args([
            "--set",
            &format!("{value}.repository={repository},{value}.digest={digest}"),
        ]);
    }
    run(&mut helm).with_context(|| {
        let arguments = ["-n", SYSTEM, "describe", "pods"];
        cluster
            .kubectl(&arguments)
            .unwrap_or_else(|error| format!("{error:#}"))
    })
}
