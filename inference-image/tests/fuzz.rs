//! Every parser with arbitrary bytes: first the committed corpus, then seeded mutations of it for some seconds. A
//! failing input is printed and saved; add it to the corpus, and `cargo test --test fuzz` replays it.
//!
//! Inputs in the corpus are valid, so that mutations of them get past the first check; inputs that must be refused
//! have a name that begins with `refused`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use modelservice_contract::Limits;
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol::fuzz as parsers;
use modelservice_server::{config, connections, image, package, protocol};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::engine::Echo;
use tower::ServiceExt;

/// How long each parser is fuzzed after replaying its corpus.
const TIME: Duration = Duration::from_secs(2);
/// Larger inputs find nothing that smaller ones do not.
const LARGEST: usize = 16 << 10;

/// xorshift64*: the same inputs in every run, as far as time allows.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(value).unwrap() % limit.max(1)
    }

    /// A part of the bytes.
    fn part(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        start..start + self.below((bytes.len() - start).min(64) + 1)
    }

    /// Up to four changes to one of the inputs.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const EDGES: &[&[u8]] = &[
            b"-1",
            b"0",
            b"1e999",
            b"18446744073709551616",
            b"null",
            b"[",
            b"\"",
            b"\xff",
        ];
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                2 => bytes.truncate(at),
                3 => {
                    let part = self.part(&bytes);
                    drop(bytes.drain(part));
                }
                4 => drop(bytes.splice(at..at, EDGES[self.below(EDGES.len())].iter().copied())),
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let part = other[self.part(other)].to_vec();
                    drop(bytes.splice(at..at, part));
                }
            }
        }
        bytes.truncate(LARGEST);
        bytes
    }
}

/// Feeds a parser, which returns whether it accepted.
fn fuzz(name: &str, body: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (file, input) in files.iter().zip(&corpus) {
        let valid = !file.file_name().unwrap().to_str().unwrap().starts_with("refused");
        assert_eq!(check(name, input, &body), valid, "{} is accepted", file.display());
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (start, mut runs, mut accepted) = (Instant::now(), 0, 0);
    while start.elapsed() < TIME {
        accepted += usize::from(check(name, &random.mutate(&corpus), &body));
        runs += 1;
    }
    println!(
        "{name}: {} files, {runs} mutations, {accepted} of them accepted",
        corpus.len()
    );
}

fn check(name: &str, input: &[u8], body: &impl Fn(&[u8]) -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(|| body(input))).unwrap_or_else(|_| {
        let path = std::env::temp_dir().join(format!("fuzz-{name}-failure"));
        std::fs::write(&path, input).unwrap();
        panic!(
            "{name} fails with {:?}; saved as {}: copy it into tests/corpus/{name} to replay it",
            input.escape_ascii().to_string(),
            path.display()
        );
    })
}

/// A complete server in this process, with the model of the parsers.
struct Server {
    runtime: tokio::runtime::Runtime,
    router: Router,
}

impl Server {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let router = runtime.block_on(async {
            let mut service = Service::empty("1", "CPUExecutionProvider", Limits::default(), 1).unwrap();
            let engine = Box::new(Echo(parsers::signature(true)));
            service.add("m", String::new(), vec![engine], None).unwrap();
            let lifecycle = Lifecycle::default();
            lifecycle.enter(Phase::Ready);
            protocol::router(Arc::new(service), lifecycle)
        });
        Self { runtime, router }
    }

    /// Whether the response has outputs; an error of the server fails the test.
    fn answers(&self, path: &str, header_length: Option<usize>, body: &[u8]) -> bool {
        let mut request = Request::post(path).header("content-type", "application/grpc");
        if let Some(length) = header_length {
            request = request.header("inference-header-content-length", length);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            // 503 and 504 are right if a mutation asks for a response within microseconds.
            let status = answer.status().as_u16();
            assert!(status < 500 || status == 503 || status == 504, "{answer:?}");
            let headers = answer.headers().clone();
            let body = answer.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned().unwrap_or_default();
            let of_grpc = headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
            // 2 is UNKNOWN, 13 INTERNAL.
            assert!(
                of_grpc.is_none_or(|status| status != "2" && status != "13"),
                "{of_grpc:?}"
            );
            status == 200 && of_grpc.is_none_or(|status| status == "0")
        })
    }
}

/// What the parser rejects must not be answered. What it accepts may still be refused, because of a deadline or
/// another model name.
fn agreed(accepted: bool, answered: bool) -> bool {
    assert!(
        accepted || !answered,
        "the server answers what its parser refuses"
    );
    answered
}

const INFER: &str = "/v2/models/m/infer";
const PREDICT: &str = "/v1/models/m:predict";
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

// A request that causes a panic is a bug that anyone can trigger.

#[test]
fn no_head_of_a_request_makes_its_parser_fail() {
    fuzz("http-head", connections::fuzz);
}

#[test]
fn no_json_request_makes_the_server_fail() {
    let server = Server::new();
    fuzz("json", |body| {
        agreed(parsers::infer(None, body), server.answers(INFER, None, body))
    });
}

/// The first line of these inputs is the length of the JSON after it.
#[test]
fn no_binary_request_makes_the_server_fail() {
    let server = Server::new();
    fuzz("binary", |input| {
        let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(0);
        let length = std::str::from_utf8(&input[..end])
            .ok()
            .and_then(|line| line.parse().ok());
        let body = &input[input.len().min(end + 1)..];
        agreed(parsers::infer(length, body), server.answers(INFER, length, body))
    });
}

#[test]
fn no_raw_binary_request_makes_its_parser_fail() {
    fuzz("raw", |body| parsers::infer(Some(0), body));
}

#[test]
fn no_prediction_request_makes_the_server_fail() {
    fuzz("predict-one", |body| parsers::predict(false, body));
    let server = Server::new();
    fuzz("predict-two", |body| {
        agreed(parsers::predict(true, body), server.answers(PREDICT, None, body))
    });
}

#[test]
fn no_grpc_message_makes_the_server_fail() {
    let server = Server::new();
    // The length of the frame is right, so that the message itself is parsed.
    fuzz("grpc", |message| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let body = [&[0], &length[..], message].concat();
        agreed(
            parsers::model_infer(message),
            server.answers(MODEL_INFER, None, &body),
        )
    });
}

#[test]
fn no_body_of_a_grpc_call_makes_its_parser_fail() {
    fuzz("grpc-body", |body| parsers::grpc_body(body).unwrap());
}

#[test]
fn no_compressed_body_makes_its_decoder_fail() {
    fuzz("gzip", |body| parsers::compressed_body(true, body).unwrap());
    fuzz("deflate", |body| parsers::compressed_body(false, body).unwrap());
}

#[test]
fn no_image_makes_the_decoder_fail() {
    fuzz("image", image::fuzz);
}

#[test]
fn no_model_yaml_makes_its_parser_fail() {
    fuzz("manifest", |input| {
        package::manifest::parse(&String::from_utf8_lossy(input)).is_ok()
    });
}

#[test]
fn no_configuration_makes_its_parser_fail() {
    fuzz("config", |input| {
        config::parse(&String::from_utf8_lossy(input)).is_ok()
    });
}
