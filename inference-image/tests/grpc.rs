//! The Open Inference Protocol over gRPC on real models, in process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::http::uri::PathAndQuery;
use bytes::Bytes;
use futures::stream::{StreamExt, iter};
use modelservice_contract::{Limits, ServerConfig};
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol::proto::infer_parameter::ParameterChoice;
use modelservice_server::protocol::proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use modelservice_server::protocol::proto::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use modelservice_server::tensor::DataType;
use modelservice_server::{config, protocol};
use prost::Message;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use support::engine::{Echo, signature};
use support::{check_docs_table, example, library};
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tower::ServiceExt;

static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let models = [json!({"name": "colors", "path": example("colors")})];
    let limits = json!({"maxBodyBytes": 1_000_000});
    let text = json!({"models": models, "limits": limits}).to_string();
    let config: ServerConfig = config::parse(&text).unwrap();
    Arc::new(Service::load(&config, &library(), 1).unwrap())
});

fn router() -> Router {
    router_in(Phase::Ready).0
}

fn router_in(phase: Phase) -> (Router, Lifecycle) {
    let lifecycle = Lifecycle::default();
    lifecycle.enter(phase);
    (
        protocol::router(Arc::clone(&SERVICE), lifecycle.clone()),
        lifecycle,
    )
}

async fn client(router: Router) -> Grpc<Router> {
    let mut client = Grpc::new(router);
    client.ready().await.unwrap();
    client
}

async fn call<Q, A>(name: &str, request: Request<Q>) -> Result<Response<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let path = PathAndQuery::try_from(format!("/inference.GRPCInferenceService/{name}")).unwrap();
    let codec = ProstCodec::<Q, A>::default();
    client(router()).await.unary(request, path, codec).await
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
    // Triton's examples check both.
    assert_eq!(server.name, "triton");
    assert!(!server.extensions.contains(&"model_repository".to_owned()));
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
        "not served here, only: colors",
        || ModelInferRequest {
            model_name: "dogs".to_owned(),
            ..raw()
        },
    ),
    case(
        "a version other than 1",
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
        "only: images",
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
        "a datatype other than the model's",
        Code::InvalidArgument,
        "is FP32, but the request says INT32",
        || with_input(|input| input.datatype = "INT32".to_owned()),
    ),
    case(
        "a datatype that does not exist",
        Code::InvalidArgument,
        "unknown datatype",
        || with_input(|input| input.datatype = "FLOAT".to_owned()),
    ),
    case(
        "a shape other than the model's",
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
        "only: scores",
        || ModelInferRequest {
            outputs: vec![wanted("logits")],
            ..raw()
        },
    ),
    case(
        "an `int64_param` or `uint64_param` of `timeout` or `priority` that is below 0, or of another type",
        Code::InvalidArgument,
        "\"timeout\" must be a non-negative integer",
        || with_parameter("timeout", ParameterChoice::Int64Param(-1)),
    ),
    case(
        "more than 1024 inputs, outputs or parameters",
        Code::InvalidArgument,
        "more than 1024 inputs",
        || ModelInferRequest {
            inputs: vec![images(); 1025],
            ..raw()
        },
    ),
    case(
        "a tensor in shared memory",
        Code::InvalidArgument,
        "shared memory, which is not implemented",
        || {
            with_input(|input| {
                let region = parameter(ParameterChoice::StringParam("region".to_owned()));
                input.parameters.insert("shared_memory_region".to_owned(), region);
            })
        },
    ),
    case(
        "a `classification` that is not a count of at least 1",
        Code::InvalidArgument,
        "at least 1",
        || ModelInferRequest {
            outputs: vec![classified(0)],
            ..raw()
        },
    ),
    case(
        "an output requested twice",
        Code::InvalidArgument,
        "requested twice",
        || ModelInferRequest {
            outputs: vec![wanted("scores"), wanted("scores")],
            ..raw()
        },
    ),
];

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter {
        parameter_choice: Some(choice),
    }
}

fn with_parameter(name: &str, choice: ParameterChoice) -> ModelInferRequest {
    let mut request = raw();
    request.parameters.insert(name.to_owned(), parameter(choice));
    request
}

fn classified(count: i64) -> InferRequestedOutputTensor {
    let mut output = wanted("scores");
    let count = parameter(ParameterChoice::Int64Param(count));
    output.parameters.insert("classification".to_owned(), count);
    output
}

fn wanted(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor {
        name: name.to_owned(),
        ..Default::default()
    }
}

/// Rows that need a full queue are tested next to the code that produces them.
#[test]
fn the_documentation_lists_every_refusal() {
    let row = |case: &Case| {
        let code = format!("{:?}", case.code);
        let words = code.chars().flat_map(|letter| {
            let space = letter.is_uppercase().then_some('_');
            space.into_iter().chain(letter.to_uppercase())
        });
        let code: String = words.skip(1).collect();
        format!("| {} | {code} | …{}… |", case.what, case.words)
    };
    let rows: Vec<String> = CASES.iter().map(row).collect();
    check_docs_table(
        "calls that are refused",
        "| What is sent | Status | Message |",
        &rows,
    );
}

#[tokio::test]
async fn every_bad_request_is_refused_with_a_code_and_a_message() {
    for case in CASES {
        let status = infer((case.request)()).await.unwrap_err();
        assert_eq!(status.code(), case.code, "{}: {status:?}", case.what);
        assert!(status.message().contains(case.words), "{}: {status:?}", case.what);
    }
    // None of them has done any harm.
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

#[tokio::test]
async fn what_tritons_clients_ask_for_is_there() {
    let (name, version) = ("colors".to_owned(), String::new());
    let config: ModelConfigResponse = ask("ModelConfig", ModelConfigRequest { name, version })
        .await
        .unwrap();
    let config = config.config.unwrap();
    assert_eq!(
        (config.max_batch_size, &*config.input[0].dims),
        (325, &[3, 16, 16][..])
    );
    infer(raw()).await.unwrap();
    let all = ModelStatisticsRequest::default();
    let statistics: ModelStatisticsResponse = ask("ModelStatistics", all).await.unwrap();
    assert!(
        statistics.model_stats[0]
            .inference_stats
            .unwrap()
            .success
            .unwrap()
            .count
            >= 1
    );
    let index: RepositoryIndexResponse = ask("RepositoryIndex", RepositoryIndexRequest::default())
        .await
        .unwrap();
    assert_eq!(
        (index.models[0].name.as_str(), index.models[0].state.as_str()),
        ("colors", "READY")
    );
    for call in [
        "RepositoryModelLoad",
        "SystemSharedMemoryStatus",
        "TraceSetting",
        "Nonsense",
    ] {
        let status = ask::<_, ServerLiveResponse>(call, ServerLiveRequest {})
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(call), "{status:?}");
    }
}

#[tokio::test]
async fn classes_identifiers_and_unknown_parameters_come_back() {
    let request = ModelInferRequest {
        outputs: vec![classified(2)],
        ..with_parameter("trace", ParameterChoice::StringParam("é".to_owned()))
    };
    let answer = infer(request).await.unwrap();
    assert_eq!(
        (answer.outputs[0].datatype.as_str(), &*answer.outputs[0].shape),
        ("BYTES", &[1, 2][..])
    );
    assert!(answer.raw_output_contents[0].starts_with(b"\x0e\0\0\x004.000000:0:red"));
    let trace = parameter(ParameterChoice::StringParam("é".to_owned()));
    assert_eq!(
        answer.parameters.into_iter().collect::<Vec<_>>(),
        [("trace".to_owned(), trace)]
    );
    let known = with_parameter("priority", ParameterChoice::Uint64Param(1));
    assert!(infer(known).await.unwrap().parameters.is_empty());
}

/// One bad request must not end the stream for the others.
#[tokio::test]
async fn a_stream_answers_each_request_in_its_order() {
    let requests = (0..100).map(|index: usize| ModelInferRequest {
        id: index.to_string(),
        model_name: if index % 10 == 3 { "dogs" } else { "colors" }.to_owned(),
        ..raw()
    });
    let answers: Vec<_> = stream(router(), iter(requests)).await.unwrap().collect().await;
    assert_eq!(answers.len(), 100);
    for (index, answer) in answers.into_iter().enumerate() {
        let answer: ModelStreamInferResponse = answer.unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, index.to_string());
        if index % 10 == 3 {
            assert!(
                answer.error_message.contains("unknown model: \"dogs\""),
                "{}",
                answer.error_message
            );
            continue;
        }
        assert_eq!(answer.error_message, "");
        assert_eq!(response.raw_output_contents, [bytes(&[4.0, 0.0, 0.0])]);
        let last = parameter(ParameterChoice::BoolParam(true));
        assert_eq!(response.parameters.get("triton_final_response"), Some(&last));
    }
}

/// Sends this as the message of a call; returns the gRPC status.
async fn post(router: &Router, headers: &[(&str, &str)], message: &[u8]) -> String {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    let mut request = axum::http::Request::post("/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(axum::body::Body::from(body)).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    answer.headers()["grpc-status"].to_str().unwrap().to_owned()
}

/// Returns its input; requests of other tests are not counted for it.
fn echo() -> Arc<Service> {
    let limits = Limits {
        max_body_bytes: 1_000_000,
        ..Limits::default()
    };
    let mut service = Service::empty("1", "CPUExecutionProvider", limits, 1).unwrap();
    let engine = Box::new(Echo(signature(&[("images", DataType::Fp32, &[-1, 3, 16, 16])])));
    service.add("colors", String::new(), vec![engine], None).unwrap();
    Arc::new(service)
}

/// Otherwise clients that send only invalid requests would not appear in any graph.
#[tokio::test]
async fn what_fails_before_a_message_is_read_is_counted_for_its_model_if_that_is_known() {
    let service = echo();
    let lifecycle = Lifecycle::default();
    lifecycle.enter(Phase::Ready);
    let router = protocol::router(Arc::clone(&service), lifecycle);
    let invalid = || {
        let text = service.metrics().unwrap();
        let value = |name: &str| -> usize {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        let model = value(r#"modelservice_requests_total{model="colors",outcome="invalid"}"#);
        let none = r#"modelservice_unassigned_requests_total{outcome="#;
        (
            model,
            value(&format!("{none}\"invalid\"}}")),
            value(&format!("{none}\"expired\"}}")),
        )
    };
    let unknown = ModelInferRequest {
        model_name: "dogs".to_owned(),
        ..raw()
    };
    let broken = |request: ModelInferRequest| [&request.encode_to_vec()[..], b"\x3a\xff"].concat();
    assert_eq!(post(&router, &[], &vec![0; 1_000_001]).await, "8");
    assert_eq!(invalid(), (0, 1, 0), "too large");
    assert_eq!(post(&router, &[("grpc-timeout", "soon")], b"").await, "3");
    assert_eq!(invalid(), (0, 2, 0), "no deadline");
    assert_eq!(post(&router, &[("grpc-timeout", "0S")], b"").await, "4");
    assert_eq!(invalid(), (0, 2, 1), "too late");
    assert_eq!(post(&router, &[], b"\xff").await, "3");
    assert_eq!(invalid(), (0, 3, 1), "no message");
    assert_eq!(post(&router, &[], &unknown.encode_to_vec()).await, "5");
    assert_eq!(invalid(), (0, 4, 1), "no such model");
    assert_eq!(post(&router, &[], &broken(unknown)).await, "5");
    assert_eq!(invalid(), (0, 5, 1), "a broken message for no such model");
    assert_eq!(post(&router, &[], &broken(raw())).await, "3");
    assert_eq!(invalid(), (1, 5, 1), "a broken message");
    // A stream continues after an invalid message, as after any other bad request.
    let answers = stream(router.clone(), iter([ModelInferRequest::default(), raw()]))
        .await
        .unwrap();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert!(
        answers[0].error_message.contains("unknown model: \"\""),
        "{answers:?}"
    );
    assert_eq!((answers[1].error_message.as_str(), invalid()), ("", (1, 6, 1)));
    // The same over HTTP.
    let request = axum::http::Request::post("/v2/models/dogs/infer").body(axum::body::Body::empty());
    let answer = router.oneshot(request.unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), invalid()), (404, (1, 7, 1)));
}

type Answers = tonic::Streaming<ModelStreamInferResponse>;

async fn stream(
    router: Router,
    requests: impl futures::Stream<Item = ModelInferRequest> + Send + 'static,
) -> Result<Answers, Status> {
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelStreamInfer");
    let codec = ProstCodec::<ModelInferRequest, ModelStreamInferResponse>::default();
    let answers = client(router)
        .await
        .streaming(Request::new(requests), path, codec)
        .await?;
    Ok(answers.into_inner())
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_on_ends_with_its_status() {
    let large = ModelInferRequest {
        raw_input_contents: vec![vec![0; 1_000_000].into()],
        ..raw()
    };
    let mut answers = stream(router(), iter([raw(), large, raw()])).await.unwrap();
    answers.next().await.unwrap().unwrap();
    assert_eq!(
        answers.next().await.unwrap().unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert!(answers.next().await.is_none());
}

/// An idle stream must not keep the server from shutting down.
#[tokio::test]
async fn an_idle_stream_ends_when_the_server_leaves() {
    let (router, lifecycle) = router_in(Phase::Ready);
    let requests = iter([raw()]).chain(futures::stream::pending());
    let mut answers = stream(router, requests).await.unwrap();
    answers.next().await.unwrap().unwrap();
    lifecycle.enter(Phase::Draining);
    assert_eq!(
        answers.next().await.unwrap().unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn messages_may_be_compressed() {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = client(router()).await.send_compressed(encoding);
        let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
        let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
        let answer = client
            .unary(Request::new(raw()), path, codec)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.raw_output_contents, [bytes(&[4.0, 0.0, 0.0])]);
    }
}

#[tokio::test]
async fn health_follows_the_lifecycle() {
    let check = async |phase: Phase, service: &str| {
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let service = service.to_owned();
        let request = Request::new(HealthCheckRequest { service });
        let answer = client(router_in(phase).0).await.unary(request, path, codec).await;
        answer.map(|answer| answer.into_inner().status())
    };
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(
            check(Phase::Loading, service).await.unwrap(),
            ServingStatus::NotServing
        );
        assert_eq!(
            check(Phase::Ready, service).await.unwrap(),
            ServingStatus::Serving
        );
        assert_eq!(
            check(Phase::Draining, service).await.unwrap(),
            ServingStatus::NotServing
        );
    }
    assert_eq!(
        check(Phase::Ready, "nonsense").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn who_watches_the_health_is_told_of_each_change_and_then_let_go() {
    let (router, lifecycle) = router_in(Phase::Loading);
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest::default());
    let watch = client(router).await.server_streaming(request, path, codec).await;
    let mut watch = watch.unwrap().into_inner();
    for (phase, status) in [
        (Phase::Loading, ServingStatus::NotServing),
        (Phase::Ready, ServingStatus::Serving),
        (Phase::Draining, ServingStatus::NotServing),
    ] {
        lifecycle.enter(phase);
        let told: HealthCheckResponse = watch.next().await.unwrap().unwrap();
        assert_eq!(told.status(), status);
    }
    assert!(watch.next().await.is_none());
}

/// grpcurl and similar tools need none of our files.
#[tokio::test]
async fn reflection_lists_the_services() {
    let path = PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let answers = client(router())
        .await
        .streaming(Request::new(iter([list])), path, codec)
        .await;
    let answer: ServerReflectionResponse = answers.unwrap().into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = services
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert!(names.contains(&"inference.GRPCInferenceService"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
}
