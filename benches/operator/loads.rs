//! Servers under load that exist only as numbers: one listener in the control plane's network answers for all fake
//! pods what a server reports about itself and about its load.

use crate::{
    plane,
    server::{SERVICE_SECONDS, Server},
};
use fastrand::Rng;
use futures::StreamExt as _;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    runtime::watcher::{self, Event, watcher},
};
use local_cluster::ControlPlane;
use modelservice_contract::{LOAD_PATH, MANAGEMENT_PORT, REPORT_PATH};
use modelservice_operator::crd::SERVICE_LABEL;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use std::{
    collections::HashMap, convert::Infallible, net::IpAddr, path::PathBuf, sync::Arc, thread::JoinHandle,
};
use tokio::{net::TcpListener, sync::oneshot};

/// The simulated servers; dropping it stops their listener.
pub(crate) struct Loads {
    state: Arc<Mutex<State>>,
    /// Dropped to stop.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    random: Rng,
    /// What each service is asked for, in servers that would be fully busy, unless `offered` says something else.
    usual: f64,
    offered: HashMap<String, f64>,
    /// The ready pods.
    servers: HashMap<IpAddr, Server>,
}

impl Loads {
    /// Answers for every fake pod of the control plane. Each service is asked for as much as `usual` fully busy servers
    /// can do; its ready pods share that equally.
    pub(crate) fn start(plane: &ControlPlane, usual: f64) -> Self {
        let listener = plane.listen_as_fake_pods(MANAGEMENT_PORT).unwrap();
        listener.set_nonblocking(true).unwrap();
        let kubeconfig = plane.kubeconfig_path();
        let state = Arc::new(Mutex::new(State {
            random: Rng::with_seed(1),
            usual,
            offered: HashMap::new(),
            servers: HashMap::new(),
        }));
        let (running, stopped) = oneshot::channel();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = follow_pods(kubeconfig, &shared) => {}
                    () = listen(listener, &shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            state,
            running: Some(running),
            thread: Some(thread),
        }
    }

    /// From now on, these services are asked for `factor` times as much as usual.
    pub(crate) fn multiply(&self, services: &[String], factor: f64) {
        let mut state = self.state.lock();
        let offered = state.usual * factor;
        for service in services {
            state.offered.insert(service.clone(), offered);
            state.spread(service);
        }
    }

    /// How often the load of each server has been read.
    pub(crate) fn readings(&self) -> HashMap<IpAddr, usize> {
        let state = self.state.lock();
        let readings = state.servers.iter();
        readings
            .map(|(address, server)| (*address, server.readings))
            .collect()
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(thread) = self.thread.take() {
            // It has printed why it panicked.
            let _ = thread.join();
        }
    }
}

async fn follow_pods(kubeconfig: PathBuf, state: &Mutex<State>) {
    let client = plane::client_of(&kubeconfig, "simulated-servers").await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut events = watcher(pods, watcher::Config::default().labels(SERVICE_LABEL)).boxed();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Apply(pod) | Event::InitApply(pod) => state.lock().changed(&pod),
            Event::Delete(pod) => state.lock().ended(&pod),
            Event::Init | Event::InitDone => {}
        }
    }
}

async fn listen(listener: std::net::TcpListener, state: &Arc<Mutex<State>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let pod = stream.local_addr().unwrap().ip();
        let state = state.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let answer = state.lock().answer(pod, &request);
            async { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            // It breaks when the operator is stopped.
            let _ = connection.await;
        });
    }
}

impl State {
    fn changed(&mut self, pod: &Pod) {
        let (Some(address), true) = (address(pod), is_ready(pod)) else {
            return self.ended(pod);
        };
        let service = pod.labels()[SERVICE_LABEL].clone();
        let uid = pod.uid().unwrap();
        if self.servers.get(&address).is_none_or(|server| server.uid != uid) {
            self.servers.insert(address, Server::new(uid, service.clone()));
            self.spread(&service);
        }
    }

    fn ended(&mut self, pod: &Pod) {
        let Some(address) = address(pod) else { return };
        let uid = pod.uid().unwrap();
        if self.servers.get(&address).is_some_and(|server| server.uid == uid) {
            self.servers.remove(&address);
            self.spread(&pod.labels()[SERVICE_LABEL]);
        }
    }

    /// Gives each ready pod of a service its share.
    fn spread(&mut self, service: &str) {
        let offered = self.offered.get(service).copied().unwrap_or(self.usual);
        let of_service = self
            .servers
            .values_mut()
            .filter(|server| server.service == service);
        let servers: Vec<&mut Server> = of_service.collect();
        let rate = offered / servers.len() as f64 / SERVICE_SECONDS;
        for server in servers {
            // What has arrived so far came at the old rate.
            server.advance(&mut self.random);
            server.rate = rate;
        }
    }

    fn answer(&mut self, pod: IpAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(server) = self.servers.get_mut(&pod) else {
            return response(StatusCode::SERVICE_UNAVAILABLE, &"not ready");
        };
        match request.uri().path() {
            LOAD_PATH => {
                server.advance(&mut self.random);
                server.readings += 1;
                let seconds = request
                    .uri()
                    .query()
                    .and_then(|query| query.strip_prefix("history="));
                let report = server.report(seconds.map_or(0, |seconds| seconds.parse().unwrap()));
                response(StatusCode::OK, &report)
            }
            // A service whose server does not say what it serves is written about after two minutes.
            REPORT_PATH => response(StatusCode::OK, &model_report()),
            path => response(StatusCode::NOT_FOUND, &path),
        }
    }
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn response(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let body = Full::from(serde_json::to_vec(body).unwrap());
    Response::builder().status(status).body(body).unwrap()
}

fn model_report() -> serde_json::Value {
    let tensor = |name, shape: &[i64]| json!([{"name": name, "datatype": "FP32", "shape": shape}]);
    json!({
        "serverVersion": "simulated",
        "onnxRuntimeVersion": "simulated",
        "executionProvider": "CPUExecutionProvider",
        "models": [{
            "name": "net",
            "digest": format!("sha256:{}", "d".repeat(64)),
            "opset": 17,
            "inputs": tensor("images", &[-1, 3, 224, 224]),
            "outputs": tensor("logits", &[-1, 1000]),
        }],
    })
}
