//! More requests than the server can serve, clients that disconnect, and engines that fail: in process, with an
//! engine that runs when the test says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::request::Builder;
use axum::response::Response;
use http_body_util::BodyExt;
use modelservice_contract::{Limits, LoadReport, LoadTotals};
use modelservice_server::engine::{Engine, EngineError, Signature};
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::Phase;
use modelservice_server::protocol::{self, Management};
use modelservice_server::tensor::{DataType, Tensor};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use support::engine::signature;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// Reports when it starts a run, and returns when told to, with an error if that was requested.
struct Gated {
    signature: Signature,
    started: Sender<()>,
    go: Receiver<Result<(), EngineError>>,
}

impl Engine for Gated {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.started.send(()).unwrap();
        self.go.recv().unwrap()?;
        Ok(inputs.to_vec())
    }
}

struct Bench {
    router: Router,
    management: Router,
    service: Arc<Service>,
    started: Receiver<()>,
    go: Sender<Result<(), EngineError>>,
}

/// One runner, and room for two waiting requests.
fn bench() -> Bench {
    let (started_sender, started) = channel();
    let (go, go_receiver) = channel();
    let engine = Gated {
        signature: signature(&[("x", DataType::Fp32, &[-1, 1])]),
        started: started_sender,
        go: go_receiver,
    };
    let mut service = Service::empty(
        "1.31",
        "CPUExecutionProvider",
        Limits {
            queue_length: 2,
            ..Limits::default()
        },
        1,
    )
    .unwrap();
    // The warm-up.
    go.send(Ok(())).unwrap();
    service
        .add("echo", "sha256:00".into(), vec![Box::new(engine)], None)
        .unwrap();
    started.recv().unwrap();
    let (service, management) = (Arc::new(service), Management::default());
    management.lifecycle.enter(Phase::Ready);
    let router = protocol::router(Arc::clone(&service), management.lifecycle.clone());
    management.service.set(Arc::clone(&service)).ok().unwrap();
    Bench {
        router,
        service,
        management: protocol::management_router(management),
        started,
        go,
    }
}

impl Bench {
    fn infer(&self) -> JoinHandle<Response> {
        self.send(Request::post("/v2/models/echo/infer"))
    }

    /// The same, from a client that waits this long.
    fn infer_within(&self, timeout: Duration) -> JoinHandle<Response> {
        let milliseconds = timeout.as_millis().to_string();
        self.send(Request::post("/v2/models/echo/infer").header("x-request-timeout", milliseconds))
    }

    fn send(&self, request: Builder) -> JoinHandle<Response> {
        let input = json!({"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [7]});
        let body = json!({"inputs": [input]}).to_string();
        let request = request.body(Body::from(body)).unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { router.oneshot(request).await.unwrap() })
    }

    async fn metrics(&self) -> String {
        text(self.get("/metrics").await).await
    }

    async fn get(&self, path: &str) -> Response {
        self.management
            .clone()
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    /// Waits until the metrics contain this line.
    async fn until(&self, line: &str) {
        let mut text = String::new();
        for _ in 0..5000 {
            text = self.metrics().await;
            if text.contains(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{line} does not come in\n{text}");
    }

    async fn queued(&self, count: u64) {
        self.until(&format!(
            "modelservice_queued_requests{{model=\"echo\"}} {count}\n"
        ))
        .await;
    }

    async fn load(&self, path: &str) -> LoadReport {
        serde_json::from_str(&text(self.get(path).await).await).unwrap()
    }

    /// The totals, once so many requests have been served: a run is counted a moment after its client has the answer.
    async fn totals(&self, served: u64) -> LoadTotals {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let totals = self.load("/load").await.models[0].totals.unwrap();
            if totals.served == served {
                return totals;
            }
            assert!(Instant::now() < deadline, "{totals:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_wait_is_told_when_to_come_back() {
    let bench = bench();
    let mut waiting = vec![bench.infer()];
    bench.started.recv().unwrap();
    for queued in 1..=2 {
        waiting.push(bench.infer());
        bench.queued(queued).await;
    }
    let refused = bench.infer().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(text(refused).await.contains("the queue is full"));
    // Health and metrics do not wait for the engine.
    assert_eq!(bench.get("/healthz").await.status(), 200);
    assert_eq!(bench.get("/readyz").await.status(), 200);
    bench
        .until("modelservice_in_flight_requests{model=\"echo\"} 3\n")
        .await;

    for _ in 0..3 {
        bench.go.send(Ok(())).unwrap();
    }
    for answer in waiting {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    bench
        .until("modelservice_requests_total{model=\"echo\",outcome=\"ok\"} 3\n")
        .await;
    bench
        .until("modelservice_requests_total{model=\"echo\",outcome=\"rejected\"} 1\n")
        .await;
    bench
        .until("modelservice_queue_wait_seconds_count{model=\"echo\"} 3\n")
        .await;
}

/// Clients that have given up must not cost the runner any time.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_left_is_not_run() {
    let bench = bench();
    let first = bench.infer();
    bench.started.recv().unwrap();
    let gone = bench.infer();
    bench.queued(1).await;
    gone.abort();
    bench
        .until("modelservice_requests_total{model=\"echo\",outcome=\"cancelled\"} 1\n")
        .await;
    bench.go.send(Ok(())).unwrap();
    assert_eq!(first.await.unwrap().status(), 200);
    let last = bench.infer();
    bench.go.send(Ok(())).unwrap();
    assert_eq!(last.await.unwrap().status(), 200);
    bench
        .until("modelservice_inference_seconds_count{model=\"echo\"} 2\n")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_is_the_servers_fault_and_one_that_refuses_the_clients() {
    let bench = bench();
    for (error, status, outcome) in [
        (EngineError::Failed("out of memory".into()), 500, "failed"),
        (EngineError::Refused("cannot add 2 and 3".into()), 400, "invalid"),
    ] {
        let answer = bench.infer();
        bench.go.send(Err(error.clone())).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status);
        let body: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!(body["error"], error.to_string());
        bench
            .until(&format!(
                "modelservice_requests_total{{model=\"echo\",outcome=\"{outcome}\"}} 1\n"
            ))
            .await;
    }
    // It continues.
    let answer = bench.infer();
    bench.go.send(Ok(())).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// An autoscaler computes from the totals how many servers are needed.
#[tokio::test(flavor = "multi_thread")]
async fn the_totals_are_what_clients_saw_and_say_how_much_more_was_asked_for_than_can_be_served() {
    let bench = bench();
    // The server learns how long a run takes.
    let first = bench.infer();
    bench.started.recv().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    bench.go.send(Ok(())).unwrap();
    assert_eq!(first.await.unwrap().status(), 200);
    let before = bench.totals(1).await;
    bench.service.record_load();
    let run = Duration::from_secs_f64(before.offered_seconds);
    assert!(run >= Duration::from_millis(50), "{before:?}");

    let running = bench.infer();
    bench.started.recv().unwrap();
    let waiting = bench.infer();
    bench.queued(1).await;
    // Its own run and those before it take longer, but its own alone does not.
    assert_eq!(bench.infer_within(2 * run).await.unwrap().status(), 503);
    // No server could do that.
    assert_eq!(bench.infer_within(run / 2).await.unwrap().status(), 503);
    let in_vain = bench.infer_within(20 * run);
    bench.queued(2).await;
    for _ in 0..100 {
        assert_eq!(bench.infer().await.unwrap().status(), 429);
    }
    assert_eq!(in_vain.await.unwrap().status(), 504);
    let invalid = Request::post("/v2/models/echo/infer").body(Body::from("{"));
    let invalid = bench.router.clone().oneshot(invalid.unwrap()).await.unwrap();
    assert_eq!(invalid.status(), 400);
    bench.go.send(Ok(())).unwrap();
    assert_eq!(running.await.unwrap().status(), 200);
    bench
        .go
        .send(Err(EngineError::Refused("cannot add 2 and 3".into())))
        .unwrap();
    assert_eq!(waiting.await.unwrap().status(), 400);

    let after = bench.totals(3).await;
    bench.service.record_load();
    let expected = (before.refused + 101, before.expired + 1);
    assert_eq!((after.refused, after.expired), expected);
    let seconds = after.at_seconds - before.at_seconds;
    let offered = after.offered_seconds - before.offered_seconds;
    assert!(offered / seconds > 1.0, "{before:?} {after:?}");
    // Three, nearly all the time.
    let in_flight = (after.in_flight_seconds - before.in_flight_seconds) / seconds;
    assert!((1.5..4.0).contains(&in_flight), "{before:?} {after:?}");
    // Nobody asks for anything any more.
    let idle = LoadTotals {
        at_seconds: after.at_seconds,
        ..bench.totals(3).await
    };
    assert_eq!(idle, after);
    // Who has read nothing yet learns the same from the history.
    let history = bench.load("/load?history=60").await.models.remove(0).history;
    let recorded = |index: usize, read: LoadTotals| LoadTotals {
        at_seconds: history[index].at_seconds,
        ..read
    };
    assert_eq!(history[1..], [recorded(1, before), recorded(2, after)]);
}

#[tokio::test]
async fn the_management_port_reports() {
    let bench = bench();
    let report: Value = serde_json::from_str(&text(bench.get("/report").await).await).unwrap();
    let tensor = json!([{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]);
    let model = json!({
        "name": "echo", "digest": "sha256:00", "digestChecked": false, "digestCovers": "ModelFile", "opset": 17,
        "graph": "Original", "batching": {"rows": 1, "reason": "scheduling.maxBatchSize is 1"}, "loadSeconds": 0.0,
        "inputs": tensor, "outputs": tensor,
    });
    let expected = json!({
        "serverVersion": env!("CARGO_PKG_VERSION"), "onnxRuntimeVersion": "1.31",
        "executionProvider": "CPUExecutionProvider", "models": [model],
    });
    assert_eq!(report, expected);
    assert_eq!(bench.get("/nothing").await.status(), 404);
    let load = bench.load("/load").await;
    assert!(load.ready);
    let model = &load.models[0];
    assert_eq!(
        (model.name.as_str(), model.queued, model.in_flight, model.runners),
        ("echo", 0, 0, 1)
    );
    let loading = protocol::management_router(Management::default());
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 503),
        ("/report", 503),
        ("/load", 503),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(
            loading.clone().oneshot(request).await.unwrap().status(),
            status,
            "{path}"
        );
    }
}
