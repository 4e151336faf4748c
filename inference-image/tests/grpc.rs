//! The Open Inference Protocol over gRPC on real models, in process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::http::uri::PathAndQuery;
use bytes::Bytes;
use modelservice_contract::ServerConfig;
use modelservice_server::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol::proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use modelservice_server::protocol::proto::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use modelservice_server::service::Service;
use modelservice_server::{config, protocol};
use prost::Message;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use support::{example, library};
use tonic::client::Grpc;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let models = [json!({"name": "colors", "path": example("colors")})];
    let limits = json!({"maxBodyBytes": 1_000_000});
    let text = json!({"models": models, "limits": limits}).to_string();
    let config: ServerConfig = config::parse(&text).unwrap();
    Arc::new(Service::load(&config, &library(), 1).unwrap())
});

fn router() -> Router {
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Ready);
    protocol::router(Arc::clone(&SERVICE), lifecycle)
}

async fn call<Q, A>(name: &str, request: Request<Q>) -> Result<Response<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut client = Grpc::new(router());
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/inference.GRPCInferenceService/{name}")).unwrap();
    client.unary(request, path, ProstCodec::<Q, A>::default()).await
}

async fn ask<Q, A>(name: &str, request: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    call(name, Request::new(request)).await.map(Response::into_inner)
}

async fn infer(request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    ask("ModelInfer", request).await
}

/// An image for `colors`: 16×16 pixels, red is 1, the others are 0.
fn red() -> Vec<f32> {
    let mut values = vec![0.0; 3 * 16 * 16];
    values[..256].fill(1.0);
    values
}

fn bytes(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn images() -> InferInputTensor {
    InferInputTensor {
        name: "images".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 3, 16, 16],
        ..Default::default()
    }
}

fn raw() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "colors".to_owned(),
        id: "seven".to_owned(),
        inputs: vec![images()],
        raw_input_contents: vec![bytes(&red())],
        ..Default::default()
    }
}

fn typed(values: Vec<f32>) -> ModelInferRequest {
    let contents = InferTensorContents {
        fp32_contents: values,
        ..Default::default()
    };
    let input = InferInputTensor {
        contents: Some(contents),
        ..images()
    };
    ModelInferRequest {
        inputs: vec![input],
        raw_input_contents: Vec::new(),
        ..raw()
    }
}

#[tokio::test]
async fn the_server_describes_itself_and_its_models() {
    let live: ServerLiveResponse = ask("ServerLive", ServerLiveRequest {}).await.unwrap();
    let ready: ServerReadyResponse = ask("ServerReady", ServerReadyRequest {}).await.unwrap();
    assert!(live.live && ready.ready);
    let server: ServerMetadataResponse = ask("ServerMetadata", ServerMetadataRequest {}).await.unwrap();
    assert_eq!(server.name, "modelservice-server");
    for version in ["", "1"] {
        let (name, version) = ("colors".to_owned(), version.to_owned());
        let model = ModelReadyRequest { name, version };
        let ready: ModelReadyResponse = ask("ModelReady", model).await.unwrap();
        assert!(ready.ready);
    }
    let (name, version) = ("colors".to_owned(), String::new());
    let model: ModelMetadataResponse = ask("ModelMetadata", ModelMetadataRequest { name, version })
        .await
        .unwrap();
    assert_eq!(
        (model.inputs[0].name.as_str(), &*model.inputs[0].shape),
        ("images", &[-1, 3, 16, 16][..])
    );
    assert_eq!(
        (model.outputs[0].datatype.as_str(), &*model.outputs[0].shape),
        ("FP32", &[-1, 3][..])
    );
    assert_eq!(model.versions, ["1"]);
}

#[tokio::test]
async fn raw_and_typed_tensors_go_in_and_raw_ones_come_out() {
    for request in [raw(), typed(red())] {
        let answer = infer(request).await.unwrap();
        assert_eq!(
            (answer.model_name.as_str(), answer.id.as_str()),
            ("colors", "seven")
        );
        let output = &answer.outputs[0];
        assert_eq!(
            (output.name.as_str(), output.datatype.as_str(), &*output.shape),
            ("scores", "FP32", &[1, 3][..])
        );
        assert_eq!(answer.raw_output_contents, [bytes(&[4.0, 0.0, 0.0])]);
    }
}

struct Case {
    what: &'static str,
    code: Code,
    /// Part of the message.
    words: &'static str,
    request: fn() -> ModelInferRequest,
}

const fn case(
    what: &'static str,
    code: Code,
    words: &'static str,
    request: fn() -> ModelInferRequest,
) -> Case {
    Case {
        what,
        code,
        words,
        request,
    }
}

fn with_input(change: fn(&mut InferInputTensor)) -> ModelInferRequest {
    let mut request = raw();
    change(&mut request.inputs[0]);
    request
}

const CASES: &[Case] = &[
    case(
        "a model that is not served",
        Code::NotFound,
        "this server has: colors",
        || ModelInferRequest {
            model_name: "dogs".to_owned(),
            ..raw()
        },
    ),
    case(
        "another version than 1",
        Code::NotFound,
        "no version \"2\"",
        || ModelInferRequest {
            model_version: "2".to_owned(),
            ..raw()
        },
    ),
    case(
        "a message larger than `limits.maxBodyBytes`",
        Code::ResourceExhausted,
        "larger than 1000000 bytes",
        || ModelInferRequest {
            raw_input_contents: vec![vec![0; 1_000_000].into()],
            ..raw()
        },
    ),
    case(
        "an input that the model does not have",
        Code::InvalidArgument,
        "it has: images",
        || with_input(|input| input.name = "pictures".to_owned()),
    ),
    case(
        "an input of the model is missing",
        Code::InvalidArgument,
        "input \"images\" is missing",
        || ModelInferRequest {
            inputs: Vec::new(),
            raw_input_contents: Vec::new(),
            ..raw()
        },
    ),
    case(
        "an input given twice",
        Code::InvalidArgument,
        "given twice",
        || ModelInferRequest {
            inputs: vec![images(), images()],
            raw_input_contents: vec![bytes(&red()), bytes(&red())],
            ..raw()
        },
    ),
    case(
        "another datatype than the model's",
        Code::InvalidArgument,
        "is FP32, the request says INT32",
        || with_input(|input| input.datatype = "INT32".to_owned()),
    ),
    case(
        "a datatype that does not exist",
        Code::InvalidArgument,
        "unknown datatype",
        || with_input(|input| input.datatype = "FLOAT".to_owned()),
    ),
    case(
        "another shape than the model's",
        Code::InvalidArgument,
        "(-1 is any size from 1)",
        || with_input(|input| input.shape = vec![1, 3, 16, 17]),
    ),
    case(
        "a shape of more than 64 dimensions",
        Code::InvalidArgument,
        "more than 64 dimensions",
        || with_input(|input| input.shape = vec![1; 65]),
    ),
    case(
        "raw contents that do not fill the shape",
        Code::InvalidArgument,
        "takes 3072 bytes, not 3071",
        || ModelInferRequest {
            raw_input_contents: vec![bytes(&red()).slice(1..)],
            ..raw()
        },
    ),
    case(
        "typed contents that do not fill the shape",
        Code::InvalidArgument,
        "takes 3072 bytes, not 8",
        || typed(vec![1.0, 2.0]),
    ),
    case(
        "neither raw nor typed contents",
        Code::InvalidArgument,
        "neither contents nor",
        || ModelInferRequest {
            raw_input_contents: Vec::new(),
            ..raw()
        },
    ),
    case(
        "both raw and typed contents",
        Code::InvalidArgument,
        "both contents and",
        || ModelInferRequest {
            raw_input_contents: vec![bytes(&red())],
            ..typed(red())
        },
    ),
    case(
        "raw contents for some inputs only",
        Code::InvalidArgument,
        "all of them or none",
        || ModelInferRequest {
            raw_input_contents: vec![bytes(&red()), bytes(&red())],
            ..raw()
        },
    ),
    case(
        "an output that the model does not have",
        Code::InvalidArgument,
        "it has: scores",
        || ModelInferRequest {
            outputs: vec![wanted("logits")],
            ..raw()
        },
    ),
    case(
        "an output asked for twice",
        Code::InvalidArgument,
        "asked for twice",
        || ModelInferRequest {
            outputs: vec![wanted("scores"), wanted("scores")],
            ..raw()
        },
    ),
];

fn wanted(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor {
        name: name.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_bad_request_is_refused_with_a_code_and_a_message() {
    for case in CASES {
        let status = infer((case.request)()).await.unwrap_err();
        assert_eq!(status.code(), case.code, "{}: {status:?}", case.what);
        assert!(status.message().contains(case.words), "{}: {status:?}", case.what);
    }
    // None of them has done harm.
    infer(raw()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_that_is_over_is_told_and_one_that_is_not_does_no_harm() {
    let mut request = Request::new(raw());
    request.set_timeout(Duration::ZERO);
    let late: Result<Response<ModelInferResponse>, Status> = call("ModelInfer", request).await;
    assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    let mut request = Request::new(raw());
    request.set_timeout(Duration::from_secs(3600));
    let early: Result<Response<ModelInferResponse>, Status> = call("ModelInfer", request).await;
    early.unwrap();
}
