//! Autoscaling by load: what it costs to read the servers of many services whose load is random but steady, and how
//! soon services that are hit at once grow. The servers are simulated; see loads.rs.

use crate::{
    PATIENCE,
    audit::{self, explain, operator_requests, quiet},
    create,
    loads::Loads,
    median, name, plane,
    processes::{Operator, Usage},
    table::Table,
    until_all,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use local_cluster::ControlPlane;
use modelservice_operator::crd::{AutoscalingStatus, ModelService, SERVICE_LABEL};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// How many services.
pub(crate) const SERVICES: usize = 300;
/// Servers of each, as long as none is hit.
const SERVERS: usize = 2;
/// The most that a service may have.
const MOST: usize = 8;
/// How busy each server is as long as its service is not hit, where the target is 70 %: 1.7 servers are asked for, and
/// two stay while it is more than one and at most 2.2.
const UTILIZATION: f64 = 0.6;
/// How many services are hit at once.
const HIT: usize = 50;
/// How often, other services each time.
const HITS: usize = 3;
/// Time from one hit to the next; each is at another part of the second between readings, because an operator that has
/// started quickly reads all servers at about the same time.
const BETWEEN_HITS: Duration = Duration::from_millis(30_667);
/// How much more a service that is hit is asked for.
const FACTOR: f64 = 10.0;
/// After this time, the operator knows as much of each server as it ever will: a minute.
const FULL: Duration = Duration::from_secs(75);
/// How long readings and writes are counted.
const STEADY: Duration = Duration::from_secs(60);

/// What the parts of the measurement share.
struct Scene {
    count: usize,
    program: PathBuf,
    // Dropped before the control plane, whose network they use.
    operator: Operator,
    loads: Loads,
    client: Client,
    log: PathBuf,
    plane: ControlPlane,
}

/// Measures `count` services.
pub(crate) async fn measure(program: &Path, count: usize, table: &mut Table) {
    let mut scene = Scene::start(program, count).await;
    println!("creating {count} services with {SERVERS} servers each ...");
    scene.create().await;
    println!(
        "starting the operator anew, and waiting for {} s ...",
        FULL.as_secs()
    );
    let fixed = scene.memory_of_new_operator().await;
    println!("their load decides how many servers they have ...");
    scene.hand_over().await;
    println!(
        "starting the operator anew, and waiting for {} s ...",
        FULL.as_secs()
    );
    let by_load = scene.memory_of_new_operator().await;
    scene.steady(table).await;
    table.row(
        "memory per service beyond a fixed size's",
        (by_load - fixed) * 1024.0 / count as f64,
        "KiB",
        Some(30.0),
    );
    scene.hits(table).await;
}

impl Scene {
    async fn start(program: &Path, count: usize) -> Self {
        let plane = plane::start(count * SERVERS + HITS * HIT * MOST);
        Self {
            count,
            program: program.to_owned(),
            operator: Operator::start(&plane, program),
            loads: Loads::start(&plane, UTILIZATION * SERVERS as f64),
            client: plane::client(&plane, "bench").await,
            log: plane.folder().join("audit.log"),
            plane,
        }
    }

    async fn create(&self) {
        let running = self.when_all(is_running);
        stream::iter(0..self.count)
            .for_each_concurrent(16, |index| {
                create(&self.client, index, json!({"replicas": SERVERS}))
            })
            .await;
        running.await.unwrap();
    }

    /// Watches from now on whether this holds for all services; ends when it does.
    fn when_all(&self, holds: fn(&ModelService) -> bool) -> JoinHandle<()> {
        let all = tokio::time::timeout(PATIENCE, until_all(self.client.clone(), self.count, holds));
        tokio::spawn(async { all.await.expect("all services in time") })
    }

    /// From a fixed size to one that the load decides; no pod changes.
    async fn hand_over(&self) {
        let decided = self.when_all(is_decided_by_load);
        let services: Api<ModelService> = Api::default_namespaced(self.client.clone());
        let patch = json!({"spec": {"replicas": null, "autoscaling": {
            "minReplicas": SERVERS, "maxReplicas": MOST, "target": {"utilization": 70},
        }}});
        for index in 0..self.count {
            services
                .patch(&name(index), &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap();
        }
        decided.await.unwrap();
    }

    /// The anonymous memory, in MiB, of an operator that finds everything as it should be.
    async fn memory_of_new_operator(&mut self) -> f64 {
        quiet(&self.log).await;
        self.operator.stop();
        let before_these = operator_requests(&self.log).len();
        self.operator = Operator::start(&self.plane, &self.program);
        let (all, ()) = tokio::join!(quiet(&self.log), tokio::time::sleep(FULL));
        explain(&all[before_these..], self.count);
        self.operator.explain_memory();
        self.operator.anonymous_memory()
    }

    /// Nothing but reading happens: no load asks for another size.
    async fn steady(&self, table: &mut Table) {
        println!(
            "the load of {} servers is read for {} s ...",
            self.servers(),
            STEADY.as_secs()
        );
        let (usage, cpu) = (Usage::now(&self.plane), self.operator.cpu());
        let (before, writes) = (self.loads.readings(), self.writes());
        let began = Instant::now();
        tokio::time::sleep(STEADY).await;
        let (after, wall) = (self.loads.readings(), began.elapsed().as_secs_f64());
        let cpu = self.operator.cpu() - cpu;
        let writes = self.writes() - writes;
        usage.explain(&self.plane, Some(&self.operator));
        let readings: Vec<usize> = after
            .iter()
            .map(|(server, readings)| readings - before.get(server).copied().unwrap_or(0))
            .collect();
        assert_eq!(readings.len(), self.servers());
        let fewest = readings.iter().min().copied().unwrap_or(0);
        assert!(fewest > 0, "a server's load was not read");
        println!(
            "    {:8}  readings, at least {fewest} of each server, in {wall:.1} s",
            readings.iter().sum::<usize>()
        );
        self.check_decided().await;
        let servers = self.servers();
        table.row(
            format!("{servers} servers: each is read every"),
            wall / fewest as f64,
            "s",
            // A few per cent because a reading that comes late delays the next.
            Some(2.1),
        );
        table.row(
            format!("{servers} servers are read: operator CPU"),
            cpu / wall * 100.0,
            "%",
            Some(10.0),
        );
        table.row(
            "writes while the load asks for no change for 60 s",
            writes as f64,
            "",
            Some(0.0),
        );
    }

    /// An operator that does not know the load would write nothing either.
    async fn check_decided(&self) {
        let services: Api<ModelService> = Api::default_namespaced(self.client.clone());
        for service in services.list(&ListParams::default()).await.unwrap() {
            let status = autoscaling(&service);
            assert!(is_decided_by_load(&service), "{}: {status:?}", service.name_any());
        }
    }

    /// Several times, many services that had their usual load are asked for far more at the same moment.
    async fn hits(&self, table: &mut Table) {
        let began = tokio::time::Instant::now();
        let services: Vec<String> = (0..self.count).map(name).collect();
        let mut delays = Vec::new();
        for (round, hit) in (0..).zip(services.chunks(HIT).take(HITS)) {
            tokio::time::sleep_until(began + BETWEEN_HITS * round).await;
            delays.extend(self.hit(hit).await);
        }
        let slowest = delays.iter().copied().fold(0.0, f64::max);
        let workload = |what| format!("{} services are hit at once: {what}", HIT.min(self.count));
        table.row(workload("p50"), median(delays), "s", None);
        table.row(workload("all scaled"), slowest, "s", Some(3.0));
    }

    /// Seconds until each of these services has grown.
    async fn hit(&self, services: &[String]) -> Vec<f64> {
        println!("{} services are hit ...", services.len());
        let at = Timestamp::now();
        self.loads.multiply(services, FACTOR);
        let mut delays = Vec::new();
        while delays.len() < services.len() {
            let waited = Timestamp::now().duration_since(at).unsigned_abs();
            assert!(waited < PATIENCE, "only {} of them have grown", delays.len());
            // Reading the log takes time that the operator needs now.
            tokio::time::sleep(Duration::from_secs(10)).await;
            delays = audit::resized_after(&self.log, services, at);
        }
        delays.sort_by(f64::total_cmp);
        println!("    {:8.2}  s until the first has grown", delays[0]);
        println!("    {:8.2}  s until the last has", delays[delays.len() - 1]);
        self.explain_sizes(services).await;
        delays
    }

    /// Prints how many servers the services have that were hit.
    async fn explain_sizes(&self, services: &[String]) {
        let deployments: Api<Deployment> = Api::default_namespaced(self.client.clone());
        let mut sizes: BTreeMap<i32, usize> = BTreeMap::new();
        for deployment in deployments.list(&ListParams::default()).await.unwrap() {
            if services.contains(&deployment.labels()[SERVICE_LABEL]) {
                let size = deployment.spec.replicas.unwrap();
                assert!(size > SERVERS as i32);
                *sizes.entry(size).or_default() += 1;
            }
        }
        for (size, services) in sizes {
            println!("    {services:8}  of them have {size} servers now");
        }
    }

    fn servers(&self) -> usize {
        self.count * SERVERS
    }

    fn writes(&self) -> usize {
        let requests = operator_requests(&self.log);
        requests.iter().filter(|request| request.is_write()).count()
    }
}

fn is_running(service: &ModelService) -> bool {
    // The model is known once a server has been asked.
    service.is_ready()
        && service
            .status
            .as_ref()
            .is_some_and(|status| status.model.is_some())
}

fn is_decided_by_load(service: &ModelService) -> bool {
    service.is_ready()
        && autoscaling(service)
            .is_some_and(|status| status.decided_by == "Load" && status.wanted == SERVERS as i32)
}

fn autoscaling(service: &ModelService) -> Option<&AutoscalingStatus> {
    service.status.as_ref()?.autoscaling.as_ref()
}
