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
