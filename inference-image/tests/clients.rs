//! The clients that people use, against the real process: each script in tests/clients/ compares its results with
//! ONNX Runtime in its own process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use support::onnx::matmul;
use support::{Server, example, library, root};

fn cache(path: &str) -> PathBuf {
    let path = root().join(".cache").join(path);
    let problem = "does not exist: run inference-image/tests/clients/prepare";
    assert!(path.exists(), "{} {problem}", path.display());
    path
}

fn server() -> (Server, SocketAddr) {
    server_with(json!({}))
}

/// A server with all models and this configuration of connections.
fn server_with(connections: Value) -> (Server, SocketAddr) {
    let mut models: Vec<_> = ["colors", "tiny", "efficientnet-lite0"]
        .map(|name| json!({"name": name, "path": example(name)}))
        .into();
    for entry in std::fs::read_dir(cache("client-models")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            models.push(json!({"name": path.file_name().unwrap().to_str(), "path": path}));
        }
    }
    let config = json!({"models": models, "connections": connections});
    let mut server = Server::start(&config.to_string(), &[]);
    let address = server.addresses().0;
    (server, address)
}

/// Runs the command to its end; a client that waits for ever fails.
fn run(program: &str, arguments: &[&str]) {
    run_for("120", program, arguments);
}

fn run_for(seconds: &str, program: &str, arguments: &[&str]) {
    // perf_analyzer is linked to the CUDA runtime, although it needs no GPU.
    let libraries = cache("venv-sdk/cuda");
    let output = Command::new("timeout")
        .env("LD_LIBRARY_PATH", libraries)
        .args([seconds, program])
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}",
        output.status
    );
    println!("{text}");
}

fn script(name: &str) {
    script_for(name, server());
}

fn script_for(name: &str, (_server, address): (Server, SocketAddr)) {
    let (python, folder) = (cache("venv-sdk/bin/python"), cache(""));
    let script = root().join("inference-image/tests/clients").join(name);
    let arguments = [
        script.to_str().unwrap(),
        &address.to_string(),
        folder.to_str().unwrap(),
    ];
    run(python.to_str().unwrap(), &arguments);
}

/// A script that starts servers itself.
fn script_with_servers(name: &str) {
    let script = root().join("inference-image/tests/clients").join(name);
    let (python, library) = (cache("venv-sdk/bin/python"), library());
    let server = env!("CARGO_BIN_EXE_modelservice-server");
    run_for(
        "600",
        python.to_str().unwrap(),
        &[script.to_str().unwrap(), server, library.to_str().unwrap()],
    );
}

/// A server that ignores its input, or reads it in the wrong order, answers every request, but incorrectly.
#[test]
fn nine_topologies_answer_as_onnx_runtime_does_through_every_protocol() {
    script_with_servers("light.py");
}

/// Otherwise clients whose tensors have an unusual type would get wrong numbers, or could not use the model at all.
#[test]
fn single_operators_of_every_type_answer_as_the_onnx_wheel_expects() {
    script_with_servers("nodes.py");
}

// Each failure would break everyone who uses that client.

#[test]
fn tritonclient_over_http_gets_the_values_of_onnx_runtime() {
    script("triton_http.py");
}

#[test]
fn tritonclient_over_grpc_gets_the_values_of_onnx_runtime() {
    script("triton_grpc.py");
}

#[test]
fn tritonclients_stream_ends_with_its_connection_and_no_answer_is_lost() {
    script_for("triton_stream.py", server_with(json!({"maxAgeSeconds": 1})));
}

/// Otherwise clients that set a priority or a deadline would be treated like all others.
#[test]
fn timeout_and_priority_of_tritonclient_have_their_effect() {
    let package = tempfile::tempdir().unwrap();
    std::fs::write(package.path().join("model.onnx"), matmul(4096, None).0).unwrap();
    let models = [json!({"name": "slow", "path": package.path()})];
    let config = json!({"models": models, "scheduling": {"maxBatchSize": 1}}).to_string();
    // One core.
    let mut server = Server::start_with(&["taskset", "--cpu-list", "0"], &config, &[]);
    let (address, management) = server.addresses();
    let script = root().join("inference-image/tests/clients/triton_urgency.py");
    let (python, folder) = (cache("venv-sdk/bin/python"), cache(""));
    let arguments = [
        script.to_str().unwrap(),
        &address.to_string(),
        folder.to_str().unwrap(),
        &management.to_string(),
    ];
    run_for("300", python.to_str().unwrap(), &arguments);
}

#[test]
fn kserves_sdk_gets_the_values_of_onnx_runtime() {
    script("kserve_sdk.py");
}

#[test]
fn curl_gets_the_values_of_onnx_runtime() {
    script("curl.py");
}

#[test]
fn perf_analyzer_measures_the_server_over_both_protocols() {
    let (_server, address) = server();
    let program = cache("venv-sdk/bin/perf_analyzer");
    for protocol in ["http", "grpc"] {
        let address = address.to_string();
        let measure = [
            "-m",
            "tiny",
            "-u",
            &address,
            "-i",
            protocol,
            "-b",
            "1",
            "--shape",
            "images:3,32,32",
        ];
        let few = ["--request-count", "50", "--concurrency-range", "2"];
        run(program.to_str().unwrap(), &[&measure[..], &few].concat());
    }
}
