//! More requests than the server can serve, clients that disconnect, and engines that fail: in process, with an
//! engine that runs when the test says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use modelservice_contract::{Limits, LoadReport};
use modelservice_server::engine::{Engine, EngineError, Signature};
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::Phase;
use modelservice_server::protocol::{self, Management};
use modelservice_server::tensor::{DataType, Tensor};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
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
    management.service.set(service).ok().unwrap();
    Bench {
        router,
        management: protocol::management_router(management),
        started,
        go,
    }
}

impl Bench {
    fn infer(&self) -> JoinHandle<Response> {
        let input = json!({"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [7]});
        let body = json!({"inputs": [input]}).to_string();
        let request = Request::post("/v2/models/echo/infer")
            .body(Body::from(body))
            .unwrap();
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
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("{line} does not come in\n{text}");
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
        bench
            .until(&format!(
                "modelservice_queued_requests{{model=\"echo\"}} {queued}\n"
            ))
            .await;
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
    bench
        .until("modelservice_queued_requests{model=\"echo\"} 1\n")
        .await;
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
    let load: LoadReport = serde_json::from_str(&text(bench.get("/load").await).await).unwrap();
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
