//! Answers do not depend on other requests: many clients at once get exactly the same bits as each client alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::http::{Sender, connect, get, post};
use support::onnx::{FLOAT, INT8, INT64, Node, Tensor, list, node, number, rows, weights};
use support::{Server, example};

const CLIENTS: usize = 64;
const WIDTH: i64 = 4;

/// A model of rows of four numbers.
struct Case {
    name: &'static str,
    /// The expected reason in the report.
    reason: &'static str,
    datatype: &'static str,
    file: Vec<u8>,
}

fn case(name: &'static str, reason: &'static str, nodes: Vec<Node>, constants: Vec<Tensor>) -> Case {
    Case {
        name,
        reason,
        datatype: "FP32",
        file: rows(FLOAT, [WIDTH, WIDTH], nodes, constants),
    }
}

/// Models whose rows depend on each other: each once gave wrong answers.
fn mixing() -> Vec<Case> {
    let shifted = |name: &str, start: &str, end: &str| node("Slice", &["x", start, end, "first"], &[name]);
    let places = || {
        vec![
            list("first", &[0]),
            list("zero", &[0]),
            list("one", &[1]),
            list("minus one", &[-1]),
        ]
    };
    let before = || {
        vec![
            shifted("head", "zero", "one"),
            shifted("tail", "zero", "minus one"),
        ]
    };
    vec![
        case(
            "sums",
            "CumSum",
            vec![node("CumSum", &["x", "axis"], &["y"])],
            vec![number("axis", 0)],
        ),
        case(
            "differences",
            "Slice",
            [
                before(),
                vec![
                    node("Concat", &["head", "tail"], &["before"]).int("axis", 0),
                    node("Sub", &["x", "before"], &["y"]),
                ],
            ]
            .concat(),
            places(),
        ),
        case(
            "recurrent",
            "RNN",
            vec![
                node("Unsqueeze", &["x", "second"], &["steps"]),
                node("RNN", &["steps", "w", "r"], &["states"]).int("hidden_size", WIDTH),
                node("Squeeze", &["states", "inner"], &["y"]),
            ],
            vec![
                list("second", &[1]),
                list("inner", &[1, 2]),
                weights("w", FLOAT, &[1, WIDTH, WIDTH]),
                weights("r", FLOAT, &[1, WIDTH, WIDTH]),
            ],
        ),
        case(
            "least",
            "ReduceMin",
            vec![
                node("ReduceMin", &["x"], &["least"]).ints("axes", &[0]),
                node("Sub", &["x", "least"], &["y"]),
            ],
            Vec::new(),
        ),
        case("first-of-equals", "Equal", first_of_equals(), equals_constants()),
        case(
            "large-beside-small",
            "ReduceMean",
            vec![
                node("ReduceMean", &["x"], &["mean"]).ints("axes", &[0]),
                node("Sub", &["x", "mean"], &["small"]),
                node("Exp", &["x"], &["exp"]),
                node("Exp", &["exp"], &["large"]),
                node("Slice", &["small", "zero", "two", "axis"], &["a"]),
                node("Slice", &["large", "two", "four", "axis"], &["b"]),
                node("Concat", &["a", "b"], &["y"]).int("axis", 1),
            ],
            vec![
                list("axis", &[1]),
                list("zero", &[0]),
                list("two", &[2]),
                list("four", &[4]),
            ],
        ),
        Case {
            name: "integers",
            reason: "ReduceMax",
            datatype: "INT64",
            file: rows(
                INT64,
                [WIDTH, WIDTH],
                vec![
                    node("ReduceMax", &["x"], &["most"]).ints("axes", &[0]),
                    node("Sub", &["x", "most"], &["y"]),
                ],
                Vec::new(),
            ),
        },
        case(
            "dynamic-quantisation",
            "DynamicQuantizeLinear",
            quantised(),
            quantised_constants(),
        ),
    ]
}

/// Zeros for a row that equals an earlier one.
fn first_of_equals() -> Vec<Node> {
    vec![
        node("Unsqueeze", &["x", "second"], &["down"]),
        node("Unsqueeze", &["x", "first"], &["across"]),
        node("Equal", &["down", "across"], &["alike"]),
        node("Cast", &["alike"], &["numbers"]).int("to", i64::from(FLOAT)),
        node("ReduceMin", &["numbers"], &["same"])
            .ints("axes", &[2])
            .int("keepdims", 0),
        node("Trilu", &["same", "minus one"], &["before"]).int("upper", 0),
        node("ReduceMax", &["before"], &["seen"]).ints("axes", &[1]),
        node("Cast", &["seen"], &["is seen"]).int("to", 9),
        node("Sub", &["x", "x"], &["nothing"]),
        node("Where", &["is seen", "nothing", "x"], &["y"]),
    ]
}

fn equals_constants() -> Vec<Tensor> {
    vec![list("first", &[0]), list("second", &[1]), number("minus one", -1)]
}

/// A layer of dynamically quantised transformers.
fn quantised() -> Vec<Node> {
    vec![
        node("LayerNormalization", &["x", "scale"], &["normal"]),
        node("DynamicQuantizeLinear", &["normal"], &["bytes", "step", "zero"]),
        node("MatMulInteger", &["bytes", "w", "zero"], &["product"]),
        node("Cast", &["product"], &["numbers"]).int("to", i64::from(FLOAT)),
        node("Mul", &["numbers", "step"], &["y"]),
    ]
}

fn quantised_constants() -> Vec<Tensor> {
    vec![
        weights("scale", FLOAT, &[WIDTH]),
        weights("w", INT8, &[WIDTH, WIDTH]),
    ]
}

/// A model whose rows are independent, with the same bits in any batch.
fn apart() -> Case {
    case(
        "apart",
        "were measured to be faster",
        vec![
            node("Abs", &["x"], &["a"]),
            node("Mul", &["a", "x"], &["b"]),
            node("Reshape", &["b", "shape"], &["c"]),
            node("ReduceMax", &["c"], &["d"]).ints("axes", &[1]),
            node("Sub", &["b", "d"], &["y"]),
        ],
        vec![list("shape", &[0, -1])],
    )
}

struct Running {
    _server: Server,
    _folders: Vec<tempfile::TempDir>,
    http: SocketAddr,
    management: SocketAddr,
}

/// A server with these models and this `scheduling` for each.
fn start(cases: &[Case], scheduling: &Value) -> Running {
    let folder = |case: &Case| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), &case.file).unwrap();
        folder
    };
    let folders: Vec<_> = cases.iter().map(folder).collect();
    let model = |(case, folder): (&Case, &tempfile::TempDir)| json!({"name": case.name, "path": folder.path(), "scheduling": scheduling});
    let models: Vec<Value> = cases.iter().zip(&folders).map(model).collect();
    let mut server = Server::start(&json!({"models": models}).to_string(), &[]);
    let (http, management) = server.addresses();
    Running {
        _server: server,
        _folders: folders,
        http,
        management,
    }
}

impl Running {
    /// What the report says about batching for a model.
    async fn batching(&self, name: &str) -> (u64, String) {
        let text = ask(&mut connect(self.management).await, get("/report")).await;
        let report: Value = serde_json::from_str(&text).unwrap();
        let mut models = report["models"].as_array().unwrap().iter();
        let model = models.find(|model| model["name"] == name).unwrap();
        let reason = model["batching"]["reason"].as_str().unwrap().to_owned();
        (model["batching"]["rows"].as_u64().unwrap(), reason)
    }

    /// The same, once the reason contains this text.
    async fn batching_says(&self, name: &str, part: &str) -> (u64, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (rows, reason) = self.batching(name).await;
            if reason.contains(part) {
                return (rows, reason);
            }
            assert!(Instant::now() < deadline, "{name}: {reason}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Average number of rows in a run of a model.
    async fn rows_per_run(&self, name: &str) -> f64 {
        let text = ask(&mut connect(self.management).await, get("/metrics")).await;
        let value = |suffix: &str| {
            let start = format!("modelservice_batch_size_{suffix}{{model=\"{name}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap_or_else(|| panic!("no {start} in\n{text}"))
                .parse::<f64>()
                .unwrap()
        };
        value("sum") / value("count")
    }
}

async fn ask(sender: &mut Sender, request: hyper::Request<http_body_util::Full<bytes::Bytes>>) -> String {
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (status, body) = (response.status(), response.into_body());
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

/// The answer to a client's row.
async fn answer(sender: &mut Sender, case: &Case, client: usize) -> String {
    // Some clients send the same, like cameras that see nothing.
    let seed = if client.is_multiple_of(3) { 0 } else { client };
    let value = |column: usize| ((seed * 37 + column * 11) % 41) as f64 / 16.0 - 1.25;
    let data: Vec<Value> = (0..4)
        .map(|column| match case.datatype {
            "INT64" => json!((value(column) * 16.0) as i64),
            _ => json!(value(column)),
        })
        .collect();
    let input = json!({"name": "x", "shape": [1, WIDTH], "datatype": case.datatype, "data": data});
    let path = format!("/v2/models/{}/infer", case.name);
    ask(sender, post(&path, json!({"inputs": [input]}).to_string())).await
}

/// Compares what all clients get one after the other with what they get at once, again and again.
async fn compare(running: &Running, case: &'static Case) {
    let mut sender = connect(running.http).await;
    let mut alone = Vec::new();
    for client in 0..CLIENTS {
        alone.push(answer(&mut sender, case, client).await);
    }
    let (http, mut clients) = (running.http, Vec::new());
    for (client, expected) in alone.into_iter().enumerate() {
        clients.push(tokio::spawn(async move {
            let mut sender = connect(http).await;
            for _ in 0..20 {
                let answer = answer(&mut sender, case, client).await;
                assert_eq!(answer, expected, "{}: client {client}", case.name);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}

/// Otherwise the result for one camera's picture would depend on what other cameras see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_model_does_with_its_rows_each_client_gets_the_answer_that_it_gets_alone() {
    let cases: &'static [Case] = Vec::leak(mixing());
    let running = start(cases, &json!({}));
    for case in cases {
        let (rows, reason) = running.batching(case.name).await;
        assert!(
            rows == 1 && reason.contains(case.reason),
            "{}: {rows} {reason}",
            case.name
        );
        compare(&running, case).await;
        assert!(running.rows_per_run(case.name).await <= 1.0, "{}", case.name);
    }
}

/// Where batching helps and does no harm, requests are batched: otherwise the test above would show nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_a_model_that_keeps_rows_apart_are_put_together() {
    let cases: &'static [Case] = Vec::leak(vec![apart()]);
    let running = start(cases, &json!({}));
    let (rows, reason) = running.batching_says("apart", cases[0].reason).await;
    assert!(rows > 1, "{rows} {reason}");
    compare(&running, &cases[0]).await;
    assert!(running.rows_per_run("apart").await > 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_batching_is_off_requests_are_never_put_together() {
    let cases: &'static [Case] = Vec::leak(vec![apart()]);
    let running = start(cases, &json!({"batching": "off"}));
    let (rows, reason) = running.batching("apart").await;
    assert!(rows == 1 && reason.contains("off"), "{rows} {reason}");
    compare(&running, &cases[0]).await;
    assert!(running.rows_per_run("apart").await <= 1.0);
}

/// Otherwise they would be slower without need.
#[tokio::test]
async fn the_examples_keep_their_rows_apart() {
    for name in ["efficientnet-lite0", "tiny", "colors"] {
        let config = json!({"models": [{"name": name, "path": example(name)}]});
        let mut server = Server::start(&config.to_string(), &[]);
        let line = server.wait_for("batches");
        assert_eq!(line["model"], name);
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.starts_with("the graph keeps rows independent"), "{reason}");
    }
}
