//! A control plane for all tests, a namespace and an operator for each, and helpers to write tests with.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Namespace, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use local_cluster::{ControlPlane, ControlPlaneOptions, FakeNodes, Signal};
use modelservice_operator::crd::{AcceleratorClass, ModelService, definitions};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    fmt::Debug,
    fs::File,
    future::Future,
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

pub type Test = Box<dyn FnOnce(Arc<World>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Names tests after their functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub fn tests() -> Vec<(&'static str, $crate::fixture::Test)> {
            vec![$((
                concat!(module_path!(), "::", stringify!($name)).split_once("::").unwrap().1,
                Box::new(|world| Box::pin($name(world))),
            )),*]
        }
    };
}

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Image of the inference server: nothing runs it here.
pub const RUNTIME: &str = "runtime.example/server:1";

pub struct World {
    pub plane: ControlPlane,
    runtime: tokio::runtime::Runtime,
    client: Client,
    count: AtomicU32,
}

impl World {
    pub fn start() -> anyhow::Result<Self> {
        let options = ControlPlaneOptions {
            fake_nodes: Some(FakeNodes::new(4)),
            ..control_plane("new")
        };
        Self::with(options.flag(
            "kube-controller-manager",
            "--horizontal-pod-autoscaler-sync-period=2s",
        ))
    }

    pub fn with(options: ControlPlaneOptions) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let plane = ControlPlane::start(options)?;
        for definition in definitions() {
            plane.apply(&serde_json::to_string(&definition)?)?;
        }
        plane.wait_established()?;
        let client = runtime.block_on(client(&plane))?;
        let world = Self {
            plane,
            runtime,
            client,
            count: AtomicU32::new(0),
        };
        world.plane.apply(
            &json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "AcceleratorClass",
                "metadata": {"name": "cpu"}, "spec": {}})
            .to_string(),
        )?;
        Ok(world)
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A new namespace.
    pub async fn namespace(&self) -> Place {
        let name = format!("team-{}", self.count.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta {
                name: Some(name.clone()),
                ..Default::default()
            },
            ..Default::default()
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &namespace).await.unwrap();
        // The controllers create it a moment later, and pods are rejected until then.
        eventually("the service account", async || {
            let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
                Api::namespaced(self.client.clone(), &name);
            accounts.get_opt("default").await.unwrap().ok_or("none yet")
        })
        .await;
        Place {
            name,
            client: self.client.clone(),
            kubeconfig: self.plane.kubeconfig_path(),
        }
    }

    /// A namespace with an operator.
    pub async fn place(&self) -> (Place, Operator) {
        let place = self.namespace().await;
        let operator = place.operator(&[]);
        (place, operator)
    }

    pub fn classes(&self) -> Api<AcceleratorClass> {
        Api::all(self.client.clone())
    }

    /// Creates or changes an AcceleratorClass.
    pub async fn apply_class(&self, name: &str, spec: Value) -> kube::Result<AcceleratorClass> {
        let class = json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "AcceleratorClass",
            "metadata": {"name": name}, "spec": spec});
        let parameters = PatchParams::apply("test").force();
        self.classes()
            .patch(name, &parameters, &Patch::Apply(&class))
            .await
    }

    /// Waits until a class's `Ready` has this reason; returns its message.
    pub async fn class_says(&self, name: &str, reason: &str) -> String {
        eventually(&format!("AcceleratorClass {name} says {reason}"), async || {
            let class = self.classes().get(name).await.unwrap();
            let mut conditions = class.status.iter().flat_map(|status| &status.conditions);
            let ready = conditions.find(|condition| condition.type_ == "Ready");
            match ready.filter(|ready| {
                ready.reason == reason && ready.observed_generation == class.metadata.generation
            }) {
                Some(ready) => Ok(ready.message.clone()),
                None => Err(format!("{:?}", class.status)),
            }
        })
        .await
    }
}

/// A control plane of this test run.
pub fn control_plane(name: &str) -> ControlPlaneOptions {
    ControlPlaneOptions::named(format!("{name}-{}", std::process::id()))
}

async fn client(plane: &ControlPlane) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig_path())?;
    Ok(Client::try_from(
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?,
    )?)
}

/// A namespace.
pub struct Place {
    pub name: String,
    pub client: Client,
    kubeconfig: PathBuf,
}

impl Place {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// An operator that watches this namespace.
    pub fn operator(&self, arguments: &[&str]) -> Operator {
        Operator::start(
            &self.kubeconfig,
            &[&["--namespace", &self.name][..], arguments].concat(),
        )
    }

    /// The same, in the network of the fake nodes' pods.
    pub fn operator_among_pods(&self, plane: &ControlPlane) -> Operator {
        let network = format!("--net={}", plane.netns().display());
        let program = env!("CARGO_BIN_EXE_modelservice-operator");
        let mut command = Command::new("nsenter");
        command.args([&network, program]);
        Operator::spawn(command, &self.kubeconfig, &["--namespace", &self.name])
    }

    /// Applies a service as a user does.
    pub async fn apply(&self, service: &Spec) -> ModelService {
        self.try_apply(service)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn try_apply(&self, service: &Spec) -> kube::Result<ModelService> {
        let parameters = PatchParams {
            field_validation: Some(kube::api::ValidationDirective::Strict),
            ..PatchParams::apply("kubectl").force()
        };
        self.api()
            .patch(&service.name, &parameters, &Patch::Apply(service.manifest()))
            .await
    }

    pub async fn service(&self, name: &str) -> ModelService {
        self.api().get(name).await.unwrap()
    }

    /// Waits until `Ready` has this status and reason for the present generation.
    pub async fn wait_ready(&self, name: &str, status: &str, reason: &str) -> ModelService {
        eventually(&format!("{name} is Ready={status} {reason}"), async || {
            let service = self.service(name).await;
            let ready = condition(&service, "Ready");
            let fits = ready.as_ref().is_some_and(|(s, r, _)| s == status && r == reason)
                && service.status.as_ref().unwrap().observed_generation == service.metadata.generation;
            if fits {
                Ok(service)
            } else {
                Err(serde_json::to_string_pretty(&service.status).unwrap())
            }
        })
        .await
    }

    /// Waits until the service serves, at its full size.
    pub async fn serving(&self, name: &str) -> ModelService {
        eventually(&format!("{name} serves"), async || {
            let service = self.wait_ready(name, "True", "Serving").await;
            match condition(&service, "Reconciling") {
                None => Ok(service),
                Some((_, _, message)) => Err(message),
            }
        })
        .await
    }

    /// Waits until the service serves; returns the serving revision.
    pub async fn serving_revision(&self, name: &str) -> String {
        self.serving(name).await.status.unwrap().current_revision.unwrap()
    }

    /// Deployments of a service, newest revision first.
    pub async fn deployments(&self, service: &str) -> Vec<Deployment> {
        let mut all = self.children::<Deployment>(service).await;
        let number = |d: &Deployment| {
            d.annotations()["serving.modelservice.dev/revision-number"]
                .parse::<i64>()
                .unwrap()
        };
        all.sort_by_key(|deployment| std::cmp::Reverse(number(deployment)));
        all
    }

    /// The only Deployment of a service.
    pub async fn deployment(&self, service: &str) -> Deployment {
        let [deployment] = self.deployments(service).await.try_into().unwrap();
        deployment
    }

    /// Waits until the only Deployment of a service is to have this many servers.
    pub async fn sized(&self, service: &str, servers: i32) {
        eventually(&format!("{servers} servers"), async || {
            let size = self.deployment(service).await.spec.replicas;
            if size == Some(servers) {
                Ok(())
            } else {
                Err(format!("{size:?}"))
            }
        })
        .await;
    }

    pub async fn children<K>(&self, service: &str) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let selector = ListParams::default().labels(&format!("serving.modelservice.dev/service={service}"));
        self.api::<K>().list(&selector).await.unwrap().items
    }

    pub async fn pods(&self, service: &str) -> Vec<Pod> {
        self.children(service).await
    }

    /// Kind/name and resource version of every child of every service here.
    pub async fn versions(&self) -> Vec<String> {
        let mut all = Vec::new();
        fn add<K: Resource<DynamicType = ()>>(all: &mut Vec<String>, items: Vec<K>) {
            let version = |item: &K| item.resource_version().unwrap_or_default();
            all.extend(
                items
                    .iter()
                    .map(|item| format!("{}/{} {}", K::kind(&()), item.name_any(), version(item))),
            );
        }
        let list = ListParams::default();
        add(
            &mut all,
            self.api::<ModelService>().list(&list).await.unwrap().items,
        );
        add(
            &mut all,
            self.api::<Deployment>().list(&list).await.unwrap().items,
        );
        add(&mut all, self.api::<Service>().list(&list).await.unwrap().items);
        add(
            &mut all,
            self.api::<HorizontalPodAutoscaler>()
                .list(&list)
                .await
                .unwrap()
                .items,
        );
        add(
            &mut all,
            self.api::<PodDisruptionBudget>().list(&list).await.unwrap().items,
        );
        all.sort();
        all
    }

    pub async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Serialize,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap()
    }

    /// Sets a Deployment's size as the autoscaler would: there are no metrics here, so the autoscaler itself does
    /// not.
    pub async fn scale_as_the_autoscaler(&self, deployment: &str, replicas: i32) {
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let manager = Some("kube-controller-manager".to_owned());
        let parameters = PatchParams {
            field_manager: manager,
            ..PatchParams::default()
        };
        self.api::<Deployment>()
            .patch_scale(deployment, &parameters, &scale)
            .await
            .unwrap();
    }

    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::background())
            .await
            .unwrap();
    }
}

/// Status, reason and message of a condition.
pub fn condition(service: &ModelService, type_: &str) -> Option<(String, String, String)> {
    let found = service
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// A ModelService as a user writes it.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    pub spec: Value,
}

/// A service with its own model.
pub fn service(name: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        spec: json!({"model": {"image": model('a')}}),
    }
}

/// A model image; each letter stands for a different one.
pub fn model(letter: char) -> String {
    format!("models.example/net@sha256:{}", letter.to_string().repeat(64))
}

impl Spec {
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.spec;
        for key in pointer.split('.') {
            at = &mut at[key];
        }
        *at = value;
        self
    }

    pub fn replicas(self, count: i32) -> Self {
        self.with("replicas", count.into())
    }

    /// By CPU.
    pub fn autoscaled(self, min: i32, max: i32) -> Self {
        let target = json!({"cpuUtilization": 70});
        self.with(
            "autoscaling",
            json!({"minReplicas": min, "maxReplicas": max, "target": target}),
        )
    }

    /// By the load that the servers report.
    pub fn by_load(self, min: i32, max: i32) -> Self {
        let target = json!({"utilization": 70});
        self.with(
            "autoscaling",
            json!({"minReplicas": min, "maxReplicas": max, "target": target}),
        )
    }

    pub fn model(self, letter: char) -> Self {
        self.with("model.image", model(letter).into())
    }

    /// The same, but its pods never find a node.
    pub fn unschedulable(self) -> Self {
        self.with("pod.nodeSelector", json!({"no-such": "node"}))
    }

    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "serving.modelservice.dev/v1alpha1",
            "kind": "ModelService",
            "metadata": {"name": self.name},
            "spec": self.spec,
        })
    }
}

/// An operator process; ends when dropped.
pub struct Operator {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Operator {
    pub fn start(kubeconfig: &std::path::Path, arguments: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_modelservice-operator"));
        Self::spawn(command, kubeconfig, arguments)
    }

    fn spawn(mut command: Command, kubeconfig: &std::path::Path, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let child = command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--log-level",
                "info,modelservice_operator=debug",
            ])
            .env("RUNTIME_IMAGE", RUNTIME)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env_remove("HOSTNAME")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            log,
            _folder: folder,
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Stops it as a kubelet does; returns its exit status.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    pub async fn ended(&mut self) -> std::process::ExitStatus {
        eventually("the operator ends", async || {
            self.child.try_wait().unwrap().ok_or("it runs")
        })
        .await
    }

    async fn address(&self) -> String {
        eventually("the operator listens", async || {
            let log = self.log();
            let line = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let address = line
                .filter_map(|line| line["fields"]["address"].as_str().map(str::to_owned))
                .next();
            address.ok_or(log)
        })
        .await
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = self.address().await;
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", &address);
        let request = request
            .body(http_body_util::Empty::<hyper::body::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The sum of a metric over labels that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("modelservice_operator_{name}")));
        let fits = |line: &&str| labels.is_empty() || labels.iter().any(|label| line.contains(label));
        lines
            .filter(fits)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The number of requests that may change something.
    pub async fn writes(&self) -> f64 {
        let writes = [
            "method=\"PATCH\"",
            "method=\"POST\"",
            "method=\"PUT\"",
            "method=\"DELETE\"",
        ];
        self.metric("api_requests_total", &writes).await
    }

    /// Reconciles a service once more, for a label that nobody reads: what has been told is told once.
    pub async fn writes_nothing_more(&self, place: &Place, name: &str) {
        self.quiet().await;
        let writes = self.writes().await;
        let labels = json!({"metadata": {"labels": {"touched": "yes"}}});
        place.merge::<ModelService>(name, labels).await;
        self.quiet().await;
        assert_eq!(self.writes().await, writes, "what was told is told once");
    }

    /// Waits until nothing has been reconciled for a second: no work is left.
    pub async fn quiet(&self) {
        let mut last = (-1.0, Instant::now());
        eventually("the operator has nothing to do", async || {
            let count = self.metric("reconciles_total", &[]).await;
            if count != last.0 {
                last = (count, Instant::now());
            }
            if last.1.elapsed() > Duration::from_secs(1) {
                Ok(())
            } else {
                Err(format!("{count} reconciles"))
            }
        })
        .await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!(
                "the operator's log ends:\n{}",
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // It may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition with a deadline, and shows what was found instead.
pub async fn eventually<T, E: std::fmt::Display>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(DEADLINE, what, look).await
}

/// The same, with a deadline of its own.
pub async fn eventually_within<T, E: std::fmt::Display>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) if started.elapsed() > deadline => panic!("not in time: {what}; instead: {instead}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
