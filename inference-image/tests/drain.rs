//! How the server shuts down: the real process, real signals, real connections, and no client that retries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::http::{connect, exchange, get, post};
use support::{Server, example};
use tokio::net::TcpStream;

const CLASSIFY: &str = "/v1/models/photos:classify";

fn config(accept_seconds: u32) -> String {
    let path = example("efficientnet-lite0");
    format!(
        "models: [{{name: photos, path: '{}'}}]\ndrain: {{acceptSeconds: {accept_seconds}}}\n",
        path.display()
    )
}

fn classify() -> Request<Full<Bytes>> {
    let photo = std::fs::read(example("photos/cat.jpg")).unwrap();
    post(CLASSIFY, photo)
}

async fn ready(management: SocketAddr) -> u16 {
    exchange(&mut connect(management).await, get("/readyz")).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_leave_answers_all_who_still_come() {
    let mut server = Server::start(&config(2), &[]);
    let (http, management) = server.addresses();
    let mut kept = connect(http).await;
    assert_eq!(exchange(&mut kept, classify()).await, (200, false));
    let mut idle = connect(http).await;
    assert_eq!(exchange(&mut idle, get("/v2")).await, (200, false));
    assert_eq!(ready(management).await, 200);

    server.signal(Signal::TERM);
    server.wait_for("draining");
    assert_eq!(ready(management).await, 503, "unready at once");
    assert_eq!(
        exchange(&mut kept, classify()).await,
        (200, true),
        "a connection in use is asked to close"
    );
    assert_eq!(
        exchange(&mut connect(http).await, classify()).await,
        (200, true),
        "a new one is still accepted"
    );
    assert!(
        !idle.is_closed(),
        "an idle connection is not closed before the end"
    );

    server.wait_for("drained");
    assert_eq!(server.wait().code(), Some(0));
    assert!(idle.ready().await.is_err(), "the idle connection is closed");
    assert!(TcpStream::connect(http).await.is_err());
}

/// Someone who presses Ctrl-C is waiting for the prompt, and there is no load balancer to be told.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_an_idle_server_at_once() {
    let mut server = Server::start(&config(50), &[]);
    let (http, _) = server.addresses();
    let mut kept = connect(http).await;
    assert_eq!(exchange(&mut kept, classify()).await, (200, false));
    let told = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
    assert!(format!("{:?}", server.log()).contains("drained"));
}

/// Clients that keep their connections and clients that open new ones, at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_request_fails() {
    let mut server = Server::start(&config(3), &[]);
    let (http, _) = server.addresses();
    let kept = (0..4).map(|_| {
        tokio::spawn(async move {
            let mut sender = connect(http).await;
            let mut count = 0;
            loop {
                let (status, close) = exchange(&mut sender, classify()).await;
                assert_eq!(status, 200);
                count += 1;
                if close {
                    return count;
                }
            }
        })
    });
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let new = (0..4).map(|_| {
        let stopped = stopped.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                assert_eq!(exchange(&mut connect(http).await, classify()).await.0, 200);
                count += 1;
            }
            count
        })
    });
    let (kept, new): (Vec<_>, Vec<_>) = (kept.collect(), new.collect());
    // In flight before the signal, and after it for two of the three seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.signal(Signal::TERM);
    server.wait_for("draining");
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send(true).unwrap();
    for client in kept.into_iter().chain(new) {
        assert!(client.await.unwrap() > 1);
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// An HTTP/2 client uses one connection for everything; a GOAWAY frame tells it to open another.
#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_what_is_under_way_is_answered() {
    let mut server = Server::start(&config(1), &[]);
    let (http, _) = server.addresses();
    let stream = TcpStream::connect(http).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    server.signal(Signal::TERM);
    server.wait_for("draining");
    let requests = (0..16).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let uri = format!("http://photos{CLASSIFY}");
            let body = classify().into_body();
            let response = sender
                .send_request(Request::post(uri).body(body).unwrap())
                .await
                .unwrap();
            response.status().as_u16()
        })
    });
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(server.wait().code(), Some(0));
    connection.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&config(3600), &[]);
    server.addresses();
    server.signal(Signal::TERM);
    server.wait_for("draining");
    let told = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(143));
    assert!(told.elapsed() < Duration::from_secs(10));
}

/// A pod that is deleted while it is loading must not wait for its grace period.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_still_loading_leaves_at_once() {
    let mut server = Server::start(&config(0), &[]);
    server.wait_for("loading");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:#?}", server.log());
}
