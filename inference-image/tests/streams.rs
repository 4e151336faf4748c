//! gRPC's streams of requests: how many are in flight at once, and how streams end that clients never end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::http::uri::PathAndQuery;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::{Stream, StreamExt, iter, pending};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelservice_contract::{Limits, ModelLoad};
use modelservice_server::engine::{Engine, EngineError, Signature};
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol;
use modelservice_server::protocol::proto::model_infer_request::InferInputTensor;
use modelservice_server::protocol::proto::{ModelInferRequest, ModelStreamInferResponse};
use modelservice_server::tensor::{DataType, Tensor};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use support::engine::signature;
use support::grpc::one_byte;
use support::http::{connect, get};
use support::{Server, example};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::client::{Grpc, GrpcService};
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

type Answers = tonic::Streaming<ModelStreamInferResponse>;

async fn open<S>(service: S, requests: impl Stream<Item = ModelInferRequest> + Send + 'static) -> Answers
where
    S: GrpcService<tonic::body::Body>,
    S::ResponseBody: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelStreamInfer");
    let codec = ProstCodec::<ModelInferRequest, ModelStreamInferResponse>::default();
    let mut client = Grpc::with_origin(service, "http://photos".parse().unwrap());
    assert!(client.ready().await.is_ok());
    let answers = client.streaming(Request::new(requests), path, codec).await;
    answers.unwrap().into_inner()
}

/// Runs when the test says so.
struct Gated {
    signature: Signature,
    go: Receiver<()>,
}

impl Engine for Gated {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.go.recv().unwrap();
        // Long enough for others to arrive in the meantime.
        std::thread::sleep(Duration::from_millis(2));
        Ok(inputs.to_vec())
    }
}

/// A model on one core.
struct Bench {
    service: Arc<Service>,
    go: Sender<()>,
}

fn bench(queue_length: u32) -> Bench {
    let signature = signature(&[("x", DataType::Uint8, &[1])]);
    let limits = Limits {
        queue_length,
        ..Limits::default()
    };
    let mut service = Service::empty("1", "CPUExecutionProvider", limits, 1).unwrap();
    let (go, gate) = channel();
    // The warm-up.
    go.send(()).unwrap();
    let engine = Gated { signature, go: gate };
    service
        .add("m", String::new(), vec![Box::new(engine)], None)
        .unwrap();
    let service = Arc::new(service);
    Bench { service, go }
}

impl Bench {
    /// Sends requests over one stream; returns the responses when it has ended.
    fn send(&self, count: u8) -> JoinHandle<Vec<ModelStreamInferResponse>> {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Ready);
        let router: Router = protocol::router(Arc::clone(&self.service), lifecycle);
        tokio::spawn(async move {
            let answers = open(router, iter(0..count).map(numbered)).await;
            answers.map(Result::unwrap).collect().await
        })
    }

    async fn until(&self, holds: impl Fn(&ModelLoad) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(&self.service.model_loads(Duration::ZERO)[0]) {
            assert!(
                Instant::now() < deadline,
                "{:?}",
                self.service.model_loads(Duration::ZERO)
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn numbered(number: u8) -> ModelInferRequest {
    ModelInferRequest {
        id: number.to_string(),
        ..one_byte(number)
    }
}

fn check_all(answers: &[ModelStreamInferResponse], count: u8) {
    assert_eq!(answers.len(), usize::from(count));
    for (number, answer) in (0..count).zip(answers) {
        assert_eq!(answer.error_message, "", "{number}");
        let response = answer.infer_response.as_ref().unwrap();
        assert_eq!(response.id, number.to_string());
        assert_eq!(response.raw_output_contents[0][..], [number]);
    }
}

/// Otherwise a client with one stream would use only one core of the server, and no batches.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_stream_are_under_way_together_and_answered_in_their_order() {
    let bench = bench(128);
    let answers = bench.send(8);
    bench
        .until(|load| load.in_flight == 8 && load.queued + load.running == 8)
        .await;
    for _ in 0..8 {
        bench.go.send(()).unwrap();
    }
    check_all(&answers.await.unwrap(), 8);
}

/// A client that sends faster than the model runs is slowed down, not refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_alone_never_fills_the_queue() {
    let bench = bench(2);
    let answers = bench.send(20);
    bench.until(|load| load.in_flight == 2).await;
    for _ in 0..20 {
        bench.go.send(()).unwrap();
    }
    check_all(&answers.await.unwrap(), 20);
}

/// Abandoned requests must not take the cores from others.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_dropped_with_their_stream() {
    let bench = bench(128);
    let answers = bench.send(8);
    bench.until(|load| load.in_flight == 8).await;
    answers.abort();
    bench.until(|load| load.in_flight <= 1).await;
    // For the request that is running; any other would wait for ever.
    bench.go.send(()).unwrap();
    bench
        .until(|load| (load.in_flight, load.queued, load.running) == (0, 0, 0))
        .await;
}

fn config(more: &str) -> String {
    format!(
        "models: [{{name: colors, path: '{}'}}]\n{more}",
        example("colors").display()
    )
}

fn image(number: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "colors".to_owned(),
        id: number.to_string(),
        inputs: vec![InferInputTensor {
            name: "images".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 3, 16, 16],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; 4 * 3 * 16 * 16].into()],
        ..Default::default()
    }
}

/// A connection as a client uses it.
async fn dial(
    address: SocketAddr,
) -> (
    impl GrpcService<tonic::body::Body, ResponseBody = hyper::body::Incoming> + Clone,
    JoinHandle<hyper::Result<()>>,
) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let service = tower::service_fn(move |request: hyper::Request<tonic::body::Body>| {
        sender.clone().send_request(request)
    });
    (service, tokio::spawn(connection))
}

/// A client that always has some requests in flight on its stream.
struct Busy {
    requests: UnboundedSender<ModelInferRequest>,
    answers: Answers,
    connection: JoinHandle<hyper::Result<()>>,
    sent: usize,
}

impl Busy {
    async fn start(address: SocketAddr) -> Self {
        let (service, connection) = dial(address).await;
        let (requests, receiver) = unbounded();
        let mut busy = Self {
            requests,
            answers: open(service, receiver).await,
            connection,
            sent: 0,
        };
        (0..8).for_each(|_| busy.send());
        busy
    }

    fn send(&mut self) {
        // It is closed when the stream has ended.
        let _ = self.requests.unbounded_send(image(self.sent));
        self.sent += 1;
    }

    /// Continues until the stream ends; counts the responses, and returns their number and the final status.
    async fn run(mut self, progress: &AtomicUsize) -> (usize, Status) {
        let mut answered = 0;
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < give_up, "it goes on after {answered} answers");
            match self.answers.next().await {
                Some(Ok(answer)) => {
                    assert_eq!(answer.error_message, "");
                    assert_eq!(answer.infer_response.unwrap().id, answered.to_string());
                    answered += 1;
                    progress.fetch_add(1, Ordering::Relaxed);
                    self.send();
                }
                Some(Err(status)) => {
                    // The connection ends as well, and not as if it broke.
                    self.connection.await.unwrap().unwrap();
                    return (answered, status);
                }
                None => panic!("it ended as if all {} requests were answered", self.sent),
            }
        }
    }
}

/// Requests of the model with this outcome.
async fn counted(management: SocketAddr, outcome: &str) -> usize {
    let mut sender = connect(management).await;
    let answer = sender.send_request(get("/metrics")).await.unwrap();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let name = format!("modelservice_requests_total{{model=\"colors\",outcome=\"{outcome}\"}} ");
    let text = String::from_utf8(text.to_vec()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
    line.parse().unwrap()
}

fn check_end(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("open a new stream"), "{status:?}");
}

/// Otherwise a streaming client would stay with its replica for ever, however many are added.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_stream_ends_with_the_age_of_its_connection_and_every_request_that_was_read_is_answered() {
    let mut server = Server::start(&config("connections: {maxAgeSeconds: 1}"), &[]);
    let (http, management) = server.addresses();
    let progress = AtomicUsize::new(0);
    for _ in 0..2 {
        let (answered, status) = Busy::start(http).await.run(&progress).await;
        assert!(answered > 0);
        check_end(&status);
    }
    assert_eq!(counted(management, "ok").await, progress.into_inner());
    assert_eq!(counted(management, "cancelled").await, 0);
}

/// A server that waited for its streams would be killed with requests in flight.
#[tokio::test(flavor = "multi_thread")]
async fn busy_streams_end_when_the_server_leaves_which_is_in_time() {
    let drain = "drain: {acceptSeconds: 0, finishSeconds: 10}";
    let mut server = Server::start(&config(drain), &[]);
    let (http, _) = server.addresses();
    let progress = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (busy, progress) = (Busy::start(http).await, Arc::clone(&progress));
        clients.push(tokio::spawn(async move { busy.run(&progress).await }));
    }
    while progress.load(Ordering::Relaxed) < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.signal(Signal::TERM);
    server.wait_for("drained");
    assert_eq!(server.wait().code(), Some(0));
    for client in clients {
        check_end(&client.await.unwrap().1);
    }
}

/// Tools keep such calls open as long as they run. Each would keep its connection open, and prevent the server from
/// shutting down.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_only_listen_end_with_their_connection() {
    let mut server = Server::start(&config("connections: {maxAgeSeconds: 1}"), &[]);
    let (http, _) = server.addresses();
    let (service, connection) = dial(http).await;
    let mut client = Grpc::with_origin(service, "http://photos".parse().unwrap());
    assert!(client.ready().await.is_ok());
    let watched = client
        .server_streaming(
            Request::new(HealthCheckRequest::default()),
            PathAndQuery::from_static("/grpc.health.v1.Health/Watch"),
            ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default(),
        )
        .await;
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    assert!(client.ready().await.is_ok());
    let listed = client
        .streaming(
            Request::new(iter([list]).chain(pending())),
            PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default(),
        )
        .await;
    let (mut watched, mut listed) = (watched.unwrap().into_inner(), listed.unwrap().into_inner());
    assert!(watched.next().await.unwrap().is_ok() && listed.next().await.unwrap().is_ok());
    let ended = async { (watched.next().await.unwrap(), listed.next().await.unwrap()) };
    let (watched, listed) = timeout(Duration::from_secs(60), ended).await.unwrap();
    check_end(&watched.unwrap_err());
    check_end(&listed.unwrap_err());
    drop(client);
    connection.await.unwrap().unwrap();
}
