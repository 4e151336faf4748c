//! How a request states its urgency, and the response if it cannot be served in time: the same over HTTP and gRPC. In
//! process, with an engine that runs when the test says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use modelservice_contract::Limits;
use modelservice_server::engine::{Engine, EngineError, Signature};
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol;
use modelservice_server::protocol::proto::infer_parameter::ParameterChoice;
use modelservice_server::protocol::proto::{InferParameter, ModelInferRequest, ModelInferResponse};
use modelservice_server::tensor::{DataType, Tensor};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use support::engine::signature;
use support::grpc::one_byte;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;
use tower::ServiceExt;

/// Reports which number it starts to run, and returns when told to.
struct Gated {
    signature: Signature,
    started: Sender<u8>,
    go: Receiver<()>,
}

impl Engine for Gated {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        self.started.send(inputs[0].elements::<u8>().unwrap()[0]).unwrap();
        self.go.recv().unwrap();
        Ok(inputs.to_vec())
    }
}

/// One core, and room for two waiting requests.
struct Bench {
    router: Router,
    service: Arc<Service>,
    started: Receiver<u8>,
    go: Sender<()>,
}

fn bench() -> Bench {
    let ((started_sender, started), (go, gate)) = (channel(), channel());
    let engine = Gated {
        signature: signature(&[("x", DataType::Uint8, &[1])]),
        started: started_sender,
        go: gate,
    };
    let limits = Limits {
        queue_length: 2,
        ..Limits::default()
    };
    let mut service = Service::empty("1", "CPUExecutionProvider", limits, 1).unwrap();
    // The warm-up.
    go.send(()).unwrap();
    service
        .add("m", String::new(), vec![Box::new(engine)], None)
        .unwrap();
    started.recv().unwrap();
    let (service, lifecycle) = (Arc::new(service), Lifecycle::default());
    lifecycle.enter(Phase::Ready);
    let router = protocol::router(Arc::clone(&service), lifecycle);
    Bench {
        router,
        service,
        started,
        go,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Http,
    Grpc,
}

const BOTH: [Protocol; 2] = [Protocol::Http, Protocol::Grpc];

/// The urgency that a request states.
#[derive(Clone, Copy, Default)]
struct Wishes {
    /// tritonclient's parameter, in microseconds.
    timeout: Option<i64>,
    /// tritonclient's parameter.
    priority: Option<i64>,
    /// `X-Request-Timeout`, or gRPC's deadline.
    transport: Option<Duration>,
}

/// A response in the terms of both protocols.
#[derive(Debug)]
enum Answer {
    Done,
    /// Status, message, and when to try again.
    Http(u16, String, HeaderMap),
    Grpc(Status),
}

impl Bench {
    fn send(&self, protocol: Protocol, number: u8, wishes: Wishes) -> JoinHandle<Answer> {
        let router = self.router.clone();
        tokio::spawn(async move {
            match protocol {
                Protocol::Http => http(router, number, wishes).await,
                Protocol::Grpc => grpc(router, number, wishes).await,
            }
        })
    }

    /// A request that runs until the test lets it finish.
    async fn busy(&self) -> JoinHandle<Answer> {
        let running = self.send(Protocol::Http, 0, Wishes::default());
        assert_eq!(self.started.recv().unwrap(), 0);
        running
    }

    async fn until_queued(&self, count: u64) {
        while self.service.model_loads(Duration::ZERO)[0].queued != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Teaches the server that a run takes at least this long.
    async fn learn(&self, time: Duration) {
        let running = self.busy().await;
        std::thread::sleep(time);
        self.go.send(()).unwrap();
        assert!(matches!(running.await.unwrap(), Answer::Done));
    }
}

async fn http(router: Router, number: u8, wishes: Wishes) -> Answer {
    let mut parameters = serde_json::Map::new();
    parameters.extend(
        wishes
            .timeout
            .map(|timeout| ("timeout".to_owned(), json!(timeout))),
    );
    parameters.extend(
        wishes
            .priority
            .map(|priority| ("priority".to_owned(), json!(priority))),
    );
    let input = json!({"name": "x", "shape": [1], "datatype": "UINT8", "data": [number]});
    let body = json!({"inputs": [input], "parameters": parameters}).to_string();
    let mut request = Request::post("/v2/models/m/infer")
        .body(Body::from(body))
        .unwrap();
    if let Some(time) = wishes.transport {
        let milliseconds = (time.as_secs_f64() * 1000.0).to_string().parse().unwrap();
        request.headers_mut().insert("x-request-timeout", milliseconds);
    }
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    if status == 200 {
        return Answer::Done;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    Answer::Http(status, body["error"].as_str().unwrap().to_owned(), headers)
}

async fn grpc(router: Router, number: u8, wishes: Wishes) -> Answer {
    let parameter = |name: &str, value: Option<i64>| {
        value.map(|value| {
            let parameter_choice = Some(ParameterChoice::Int64Param(value));
            (name.to_owned(), InferParameter { parameter_choice })
        })
    };
    let parameters = [
        parameter("timeout", wishes.timeout),
        parameter("priority", wishes.priority),
    ];
    let message = ModelInferRequest {
        parameters: parameters.into_iter().flatten().collect(),
        ..one_byte(number)
    };
    let mut request = tonic::Request::new(message);
    if let Some(time) = wishes.transport {
        request.set_timeout(time);
    }
    let mut client = Grpc::new(router);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
    match client.unary(request, path, codec).await {
        Ok(_) => Answer::Done,
        Err(status) => Answer::Grpc(status),
    }
}

/// The refusal has this status and message, and says when to try again.
fn check_refusal(answer: Answer, status: u16, code: Code, words: &str) {
    match answer {
        Answer::Done => panic!("it was not refused"),
        Answer::Http(found, message, headers) => {
            assert_eq!((found, message.contains(words)), (status, true), "{message}");
            let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
            assert!(
                number("retry-after") >= 1 && number("retry-after-ms") >= 1,
                "{headers:?}"
            );
            assert_eq!(number("retry-after"), number("retry-after-ms").div_ceil(1000));
        }
        Answer::Grpc(found) => {
            assert_eq!(
                (found.code(), found.message().contains(words)),
                (code, true),
                "{found:?}"
            );
            let retry = found.get_details_retry_info().and_then(|info| info.retry_delay);
            assert!(
                retry.is_some_and(|delay| delay >= Duration::from_millis(1)),
                "{found:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let bench = bench();
    bench.learn(Duration::from_millis(5)).await;
    let mut waiting = vec![bench.busy().await];
    for queued in 1..=2 {
        waiting.push(bench.send(Protocol::Http, 1, Wishes::default()));
        bench.until_queued(queued).await;
    }
    for protocol in BOTH {
        let refused = bench.send(protocol, 9, Wishes::default()).await.unwrap();
        check_refusal(refused, 429, Code::ResourceExhausted, "the queue is full");
    }
    for _ in &waiting {
        bench.go.send(()).unwrap();
    }
    for answer in waiting {
        assert!(matches!(answer.await.unwrap(), Answer::Done));
    }
}

/// A client whose response would be late should ask another replica at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_out_of_reach_is_refused_at_once_whoever_sets_it() {
    let bench = bench();
    bench.learn(Duration::from_secs(2)).await;
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(3600));
    let in_parameter = Wishes {
        timeout: Some(100_000),
        ..Wishes::default()
    };
    let in_transport = Wishes {
        transport: Some(short),
        ..Wishes::default()
    };
    for protocol in BOTH {
        for wishes in [
            in_parameter,
            in_transport,
            // The earlier deadline counts.
            Wishes {
                transport: Some(long),
                ..in_parameter
            },
            Wishes {
                timeout: Some(3_600_000_000),
                ..in_transport
            },
        ] {
            let running = bench.busy().await;
            let started = Instant::now();
            let refused = bench.send(protocol, 9, wishes).await.unwrap();
            assert!(started.elapsed() < Duration::from_secs(1));
            bench.go.send(()).unwrap();
            running.await.unwrap();
            check_refusal(refused, 503, Code::Unavailable, "cannot be met");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_the_queue_ends_the_wait() {
    for protocol in BOTH {
        // A server that has not learned yet how long a run takes.
        let bench = bench();
        let running = bench.busy().await;
        let wishes = Wishes {
            timeout: Some(50_000),
            ..Wishes::default()
        };
        let expired = bench.send(protocol, 9, wishes).await.unwrap();
        match expired {
            Answer::Http(504, ..) => {}
            Answer::Grpc(status) if status.code() == Code::DeadlineExceeded => {}
            other => panic!("{protocol:?}: {other:?}"),
        }
        bench.go.send(()).unwrap();
        assert!(matches!(running.await.unwrap(), Answer::Done));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn priority_1_goes_first_and_all_others_in_the_order_in_which_they_came() {
    let bench = bench();
    for protocol in BOTH {
        for (first, second, order) in [
            (None, Some(1), [2, 1]),
            (Some(2), Some(1), [2, 1]),
            (Some(0), Some(7), [1, 2]),
            (Some(1), None, [1, 2]),
        ] {
            let mut all = vec![bench.busy().await];
            for (number, priority) in [(1, first), (2, second)] {
                let wishes = Wishes {
                    priority,
                    ..Wishes::default()
                };
                all.push(bench.send(protocol, number, wishes));
                bench.until_queued(number.into()).await;
            }
            bench.go.send(()).unwrap();
            for number in order {
                assert_eq!(
                    bench.started.recv().unwrap(),
                    number,
                    "{protocol:?} {first:?} {second:?}"
                );
                bench.go.send(()).unwrap();
            }
            for answer in all {
                assert!(matches!(answer.await.unwrap(), Answer::Done));
            }
        }
    }
}
