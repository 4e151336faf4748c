//! What services cost the API server and the operator: counted from the API server's audit log by user agent,
//! with pods that kwok makes ready at once. Run by `make bench-operator`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use clap::Parser;
use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use local_cluster::{ControlPlane, ControlPlaneOptions, FakeNodes};
use modelservice_operator::crd::{ModelService, definitions};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[derive(Parser)]
struct Arguments {
    /// How many services
    #[arg(long, default_value_t = 500)]
    services: usize,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Spec changes that are timed, one after the other.
const CHANGES: usize = 20;
const AGENT: &str = "modelservice-operator/";
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(bench(arguments.services));
}

async fn bench(count: usize) {
    let plane = start_plane(count);
    let log = plane.folder().join("audit.log");
    let client = client(&plane).await;
    let mut table = Table::default();
    let mut operator = Operator::start(&plane);
    wait_for("the operator leads", async || {
        seen_by(&log, |request| request.resource == "leases").await
    })
    .await;

    // The requests at start are not the services'.
    wait_for("the operator watches", async || {
        seen_by(&log, |request| request.verb == "create" && request.is_dry_run).await
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = operator_requests(&log).len();
    println!("creating {count} services ...");
    let began = Instant::now();
    let ready = tokio::spawn(all_ready(client.clone(), count));
    stream::iter(0..count)
        .for_each_concurrent(16, |index| create(&client, index))
        .await;
    println!("created after {:.1} s", began.elapsed().as_secs_f64());
    tokio::time::timeout(PATIENCE, ready)
        .await
        .expect("all Ready in time")
        .unwrap();
    let all_ready_after = began.elapsed().as_secs_f64();
    let (cpu, memory) = (operator.cpu(), operator.peak_memory());
    println!("all Ready after {all_ready_after:.1} s");
    let requests: Vec<_> = quiet(&log).await.into_iter().skip(seen).collect();
    let per = |n: usize| n as f64 / count as f64;
    let writes = requests.iter().filter(|r| r.is_write()).count();
    let others = requests.iter().filter(|r| r.is_other()).count();
    table.row("writes per service until Ready", per(writes), "", Some(6.0));
    table.row("other requests per service", per(others), "", Some(4.0));
    table.row(
        "children exist after",
        children_exist_after(&log),
        "s",
        Some(10.0),
    );
    table.row("all Ready after", all_ready_after, "s", Some(15.0));
    table.row(
        "operator CPU per service",
        cpu / count as f64 * 1000.0,
        "ms",
        Some(6.0),
    );
    table.row(
        "peak resident memory",
        memory,
        "MiB",
        Some(25.0 + 20.0 / 1024.0 * count as f64),
    );
    explain(&requests, count);

    println!("nothing changes for {} s ...", IDLE.as_secs());
    let before = operator_requests(&log).iter().filter(|r| r.is_write()).count();
    tokio::time::sleep(IDLE).await;
    let after = operator_requests(&log).iter().filter(|r| r.is_write()).count();
    table.row(
        "writes while nothing changes for 60 s",
        (after - before) as f64,
        "",
        Some(0.0),
    );

    println!("restarting the operator ...");
    operator.stop();
    let seen = operator_requests(&log).len();
    let restarted = Timestamp::now();
    operator = Operator::start(&plane);
    let again: Vec<_> = quiet(&log).await.into_iter().skip(seen).collect();
    table.row(
        "writes after a restart",
        again.iter().filter(|r| r.is_write()).count() as f64,
        "",
        Some(0.0),
    );
    let last = again
        .iter()
        .filter(|r| r.resource != "leases")
        .map(|r| r.ended)
        .max()
        .unwrap();
    table.row(
        "quiet after a restart",
        last.duration_since(restarted).as_secs_f64(),
        "s",
        Some(3.0),
    );
    table.row(
        "peak resident memory after a restart",
        operator.peak_memory(),
        "MiB",
        None,
    );

    println!("{CHANGES} spec changes, one after the other ...");
    let seen = operator_requests(&log).len();
    for index in 0..CHANGES {
        change(&client, index).await;
    }
    let changed: Vec<_> = quiet(&log).await.into_iter().skip(seen).collect();
    table.row(
        "a changed spec's Deployment is there after, p50",
        median(deployment_delays(&log)),
        "ms",
        Some(30.0),
    );
    let writes = changed.iter().filter(|r| r.is_write()).count();
    table.row(
        "writes per changed spec until settled",
        writes as f64 / CHANGES as f64,
        "",
        Some(8.0),
    );
    explain(&changed, CHANGES);
    table.finish();
}

fn start_plane(count: usize) -> ControlPlane {
    let folder = tempfile::tempdir().unwrap().keep();
    let policy = folder.join("audit-policy.yaml");
    fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules: [{level: Metadata}]\n",
    )
    .unwrap();
    let options = ControlPlaneOptions {
        // Each service asks for half a CPU, a node has 32.
        fake_nodes: Some(FakeNodes::new(count / 50 + 4)),
        ..ControlPlaneOptions::named("bench")
    };
    let log = folder.join("audit.log");
    let options = options
        .flag(
            "kube-apiserver",
            format!("--audit-policy-file={}", policy.display()),
        )
        .flag("kube-apiserver", format!("--audit-log-path={}", log.display()))
        .flag("kube-controller-manager", "--kube-api-qps=500")
        .flag("kube-controller-manager", "--kube-api-burst=1000")
        .flag("kube-scheduler", "--kube-api-qps=500")
        .flag("kube-scheduler", "--kube-api-burst=1000");
    println!("starting the control plane ...");
    let plane = ControlPlane::start(options).unwrap();
    std::os::unix::fs::symlink(&log, plane.folder().join("audit.log")).unwrap();
    for definition in definitions() {
        plane.apply(&serde_json::to_string(&definition).unwrap()).unwrap();
    }
    local_cluster::wait_until("the definitions are established", PATIENCE, || {
        Ok(plane
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all"])
            .is_ok())
    })
    .unwrap();
    plane
}

async fn client(plane: &ControlPlane) -> Client {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig_path()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn image(digit: char) -> String {
    format!("models.example/net@sha256:{}", digit.to_string().repeat(64))
}

async fn create(client: &Client, index: usize) {
    let service = json!({
        "apiVersion": "serving.modelservice.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": format!("net-{index}"), "namespace": "default"},
        "spec": {"model": {"image": image('a')}, "autoscaling": {"minReplicas": 1, "maxReplicas": 4}},
    });
    let services: Api<ModelService> = Api::default_namespaced(client.clone());
    services
        .create(&PostParams::default(), &serde_json::from_value(service).unwrap())
        .await
        .unwrap();
}

async fn change(client: &Client, index: usize) {
    let services: Api<ModelService> = Api::namespaced(client.clone(), "default");
    let patch = json!({"spec": {"model": {"image": image('b')}}});
    services
        .patch(
            &format!("net-{index}"),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .unwrap();
    wait_for("the new revision serves", async || {
        let status = services.get(&format!("net-{index}")).await.unwrap();
        status.is_ready()
            && status.status.as_ref().unwrap().current_revision
                == status.status.as_ref().unwrap().target_revision
    })
    .await;
}

async fn all_ready(client: Client, count: usize) {
    let services: Api<ModelService> = Api::all(client);
    let mut changes = watcher(services, watcher::Config::default())
        .applied_objects()
        .boxed();
    let mut ready = HashSet::new();
    while ready.len() < count {
        let service = changes.next().await.unwrap().unwrap();
        if service.is_ready() {
            ready.insert(service.metadata.name);
        }
    }
}

async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One answered request of the audit log.
struct Request {
    agent: String,
    verb: String,
    resource: String,
    name: String,
    is_dry_run: bool,
    code: i64,
    began: Timestamp,
    ended: Timestamp,
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let subresource = text("/objectRef/subresource");
        let resource = text("/objectRef/resource");
        Some(Self {
            agent: text("/userAgent"),
            verb: text("/verb"),
            resource: if subresource.is_empty() {
                resource
            } else {
                format!("{resource}/{subresource}")
            },
            name: text("/objectRef/name"),
            is_dry_run: text("/requestURI").contains("dryRun="),
            code: event
                .pointer("/responseStatus/code")
                .and_then(Value::as_i64)
                .unwrap_or(0),
            began: text("/requestReceivedTimestamp").parse().ok()?,
            ended: text("/stageTimestamp").parse().ok()?,
        })
    }

    /// Anything that may change an object, but for events and the lease.
    fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete")
            && !matches!(self.resource.as_str(), "leases" | "events")
            && !self.is_dry_run
    }

    fn is_other(&self) -> bool {
        !self.is_write() && self.verb != "watch" && self.resource != "leases"
    }
}

fn requests(log: &Path) -> Vec<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(Request::parse).collect()
}

fn operator_requests(log: &Path) -> Vec<Request> {
    requests(log)
        .into_iter()
        .filter(|request| request.agent.starts_with(AGENT))
        .collect()
}

async fn seen_by(log: &Path, wanted: impl Fn(&Request) -> bool) -> bool {
    operator_requests(log).iter().any(wanted)
}

/// The operator's requests, once it has made none for 20 s (longer than a revision drains) but for the lease's.
async fn quiet(log: &Path) -> Vec<Request> {
    let mut last = (0, Instant::now());
    loop {
        let all = operator_requests(log);
        let count = all
            .iter()
            .filter(|r| r.resource != "leases" && r.verb != "watch")
            .count();
        if count != last.0 {
            last = (count, Instant::now());
        }
        if last.1.elapsed() > Duration::from_secs(20) {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// From the first service's creation to the last child's.
fn children_exist_after(log: &Path) -> f64 {
    let all = requests(log);
    let first = all
        .iter()
        .filter(|r| r.verb == "create" && r.resource == "modelservices")
        .map(|r| r.began)
        .min()
        .unwrap();
    let mut made = HashMap::new();
    for request in all
        .iter()
        .filter(|r| r.agent.starts_with(AGENT) && r.is_write() && r.code == 201)
    {
        if !request.resource.starts_with("acceleratorclasses") {
            made.entry((request.resource.clone(), request.name.clone()))
                .or_insert(request.ended);
        }
    }
    made.values().max().unwrap().duration_since(first).as_secs_f64()
}

/// From a changed spec's arrival to its new Deployment, in milliseconds.
fn deployment_delays(log: &Path) -> Vec<f64> {
    let all = requests(log);
    let changes = all
        .iter()
        .filter(|r| r.verb == "patch" && r.resource == "modelservices" && !r.agent.starts_with(AGENT));
    changes
        .map(|change| {
            let made = all.iter().find(|r| {
                r.resource == "deployments"
                    && r.code == 201
                    && r.ended > change.began
                    && r.name.starts_with(&format!("{}-", change.name))
            });
            made.unwrap().ended.duration_since(change.ended).as_secs_f64() * 1000.0
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the requests were, per service.
fn explain(requests: &[Request], count: usize) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests
        .iter()
        .filter(|r| r.verb != "watch" && r.resource != "leases")
    {
        *kinds
            .entry(format!("{} {} {}", request.verb, request.resource, request.code))
            .or_default() += 1;
    }
    for (kind, n) in kinds {
        println!("    {:8.2}  {kind}", n as f64 / count as f64);
    }
}

struct Operator(Child);

impl Operator {
    fn start(plane: &ControlPlane) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_modelservice-operator"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--leader-elect",
                "--runtime-image",
                "runtime.example/server:1",
                "--log-level",
                "warn",
            ])
            .env("KUBECONFIG", plane.kubeconfig_path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Seconds in user and system mode.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// In MiB.
    fn peak_memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    fn stop(&mut self) {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Serialize)]
struct Row {
    workload: &'static str,
    value: f64,
    unit: &'static str,
    target: Option<f64>,
    met: Option<bool>,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, workload: &'static str, value: f64, unit: &'static str, target: Option<f64>) {
        self.0.push(Row {
            workload,
            value,
            unit,
            target,
            met: target.map(|target| value <= target),
        });
    }

    fn finish(&self) {
        println!("\n{:<50} {:>10}      {:>10}", "", "measured", "at most");
        for row in &self.0 {
            let target = row
                .target
                .map(|target| format!("{target:.1}"))
                .unwrap_or_default();
            let met = row.met.map_or("", |met| if met { "met" } else { "NOT MET" });
            println!(
                "{:<50} {:>10.2} {:<4} {target:>10}  {met}",
                row.workload, row.value, row.unit
            );
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/operator.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            &path,
            serde_json::to_vec_pretty(&json!({"rows": self.0})).unwrap(),
        )
        .unwrap();
        println!("\nwritten to target/bench/operator.json");
    }
}
