//! The cost of services for the API server and the operator: counted in the API server's audit log by user agent,
//! with pods that kwok makes ready at once. Run by `make bench-operator`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod audit;
mod bare;
mod loads;
mod plane;
mod processes;
mod scaling;
mod server;
mod table;

use audit::{children_exist_after, deployment_delays, explain, operator_requests, quiet, seen};
use clap::Parser;
use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use loads::Loads;
use local_cluster::ControlPlane;
use modelservice_operator::crd::ModelService;
use processes::{Operator, Usage};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fmt::Debug,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use table::Table;

#[derive(Parser)]
struct Arguments {
    /// How many services; of autoscaling by load at most 300
    #[arg(long, default_value_t = 500)]
    services: usize,
    /// Measure another build of the operator
    #[arg(long, default_value = env!("CARGO_BIN_EXE_modelservice-operator"))]
    operator: PathBuf,
    /// Stop when all services are Ready
    #[arg(long)]
    only_creation: bool,
    /// Do not measure the bare client
    #[arg(long)]
    no_bare_client: bool,
    /// Measure only autoscaling by load
    #[arg(long)]
    only_scaling: bool,
    /// Do not measure autoscaling by load
    #[arg(long, conflicts_with = "only_scaling")]
    no_scaling: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Number of spec changes that are timed, one after the other.
const CHANGES: usize = 20;
const IDLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(bench(&arguments));
}

async fn bench(arguments: &Arguments) {
    let mut table = Table::default();
    if !arguments.only_scaling {
        objects(arguments, &mut table).await;
    }
    if !arguments.no_scaling && !arguments.only_creation {
        let count = arguments.services.min(scaling::SERVICES);
        scaling::measure(&arguments.operator, count, &mut table).await;
    }
    table.finish();
}

/// What the objects of many services cost.
async fn objects(arguments: &Arguments, table: &mut Table) {
    let count = arguments.services;
    let plane = plane::start(count);
    let client = plane::client(&plane, "bench").await;
    // No requests arrive: these services are scaled by CPU, and only what they serve is asked.
    let loads = Loads::start(&plane, 0.0);
    let mut operator = Operator::start(&plane, &arguments.operator);
    let after = creation(&plane, &client, &operator, count, table).await;
    let made = bare::read_back(&client).await;
    if !arguments.only_creation {
        stillness(&plane, table).await;
        restart(&plane, &mut operator, &arguments.operator, table).await;
        changes(&plane, &client, table).await;
    }
    drop((operator, loads, client, plane));
    if !arguments.no_bare_client {
        let bare = bare::measure(made).await;
        table.row("a bare client: children exist after", bare.0, "s", None);
        table.row("a bare client: all ready after", bare.1, "s", None);
        table.row("children exist, ÷ a bare client's", after.0 / bare.0, "", None);
        table.row("all Ready, ÷ a bare client's", after.1 / bare.1, "", None);
    }
}

/// Creates the services; returns the seconds until the last child exists, and until all are Ready.
async fn creation(
    plane: &ControlPlane,
    client: &Client,
    operator: &Operator,
    count: usize,
    table: &mut Table,
) -> (f64, f64) {
    let log = plane.folder().join("audit.log");
    wait_for("the operator leads", async || {
        seen(&log, |request| request.resource == "leases")
    })
    .await;
    // Requests at startup do not belong to the services.
    wait_for("the operator watches", async || {
        seen(&log, |request| request.verb == "create" && request.is_dry_run)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before_these = operator_requests(&log).len();
    println!("before there are services:");
    operator.explain_memory();
    println!("creating {count} services ...");
    let (before, from) = (Usage::now(plane), Timestamp::now());
    let began = Instant::now();
    let ready = tokio::spawn(until_all(client.clone(), count, ModelService::is_ready));
    let size = json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 4, "target": {"cpuUtilization": 70}}});
    stream::iter(0..count)
        .for_each_concurrent(16, |index| create(client, index, size.clone()))
        .await;
    println!("created after {:.1} s", began.elapsed().as_secs_f64());
    tokio::time::timeout(PATIENCE, ready)
        .await
        .expect("all Ready in time")
        .unwrap();
    let all_ready_after = began.elapsed().as_secs_f64();
    println!("all Ready after {all_ready_after:.1} s");
    let busy = before.explain(plane, Some(operator));
    let (cpu, memory) = (operator.cpu(), operator.peak_memory());
    operator.explain_memory();
    audit::explain_all(&log, from, Timestamp::now(), count);
    let requests: Vec<_> = quiet(&log).await.into_iter().skip(before_these).collect();
    let per = |n: usize| n as f64 / count as f64;
    let writes = requests.iter().filter(|r| r.is_write()).count();
    let others = requests.iter().filter(|r| r.is_other()).count();
    let children = children_exist_after(&log, audit::OPERATOR);
    let most = 25.0 + 20.0 / 1024.0 * count as f64;
    table.row("writes per service until Ready", per(writes), "", Some(6.0));
    table.row("other requests per service", per(others), "", Some(4.0));
    table.row("children exist after", children, "s", Some(10.0));
    table.row("all Ready after", all_ready_after, "s", Some(15.0));
    table.row("the machine's cores were busy until then", busy, "%", None);
    table.row(
        "operator CPU per service",
        cpu / count as f64 * 1000.0,
        "ms",
        Some(6.0),
    );
    table.row("peak resident memory", memory, "MiB", Some(most));
    explain(&requests, count);
    (children, all_ready_after)
}

async fn stillness(plane: &ControlPlane, table: &mut Table) {
    let log = plane.folder().join("audit.log");
    println!("nothing changes for {} s ...", IDLE.as_secs());
    let before = operator_requests(&log).iter().filter(|r| r.is_write()).count();
    tokio::time::sleep(IDLE).await;
    let after = operator_requests(&log).iter().filter(|r| r.is_write()).count();
    let writes = (after - before) as f64;
    table.row("writes while nothing changes for 60 s", writes, "", Some(0.0));
}

async fn restart(plane: &ControlPlane, operator: &mut Operator, program: &Path, table: &mut Table) {
    let log = plane.folder().join("audit.log");
    println!("restarting the operator ...");
    operator.stop();
    let before_these = operator_requests(&log).len();
    let restarted = Timestamp::now();
    *operator = Operator::start(plane, program);
    let again: Vec<_> = quiet(&log).await.into_iter().skip(before_these).collect();
    let writes = again.iter().filter(|r| r.is_write()).count() as f64;
    table.row("writes after a restart", writes, "", Some(0.0));
    let last = again.iter().filter(|r| r.resource != "leases").map(|r| r.ended);
    let quiet_after = last.max().unwrap().duration_since(restarted).as_secs_f64();
    table.row("quiet after a restart", quiet_after, "s", Some(3.0));
    table.row(
        "peak resident memory after a restart",
        operator.peak_memory(),
        "MiB",
        None,
    );
    operator.explain_memory();
}

async fn changes(plane: &ControlPlane, client: &Client, table: &mut Table) {
    let log = plane.folder().join("audit.log");
    println!("{CHANGES} spec changes, one after the other ...");
    let before_these = operator_requests(&log).len();
    for index in 0..CHANGES {
        change(client, index).await;
    }
    let changed: Vec<_> = quiet(&log).await.into_iter().skip(before_these).collect();
    let delay = median(deployment_delays(&log));
    table.row(
        "a changed spec's Deployment is there after, p50",
        delay,
        "ms",
        Some(30.0),
    );
    let writes = changed.iter().filter(|r| r.is_write()).count() as f64;
    table.row(
        "writes per changed spec until settled",
        writes / CHANGES as f64,
        "",
        Some(8.0),
    );
    explain(&changed, CHANGES);
}

fn image(digit: char) -> String {
    format!("models.example/net@sha256:{}", digit.to_string().repeat(64))
}

fn name(index: usize) -> String {
    format!("net-{index}")
}

/// Creates a service; `spec` says how many servers it has.
async fn create(client: &Client, index: usize, mut spec: Value) {
    spec["model"] = json!({"image": image('a')});
    let service = json!({
        "apiVersion": "serving.modelservice.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": name(index), "namespace": "default"},
        "spec": spec,
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
        .patch(&name(index), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    wait_for("the new revision serves", async || {
        let status = services.get(&name(index)).await.unwrap();
        status.is_ready()
            && status.status.as_ref().unwrap().current_revision
                == status.status.as_ref().unwrap().target_revision
    })
    .await;
}

/// Waits until `is_done` holds for this many objects.
async fn until_all<K>(client: Client, count: usize, is_done: fn(&K) -> bool)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let objects: Api<K> = Api::all(client);
    let mut changes = watcher(objects, watcher::Config::default())
        .applied_objects()
        .boxed();
    let mut done = HashSet::new();
    while done.len() < count {
        let object = changes.next().await.unwrap().unwrap();
        if is_done(&object) {
            done.insert(object.meta().name.clone());
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
