//! What becomes of a server whose device does not do as it should: with a provider in a plug-in library, whose mode
//! decides what goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use http_body_util::BodyExt;
use modelservice_contract::{ExitReason, TerminationMessage};
use modelservice_test_provider::{DEVICE, DRIVER, NAME};
use prost::Message as _;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use support::http::{Sender, connect, get, post};
use support::onnx::{FLOAT, Graph, INT64, Model, list, model, node, port};
use support::{Server, test_provider};
use tempfile::TempDir;

/// `y = relu(x) − relu(x)`, for rows of two numbers: three nodes.
fn three_nodes() -> Model {
    model(Graph {
        nodes: vec![
            node("Relu", &["x"], &["a"]),
            node("Neg", &["a"], &["b"]),
            node("Add", &["a", "b"], &["y"]),
        ],
        name: "three".into(),
        initializers: Vec::new(),
        inputs: vec![port("x", FLOAT, &[-1, 2])],
        outputs: vec![port("y", FLOAT, &[-1, 2])],
    })
}

/// A server with one model, `net`, on the provider in this mode.
struct Bench {
    server: Server,
    _folder: TempDir,
}

impl Bench {
    fn start(model: &Model, mode: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), model.encode_to_vec()).unwrap();
        let config = config(folder.path(), mode, more);
        Self {
            server: Server::start(&config, &[]),
            _folder: folder,
        }
    }

    /// Waits until it ends by itself; returns its last words.
    fn last_words(&mut self) -> TerminationMessage {
        let status = self.server.wait();
        let words = std::fs::read(self.server.termination_log.path()).unwrap();
        let words: TerminationMessage = serde_json::from_slice(&words).unwrap();
        assert_eq!(status.code(), Some(words.reason.code().into()), "{words:?}");
        words
    }
}

fn config(folder: &Path, mode: &str, more: &str) -> String {
    format!(
        "models: [{{name: net, path: '{}'}}]\nexecutionProvider: {{name: {NAME}, plugin: {{library: '{}'}}, \
         options: {{mode: {mode}}}{more}}}\n",
        folder.display(),
        test_provider().display()
    )
}

async fn read(address: SocketAddr, path: &str) -> Value {
    let mut sender = connect(address).await;
    let response = sender.send_request(get(path)).await.unwrap();
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// The status and the body of an inference with these inputs.
async fn infer(sender: &mut Sender, inputs: Value) -> (u16, Value) {
    sender.ready().await.unwrap();
    let request = post("/v2/models/net/infer", json!({ "inputs": inputs }).to_string());
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn floats(name: &str, shape: &[usize], data: &[f32]) -> Value {
    json!({"name": name, "datatype": "FP32", "shape": shape, "data": data})
}

async fn assignment(management: SocketAddr) -> Value {
    read(management, "/report").await["models"][0]["assignment"].clone()
}

/// The list of providers proves nothing: it names providers that run no node.
#[tokio::test]
async fn a_provider_that_runs_every_compute_node_is_reported_with_its_device() {
    let mut bench = Bench::start(&three_nodes(), "all", "");
    let (serving, management) = bench.server.addresses();
    let expected = json!({"provider": NAME, "device": {"name": DEVICE, "driver": DRIVER}, "nodes": 3});
    assert_eq!(assignment(management).await, expected);
    let (status, body) = infer(
        &mut connect(serving).await,
        json!([floats("x", &[1, 2], &[3.0, -4.0])]),
    )
    .await;
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([0.0, 0.0])));
}

/// An accelerator that is paid for must not be left idle by a model that the CPU runs.
#[test]
fn a_model_of_which_the_cpu_would_run_a_part_is_not_served() {
    for (mode, more, parts) in [
        ("part", "", ["runs 1 of the model's 3", "Add (1), Neg (1)"]),
        (
            "part",
            ", allowCpuPercent: 66",
            ["runs 1 of the model's 3", "allowCpuPercent"],
        ),
        (
            "none",
            "",
            ["runs none of the model's 3", "Add (1), Neg (1), Relu (1)"],
        ),
        (
            "none",
            ", allowCpuPercent: 100",
            ["runs none of the model's 3", "Relu (1)"],
        ),
    ] {
        let words = Bench::start(&three_nodes(), mode, more).last_words();
        assert_eq!(words.reason, ExitReason::ExecutionProviderFallback, "{words:?}");
        for part in parts {
            assert!(words.message.contains(part), "{mode}{more}: {}", words.message);
        }
    }
}

#[tokio::test]
async fn an_allowed_share_on_the_cpu_is_served_and_reported() {
    let mut bench = Bench::start(&three_nodes(), "part", ", allowCpuPercent: 67");
    let (serving, management) = bench.server.addresses();
    let assignment = assignment(management).await;
    assert_eq!(assignment["nodes"], 1);
    assert_eq!(assignment["elsewhere"], json!({"Add": 1, "Neg": 1}));
    let (status, _) = infer(
        &mut connect(serving).await,
        json!([floats("x", &[1, 2], &[1.0, 2.0])]),
    )
    .await;
    assert_eq!(status, 200);
}

/// Sizes are computed on the CPU whatever the device is.
#[tokio::test]
async fn a_node_that_only_computes_shapes_may_run_on_the_cpu() {
    let with_sizes = |rank: &[i64]| {
        let mut nodes = vec![node("Relu", &["x"], &["y"])];
        nodes.push(node("Add", &["sizes", "one"], &["larger"]));
        model(Graph {
            nodes,
            name: "sizes".into(),
            initializers: vec![list("one", &[1])],
            inputs: vec![port("x", FLOAT, &[-1, 2]), port("sizes", INT64, rank)],
            outputs: vec![port("y", FLOAT, &[-1, 2]), port("larger", INT64, rank)],
        })
    };
    let mut bench = Bench::start(&with_sizes(&[3]), "all", "");
    let (_, management) = bench.server.addresses();
    let assignment = assignment(management).await;
    assert_eq!(
        (&assignment["nodes"], &assignment["elsewhere"]),
        (&json!(1), &Value::Null)
    );
    let words = Bench::start(&with_sizes(&[3, 3]), "all", "").last_words();
    assert_eq!(words.reason, ExitReason::ExecutionProviderFallback, "{words:?}");
    assert!(words.message.contains("Add (1)"), "{}", words.message);
}

/// No run before readiness but the first of each session and one that is timed.
const ONE_RUNNER: &str = ", runners: 1}\nscheduling: {maxBatchSize: 1";

/// A server that is ready on a device that does not work would take all requests, and fail them.
#[test]
fn a_server_whose_device_fails_in_the_first_run_never_becomes_ready() {
    let mut bench = Bench::start(&three_nodes(), "fail-first-run", "");
    let words = bench.last_words();
    assert_eq!(words.reason, ExitReason::AcceleratorUnavailable, "{words:?}");
    for part in [
        "the first run on TestExecutionProvider failed",
        "has fallen off the bus",
    ] {
        assert!(words.message.contains(part), "{}", words.message);
    }
    assert!(!bench.server.log().iter().any(|line| line["message"] == "serving"));
}

/// A server without its device would answer every request with an error, for ever.
#[tokio::test]
async fn a_server_that_loses_its_device_is_no_longer_ready_and_ends() {
    let mut bench = Bench::start(&three_nodes(), "fail-after-3", ONE_RUNNER);
    let (serving, _) = bench.server.addresses();
    let mut sender = connect(serving).await;
    let x = || json!([floats("x", &[1, 2], &[1.0, 2.0])]);
    assert_eq!(infer(&mut sender, x()).await.0, 200);
    let (status, body) = infer(&mut sender, x()).await;
    assert_eq!(status, 503, "{body}");
    assert!(
        body["error"].as_str().unwrap().contains("the device is lost: "),
        "{body}"
    );
    let words = bench.last_words();
    assert_eq!(words.reason, ExitReason::AcceleratorUnavailable, "{words:?}");
    for part in ["lost its device while serving", "has fallen off the bus"] {
        assert!(words.message.contains(part), "{}", words.message);
    }
    assert!(
        bench
            .server
            .log()
            .iter()
            .any(|line| line["message"] == "draining")
    );
}

#[tokio::test]
async fn a_single_failed_run_does_not_end_the_server() {
    let mut bench = Bench::start(&three_nodes(), "fail-at-4", ONE_RUNNER);
    let (serving, management) = bench.server.addresses();
    let mut sender = connect(serving).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            infer(&mut sender, json!([floats("x", &[1, 2], &[1.0, 2.0])]))
                .await
                .0,
        );
    }
    assert_eq!(statuses, [200, 500, 200, 200]);
    assert_eq!(
        connect(management)
            .await
            .send_request(get("/readyz"))
            .await
            .unwrap()
            .status(),
        200
    );
}

/// Otherwise one client could end servers at will.
#[tokio::test]
async fn inputs_that_a_model_cannot_run_are_the_clients_fault_on_a_device_too() {
    let sum = model(Graph {
        nodes: vec![node("Add", &["x", "z"], &["y"])],
        name: "sum".into(),
        initializers: Vec::new(),
        inputs: vec![port("x", FLOAT, &[-1, 2]), port("z", FLOAT, &[-1, 2])],
        outputs: vec![port("y", FLOAT, &[-1, 2])],
    });
    let mut bench = Bench::start(&sum, "all", "");
    let (serving, _) = bench.server.addresses();
    let mut sender = connect(serving).await;
    let rows = |x: usize, z: usize| {
        let zeros = |name, rows| floats(name, &[rows, 2], &vec![0.0; 2 * rows]);
        json!([zeros("x", x), zeros("z", z)])
    };
    for _ in 0..3 {
        let (status, body) = infer(&mut sender, rows(2, 3)).await;
        assert_eq!(status, 400, "{body}");
    }
    assert_eq!(infer(&mut sender, rows(2, 2)).await.0, 200);
}

/// How long each of two requests at once waits for a runner, in milliseconds, longest last.
async fn waits(runners: u32) -> Vec<f64> {
    let more = format!(", runners: {runners}}}\nscheduling: {{maxBatchSize: 1");
    let mut bench = Bench::start(&three_nodes(), "slow", &more);
    let (serving, management) = bench.server.addresses();
    let load = read(management, "/load").await;
    assert_eq!(load["models"][0]["runners"], runners);
    let wait = || async {
        let mut sender = connect(serving).await;
        let body = json!({"inputs": [floats("x", &[1, 2], &[1.0, 2.0])]}).to_string();
        let response = sender
            .send_request(post("/v2/models/net/infer", body))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let timing = response.headers()["server-timing"].to_str().unwrap();
        let queue = timing.split("queue;dur=").nth(1).unwrap();
        queue
            .split([',', ';'])
            .next()
            .unwrap()
            .trim()
            .parse::<f64>()
            .unwrap()
    };
    let (first, second) = tokio::join!(wait(), wait());
    let mut waits = vec![first, second];
    waits.sort_by(f64::total_cmp);
    waits
}

/// A run takes 200 ms, most of which the device works alone.
#[tokio::test]
async fn a_slow_device_is_given_as_many_runs_at_a_time_as_the_class_says() {
    let (one, two) = (waits(1).await, waits(2).await);
    assert!(one[1] >= 150.0, "{one:?}");
    assert!(two[1] < 150.0, "{two:?}");
}

/// What was measured with other options would lead to batches that do not pay.
#[tokio::test]
async fn measurements_are_kept_for_the_provider_with_its_options() {
    let cache = tempfile::tempdir().unwrap();
    let entries = || std::fs::read_dir(cache.path()).unwrap().count();
    let more = format!(
        ", allowCpuPercent: 99}}\ncache: {{path: '{}'",
        cache.path().display()
    );
    for (mode, expected) in [("all", 1), ("all", 1), ("part", 2)] {
        let mut bench = Bench::start(&three_nodes(), mode, &more);
        bench.server.wait_for("batches measured");
        assert_eq!(entries(), expected, "{mode}");
    }
}
