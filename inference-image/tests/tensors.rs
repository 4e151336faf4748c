//! Tensors of every type and shape through both protocols, in process: an engine that returns its inputs shows that
//! what arrives is what was sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::http::uri::PathAndQuery;
use http_body_util::BodyExt;
use modelservice_contract::Limits;
use modelservice_server::engine::Signature;
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol;
use modelservice_server::protocol::proto::model_infer_request::InferInputTensor;
use modelservice_server::protocol::proto::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use modelservice_server::tensor::DataType;
use serde_json::{Value, json};
use std::sync::Arc;
use support::engine::{Echo, signature};
use tonic::Status;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use tower::ServiceExt;

/// A model for each type, named after it, that accepts any matrix; and `both` with two inputs of different types.
fn router() -> Router {
    let mut service = Service::empty("1", "CPUExecutionProvider", Limits::default(), 1).unwrap();
    let mut add = |name: &str, signature: Signature| {
        service
            .add(name, String::new(), vec![Box::new(Echo(signature))], None)
            .unwrap();
    };
    for datatype in DataType::ALL {
        add(datatype.name(), signature(&[("x", datatype, &[-1, -1])]));
    }
    add(
        "both",
        signature(&[("x", DataType::Fp32, &[-1, 2]), ("y", DataType::Bytes, &[-1])]),
    );
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Ready);
    protocol::router(Arc::new(service), lifecycle)
}

/// Elements of a type, as JSON and as bytes.
fn elements(datatype: DataType) -> (Value, Vec<u8>) {
    fn of<T: Copy, const N: usize>(values: [T; N], bytes: impl Fn(T) -> Vec<u8>) -> Vec<u8> {
        values.into_iter().flat_map(bytes).collect()
    }
    macro_rules! numbers {
        ($type:ty) => {{
            let values: [$type; 4] = [<$type>::MIN, 0 as $type, 1 as $type, <$type>::MAX];
            (json!(values), of(values, |value| value.to_le_bytes().to_vec()))
        }};
    }
    match datatype {
        DataType::Bool => (json!([true, false, false, true]), vec![1, 0, 0, 1]),
        DataType::Uint8 => numbers!(u8),
        DataType::Uint16 => numbers!(u16),
        DataType::Uint32 => numbers!(u32),
        DataType::Uint64 => numbers!(u64),
        DataType::Int8 => numbers!(i8),
        DataType::Int16 => numbers!(i16),
        DataType::Int32 => numbers!(i32),
        DataType::Int64 => numbers!(i64),
        DataType::Fp32 => {
            let values = [-2.5_f32, 0.0, 0.1, 1e38];
            (
                json!([-2.5, 0.0, 0.1, 1e38]),
                of(values, |value| value.to_le_bytes().to_vec()),
            )
        }
        DataType::Fp64 => numbers!(f64),
        DataType::Fp16 | DataType::Bf16 => (Value::Null, (0..8).collect()),
        DataType::Bytes => {
            let bytes = b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xc3\xa9\x03\0\0\0\"\\\n";
            (json!(["a", "", "é", "\"\\\n"]), bytes.to_vec())
        }
    }
}

async fn rest(model: &str, header: Option<usize>, body: impl Into<Body>) -> (u16, Option<usize>, Bytes) {
    let mut request = Request::post(format!("/v2/models/{model}/infer"))
        .body(body.into())
        .unwrap();
    if let Some(length) = header {
        request
            .headers_mut()
            .insert("inference-header-content-length", length.into());
    }
    let response = router().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let length = response.headers().get("inference-header-content-length");
    let length = length.map(|value| value.to_str().unwrap().parse().unwrap());
    (
        status,
        length,
        response.into_body().collect().await.unwrap().to_bytes(),
    )
}

async fn grpc(request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    let mut client = Grpc::new(router());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
    Ok(client
        .unary(tonic::Request::new(request), path, codec)
        .await?
        .into_inner())
}

#[tokio::test]
async fn every_type_goes_in_and_out_as_json_but_half_precision() {
    for datatype in DataType::ALL {
        let (data, _) = elements(datatype);
        if data.is_null() {
            continue;
        }
        let tensor = json!({"name": "x", "datatype": datatype.name(), "shape": [2, 2], "data": data});
        let (status, length, body) =
            rest(datatype.name(), None, json!({"inputs": [tensor]}).to_string()).await;
        assert_eq!(
            (status, length),
            (200, None),
            "{}",
            String::from_utf8_lossy(&body)
        );
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["outputs"], json!([tensor]));
    }
}

#[tokio::test]
async fn every_type_goes_in_and_out_as_bytes() {
    for datatype in DataType::ALL {
        let (_, bytes) = elements(datatype);
        let parameters = json!({"binary_data_size": bytes.len()});
        let tensor =
            json!({"name": "x", "datatype": datatype.name(), "shape": [2, 2], "parameters": parameters});
        let head = json!({"inputs": [tensor], "parameters": {"binary_data_output": true}}).to_string();
        let body = [head.as_bytes(), &bytes].concat();
        let (status, length, body) = rest(datatype.name(), Some(head.len()), body).await;
        assert_eq!(status, 200, "{datatype:?} {}", String::from_utf8_lossy(&body));
        let (head, tail) = body.split_at(length.unwrap());
        let answer: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(answer["outputs"], json!([tensor]), "{datatype:?}");
        assert_eq!(tail, bytes, "{datatype:?}");
    }
}

#[tokio::test]
async fn every_type_goes_in_and_out_as_raw_contents() {
    for datatype in DataType::ALL {
        let (_, bytes) = elements(datatype);
        let mut request = matrix(datatype, None);
        request.raw_input_contents = vec![bytes.clone().into()];
        let answer = grpc(request).await.unwrap();
        assert_eq!(answer.outputs[0].datatype, datatype.name());
        assert_eq!(answer.outputs[0].shape, [2, 2]);
        assert_eq!(answer.raw_output_contents, [Bytes::from(bytes)], "{datatype:?}");
    }
}

fn matrix(datatype: DataType, contents: Option<InferTensorContents>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: datatype.name().to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: datatype.name().to_owned(),
            shape: vec![2, 2],
            contents,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn every_type_goes_in_as_typed_contents_but_half_precision() {
    for datatype in DataType::ALL {
        let (data, bytes) = elements(datatype);
        let mut contents = InferTensorContents::default();
        let small = |value: &Value| i32::try_from(value.as_i64().unwrap()).unwrap();
        let data = data.as_array().cloned().unwrap_or_default();
        for value in &data {
            match datatype {
                DataType::Bool => contents.bool_contents.push(value.as_bool().unwrap()),
                DataType::Int8 | DataType::Int16 | DataType::Int32 => {
                    contents.int_contents.push(small(value))
                }
                DataType::Int64 => contents.int64_contents.push(value.as_i64().unwrap()),
                DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => {
                    contents
                        .uint_contents
                        .push(u32::try_from(value.as_u64().unwrap()).unwrap());
                }
                DataType::Uint64 => contents.uint64_contents.push(value.as_u64().unwrap()),
                DataType::Fp32 => contents.fp32_contents.push(value.as_f64().unwrap() as f32),
                DataType::Fp64 => contents.fp64_contents.push(value.as_f64().unwrap()),
                DataType::Bytes => contents
                    .bytes_contents
                    .push(value.as_str().unwrap().to_owned().into()),
                DataType::Fp16 | DataType::Bf16 => unreachable!(),
            }
        }
        if data.is_empty() {
            contents.fp32_contents = vec![0.0; 4];
            let status = grpc(matrix(datatype, Some(contents))).await.unwrap_err();
            assert!(status.message().contains("raw_input_contents"), "{status:?}");
            continue;
        }
        let answer = grpc(matrix(datatype, Some(contents))).await.unwrap();
        assert_eq!(answer.raw_output_contents, [Bytes::from(bytes)], "{datatype:?}");
    }
}

/// As in Triton: a reader of JSON would round half-precision numbers.
#[tokio::test]
async fn half_precision_has_no_json_form() {
    for datatype in [DataType::Fp16, DataType::Bf16] {
        let tensor = json!({"name": "x", "datatype": datatype.name(), "shape": [2, 2], "data": [1, 2, 3, 4]});
        let head = json!({"inputs": [tensor], "parameters": {"binary_data_output": true}}).to_string();
        let (status, _, body) = rest(datatype.name(), None, head).await;
        let body = String::from_utf8_lossy(&body);
        assert!(status == 400 && body.contains("send it as binary data"), "{body}");

        let tensor = json!({"name": "x", "datatype": datatype.name(), "shape": [2, 2], "parameters": {"binary_data_size": 8}});
        let head = json!({"inputs": [tensor]}).to_string();
        let (status, _, body) = rest(datatype.name(), Some(head.len()), format!("{head}01234567")).await;
        let body = String::from_utf8_lossy(&body);
        assert!(
            status == 400 && body.contains("request it with binary_data"),
            "{body}"
        );
    }
}

/// Bytes follow in the order of the request, whatever the order of the model, and only for tensors that have some.
#[tokio::test]
async fn inputs_and_outputs_come_in_the_requests_order_each_in_its_own_form() {
    let y = json!({"name": "y", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}});
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[0.5, -2]]});
    let outputs = json!([{"name": "y"}, {"name": "x", "parameters": {"binary_data": true}}]);
    let head = json!({"inputs": [y, x], "outputs": outputs}).to_string();
    let body = [head.as_bytes(), b"\x02\0\0\0hi"].concat();
    let (status, length, body) = rest("both", Some(head.len()), body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let (head, tail) = body.split_at(length.unwrap());
    let answer: Value = serde_json::from_slice(head).unwrap();
    let expected = json!([
        {"name": "y", "datatype": "BYTES", "shape": [1], "data": ["hi"]},
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
    ]);
    assert_eq!(answer["outputs"], expected);
    assert_eq!(tail, [0.5_f32, -2.0].map(f32::to_le_bytes).concat());
}

/// A large tensor is sent as a part of its own, and arrives whole.
#[tokio::test]
async fn a_large_tensor_comes_back_as_it_was_sent() {
    let bytes: Vec<u8> = (0..600_000_u32).map(|index| (index % 251) as u8).collect();
    let parameters = json!({"binary_data_size": bytes.len()});
    let tensor = json!({"name": "x", "datatype": "UINT8", "shape": [1000, 600], "parameters": parameters});
    let head = json!({"inputs": [tensor], "parameters": {"binary_data_output": true}}).to_string();
    let (_, length, body) = rest("UINT8", Some(head.len()), [head.as_bytes(), &bytes].concat()).await;
    assert!(body[length.unwrap()..] == bytes);
    let mut request = matrix(DataType::Uint8, None);
    request.inputs[0].shape = vec![1000, 600];
    request.raw_input_contents = vec![bytes.clone().into()];
    assert!(grpc(request).await.unwrap().raw_output_contents == [Bytes::from(bytes)]);
}

/// An image as a text, or a text with a zero in it.
#[tokio::test]
async fn bytes_that_are_no_text_pass_in_every_form_but_json() {
    let texts = [Bytes::from_static(b"\xff\xd8\0"), Bytes::from_static(b"a\0b")];
    let wire = Bytes::from_static(b"\x03\0\0\0\xff\xd8\0\x03\0\0\0a\0b");
    let mut raw = matrix(DataType::Bytes, None);
    raw.inputs[0].shape = vec![1, 2];
    let mut typed = raw.clone();
    raw.raw_input_contents = vec![wire.clone()];
    typed.inputs[0].contents = Some(InferTensorContents {
        bytes_contents: texts.to_vec(),
        ..InferTensorContents::default()
    });
    for request in [raw, typed] {
        let answer = grpc(request).await.unwrap();
        assert_eq!(answer.raw_output_contents, std::slice::from_ref(&wire));
    }
    let parameters = json!({"binary_data_size": wire.len()});
    let tensor = json!({"name": "x", "datatype": "BYTES", "shape": [1, 2], "parameters": parameters});
    let head = json!({ "inputs": [tensor] }).to_string();
    let (status, _, body) = rest("BYTES", Some(head.len()), [head.as_bytes(), &wire].concat()).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 400 && body.contains("element 0 is not UTF-8"), "{body}");
}

/// What a person sees in Triton's own dashboards.
#[tokio::test]
async fn statistics_count_what_was_run_and_what_failed() {
    let router = router();
    let send = async |method: &str, path: &str, body: String| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body))
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    let tensor = json!({"name": "x", "datatype": "INT8", "shape": [2, 2], "data": [1, 2, 3, 4]});
    let good = json!({"inputs": [tensor]}).to_string();
    assert_eq!(send("POST", "/v2/models/INT8/infer", good).await.0, 200);
    assert_eq!(
        send("POST", "/v2/models/INT8/infer", "{}".to_owned()).await.0,
        400
    );
    let (_, body) = send("GET", "/v2/models/INT8/stats", String::new()).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let model = &answer["model_stats"][0];
    assert_eq!((&model["name"], &model["version"]), (&json!("INT8"), &json!("1")));
    assert_eq!(
        (&model["inference_count"], &model["execution_count"]),
        (&json!(2), &json!(1))
    );
    for (part, count) in [
        ("success", 1),
        ("fail", 1),
        ("queue", 1),
        ("compute_input", 1),
        ("compute_infer", 1),
        ("compute_output", 1),
        ("cache_hit", 0),
        ("cache_miss", 0),
    ] {
        assert_eq!(model["inference_stats"][part]["count"], count, "{part}: {model}");
    }
    let batch = &model["batch_stats"][0];
    for time in [
        &model["inference_stats"]["compute_output"],
        &batch["compute_output"],
    ] {
        assert!(time["ns"].as_u64().unwrap() > 0, "{model}");
    }
    assert_eq!(
        (&batch["batch_size"], &batch["compute_infer"]["count"]),
        (&json!(2), &json!(1))
    );
    assert!(model["last_inference"].as_u64().unwrap() > 1_700_000_000_000);
    let (_, body) = send("GET", "/v2/models/stats", String::new()).await;
    let all: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        all["model_stats"].as_array().unwrap().len(),
        DataType::ALL.len() + 1
    );
}
