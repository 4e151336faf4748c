//! What all tests share: one cluster with two nodes and the operator installed by its chart, the model images,
//! and ways to make, watch and describe services.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Client, ResourceExt};
use local_cluster::{Cluster, ClusterOptions, Device, tool};
use modelservice_operator::crd::{AcceleratorClass, ModelService, SERVICE_LABEL};
use serde_json::{Value, json};

use crate::load::{Load, Target};
use crate::onnx;

/// Where the operator is installed.
pub(crate) const SYSTEM: &str = "modelservice-system";
/// The device that every node has one of.
pub(crate) const DEVICE: &str = "example.com/tpu";
/// Longer than anything here takes on a busy machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Model images by what is in them, pinned by digest.
pub(crate) struct Models {
    /// EfficientNet-Lite0 with its labels.
    pub photos: String,
    /// `y = x + 1`.
    pub plus_one: String,
    /// `y = x + 10`.
    pub plus_ten: String,
    /// An image with a file, but no model.onnx.
    pub without_model: String,
    /// A model.onnx that is something else.
    pub not_onnx: String,
    /// A model for an operator set that nobody has written yet.
    pub too_new: String,
    /// An OCI artifact, which nodes mount as an empty folder.
    pub artifact: String,
}

/// The cluster and what is in it.
pub(crate) struct Fixture {
    pub cluster: Cluster,
    pub client: Client,
    pub models: Models,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    /// Builds what is missing, starts the cluster and installs the operator.
    pub(crate) fn start() -> Result<Self> {
        for script in ["scripts/images", "examples/prepare"] {
            eprintln!("e2e: {script}");
            run(Command::new(repository().join(script)).current_dir(repository()))?;
        }
        eprintln!("e2e: starting the cluster");
        let cluster = Cluster::start(ClusterOptions {
            nodes: 2,
            fast_autoscaling: true,
            device: Some(Device {
                resource: DEVICE.to_owned(),
                count: 1,
            }),
            ..ClusterOptions::named("e2e")
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let models = push_models(&cluster)?;
        install(&cluster)?;
        let client = runtime.block_on(client(&cluster.kubeconfig_path()))?;
        Ok(Self {
            cluster,
            client,
            models,
            runtime,
        })
    }

    /// Runs a test's asynchronous part.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Makes a namespace of its own for a test; `labels` are such as Pod Security's.
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

    /// Makes a kind of device known.
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

    /// What the operator said last, for the message of a failed test.
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

/// A namespace of one test.
pub(crate) struct Team<'a> {
    pub fixture: &'a Fixture,
    pub namespace: String,
}

/// A service that needs little: several of them start side by side on a machine with two cores.
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

impl Team<'_> {
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.fixture.client.clone(), &self.namespace)
    }

    /// Creates a service, or changes it to what is given.
    pub(crate) async fn apply(&self, service: &ModelService) -> Result<()> {
        let parameters = PatchParams::apply("e2e").force();
        let name = service.name_any();
        self.api::<ModelService>()
            .patch(&name, &parameters, &Patch::Apply(service))
            .await?;
        Ok(())
    }

    /// Waits until a service is as wanted; the error shows it, its pods and events, and the operator's log.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&ModelService) -> bool,
    ) -> Result<ModelService> {
        let wanted = |service: Option<&ModelService>| service.is_some_and(&is_so);
        let found = self.until::<ModelService>(name, what, wanted).await?;
        found.context("the service is gone")
    }

    /// Waits until an object of this namespace is as wanted.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, is_so: impl Condition<K>) -> Result<Option<K>>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Send
            + serde::de::DeserializeOwned
            + 'static,
        K::DynamicType: Default,
    {
        let waiting = await_condition(self.api::<K>(), name, is_so);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => Ok(found?),
            Err(_) => bail!(
                "{}/{name}: not so after {} s: {what}\n{}",
                self.namespace,
                PATIENCE.as_secs(),
                self.describe()
            ),
        }
    }

    /// Waits until the present spec is served.
    pub(crate) async fn ready(&self, name: &str) -> Result<ModelService> {
        self.wait(name, "Ready", is_ready).await
    }

    /// Applies a service and waits until it is served.
    pub(crate) async fn serve(&self, service: &ModelService) -> Result<ModelService> {
        self.apply(service).await?;
        self.ready(&service.name_any()).await
    }

    /// The address of a Service, as a node's network knows it.
    pub(crate) async fn address(&self, name: &str) -> Result<SocketAddr> {
        let service = self.api::<Service>().get(name).await?;
        let address = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("the Service has no address")?;
        Ok(SocketAddr::from((address.parse::<Ipv4Addr>()?, 80)))
    }

    /// Sends four numbers to one of the adding models, `rate` times a second.
    pub(crate) async fn load_adder(&self, name: &str, rate: f64) -> Result<Load> {
        let body =
            json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]});
        self.load(
            name,
            "infer",
            "application/json",
            body.to_string().into_bytes(),
            rate,
        )
        .await
    }

    /// Sends a photograph, `rate` times a second.
    pub(crate) async fn load_photo(&self, name: &str, photo: &Path, rate: f64) -> Result<Load> {
        self.load(name, "classify", "image/jpeg", std::fs::read(photo)?, rate)
            .await
    }

    async fn load(
        &self,
        name: &str,
        verb: &str,
        content_type: &'static str,
        body: Vec<u8>,
        rate: f64,
    ) -> Result<Load> {
        let separator = if verb == "infer" { '/' } else { ':' };
        let target = Target {
            address: self.address(name).await?,
            path: format!("/v2/models/{name}{separator}{verb}"),
            content_type,
            body: body.into(),
            rate,
        };
        Load::start(&self.fixture.cluster.netns(), target)
    }

    /// Everything here that belongs to a service, as `kind/name`.
    pub(crate) async fn children(&self, name: &str) -> Result<Vec<String>> {
        let kinds = "deployments,replicasets,pods,services,endpointslices,horizontalpodautoscalers,poddisruptionbudgets";
        let selector = format!("{SERVICE_LABEL}={name}");
        let arguments = ["-n", &self.namespace, "get", kinds, "-l", &selector, "-o", "name"];
        Ok(self
            .fixture
            .cluster
            .kubectl(&arguments)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// Deletes a service and leaves the rest to the cluster, which goes soon.
    pub(crate) async fn leave(&self, name: &str) -> Result<()> {
        self.api::<ModelService>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Deletes a service and waits until nothing of it is left.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.api::<ModelService>()
            .delete(name, &DeleteParams::default())
            .await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let children = self.children(name).await?;
            if children.is_empty() {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "left of {name}: {children:?}\n{}",
                self.describe()
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Pods of a service that are not ending.
    pub(crate) async fn pods(&self, name: &str) -> Result<Vec<k8s_openapi::api::core::v1::Pod>> {
        let selector = ListParams::default().labels(&format!("{SERVICE_LABEL}={name}"));
        let pods = self
            .api::<k8s_openapi::api::core::v1::Pod>()
            .list(&selector)
            .await?;
        Ok(pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    }

    /// Everything that could explain why a test failed.
    pub(crate) fn describe(&self) -> String {
        let show = |arguments: &[&str]| {
            let all = [&["-n", self.namespace.as_str()], arguments].concat();
            self.fixture
                .cluster
                .kubectl(&all)
                .unwrap_or_else(|error| format!("{error:#}"))
        };
        [
            show(&["get", "modelservices,deployments,pods,hpa", "-o", "wide"]),
            show(&[
                "get",
                "modelservices",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}: {.status}{\"\\n\"}{end}",
            ]),
            show(&["get", "events", "--sort-by=.lastTimestamp"]),
            self.fixture.operator_log(),
        ]
        .join("\n")
    }
}

/// The status of a condition, if it speaks of the present spec.
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

pub(crate) fn is_ready(service: &ModelService) -> bool {
    condition(service, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A photograph that `examples/prepare` made.
pub(crate) fn photo(name: &str) -> PathBuf {
    repository().join(".cache/examples/photos").join(name)
}

/// Runs a program; what it says is only shown when it fails.
fn run(command: &mut Command) -> Result<()> {
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
    // The cluster is on this machine, whatever proxy is set for the outside world.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

fn push_models(cluster: &Cluster) -> Result<Models> {
    let folder = tempfile::tempdir()?;
    let push = |name: &str, files: &[(&str, &[u8])]| -> Result<String> {
        let package = folder.path().join(name);
        std::fs::create_dir(&package)?;
        for (file, content) in files {
            std::fs::write(package.join(file), content)?;
        }
        push_folder(cluster, name, &package)
    };
    Ok(Models {
        photos: push_folder(
            cluster,
            "photos",
            &repository().join(".cache/examples/efficientnet-lite0"),
        )?,
        plus_one: push("plus-one", &[("model.onnx", &onnx::adder(1.0, onnx::OPSET))])?,
        plus_ten: push("plus-ten", &[("model.onnx", &onnx::adder(10.0, onnx::OPSET))])?,
        without_model: push("without-model", &[("readme.txt", b"the model is elsewhere")])?,
        not_onnx: push("not-onnx", &[("model.onnx", b"<html>404 not found</html>")])?,
        too_new: push("too-new", &[("model.onnx", &onnx::adder(1.0, 99))])?,
        artifact: push_artifact(cluster, "artifact", &onnx::adder(1.0, onnx::OPSET))?,
    })
}

fn push_folder(cluster: &Cluster, name: &str, folder: &Path) -> Result<String> {
    let image = format!("localhost/e2e-{name}:1");
    let mut build = Command::new("buildah");
    build.args(["build", "--quiet", "--timestamp", "0", "--tag", &image, "--file"]);
    build
        .arg(repository().join("examples/package/Containerfile"))
        .arg(folder);
    run(&mut build)?;
    cluster.push(&image, &format!("models/{name}:1"))
}

/// What tools such as ORAS push: an OCI manifest with a layer that is a file, not a file system.
fn push_artifact(cluster: &Cluster, name: &str, content: &[u8]) -> Result<String> {
    let registry = format!("http://{}/v2/models/{name}", cluster.registry_address());
    let blob = |content: &[u8]| -> Result<Value> {
        let digest = digest(content);
        let headers = curl(
            &[
                "-X",
                "POST",
                "-D",
                "-",
                "-o",
                "/dev/null",
                &format!("{registry}/blobs/uploads/"),
            ],
            b"",
        )?;
        let location = headers.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .starts_with("location:")
                .then(|| line[9..].trim())
        });
        let url = format!(
            "{}&digest={digest}",
            location.context("the registry named no place to upload to")?
        );
        curl(
            &[
                "-X",
                "PUT",
                "-H",
                "Content-Type: application/octet-stream",
                "--data-binary",
                "@-",
                &url,
            ],
            content,
        )?;
        Ok(json!({"digest": digest, "size": content.len()}))
    };
    let describe = |media_type: &str, content: &[u8]| -> Result<Value> {
        let mut described = blob(content)?;
        described["mediaType"] = json!(media_type);
        Ok(described)
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.model",
        "config": describe("application/vnd.oci.empty.v1+json", b"{}")?,
        "layers": [describe("application/vnd.example.model.onnx", content)?],
    })
    .to_string();
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    curl(
        &[
            "-X",
            "PUT",
            "-H",
            kind,
            "--data-binary",
            "@-",
            &format!("{registry}/manifests/1"),
        ],
        manifest.as_bytes(),
    )?;
    Ok(format!(
        "{}/models/{name}@{}",
        cluster.registry_host(),
        digest(manifest.as_bytes())
    ))
}

fn digest(content: &[u8]) -> String {
    use sha2::Digest;
    let sum = sha2::Sha256::digest(content);
    format!(
        "sha256:{}",
        sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    )
}

fn curl(arguments: &[&str], input: &[u8]) -> Result<String> {
    pipe(
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
            .args(arguments),
        input,
    )
}

fn pipe(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child
        .stdin
        .take()
        .context("no standard input")?
        .write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Installs the chart as its users do, with the images that were just built.
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
