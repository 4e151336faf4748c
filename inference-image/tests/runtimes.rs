//! The flavours of the runtime with real providers: OpenVINO on the processor, a plug-in library, and CUDA where there is
//! no NVIDIA.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use http_body_util::BodyExt;
use modelservice_contract::{ExitReason, TerminationMessage};
use prost::Message as _;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use support::http::{connect, get};
use support::onnx::{FLOAT, Graph, Node, Tensor, model, node, port, weights};
use support::{Server, example, flavour};

/// A server with one model, `net`, on a flavour of the runtime.
fn start(name: &str, package: &Path, provider: &str) -> Server {
    start_with(&flavour(name).display().to_string(), name, package, provider)
}

/// The same with libraries in these folders.
fn start_with(libraries: &str, name: &str, package: &Path, provider: &str) -> Server {
    let library = flavour(name).join("libonnxruntime.so");
    let config = format!(
        "models: [{{name: net, path: '{}'}}]\nexecutionProvider: {provider}\n",
        package.display()
    );
    // As in an image, where the loader looks into the folder anyway.
    let path = format!("LD_LIBRARY_PATH={libraries}");
    let library = format!("--onnx-runtime={}", library.display());
    Server::start_with(&["env", &path], &config, &[&library])
}

/// The last words of a server that ends by itself.
fn last_words(mut server: Server) -> TerminationMessage {
    let status = server.wait();
    let words = std::fs::read(server.termination_log.path()).unwrap();
    let words: TerminationMessage = serde_json::from_slice(&words).unwrap();
    assert_eq!(status.code(), Some(words.reason.code().into()), "{words:?}");
    words
}

async fn assignment(management: SocketAddr) -> Value {
    let response = connect(management)
        .await
        .send_request(get("/report"))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let report: Value = serde_json::from_slice(&body).unwrap();
    report["models"][0]["assignment"].clone()
}

/// The first output for a single input.
async fn infer(serving: SocketAddr, elements: &[f32]) -> Vec<f32> {
    let body: Vec<u8> = elements
        .iter()
        .flat_map(|element| element.to_le_bytes())
        .collect();
    let request = hyper::Request::post("/v2/models/net/infer")
        .header("host", "net")
        .header("inference-header-content-length", "0")
        .body(http_body_util::Full::from(body))
        .unwrap();
    let response = connect(serving).await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let head = response.headers()["inference-header-content-length"]
        .to_str()
        .unwrap();
    let head: usize = head.parse().unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let four = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    body[head..].chunks_exact(4).map(four).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert!(!a.is_empty() && a.len() == b.len(), "{} and {}", a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The outputs on the CPU.
async fn on_cpu(package: &Path, elements: &[f32]) -> Vec<f32> {
    let config = format!("models: [{{name: net, path: '{}'}}]", package.display());
    let mut server = Server::start(&config, &[]);
    let (serving, _) = server.addresses();
    infer(serving, elements).await
}

/// A whole network on an accelerator's provider, with the answers of the CPU.
#[tokio::test]
async fn openvino_runs_all_of_efficientnet() {
    let package = example("efficientnet-lite0");
    let provider = "{name: OpenVINOExecutionProvider, options: {device_type: CPU}}";
    let mut server = start("openvino", &package, provider);
    let (serving, management) = server.addresses();
    let expected = json!({"provider": "OpenVINOExecutionProvider", "device": {"name": "CPU"}, "nodes": 95});
    assert_eq!(assignment(management).await, expected);
    let image = support::floats(&example("reference/efficientnet-lite0/coffee.tensor"));
    let difference = largest_difference(&infer(serving, &image).await, &on_cpu(&package, &image).await);
    assert!(difference <= 3e-7, "{difference}");
}

#[test]
fn openvino_tells_a_bad_option_from_a_missing_device() {
    for (options, reason, words) in [
        (
            "{colour: red}",
            ExitReason::ConfigInvalid,
            "does not accept the option \"colour\"",
        ),
        ("{device_type: NPU}", ExitReason::AcceleratorUnavailable, "NPU"),
    ] {
        let provider = format!("{{name: OpenVINOExecutionProvider, options: {options}}}");
        let last = last_words(start("openvino", &example("colors"), &provider));
        assert_eq!(last.reason, reason, "{last:?}");
        assert!(last.message.contains(words), "{}", last.message);
    }
}

/// A class for NVIDIA without the libraries must not be served from the CPU.
#[test]
fn cuda_without_its_libraries_names_what_is_missing() {
    let last = last_words(start("cuda", &example("colors"), "{name: CUDAExecutionProvider}"));
    assert_eq!(last.reason, ExitReason::AcceleratorUnavailable, "{last:?}");
    assert!(last.message.contains("libcublasLt.so.13"), "{}", last.message);
}

/// The image that `make runtime FLAVOUR=cuda` builds, on a node without an NVIDIA GPU.
#[test]
#[ignore = "needs NVIDIA's libraries, 2 GB: make runtime FLAVOUR=cuda"]
fn cuda_without_a_driver_names_it() {
    let libraries = format!("{}:{}", flavour("cuda").display(), flavour("nvidia").display());
    let server = start_with(
        &libraries,
        "cuda",
        &example("colors"),
        "{name: CUDAExecutionProvider}",
    );
    let last = last_words(server);
    assert_eq!(last.reason, ExitReason::AcceleratorUnavailable, "{last:?}");
    assert!(last.message.contains("libcuda.so.1"), "{}", last.message);
}

/// Two layers that multiply matrices; with pooling before them if that is wanted.
fn perceptron(folder: &Path, pools: bool) {
    let mut nodes: Vec<Node> = Vec::new();
    if pools {
        let pool = node("MaxPool", &["x"], &["pooled"]);
        nodes.push(pool.ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]));
    }
    let (first, side, width) = if pools { ("pooled", 16, 64) } else { ("x", 8, 64) };
    nodes.extend([
        node("Flatten", &[first], &["flat"]).int("axis", 1),
        node("Gemm", &["flat", "w1", "b1"], &["h"]),
        node("Relu", &["h"], &["r"]),
        node("Gemm", &["r", "w2", "b2"], &["y"]),
    ]);
    let initializers: Vec<Tensor> = [
        ("w1", vec![width, 32]),
        ("b1", vec![32]),
        ("w2", vec![32, 10]),
        ("b2", vec![10]),
    ]
    .map(|(name, dims)| weights(name, FLOAT, &dims))
    .into();
    let graph = Graph {
        nodes,
        name: "perceptron".into(),
        initializers,
        inputs: vec![port("x", FLOAT, &[1, 1, side, side])],
        outputs: vec![port("y", FLOAT, &[1, 10])],
    };
    std::fs::write(folder.join("model.onnx"), model(graph).encode_to_vec()).unwrap();
}

fn ggml(options: &str, more: &str) -> String {
    let library = flavour("plugin").join("libonnxruntime_ggml.so");
    format!(
        "{{name: ggml, plugin: {{library: '{}'}}, options: {options}{more}}}",
        library.display()
    )
}

/// The weights of this provider have 16 bits.
#[tokio::test]
async fn a_provider_in_a_plug_in_library_runs_what_it_can() {
    for (pools, options, more, nodes, elsewhere) in [
        (false, "{device: cpu}", "", 4, Value::Null),
        (
            true,
            "{device: cpu, partial: '1'}",
            ", allowCpuPercent: 20",
            4,
            json!({"MaxPool": 1}),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        perceptron(folder.path(), pools);
        let mut server = start("plugin", folder.path(), &ggml(options, more));
        let (serving, management) = server.addresses();
        let assignment = assignment(management).await;
        assert_eq!(
            (&assignment["nodes"], &assignment["elsewhere"]),
            (&json!(nodes), &elsewhere)
        );
        let elements: Vec<f32> = (0..if pools { 256 } else { 64 })
            .map(|i| (i % 7) as f32 / 7.0)
            .collect();
        let difference = largest_difference(
            &infer(serving, &elements).await,
            &on_cpu(folder.path(), &elements).await,
        );
        assert!(difference <= 6e-3, "{difference}");
    }
}

/// ONNX Runtime lists the provider in the session all the same.
#[test]
fn a_provider_that_runs_no_node_of_a_model_is_refused() {
    let package = example("efficientnet-lite0");
    let last = last_words(start(
        "plugin",
        &package,
        &ggml("{device: cpu}", ", allowCpuPercent: 100"),
    ));
    assert_eq!(last.reason, ExitReason::ExecutionProviderFallback, "{last:?}");
    assert!(
        last.message.contains("ggml runs none of the model's"),
        "{}",
        last.message
    );
    assert!(last.message.contains("Conv ("), "{}", last.message);
}
