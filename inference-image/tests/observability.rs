//! What the server records about requests: access log and traces, from the real process, with a stand-in for a
//! collector.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::routing::get as on_get;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelservice_contract::{AccessLog as Config, Connections, Drain, Limits};
use modelservice_server::connections::{self, Server as Connected, Settings};
use modelservice_server::metrics::ConnectionMetrics;
use modelservice_server::middleware::{AccessLog, Middleware, Observer};
use modelservice_server::process::lifecycle::Lifecycle;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use support::http::{connect, exchange, get, post};
use support::{Server, example};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn config(more: &str) -> String {
    let path = example("tiny");
    format!(
        "models: [{{name: tiny, path: '{}'}}]\ndrain: {{acceptSeconds: 0}}\n{more}",
        path.display()
    )
}

/// An inference whose query and headers contain secrets.
fn infer(traceparent: Option<String>) -> Request<http_body_util::Full<Bytes>> {
    let photo = std::fs::read(example("photos/cat.jpg")).unwrap();
    let mut request = post("/v1/models/tiny:classify?top_k=1", photo);
    let headers = request.headers_mut();
    headers.insert("authorization", "Bearer secret".parse().unwrap());
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_line_with_its_times_and_nothing_secret() {
    let mut server = Server::start(&config("accessLog: {sampleRatio: 1}"), &[]);
    let (http, _) = server.addresses();
    let request = infer(Some(format!("00-{TRACE}-{PARENT}-01")));
    assert_eq!(exchange(&mut connect(http).await, request).await.0, 200);
    let line = server.wait_for("request");
    for (key, value) in [
        ("method", Value::from("POST")),
        ("path", "/v1/models/tiny:classify".into()),
        ("status", 200.into()),
        ("model", "tiny".into()),
        ("outcome", "ok".into()),
        ("trace_id", TRACE.into()),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("no {key} in {line}"));
    assert!(number("inference_ms") > 0.0 && number("queue_ms") >= 0.0);
    assert!(number("duration_ms") >= number("inference_ms") + number("preprocessing_ms"));
    assert!(number("request_bytes") > 1000.0 && number("response_bytes") > 10.0);
    let text = line.to_string();
    assert!(!text.contains("secret") && !text.contains("top_k"), "{text}");
}

/// Lines written by this thread's subscriber.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, whose subscriber sees everything.
#[tokio::test]
async fn a_failure_has_a_line_even_where_no_other_request_has_one() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _subscribed = tracing::subscriber::set_default(subscriber);
    let metrics = ConnectionMetrics::unread();
    let router = Router::new()
        .route("/fine", on_get(async || "fine"))
        .route(
            "/full",
            on_get(async || axum::http::StatusCode::SERVICE_UNAVAILABLE),
        )
        .route("/broken", on_get(async || -> &str { panic!("a bug") }));
    let observer = Observer {
        access_log: AccessLog::new(&Config::default()),
        traces: None,
    };
    let lifecycle = Lifecycle::default();
    let middleware = Middleware::new(router, lifecycle.clone(), None, &metrics).observed_by(observer);
    let settings = Settings::new(&Connections::default(), &Limits::default(), 10);
    let server = Connected::new(middleware, settings, None, &metrics);
    let listener = connections::listen(0).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    tokio::spawn(async move {
        let never = std::future::pending();
        server.serve(listener, &lifecycle, &Drain::default(), never).await;
    });
    let mut sender = connect(address).await;
    for (path, status) in [
        ("/fine", 200),
        ("/full", 503),
        ("/nothing", 404),
        ("/broken", 500),
    ] {
        assert_eq!(exchange(&mut sender, get(path)).await.0, status);
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("server::access"))
        .collect();
    assert_eq!(told.len(), 1, "{text}");
    assert!(told[0].contains("path=\"/broken\" status=500"), "{text}");
}

/// Accepts traces; what it received comes out of the channel.
async fn collector() -> (String, UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let path = request.uri().path();
                    assert_eq!(
                        path,
                        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                    );
                    let body = request.into_body().collect().await?.to_bytes();
                    // After the five bytes that frame a gRPC message.
                    sender
                        .send(ExportTraceServiceRequest::decode(&body[5..]).unwrap())
                        .unwrap();
                    let answer = Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0");
                    Ok::<_, hyper::Error>(answer.body(Empty::<Bytes>::new()).unwrap())
                }
            });
            let io = TokioIo::new(stream);
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer),
            );
        }
    });
    (endpoint, received)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<Attribute> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    found?.value.clone()?.value
}

/// A slow request is looked up by its trace: where did its time go?
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_caller_is_traced_has_a_span_with_parts() {
    let (endpoint, mut received) = collector().await;
    let more = format!("tracing: {{endpoint: '{endpoint}', sampleRatio: 0}}");
    let mut server = Server::start(&config(&more), &[]);
    let (http, _) = server.addresses();
    let mut sender = connect(http).await;
    let traceparent = |trace: &str, sampled: &str| Some(format!("00-{trace}-{PARENT}-{sampled}"));
    for traceparent in [
        traceparent(TRACE, "01"),
        traceparent("1af7651916cd43dd8448eb211c80319c", "00"),
        Some("nonsense".to_owned()),
        None,
    ] {
        assert_eq!(exchange(&mut sender, infer(traceparent)).await.0, 200);
    }
    server.signal(Signal::TERM);
    assert!(server.wait().success());

    let mut spans = Vec::new();
    while let Ok(export) = received.try_recv() {
        for resource in export.resource_spans {
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    assert!(
        spans.iter().all(|span| hex(&span.trace_id) == TRACE),
        "{spans:#?}"
    );
    let root = spans
        .iter()
        .find(|span| hex(&span.parent_span_id) == PARENT)
        .unwrap();
    assert_eq!(root.name, "POST /v1/models/tiny:classify");
    let text = |text: &str| Some(Attribute::StringValue(text.to_owned()));
    assert_eq!(attribute(root, "modelservice.model"), text("tiny"));
    assert_eq!(attribute(root, "modelservice.outcome"), text("ok"));
    assert_eq!(
        attribute(root, "http.response.status_code"),
        Some(Attribute::IntValue(200))
    );
    let parts: Vec<&str> = spans
        .iter()
        .filter(|span| span.parent_span_id == root.span_id)
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(parts, ["queue", "preprocessing", "inference"]);
    assert_eq!(spans.len(), 4);
    for span in &spans {
        assert!(
            span.start_time_unix_nano >= root.start_time_unix_nano,
            "{spans:#?}"
        );
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{spans:#?}");
    }
}

/// Requests matter more than their traces, but someone whose traces are missing must be able to find out why.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_is_told_and_harms_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let more = format!("tracing: {{endpoint: '{endpoint}', sampleRatio: 1}}");
    let mut server = Server::start(&config(&more), &[]);
    let (http, _) = server.addresses();
    assert_eq!(exchange(&mut connect(http).await, infer(None)).await.0, 200);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let told = |line: &Value| line["name"] == "BatchSpanProcessor.ExportError";
    assert!(server.log().iter().any(told), "{:#?}", server.log());
}
