//! `/openapi.json` is valid, and describes what the server really responds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::{config, protocol};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use support::{example, library, root};
use tower::ServiceExt;

/// `colors` classifies images, `plain` has no model.yaml.
static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let plain = tempfile::tempdir().unwrap();
    std::fs::copy(example("tiny/model.onnx"), plain.path().join("model.onnx")).unwrap();
    let models = json!([
        {"name": "colors", "path": example("colors")},
        {"name": "plain", "path": plain.path()},
    ]);
    let config = config::parse(&json!({ "models": models }).to_string()).unwrap();
    Arc::new(Service::load(&config, &library(), 1).unwrap())
});

fn router() -> Router {
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Ready);
    protocol::router(Arc::clone(&SERVICE), lifecycle)
}

struct Answer {
    status: u16,
    media_type: String,
    body: Value,
}

async fn send(router: &Router, method: &str, path: &str, media_type: &str, body: Vec<u8>) -> Answer {
    let request = Request::builder()
        .method(method.to_uppercase().as_str())
        .uri(path)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(body))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let media_type = response.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.map_or("", |value| value.to_str().unwrap());
    let media_type = media_type.split(';').next().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer {
        status,
        media_type,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

async fn document(router: &Router) -> Value {
    send(router, "get", "/openapi.json", "", Vec::new()).await.body
}

/// What can be sent to an operation: nothing, each of its examples, and an image if it accepts one.
fn bodies(document: &Value, operation: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let mut bodies = vec![
        ("application/json", Vec::new()),
        ("application/json", b"{}".to_vec()),
    ];
    let mut body = &operation["requestBody"];
    if let Some(reference) = body["$ref"].as_str() {
        body = document.pointer(&reference[1..]).unwrap();
    }
    let examples = body["content"]["application/json"]["examples"].as_object();
    for example in examples.into_iter().flatten() {
        bodies.push(("application/json", example.1["value"].to_string().into_bytes()));
    }
    if body["content"]["image/*"].is_object() {
        let photo = std::fs::read(example("photos/coffee.jpg")).unwrap();
        let head = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n";
        let form = [&head[..], &photo, b"\r\n--x--\r\n"].concat();
        bodies.push(("image/jpeg", photo));
        bodies.push(("multipart/form-data; boundary=x", form));
    }
    bodies
}

/// The disagreements between the document and the responses, as an independent validator sees them.
fn problems(document: &Value, answers: &[Value]) -> Vec<String> {
    let python = root().join(".cache/venv-clients/bin/python");
    assert!(python.exists(), "run examples/clients/prepare");
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi/check.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({"document": document, "answers": answers}).to_string();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Clients generated from it need the right types and every possible status.
#[tokio::test]
async fn the_description_is_valid_and_what_is_answered_is_described() {
    let router = router();
    let document = document(&router).await;
    let mut answers = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            let mut statuses = Vec::new();
            for model in ["colors", "plain", "dogs"] {
                let filled = path.replace("{model}", model).replace("{version}", "1");
                for (media_type, body) in bodies(&document, operation) {
                    let answer = send(&router, method, &filled, media_type, body).await;
                    let words = answer.body["error"].as_str().unwrap_or_default();
                    assert!(
                        !words.contains("nothing at") && answer.status != 405,
                        "{path}: {words}"
                    );
                    statuses.push(answer.status);
                    answers.push(json!({
                        "path": path, "method": method, "status": answer.status,
                        "type": answer.media_type, "body": answer.body,
                    }));
                }
            }
            let is_refused = operation["responses"]["501"].is_object();
            assert!(
                is_refused || statuses.contains(&200),
                "{method} {path}: {statuses:?}"
            );
        }
    }
    let problems = problems(&document, &answers);
    assert!(problems.is_empty(), "{problems:#?}");
}

/// A check that never finds anything wrong would be useless.
#[tokio::test]
async fn a_wrong_description_is_found() {
    let mut document = document(&router()).await;
    let answer = |status: u16, body: Value| json!([{"path": "/v2", "method": "get", "status": status, "type": "application/json", "body": body}]);
    let found = |document: &Value, answers: Value| problems(document, answers.as_array().unwrap()).len();
    let good = json!({"name": "a", "version": "1", "extensions": []});
    assert_eq!(found(&document, answer(200, good.clone())), 0);
    assert_eq!(found(&document, answer(200, json!({"name": "a"}))), 2);
    assert_eq!(found(&document, answer(418, good)), 1);
    document["paths"]["/v2"]["get"]["responses"] = json!([]);
    assert_ne!(found(&document, json!([])), 0);
}

#[tokio::test]
async fn the_models_are_named_with_their_tensors() {
    let document = document(&router()).await;
    let parameters = &document["components"]["parameters"];
    assert_eq!(parameters["Model"]["schema"]["enum"], json!(["colors", "plain"]));
    assert_eq!(parameters["Classifier"]["schema"]["enum"], json!(["colors"]));
    let infer = &document["components"]["requestBodies"]["Tensors"];
    let row = "| `colors` | `images` FP32 [-1, 3, 16, 16] | `scores` FP32 [-1, 3] |";
    assert!(infer["description"].as_str().unwrap().contains(row), "{infer}");
    let examples = &infer["content"]["application/json"]["examples"];
    assert_eq!(
        examples["colors"]["value"]["inputs"][0]["shape"],
        json!([1, 3, 16, 16])
    );
    assert!(examples["plain"].is_null(), "3072 numbers are no example");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
