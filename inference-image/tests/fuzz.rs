//! Every parser with any bytes at all: the committed corpus first, then seeded mutations of it for some
//! seconds. A failing input is printed and saved; put it into the corpus, and `cargo test --test fuzz` replays it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use axum::Router;
use axum::http::Request;
use http_body_util::{BodyExt, Full};
use modelservice_contract::Limits;
use modelservice_server::engine::{Engine, EngineError, Port, Signature};
use modelservice_server::lifecycle::{Lifecycle, Phase};
use modelservice_server::service::Service;
use modelservice_server::tensor::{DataType, Tensor};
use modelservice_server::{config, package, preprocess, protocol};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower::ServiceExt;

/// How long each parser is fuzzed after its corpus was replayed.
const TIME: Duration = Duration::from_secs(2);
/// Larger inputs find nothing that smaller ones do not.
const LARGEST: usize = 16 << 10;

/// xorshift64*: the same inputs in every run, as far as it comes in its time.
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

fn fuzz(name: &str, body: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!corpus.is_empty(), "{} is empty", folder.display());
    corpus.iter().for_each(|input| check(name, input, &body));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        check(name, &random.mutate(&corpus), &body);
        runs += 1;
    }
    println!("{name}: {} files, {runs} mutations", corpus.len());
}

fn check(name: &str, input: &[u8], body: &impl Fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
        let path = std::env::temp_dir().join(format!("fuzz-{name}-failure"));
        std::fs::write(&path, input).unwrap();
        panic!(
            "{name} fails with {:?}; saved as {}: copy it into tests/corpus/{name} to replay it",
            input.escape_ascii().to_string(),
            path.display()
        );
    }
}

struct Echo(Signature);

impl Engine for Echo {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        Ok(outputs.iter().map(|&index| inputs[index].clone()).collect())
    }
}

/// Posts inputs to a model with two inputs, in this process; an answer that is the server's fault fails.
fn post(
    path: &'static str,
    content_type: &'static str,
    head: impl Fn(&[u8]) -> Option<usize>,
) -> impl Fn(&[u8]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let ports = [("x", DataType::Fp32), ("y", DataType::Bytes)].map(|(name, datatype)| Port {
        name: name.to_owned(),
        datatype,
        shape: vec![-1, 2],
    });
    let signature = Signature {
        inputs: ports.to_vec(),
        outputs: ports.to_vec(),
        opset: 17,
    };
    let router: Router = runtime.block_on(async {
        let mut service = Service::empty("1", "CPUExecutionProvider", Limits::default(), 1).unwrap();
        service
            .add("m", String::new(), vec![Box::new(Echo(signature))], None)
            .unwrap();
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Ready);
        protocol::router(Arc::new(service), lifecycle)
    });
    move |input| {
        let mut request = Request::post(path).header("content-type", content_type);
        if let Some(length) = head(input) {
            request = request.header("inference-header-content-length", length);
        }
        let request = request.body(Full::from(input.to_vec())).unwrap();
        runtime.block_on(async {
            let answer = router
                .clone()
                .oneshot(request.map(axum::body::Body::new))
                .await
                .unwrap();
            // 503 and 504 are right where a mutation asks for an answer within microseconds.
            let status = answer.status().as_u16();
            assert!(status < 500 || status == 503 || status == 504, "{answer:?}");
            let headers = answer.headers().clone();
            let body = answer.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned().unwrap_or_default();
            let status = headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
            // 2 is UNKNOWN, 13 INTERNAL.
            assert!(
                status.is_none_or(|status| status != "2" && status != "13"),
                "{status:?}"
            );
        });
    }
}

// A request that panics is a bug that anyone can reach.

#[test]
fn no_json_request_makes_the_server_fail() {
    fuzz("json", post("/v2/models/m/infer", "application/json", |_| None));
}

#[test]
fn no_binary_request_makes_the_server_fail() {
    // The head ends after its JSON; for one input in eight it is said to end beyond the body.
    let head = |input: &[u8]| {
        let end = input
            .iter()
            .rposition(|&byte| byte == b'}')
            .map_or(0, |at| at + 1);
        Some(if input.len() % 8 == 7 {
            input.len() + 1
        } else {
            end
        })
    };
    fuzz(
        "binary",
        post("/v2/models/m/infer", "application/octet-stream", head),
    );
}

#[test]
fn no_grpc_message_makes_the_server_fail() {
    let call = post(
        "/inference.GRPCInferenceService/ModelInfer",
        "application/grpc",
        |_| None,
    );
    // The frame's length is right, so that the message itself is read.
    fuzz("grpc", move |message| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        call(&[&[0], &length[..], message].concat());
    });
}

#[test]
fn no_image_makes_the_decoder_fail() {
    fuzz("image", |input| {
        let _ = preprocess::fuzz(input);
    });
}

#[test]
fn no_model_yaml_makes_its_parser_fail() {
    fuzz("manifest", |input| {
        drop(package::manifest::parse(&String::from_utf8_lossy(input)))
    });
}

#[test]
fn no_configuration_makes_its_parser_fail() {
    fuzz("config", |input| {
        drop(config::parse(&String::from_utf8_lossy(input)))
    });
}
