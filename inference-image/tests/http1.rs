//! HTTP/1.1 as clients send it, byte by byte: requests one after the other, in pieces, and of the kinds that are
//! handed over to hyper. In process, with real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use futures::stream;
use modelservice_contract::{Connections, Drain, Limits};
use modelservice_server::connections::{self, Server, Settings};
use modelservice_server::metrics::Metrics;
use modelservice_server::middleware::Middleware;
use modelservice_server::process::lifecycle::Lifecycle;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A server that echoes at `/echo`, refuses a body without reading it at `/refuse`, and responds at `/parts` with a
/// body of unknown length.
async fn start() -> TcpStream {
    let (address, stop) = serve();
    // It serves until the test ends.
    std::mem::forget(stop);
    TcpStream::connect(address).await.unwrap()
}

/// The same; it shuts down when the sender is used or dropped.
fn serve() -> (SocketAddr, oneshot::Sender<()>) {
    let (lifecycle, metrics) = (Lifecycle::default(), Metrics::new("", "", ""));
    let parts = || async {
        let parts = ["one ", "two ", "three"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        Body::from_stream(stream::iter(parts))
    };
    let router = Router::new()
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/refuse", post(async || axum::http::StatusCode::IM_A_TEAPOT))
        .route("/parts", get(parts))
        .route("/", get(async || "hello"))
        .route("/slow", post(slow))
        .layer(DefaultBodyLimit::disable());
    let listener = connections::listen(0).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    let middleware = Middleware::new(router, lifecycle.clone(), None, metrics.connections());
    let settings = Settings::new(&Connections::default(), &Limits::default(), 100);
    let server = Server::new(middleware, settings, None, metrics.connections());
    let drain = Drain {
        accept_seconds: 0,
        ..Drain::default()
    };
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        server.serve(listener, &lifecycle, &drain, stopped).await;
    });
    (address, stop)
}

/// Takes longer than the server waits before it sends something to a client that has closed its sending side.
async fn slow(body: Bytes) -> Bytes {
    tokio::time::sleep(Duration::from_millis(1200)).await;
    body
}

/// Reads responses of known length or in chunks; returns each as `status body`.
struct Answers {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Answers {
    fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            self.more().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            self.more().await;
        }
        self.read.drain(..length).collect()
    }

    async fn more(&mut self) {
        let count = self.stream.read_buf(&mut self.read).await.unwrap();
        assert!(
            count > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&self.read)
        );
    }

    async fn next(&mut self) -> String {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await)
            .unwrap()
            .to_lowercase();
        let status = head.split(' ').nth(1).unwrap();
        let mut body = Vec::new();
        if let Some((_, rest)) = head.split_once("content-length: ") {
            let length = rest.split("\r\n").next().unwrap().parse().unwrap();
            body = self.exactly(length).await;
        } else {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            loop {
                let size = String::from_utf8(self.until(b"\r\n").await).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let part = self.exactly(size + 2).await;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&part[..size]);
            }
        }
        format!("{status} {}", String::from_utf8(body).unwrap())
    }
}

fn echo(text: &str) -> String {
    format!(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
}

/// A client that pipelines requests gets all responses in order, whichever implementation reads them.
#[tokio::test]
async fn requests_may_follow_each_other_at_once_also_where_hyper_takes_over() {
    let mut stream = start().await;
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
    let all = [
        &echo("one"),
        "GET /parts HTTP/1.1\r\nhost: a\r\n\r\n",
        &echo(""),
        chunked,
        &echo("three"),
    ]
    .concat();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut answers = Answers::of(stream);
    for expected in ["200 one", "200 one two three", "200 ", "200 two", "200 three"] {
        assert_eq!(answers.next().await, expected);
    }
}

#[tokio::test]
async fn a_request_may_come_in_pieces_of_any_size() {
    let text: String = ('a'..='z').cycle().take(100_000).collect();
    for piece in [1, 7, 4096, 16 << 10, 70_000] {
        let text = if piece < 10 { &text[..300] } else { &text };
        let mut stream = start().await;
        stream.set_nodelay(true).unwrap();
        let request = [echo(text), echo("next")].concat();
        for piece in request.as_bytes().chunks(piece) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answers = Answers::of(stream);
        assert_eq!(answers.next().await, format!("200 {text}"), "{piece}");
        assert_eq!(answers.next().await, "200 next", "{piece}");
    }
}

/// Most clients send the whole body before they read; the rest of it must not be taken for the next request.
#[tokio::test]
async fn the_rest_of_a_body_that_was_refused_is_no_request() {
    let mut stream = start().await;
    let smuggled = "GET /parts HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100_000);
    let refused = format!(
        "POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    stream.write_all(refused.as_bytes()).await.unwrap();
    stream.write_all(echo("next").as_bytes()).await.unwrap();
    let mut answers = Answers::of(stream);
    assert_eq!(answers.next().await, "418 ");
    assert_eq!(answers.next().await, "200 next");
}

#[tokio::test]
async fn what_is_not_well_formed_gets_hypers_answer_and_the_end_of_the_connection() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\nno header\r\n\r\n", "400"),
        (
            "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "400",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "200"),
    ] {
        let mut stream = start().await;
        let all = [&echo("one"), text].concat();
        stream.write_all(all.as_bytes()).await.unwrap();
        let mut answers = Answers::of(stream);
        assert_eq!(answers.next().await, "200 one");
        let head = answers.until(b"\r\n\r\n").await;
        let head = String::from_utf8(head).unwrap();
        assert_eq!(head.split(' ').nth(1), Some(status), "{text:?}: {head}");
        let mut rest = Vec::new();
        answers.stream.read_to_end(&mut rest).await.unwrap();
    }
}

/// What the server sends until it closes the connection.
async fn all_of(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(4), read)
        .await
        .expect("closed at once")
        .unwrap();
    text
}

/// Another server on the way might read a part of such a request as a separate request.
#[tokio::test]
async fn a_request_without_a_clear_host_or_end_is_refused_by_whoever_reads_it() {
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    for (headers, status) in [
        ("", "400"),
        ("host: a\r\nhost: a\r\n", "400"),
        ("host: a b\r\n", "400"),
        ("host: a\r\ntransfer-encoding: gzip, chunked\r\n", "501"),
        ("host: a\r\ntransfer-encoding: gzip\r\n", "400"),
    ] {
        for close in ["", "connection: close\r\n"] {
            for before in ["", &echo(""), chunked] {
                let mut stream = start().await;
                let text = format!("{before}POST /echo HTTP/1.1\r\n{headers}{close}\r\n0\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
                let said = all_of(stream).await;
                let last = said.split("HTTP/1.1 ").last().unwrap();
                assert!(last.starts_with(status), "{text:?}\n{said}");
            }
        }
    }
    // The length is refused without waiting for the body.
    for length in ["18446744073709551615", "99999999999999999999999"] {
        let mut stream = start().await;
        let text = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc");
        stream.write_all(text.as_bytes()).await.unwrap();
        assert!(all_of(stream).await.starts_with("HTTP/1.1 413"), "{length}");
    }
}

/// Some clients close their sending side to say that nothing follows, such as `nc -N`.
#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_gets_its_answer() {
    for path in ["/echo", "/slow"] {
        for (headers, body) in [
            ("content-length: 5\r\n", "hello"),
            ("content-length: 5\r\nconnection: close\r\n", "hello"),
            ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let mut stream = start().await;
            let text = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}");
            stream.write_all(text.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let said = all_of(stream).await;
            assert!(
                said.contains("HTTP/1.1 200") && said.ends_with("hello"),
                "{path} {headers}\n{said}"
            );
        }
    }
}

/// A client that has begun to send does not know that the server is shutting down.
#[tokio::test]
async fn a_request_that_has_begun_to_arrive_is_answered_by_a_server_that_leaves() {
    let (address, stop) = serve();
    let mut idle = Answers::of(TcpStream::connect(address).await.unwrap());
    let mut begun = TcpStream::connect(address).await.unwrap();
    begun.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    // Once this last connection has been served, both have been.
    idle.stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(idle.next().await, "200 hello");
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    idle.stream.read_to_end(&mut rest).await.unwrap();
    begun.write_all(b" a\r\n\r\n").await.unwrap();
    let mut answers = Answers::of(begun);
    assert_eq!(answers.next().await, "200 hello");
    answers.stream.read_to_end(&mut rest).await.unwrap();
}
