//! What clients do to a server, on purpose or by mistake: the real process, with the clients in this one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::http::{connect, exchange, get, post};
use support::{Server, example};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAX_BODY: usize = 1 << 20;
/// As many idle connections as a busy service may have, within the 20,000 files that a process may open here.
const IDLE: usize = 10_000;
/// Memory that an idle connection may take: its task and its timer and, after a request that hyper served, its
/// buffers of 16 KiB. From this, the server computes how many connections a container may have.
const MAX_IDLE_KIB: usize = 32;

fn config(model: &str, limits: Value) -> String {
    json!({
        "models": [{"name": model, "path": example(model)}],
        "drain": {"acceptSeconds": 0},
        "limits": limits,
    })
    .to_string()
}

fn start(model: &str, limits: Value) -> (Server, SocketAddr, SocketAddr) {
    let mut server = Server::start(&config(model, limits), &[]);
    let (http, management) = server.addresses();
    (server, http, management)
}

async fn text(address: SocketAddr, path: &str) -> String {
    let answer = connect(address).await.send_request(get(path)).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Waits until the metrics contain this line.
async fn until(management: SocketAddr, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let metrics = text(management, "/metrics").await;
        if metrics.lines().any(|other| other == line) {
            return;
        }
        assert!(Instant::now() < deadline, "{line} does not come in\n{metrics}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Private memory of the process, in KiB.
fn private_kib(server: &Server) -> usize {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid())).unwrap();
    let field = |name: &str| -> usize {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    field("Private_Dirty:") + field("Private_Clean:")
}

fn photo() -> Bytes {
    std::fs::read(example("photos/cat.jpg")).unwrap().into()
}

/// The median time of a classification over a new connection.
async fn median_time(http: SocketAddr) -> Duration {
    let mut times = Vec::new();
    for _ in 0..21 {
        let started = Instant::now();
        let request = post("/v1/models/tiny:classify", photo());
        assert_eq!(exchange(&mut connect(http).await, request).await.0, 200);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn open(http: SocketAddr, first: &'static [u8], count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(http).await.unwrap();
        stream.write_all(first).await.unwrap();
        if !first.is_empty() {
            let mut answer = [0; 4096];
            assert!(stream.read(&mut answer).await.unwrap() > 0);
        }
        // Closing it leaves no socket behind.
        stream.set_zero_linger().unwrap();
        streams.push(stream);
    }
    streams
}

/// Ten thousand clients that keep a connection and rarely use it are normal.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_slow_nobody() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .unwrap();
    let request = b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n";
    let unusual = b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
    for (what, first) in [
        ("before any", &b""[..]),
        ("after a", request),
        ("after an unusual", unusual),
    ] {
        let (server, http, management) = start("tiny", json!({}));
        let alone = median_time(http).await;
        let before = private_kib(&server);
        let kept = open(http, first, IDLE).await;
        until(management, &format!("modelservice_connections_open {IDLE}")).await;
        let each = (private_kib(&server) - before) as f64 / IDLE as f64;
        let crowded = median_time(http).await;
        println!("an idle connection {what} request: {each:.1} KiB; {alone:?} alone, {crowded:?} among them");
        assert!(each <= MAX_IDLE_KIB as f64, "{each} KiB");
        assert!(
            crowded < 5 * alone + Duration::from_millis(20),
            "{crowded:?}, alone {alone:?}"
        );
        drop(kept);
        until(management, "modelservice_connections_open 0").await;
    }
}

/// Probes and scrapes must not fail because the server is busy: otherwise the pod would be restarted.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_answer_while_the_serving_port_is_overloaded() {
    let (_server, http, management) = start("efficientnet-lite0", json!({"queueLength": 8}));
    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            tokio::spawn(async move {
                let mut sender = connect(http).await;
                let request = || post("/v1/models/efficientnet-lite0:classify", photo());
                while !stop.load(Ordering::Relaxed) {
                    match exchange(&mut sender, request()).await.0 {
                        200 => {}
                        429 => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            // Like a client that was told when to return, but sooner.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        other => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    while refused.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for path in ["/healthz", "/readyz", "/metrics", "/load"] {
        let mut times = Vec::new();
        for _ in 0..51 {
            let started = Instant::now();
            text(management, path).await;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{path}: median {median:?}, worst {worst:?}");
        assert!(median < Duration::from_millis(50), "{path}: {times:?}");
    }
    let load = async || serde_json::from_str::<Value>(&text(management, "/load").await).unwrap();
    let duty = |load: &Value| load["models"][0]["dutyCycle"]["lastSecond"].as_f64().unwrap();
    let (deadline, mut now) = (Instant::now() + Duration::from_secs(60), load().await);
    while duty(&now) < 0.5 {
        assert!(Instant::now() < deadline, "not busy: {now}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        now = load().await;
    }
    assert!(now["models"][0]["inFlight"].as_u64().unwrap() > 0, "{now}");
    assert!(now["connections"].as_u64().unwrap() >= 16, "{now}");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let metrics = text(management, "/metrics").await;
    let rejected = format!(
        "modelservice_requests_total{{model=\"efficientnet-lite0\",outcome=\"rejected\"}} {}",
        refused.load(Ordering::Relaxed)
    );
    assert!(
        metrics.lines().any(|line| line == rejected),
        "{rejected}\n{metrics}"
    );
}

fn head(framing: &str) -> String {
    format!("POST /v1/models/tiny:classify HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n")
}

/// The response to bytes that no library would send.
async fn raw(http: SocketAddr, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(http).await.unwrap();
    for part in parts {
        // The server may have responded and closed before everything is sent.
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_framing_are_read_or_refused_and_the_server_goes_on() {
    let (server, http, management) = start("tiny", json!({"maxBodyBytes": MAX_BODY}));
    let photo = photo();
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let chunked = head("transfer-encoding: chunked");

    let mut whole: Vec<Vec<u8>> = vec![chunked.clone().into()];
    whole.extend(photo.chunks(1000).map(chunk));
    whole.push(b"0\r\n\r\n".to_vec());
    let parts: Vec<&[u8]> = whole.iter().map(Vec::as_slice).collect();
    assert!(raw(http, &parts).await.starts_with("HTTP/1.1 200"));

    let piece = chunk(&[0; 64 << 10]);
    let mut endless: Vec<&[u8]> = vec![chunked.as_bytes()];
    endless.extend(std::iter::repeat_n(piece.as_slice(), 2 * MAX_BODY / piece.len()));
    endless.push(b"0\r\n\r\n");
    assert!(raw(http, &endless).await.starts_with("HTTP/1.1 413"));

    let large = vec![0; MAX_BODY + 1];
    let mut sender = connect(http).await;
    let request = || post("/v1/models/tiny:classify", large.clone());
    assert_eq!(exchange(&mut sender, request()).await.0, 413);
    // It was read to its end, so the connection can be used again.
    assert_eq!(exchange(&mut sender, get("/v2/health/live")).await.0, 200);

    for (framing, status) in [
        ("content-length: 5\r\ntransfer-encoding: chunked", "400"),
        ("content-length: 5\r\ncontent-length: 6", "400"),
        ("content-length: five", "400"),
        ("content-length: -1", "400"),
        ("transfer-encoding: gzip", "400"),
    ] {
        let answer = raw(http, &[head(framing).as_bytes(), b"0\r\n\r\n"]).await;
        assert!(answer.contains(status), "{framing}\n{answer}");
    }
    let broken = raw(http, &[chunked.as_bytes(), b"zz\r\nnot a chunk"]).await;
    assert!(
        broken.is_empty() || broken.starts_with("HTTP/1.1 400"),
        "{broken}"
    );
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0",
    ] {
        let answer = raw(http, &[nonsense, b"\r\n\r\n"]).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    until(management, "modelservice_in_flight_requests{model=\"tiny\"} 0").await;
    let request = post("/v1/models/tiny:classify", photo);
    assert_eq!(exchange(&mut connect(http).await, request).await.0, 200);
    drop(server);
}

/// Interrupted uploads must free their memory, or the server would fill up over time.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_disconnect_in_the_middle_of_a_body_leave_nothing_behind() {
    let (server, http, management) = start("tiny", json!({"maxBodyBytes": MAX_BODY}));
    let request = head(&format!("content-length: {MAX_BODY}"));
    let leave = async |count: usize| {
        for number in 0..count {
            let mut stream = TcpStream::connect(http).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.write_all(&vec![0; MAX_BODY / 2]).await.unwrap();
            if number % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        }
        until(management, "modelservice_connections_open 0").await;
    };
    leave(50).await;
    let before = private_kib(&server);
    leave(200).await;
    let after = private_kib(&server);
    println!("{before} KiB after 50, {after} KiB after 250");
    // Half of what they would hold together.
    assert!(
        after < before + 50 * 1024,
        "it grows: {before} KiB, then {after} KiB"
    );
    until(management, "modelservice_in_flight_requests{model=\"tiny\"} 0").await;
    // All memory for bodies is free again: four of the largest at once.
    let all = (0..4).map(|_| {
        tokio::spawn(async move {
            let mut bytes = photo().to_vec();
            bytes.resize(MAX_BODY, 0);
            exchange(&mut connect(http).await, post("/v1/models/tiny:classify", bytes))
                .await
                .0
        })
    });
    for answer in all.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), 200);
    }
}

/// A stalled upload must not hold its memory for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_given_up_after_its_time() {
    let (_server, http, _) = start("tiny", json!({"bodySeconds": 1}));
    let answer = raw(http, &[head("content-length: 1000").as_bytes(), b"abc"]).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("within 1 seconds"), "{answer}");
    let request: Request<Full<Bytes>> = post("/v1/models/tiny:classify", photo());
    assert_eq!(exchange(&mut connect(http).await, request).await.0, 200);
}
