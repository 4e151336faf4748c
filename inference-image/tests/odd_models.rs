//! Valid models of unusual kinds: all of them start, and what can be answered is answered. One real process that serves
//! them all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use http_body_util::BodyExt;
use modelservice_server::protocol::proto::ModelInferRequest;
use modelservice_server::protocol::proto::model_infer_request::InferInputTensor;
use prost::Message;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use support::http::{connect, connect_http_2, get, post};
use support::onnx::{
    FLOAT, Graph, INT32, INT64, Model, Node, Port, STRING, Tensor, identity, matmul, model, node, port,
    tensor, texts, unshaped,
};
use support::{Server, example};

const CLASSES: &str = "task: image-classification\nlabels: [cat, dog, cow]\n\
                       preprocessing: {resize: {mode: stretch, width: 2, height: 2}}\n";

fn graph(nodes: Vec<Node>, initializers: Vec<Tensor>, inputs: Vec<Port>, outputs: Vec<Port>) -> Model {
    model(Graph {
        nodes,
        name: "g".into(),
        initializers,
        inputs,
        outputs,
    })
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Per image, `(x − min) / (max − min)` of three means: 0/0 for an image of one colour.
fn min_max() -> Model {
    graph(
        vec![
            node("GlobalAveragePool", &["x"], &["pooled"]),
            node("Flatten", &["pooled"], &["means"]),
            node("ReduceMin", &["means"], &["min"]),
            node("ReduceMax", &["means"], &["max"]),
            node("Sub", &["means", "min"], &["above"]),
            node("Sub", &["max", "min"], &["range"]),
            node("Div", &["above", "range"], &["y"]),
        ],
        vec![],
        vec![port("x", FLOAT, &[1, 3, 2, 2])],
        vec![port("y", FLOAT, &[1, 3])],
    )
}

/// The means of red, green and blue; the last is never the answer.
fn masked() -> Model {
    graph(
        vec![
            node("GlobalAveragePool", &["x"], &["pooled"]),
            node("Flatten", &["pooled"], &["means"]),
            node("Add", &["means", "mask"], &["y"]),
        ],
        vec![tensor(
            "mask",
            FLOAT,
            &[1, 3],
            &floats(&[0.0, 0.0, f32::NEG_INFINITY]),
        )],
        vec![port("x", FLOAT, &[1, 3, 2, 2])],
        vec![port("y", FLOAT, &[1, 3])],
    )
}

/// `x` in the shape given by `size`, for which neither zeros nor ones are valid.
fn sizes() -> Model {
    graph(
        vec![node("Reshape", &["x", "size"], &["y"])],
        vec![],
        vec![port("x", FLOAT, &[6]), port("size", INT64, &[2])],
        vec![port("y", FLOAT, &[-1, -1])],
    )
}

/// A constant text that is not UTF-8, and a number.
fn bytes() -> Model {
    graph(
        vec![
            node("Identity", &["x"], &["y"]),
            node("Identity", &["t"], &["text"]),
        ],
        vec![texts("t", &[b"\xff\xfe"])],
        vec![port("x", FLOAT, &[1])],
        vec![port("y", FLOAT, &[1]), port("text", STRING, &[1])],
    )
}

/// `x` of any number of dimensions, doubled.
fn any_rank() -> Model {
    graph(
        vec![node("Add", &["x", "x"], &["y"])],
        vec![],
        vec![unshaped("x", FLOAT)],
        vec![unshaped("y", FLOAT)],
    )
}

/// `x · t`, and `t`.
fn scalar() -> Model {
    graph(
        vec![node("Mul", &["x", "t"], &["y"]), node("Identity", &["t"], &["u"])],
        vec![],
        vec![port("x", FLOAT, &[-1, 2]), port("t", FLOAT, &[])],
        vec![port("y", FLOAT, &[-1, 2]), port("u", FLOAT, &[])],
    )
}

/// One operator, whose inputs may have any shape and values.
fn operator(kind: &str, inputs: &[(&'static str, i32)], outputs: &[(&'static str, i32)]) -> Model {
    let names =
        |ports: &[(&'static str, i32)]| -> Vec<&str> { ports.iter().map(|(name, _)| *name).collect() };
    let ports = |ports: &[(&str, i32)]| {
        ports
            .iter()
            .map(|(name, datatype)| unshaped(name, *datatype))
            .collect()
    };
    graph(
        vec![node(kind, &names(inputs), &names(outputs))],
        vec![],
        ports(inputs),
        ports(outputs),
    )
}

/// `x` of two numbers in a column, divided by −1 and 1.
fn negated() -> Model {
    let bytes = |values: &[i64]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    graph(
        vec![
            node("Reshape", &["x", "column"], &["a"]),
            node("Div", &["a", "signs"], &["y"]),
        ],
        vec![
            tensor("column", INT64, &[2], &bytes(&[-1, 1])),
            tensor("signs", INT64, &[2, 1], &bytes(&[-1, 1])),
        ],
        vec![port("x", INT64, &[2])],
        vec![port("y", INT64, &[2, 1])],
    )
}

/// `x / z` for any number of rows, which may come from different requests.
fn ratios() -> Model {
    let rows = |name: &str| port(name, INT64, &[-1]);
    graph(
        vec![node("Div", &["x", "z"], &["y"])],
        vec![],
        vec![rows("x"), rows("z")],
        vec![rows("y")],
    )
}

/// Operators that refuse some values and sizes only while they run.
fn operators() -> Vec<(&'static str, Model, Option<String>)> {
    let (x, z, y) = (("x", FLOAT), ("z", FLOAT), ("y", FLOAT));
    let (whole_x, whole, index) = (("x", INT64), ("z", INT64), ("i", INT64));
    [
        ("Add", operator("Add", &[x, z], &[y])),
        ("MatMul", operator("MatMul", &[x, z], &[y])),
        ("Div", operator("Div", &[whole_x, whole], &[("y", INT64)])),
        ("Mod", operator("Mod", &[whole_x, whole], &[("y", INT64)])),
        (
            "Div-32",
            operator("Div", &[("x", INT32), ("z", INT32)], &[("y", INT32)]),
        ),
        ("negated", negated()),
        ("ratios", ratios()),
        ("GatherElements", operator("GatherElements", &[x, whole], &[y])),
        ("TopK", operator("TopK", &[x, whole], &[y, index])),
        ("Reshape", operator("Reshape", &[x, whole], &[y])),
        ("ConstantOfShape", operator("ConstantOfShape", &[whole], &[y])),
        ("same-size", identity(&[("x", FLOAT, &[-1]), ("z", FLOAT, &[-1])])),
    ]
    .map(|(name, model)| (name, model, None))
    .into()
}

fn models() -> Vec<(&'static str, Model, Option<String>)> {
    let softmax = format!("{CLASSES}postprocessing: {{activation: softmax}}\n");
    vec![
        ("min-max", min_max(), Some(CLASSES.to_owned())),
        ("masked", masked(), Some(softmax)),
        ("sizes", sizes(), None),
        ("bytes", bytes(), None),
        ("texts", identity(&[("x", STRING, &[-1])]), None),
        ("any-rank", any_rank(), None),
        ("scalar", scalar(), None),
        ("one", identity(&[("x", FLOAT, &[])]), None),
        ("rows", identity(&[("x", FLOAT, &[-1])]), None),
        ("empty", identity(&[("x", FLOAT, &[0, 2])]), None),
        ("any", identity(&[("x", FLOAT, &[-1, 2])]), None),
    ]
}

struct Running {
    server: Server,
    http: SocketAddr,
}

fn start(folder: &Path) -> Running {
    let package = |(name, model, manifest): (&'static str, Model, Option<String>)| {
        let path = folder.join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("model.onnx"), model.encode_to_vec()).unwrap();
        if let Some(manifest) = manifest {
            std::fs::write(path.join("model.yaml"), manifest).unwrap();
        }
        json!({"name": name, "path": path})
    };
    let models: Vec<Value> = models().into_iter().chain(operators()).map(package).collect();
    let mut server = Server::start(&json!({ "models": models }).to_string(), &[]);
    let (http, _) = server.addresses();
    Running { server, http }
}

impl Running {
    async fn send(&self, path: &str, body: Option<Vec<u8>>) -> (u16, Value) {
        let request = body.map_or_else(|| get(path), |body| post(path, body));
        let response = connect(self.http).await.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn infer(&self, model: &str, inputs: Value) -> (u16, Value) {
        let body = json!({ "inputs": inputs }).to_string().into_bytes();
        self.send(&format!("/v2/models/{model}/infer"), Some(body)).await
    }

    async fn predict(&self, model: &str, request: Value) -> (u16, Value) {
        let body = request.to_string().into_bytes();
        let (status, answer) = self
            .send(&format!("/v1/models/{model}:predict"), Some(body))
            .await;
        (status, answer.get("predictions").cloned().unwrap_or(answer))
    }

    /// One server for the whole table, since each start takes a second.
    async fn check(&self) {
        self.images().await;
        self.sizes().await;
        self.bytes().await;
        self.any_rank().await;
        self.scalars().await;
        self.empty().await;
        self.refusals().await;
        self.divisions().await;
        self.divisions_over_grpc().await;
        self.divisions_at_once().await;
    }

    /// Each of the refused ones used to end the process.
    async fn divisions(&self) {
        let least = i64::MIN;
        let numbers = |name: &str, datatype: &str, data: &[i64]| json!({"name": name, "datatype": datatype, "shape": [data.len()], "data": data});
        for (model, x, z, expected) in [
            ("Div", &[least, 7][..], &[-1, 2][..], None),
            ("Div", &[least, 7], &[2, -1], Some(json!([least / 2, -7]))),
            ("Div", &[7, least], &[-1], None),
            ("Div", &[7, 8], &[-1], Some(json!([-7, -8]))),
            ("Div", &[7], &[0], None),
            ("Mod", &[least], &[-1], None),
            ("Mod", &[7], &[-4], Some(json!([-1]))),
            ("Mod", &[7], &[0], None),
        ] {
            let inputs = json!([numbers("x", "INT64", x), numbers("z", "INT64", z)]);
            self.divides(model, inputs, expected).await;
        }
        let least = i64::from(i32::MIN);
        let inputs = |x: i64, z: i64| json!([numbers("x", "INT32", &[x]), numbers("z", "INT32", &[z])]);
        self.divides("Div-32", inputs(least, -1), None).await;
        self.divides("Div-32", inputs(least + 1, -1), Some(json!([i32::MAX])))
            .await;
        let inputs = |data: &[i64]| json!([numbers("x", "INT64", data)]);
        self.divides("negated", inputs(&[i64::MIN, 3]), None).await;
        self.divides("negated", inputs(&[3, 4]), Some(json!([-3, 4])))
            .await;
    }

    /// The answer, or a refusal in the operator's name.
    async fn divides(&self, model: &str, inputs: Value, expected: Option<Value>) {
        let (status, answer) = self.infer(model, inputs.clone()).await;
        let Some(expected) = expected else {
            let problem = answer["error"].as_str().unwrap_or_default();
            assert_eq!(status, 400, "{model} {inputs}: {answer}");
            assert!(
                problem.starts_with("the model rejects these inputs: "),
                "{problem}"
            );
            return;
        };
        assert_eq!(
            (status, &answer["outputs"][0]["data"]),
            (200, &expected),
            "{model} {inputs}"
        );
    }

    async fn divisions_over_grpc(&self) {
        for (divisor, expected) in [(-1_i64, "3"), (-2, "0")] {
            let input = |name: &str| InferInputTensor {
                name: name.to_owned(),
                datatype: "INT64".to_owned(),
                shape: vec![1],
                ..Default::default()
            };
            let raw = |value: i64| value.to_le_bytes().to_vec().into();
            let request = ModelInferRequest {
                model_name: "Div".to_owned(),
                inputs: vec![input("x"), input("z")],
                raw_input_contents: vec![raw(i64::MIN), raw(divisor)],
                ..Default::default()
            };
            let message = request.encode_to_vec();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let body = [&[0][..], &length, &message].concat();
            let path = "http://photos/inference.GRPCInferenceService/ModelInfer";
            let mut request = post(path, body);
            let kind = "application/grpc".parse().unwrap();
            request.headers_mut().insert("content-type", kind);
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            let response = connect_http_2(self.http)
                .await
                .send_request(request)
                .await
                .unwrap();
            let in_head = response.headers().get("grpc-status").cloned();
            let answer = response.into_body().collect().await.unwrap();
            let in_trailers = answer
                .trailers()
                .and_then(|trailers| trailers.get("grpc-status").cloned());
            assert_eq!(in_head.or(in_trailers).unwrap(), expected, "{divisor}");
        }
    }

    /// Requests that may be one run: only the one that cannot be divided is refused.
    async fn divisions_at_once(&self) {
        let requests = (1..=16_i64).map(|row| async move {
            let (x, z) = if row == 9 { (i64::MIN, -1) } else { (i64::MIN, row) };
            let input = |name: &str, value: i64| json!({"name": name, "datatype": "INT64", "shape": [1], "data": [value]});
            let (status, answer) = self.infer("ratios", json!([input("x", x), input("z", z)])).await;
            let expected = if row == 9 { Value::Null } else { json!([i64::MIN / row]) };
            assert_eq!(status, if row == 9 { 400 } else { 200 }, "{answer}");
            assert_eq!(answer["outputs"][0]["data"], expected);
        });
        futures::future::join_all(requests).await;
    }

    /// What a client's values cause is the client's error, in the operator's words.
    async fn refusals(&self) {
        let floats = |name: &str, shape: &[usize]| {
            let count: usize = shape.iter().product();
            json!({"name": name, "datatype": "FP32", "shape": shape, "data": vec![1.0; count]})
        };
        let integers = |name: &str, data: &[i64]| json!({"name": name, "datatype": "INT64", "shape": [data.len()], "data": data});
        let different = json!([floats("x", &[2]), floats("z", &[3])]);
        let (status, answer) = self.infer("same-size", different).await;
        let problem = answer["error"].as_str().unwrap();
        assert_eq!(status, 400, "{answer}");
        assert!(problem.contains("must be the same size everywhere"), "{problem}");
        for (model, inputs, expected) in [
            ("Add", json!([floats("x", &[2]), floats("z", &[3])]), 400),
            ("MatMul", json!([floats("x", &[2, 3]), floats("z", &[2, 3])]), 400),
            ("Div", json!([integers("x", &[1]), integers("z", &[0])]), 400),
            (
                "GatherElements",
                json!([floats("x", &[3]), integers("z", &[7])]),
                400,
            ),
            ("TopK", json!([floats("x", &[3]), integers("z", &[5])]), 400),
            ("Reshape", json!([floats("x", &[6]), integers("z", &[4, 2])]), 400),
            ("ConstantOfShape", json!([integers("z", &[-2])]), 400),
            ("ConstantOfShape", json!([integers("z", &[1 << 42])]), 503),
        ] {
            let (status, answer) = self.infer(model, inputs).await;
            assert_eq!(status, expected, "{model}: {answer}");
            let problem = answer["error"].as_str().unwrap();
            if expected == 400 {
                let begins = format!("the model rejects these inputs: {model}");
                assert!(problem.starts_with(&begins), "{problem}");
            } else {
                assert!(problem.contains("needs 17592186044416 bytes"), "{problem}");
            }
            for place in ["onnxruntime", ".cc:", ".h:"] {
                assert!(!problem.contains(place), "{problem}");
            }
        }
    }

    async fn images(&self) {
        let photo = std::fs::read(example("photos/cat.jpg")).unwrap();
        let (status, answer) = self
            .send("/v1/models/min-max:classify", Some(photo.clone()))
            .await;
        assert_eq!(
            (status, &answer["predictions"][0]["probability"]),
            (200, &json!(1.0)),
            "{answer}"
        );
        let (status, answer) = self.send("/v1/models/masked:classify?top_k=3", Some(photo)).await;
        assert_eq!(status, 200, "{answer}");
        let last = &answer["predictions"][2];
        assert_eq!(
            (&last["label"], &last["probability"]),
            (&json!("cow"), &json!(0.0)),
            "{answer}"
        );
        // A classification counts in each part of the statistics.
        let (_, answer) = self.send("/v2/models/masked/stats", None).await;
        let statistics = &answer["model_stats"][0]["inference_stats"];
        for part in [
            "success",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
        ] {
            assert_eq!(statistics[part]["count"], 1, "{part}: {answer}");
        }
    }

    async fn sizes(&self) {
        let x = json!({"name": "x", "datatype": "FP32", "shape": [6], "data": [1, 2, 3, 4, 5, 6]});
        let size = |size: [i64; 2]| json!({"name": "size", "datatype": "INT64", "shape": [2], "data": size});
        let (status, answer) = self.infer("sizes", json!([x, size([2, 3])])).await;
        assert_eq!(
            (status, &answer["outputs"][0]["shape"]),
            (200, &json!([2, 3])),
            "{answer}"
        );
    }

    /// An image as a text, bytes that are not UTF-8, and a zero.
    async fn bytes(&self) {
        let x = json!({"name": "x", "datatype": "FP32", "shape": [1], "data": [1]});
        let (status, answer) = self.infer("bytes", json!([x])).await;
        let problem = answer["error"].as_str().unwrap();
        assert_eq!(status, 400, "{answer}");
        assert!(
            problem.contains("output \"text\": element 0 is not UTF-8"),
            "{problem}"
        );
        let texts: [&[u8]; 4] = [b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"", b"a\0b\0", b"\0"];
        let data: Vec<u8> = texts
            .iter()
            .flat_map(|text| {
                let length = u32::try_from(text.len()).unwrap();
                [&length.to_le_bytes()[..], text].concat()
            })
            .collect();
        let parameters = json!({"binary_data_size": data.len()});
        let x = json!({"name": "x", "datatype": "BYTES", "shape": [4], "parameters": parameters});
        let head = json!({"inputs": [x], "parameters": {"binary_data_output": true}}).to_string();
        let mut request = post("/v2/models/texts/infer", [head.as_bytes(), &data].concat());
        request
            .headers_mut()
            .insert("inference-header-content-length", head.len().into());
        let response = connect(self.http).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.ends_with(&data), "{body:?}");
        // A zero has a JSON form.
        let x = json!({"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a\0b", "é"]});
        let (status, answer) = self.infer("texts", json!([x])).await;
        assert_eq!(
            (status, &answer["outputs"][0]["data"]),
            (200, &json!(["a\0b", "é"])),
            "{answer}"
        );
    }

    async fn any_rank(&self) {
        let (_, metadata) = self.send("/v2/models/any-rank", None).await;
        assert_eq!(metadata["inputs"][0]["shape"], json!([-1]), "{metadata}");
        assert_eq!(metadata["outputs"][0]["shape"], json!([-1]), "{metadata}");
        for (shape, data) in [
            (json!([]), json!([3])),
            (json!([2]), json!([3, 4])),
            (json!([1, 2, 1]), json!([3, 4])),
        ] {
            let x = json!({"name": "x", "datatype": "FP32", "shape": shape, "data": data});
            let (status, answer) = self.infer("any-rank", json!([x])).await;
            assert_eq!(
                (status, &answer["outputs"][0]["shape"]),
                (200, &shape),
                "{answer}"
            );
            assert_eq!(answer["outputs"][0]["data"][0], json!(6.0), "{answer}");
        }
        let answer = self.predict("any-rank", json!({"inputs": [[1], [2]]})).await;
        assert_eq!(answer, (200, json!([[2.0], [4.0]])));
        let answer = self.predict("any-rank", json!({"inputs": 2})).await;
        assert_eq!(answer, (200, json!(4.0)));
    }

    async fn scalars(&self) {
        for t in [json!(0.5), json!([0.5])] {
            let columns = json!({"inputs": {"x": [[2, 4], [6, 8]], "t": t}});
            let answer = self.predict("scalar", columns).await;
            assert_eq!(answer, (200, json!({"y": [[1.0, 2.0], [3.0, 4.0]], "u": 0.5})));
        }
        for request in [
            json!({"inputs": 2}),
            json!({"inputs": {"x": 2}}),
            json!({"instances": [2]}),
            json!({"instances": [{"x": 2}]}),
        ] {
            assert_eq!(
                self.predict("one", request.clone()).await,
                (200, json!(2.0)),
                "{request}"
            );
            assert_eq!(
                self.predict("rows", request.clone()).await,
                (200, json!([2.0])),
                "{request}"
            );
        }
        for request in [
            json!({"inputs": [1, 2]}),
            json!({"instances": [1, 2]}),
            json!({"inputs": [[1]]}),
            json!({"inputs": "a"}),
            json!({"inputs": null}),
        ] {
            let (status, answer) = self.predict("one", request.clone()).await;
            assert_eq!(status, 400, "{request}: {answer}");
        }
        let (_, config) = self.send("/v2/models/scalar/config", None).await;
        let (x, t) = (&config["input"][0], &config["input"][1]);
        assert_eq!(
            (&x["dims"], x.get("reshape")),
            (&json!([-1, 2]), None),
            "{config}"
        );
        assert_eq!(
            (&t["dims"], &t["reshape"]),
            (&json!([1]), &json!({"shape": []})),
            "{config}"
        );
        assert_eq!(config["output"][1]["reshape"], json!({"shape": []}), "{config}");
        let (_, config) = self.send("/v2/models/rows/config", None).await;
        let x = &config["input"][0];
        assert!(config["max_batch_size"].as_i64().unwrap() > 0, "{config}");
        assert_eq!(
            (&x["dims"], &x["reshape"]),
            (&json!([1]), &json!({"shape": []})),
            "{config}"
        );
    }

    async fn empty(&self) {
        let empty = json!([{"name": "x", "datatype": "FP32", "shape": [0, 2], "data": []}]);
        let (status, answer) = self.infer("empty", empty.clone()).await;
        assert_eq!(
            (status, &answer["outputs"][0]["shape"]),
            (200, &json!([0, 2])),
            "{answer}"
        );
        let (status, answer) = self.infer("any", empty).await;
        assert_eq!(status, 400);
        assert!(
            answer["error"].as_str().unwrap().contains("any size from 1"),
            "{answer}"
        );
    }
}

/// Each of them once ended the server at startup, or made it refuse every request.
#[tokio::test]
async fn valid_models_of_unusual_kinds_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    running.check().await;
    let failed = |model: &str| {
        let lines = running.server.log().iter();
        lines
            .filter(|line| line["model"] == model)
            .filter_map(|line| line["message"].as_str())
            .any(|message| message.contains("neither warmed up nor batched"))
    };
    assert!(failed("sizes"), "{:#?}", running.server.log());
    assert!(!failed("bytes") && !failed("min-max") && !failed("masked") && !failed("scalar"));
}

/// Some exporters write text in the encoding of their country, and ONNX Runtime runs that. Such a model was served without
/// its description and operator set, and not at all if it had weights in a file.
#[tokio::test]
async fn a_model_whose_text_is_not_utf_8_is_served_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let (model, weights) = matmul(2, Some("w.data"));
    // Field 6, the description.
    let model = [&model[..], b"\x32\x04caf\xE9"].concat();
    std::fs::write(folder.path().join("model.onnx"), model).unwrap();
    std::fs::write(folder.path().join("w.data"), weights).unwrap();
    let config = json!({"models": [{"name": "m", "path": folder.path()}]});
    let mut server = Server::start(&config.to_string(), &[]);
    let (http, management) = server.addresses();
    let running = Running { server, http };
    let rows = json!([{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]);
    let (status, answer) = running.infer("m", rows).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([0.0, 0.0])));
    let management = Running {
        http: management,
        ..running
    };
    let (_, report) = management.send("/report", None).await;
    let model = &report["models"][0];
    assert_eq!(
        (&model["opset"], &model["description"]),
        (&json!(17), &json!("caf\u{FFFD}"))
    );
    let reason = model["batching"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the graph keeps rows independent"), "{reason}");
}
