//! The generator against a real peer: hyper, with both protocols on one port.

#![allow(clippy::unwrap_used)]

use crate::encode;
use crate::spec::{Answer, Drive, Driven, Open, Request, Wire};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// As large as EfficientNet-Lite0's input: larger than every window and buffer on the way.
const LARGE: usize = 150_528;

/// Responds with the last 4 KB of each request, unless the request is small: then it refuses it.
async fn answer(
    request: hyper::Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let is_grpc = request.version() == Version::HTTP_2;
    if is_grpc {
        assert_eq!(request.uri().path(), "/inference.GRPCInferenceService/ModelInfer");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
    }
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    if body.len() < 4096 {
        let mut response =
            Response::new(Full::new(Bytes::from_static(b"{\"error\": \"full\"}")).boxed_unsync());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return Ok(response);
    }
    let tail = body.slice(body.len() - 4096..);
    if !is_grpc {
        return Ok(Response::new(Full::new(tail).boxed_unsync()));
    }
    let message = [&[0, 0, 0, 16, 0][..], &tail].concat();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let body = Full::new(Bytes::from(message)).with_trailers(std::future::ready(Some(Ok(trailers))));
    Ok(Response::new(body.boxed_unsync()))
}

/// A server on its own thread, until the tests end.
fn server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    builder
                        .serve_connection(TokioIo::new(stream), service_fn(answer))
                        .await
                });
            }
        });
    });
    address
}

struct Load {
    folder: tempfile::TempDir,
    drive: Drive,
}

fn load(wire: Wire, connections: usize, floats: usize) -> Load {
    let folder = tempfile::tempdir().unwrap();
    let write = |index: usize| {
        let tensor: Vec<u8> = (0..floats)
            .flat_map(|n| ((n * 7 + index) as f32).to_le_bytes())
            .collect();
        let shape = [1, floats as i64];
        let content = match wire {
            Wire::Http => encode::rest("m", &shape, &tensor, &[]),
            Wire::Grpc => encode::grpc("m", &shape, &tensor),
        };
        let [bytes, answer] = ["request", "answer"].map(|name| folder.path().join(format!("{name}-{index}")));
        std::fs::write(&bytes, content).unwrap();
        std::fs::write(&answer, &tensor[tensor.len().saturating_sub(4096)..]).unwrap();
        Request {
            bytes,
            answer: Answer::Tensor(answer),
        }
    };
    let requests = (0..3).map(write).collect();
    let (address, server) = (server(), std::process::id());
    let drive = Drive {
        address,
        wire,
        requests,
        connections,
        warm: 0.05,
        window: 0.2,
        server,
        open: None,
        keep: None,
    };
    Load { folder, drive }
}

impl Load {
    /// Repeats until something has come back; a busy machine may need a second window for that.
    fn run_until(&self, there: impl Fn(&Driven) -> bool) -> Driven {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let driven = self.run();
            if there(&driven) || Instant::now() > deadline {
                return driven;
            }
        }
    }

    fn run(&self) -> Driven {
        let messages: Vec<_> = self
            .drive
            .requests
            .iter()
            .map(|request| super::Message::read(request).unwrap())
            .collect();
        match self.drive.open {
            None => super::closed::run(&self.drive, &messages).unwrap(),
            Some(open) => super::open::run(&self.drive, open, &messages).unwrap(),
        }
    }
}

/// Requests that do not fit into any buffer stall a generator that waits for the wrong event.
#[test]
fn large_requests_are_answered_over_both_protocols_by_one_and_by_several_connections() {
    for (wire, connections) in [(Wire::Http, 1), (Wire::Http, 8), (Wire::Grpc, 1), (Wire::Grpc, 8)] {
        let driven = load(wire, connections, LARGE).run_until(|driven| driven.answered.count > connections);
        assert!(
            driven.failures.is_empty(),
            "{wire:?}, {connections}: {:?}",
            driven.failures
        );
        assert!(
            driven.answered.count > connections,
            "{wire:?}, {connections}: {:?}",
            driven.answered
        );
    }
}

#[test]
fn a_wrong_answer_is_no_answer() {
    for wire in [Wire::Http, Wire::Grpc] {
        let load = load(wire, 8, 2048);
        // Two of the three responses are expected in the wrong order.
        let path = |index| load.folder.path().join(format!("answer-{index}"));
        std::fs::rename(path(0), path(3)).unwrap();
        std::fs::rename(path(1), path(0)).unwrap();
        std::fs::rename(path(3), path(1)).unwrap();
        let far = std::fs::read(path(0))
            .unwrap()
            .iter()
            .map(|byte| byte ^ 0x40)
            .collect::<Vec<u8>>();
        std::fs::write(path(0), far).unwrap();
        let wrong = |driven: &Driven| driven.failures.keys().any(|what| what.contains("another tensor"));
        let driven = load.run_until(wrong);
        assert!(wrong(&driven), "{wire:?}: {:?}", driven.failures);
    }
}

#[test]
fn an_open_loop_counts_refusals_and_how_late_it_was() {
    let mut load = load(Wire::Http, 32, 16);
    load.drive.open = Some(Open {
        rate: 500.0,
        deadline: 0.1,
    });
    let driven = load.run_until(|driven| driven.refused.count > 0);
    assert_eq!((driven.answered.count, driven.in_time), (0, 0));
    assert!(
        driven.refused.count > 0 && driven.lateness.count > 0,
        "{driven:?}"
    );
}
