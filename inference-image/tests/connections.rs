//! How long connections live, how many there may be, and what clients can do to them: in process, with real sockets,
//! and with clients that never retry a request.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get as on_get, post as on_post};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use modelservice_contract::{Connections, Drain, Limits};
use modelservice_server::connections::{self, Server, Settings};
use modelservice_server::metrics::{ConnectionMetrics, Metrics};
use modelservice_server::middleware::Middleware;
use modelservice_server::process::lifecycle::Lifecycle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::http::{Sender2, connect, connect_http_2, exchange, get, post};
use support::{Server as Process, example};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A server that echoes at `/echo`, panics at `/panic`, and waits for `gate` at `/wait`.
struct World {
    address: SocketAddr,
    metrics: Metrics,
    lifecycle: Lifecycle,
    gate: Arc<Notify>,
}

fn settings() -> Settings {
    Settings::new(&Connections::default(), &Limits::default(), 1000)
}

impl World {
    fn start(settings: Settings) -> Self {
        let (lifecycle, metrics) = (Lifecycle::default(), Metrics::new("", "", ""));
        let gate = Arc::new(Notify::new());
        let waiting = Arc::clone(&gate);
        let wait = move || {
            let gate = Arc::clone(&waiting);
            async move { gate.notified().await }
        };
        let router = Router::new()
            .route("/echo", on_post(|body: Bytes| async move { body }))
            .route("/wait", on_get(wait))
            .route("/panic", on_get(async || -> &str { panic!("a bug") }))
            .layer(DefaultBodyLimit::disable());
        let listener = connections::listen(0).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let middleware = Middleware::new(router, lifecycle.clone(), None, metrics.connections());
        let server = Server::new(middleware, settings, None, metrics.connections());
        let serving = lifecycle.clone();
        tokio::spawn(async move {
            let never = std::future::pending();
            server.serve(listener, &serving, &Drain::default(), never).await;
        });
        Self {
            address,
            metrics,
            lifecycle,
            gate,
        }
    }

    fn metrics(&self) -> &ConnectionMetrics {
        self.metrics.connections()
    }

    /// Connections that were closed for this reason.
    fn closed(&self, reason: &str) -> usize {
        let name = format!("modelservice_connections_closed_total{{reason=\"{reason}\"}} ");
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse().unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "not in time: {what}\n{}",
                self.metrics.encode().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn echo(size: usize) -> Request<Full<Bytes>> {
    post("/echo", vec![7; size])
}

/// Otherwise clients that keep their connections would never find a new replica, and clients that are cut off would
/// lose a request.
#[tokio::test(flavor = "multi_thread")]
async fn over_http_1_a_connection_has_an_age_and_no_request_fails() {
    let world = World::start(Settings {
        max_age: Some(Duration::from_millis(100)),
        ..settings()
    });
    let address = world.address;
    let clients = (0..8).map(|_| {
        tokio::spawn(async move {
            for _ in 0..5 {
                let (mut sender, mut count) = (connect(address).await, 0);
                loop {
                    let (status, close) = exchange(&mut sender, echo(1000)).await;
                    assert_eq!(status, 200);
                    count += 1;
                    if close {
                        break;
                    }
                }
                assert!(count > 1, "a connection is used more than once");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    world
        .until("all are closed", |world| world.closed("age") == 40)
        .await;
    assert_eq!(world.metrics().open.get(), 0);
}

/// An HTTP/2 client whose connection ends opens another; a request that was never sent is not a failure.
struct Client2 {
    address: SocketAddr,
    sender: tokio::sync::Mutex<Sender2>,
    opened: AtomicUsize,
}

impl Client2 {
    async fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: tokio::sync::Mutex::new(connect_http_2(address).await),
            opened: AtomicUsize::new(1),
        }
    }

    async fn echo(&self, size: usize) {
        let mut request = Request::post("http://photos/echo")
            .body(Full::new(vec![7; size].into()))
            .unwrap();
        loop {
            let mut sender = self.sender.lock().await.clone();
            match sender.try_send_request(request).await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body.len(), size);
                    return;
                }
                Err(mut error) => {
                    request = error
                        .take_message()
                        .unwrap_or_else(|| panic!("a request that was sent failed: {}", error.error()));
                    let mut current = self.sender.lock().await;
                    if current.is_closed() || current.ready().await.is_err() {
                        *current = connect_http_2(self.address).await;
                        self.opened.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_a_connection_has_an_age_and_no_request_fails() {
    let world = World::start(Settings {
        max_age: Some(Duration::from_millis(100)),
        ..settings()
    });
    let client = Arc::new(Client2::new(world.address).await);
    let streams = (0..16).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            while client.opened.load(Ordering::Relaxed) < 6 {
                client.echo(1000).await;
            }
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    assert!(world.closed("age") >= 4);
    assert_eq!(world.closed("error"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_limited_to_a_number_of_requests() {
    let world = World::start(Settings {
        max_requests: Some(3),
        ..settings()
    });
    for _ in 0..3 {
        let mut sender = connect(world.address).await;
        let mut closes = Vec::new();
        for _ in 0..3 {
            closes.push(exchange(&mut sender, echo(10)).await);
        }
        assert_eq!(closes, [(200, false), (200, false), (200, true)]);
    }
    let client = Client2::new(world.address).await;
    for _ in 0..30 {
        client.echo(10).await;
    }
    let opened = client.opened.load(Ordering::Relaxed);
    // A request that arrives while the connection ends is answered too.
    assert!((6..=11).contains(&opened), "{opened}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_that_is_idle_is_closed_once_it_is_quiet() {
    let world = World::start(Settings {
        max_age: Some(Duration::from_millis(100)),
        quiet: Duration::from_millis(400),
        ..settings()
    });
    let mut used = connect(world.address).await;
    let unused = connect(world.address).await;
    exchange(&mut used, echo(10)).await;
    world
        .until("both are closed", |world| world.closed("age") == 2)
        .await;
    world
        .until("their clients see it", |_| used.is_closed() && unused.is_closed())
        .await;
    assert_eq!(world.closed("idle"), 0);
}

/// If one side closes while the other sends, a request is lost: load balancers rely on this time.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_time() {
    let world = World::start(Settings {
        idle: Duration::from_millis(300),
        ..settings()
    });
    let mut sender = connect(world.address).await;
    let sender_2 = connect_http_2(world.address).await;
    let silent = TcpStream::connect(world.address).await.unwrap();
    let used = Instant::now();
    exchange(&mut sender, echo(10)).await;
    world
        .until("all are closed", |world| world.closed("idle") == 3)
        .await;
    assert!(used.elapsed() >= Duration::from_millis(300));
    world
        .until("their clients see it", |_| {
            sender.is_closed() && sender_2.is_closed()
        })
        .await;
    drop(silent);
}

/// Slowloris: with a byte now and then a client keeps a connection open, and a thousand of them keep everyone out.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_byte_by_byte_is_cut_off_and_an_idle_connection_is_not() {
    let world = World::start(Settings {
        header: Duration::from_millis(400),
        ..settings()
    });
    let address = world.address;
    let mut idle = connect(address).await;
    exchange(&mut idle, echo(10)).await;
    let request = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    // On a new connection, after a request, and in the middle of the HTTP/2 preface.
    let slow = [("G", "x"), (request, "x"), ("PRI * HTTP/2.0", "")].map(|(first, more)| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(first.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let mut answer = Vec::new();
            let send = async {
                while to.write_all(more.as_bytes()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! {
                () = send => {}
                _ = from.read_to_end(&mut answer) => {}
            }
        })
    });
    for slow in slow {
        slow.await.unwrap();
    }
    world
        .until("all are cut off", |world| world.closed("slow") == 3)
        .await;
    assert_eq!(exchange(&mut idle, echo(10)).await, (200, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_the_longest_idle_makes_room() {
    let world = World::start(Settings { max: 2, ..settings() });
    let mut first = connect(world.address).await;
    exchange(&mut first, echo(10)).await;
    let mut second = connect(world.address).await;
    exchange(&mut second, echo(10)).await;
    let mut third = connect(world.address).await;
    assert_eq!(exchange(&mut third, echo(10)).await, (200, false));
    assert_eq!(world.closed("room"), 1);
    world.until("the client sees it", |_| first.is_closed()).await;
    assert_eq!(exchange(&mut second, echo(10)).await, (200, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_newcomers_wait_until_a_busy_one_ends() {
    let world = World::start(Settings { max: 2, ..settings() });
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let address = world.address;
            tokio::spawn(async move { exchange(&mut connect(address).await, get("/wait")).await })
        })
        .collect();
    world
        .until("two are busy", |world| world.lifecycle.in_flight() == 2)
        .await;
    let address = world.address;
    let newcomer = tokio::spawn(async move { exchange(&mut connect(address).await, echo(10)).await });
    // No connection is idle: the new one stays in the listener's queue.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        (world.metrics().accepted.get(), newcomer.is_finished()),
        (2, false)
    );
    world.gate.notify_one();
    assert_eq!(newcomer.await.unwrap(), (200, false));
    world.gate.notify_one();
    for busy in busy {
        assert_eq!(busy.await.unwrap().0, 200);
    }
}

/// A client that is refused before everything was read gets the response at once, and can keep using its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_wait_for_the_body_and_the_connection_goes_on() {
    let world = World::start(Settings {
        header: Duration::from_millis(200),
        ..settings()
    });
    // hyper's client sometimes stops sending after a response that arrived before its body was sent.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    for size in [0, 100, 5 << 20] {
        let head = format!("POST /nothing HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![7; size]).await.unwrap();
        let mut answer = [0; 1000];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 404"), "{size}");
    }
    let head = b"POST /nothing HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = [0; 1000];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(
        answer[..read].starts_with(b"HTTP/1.1 404"),
        "the body has not ended yet"
    );
    // For longer than the time limit for a head, since this is still the body.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        stream.write_all(b"5\r\n56789\r\n").await.unwrap();
    }
    stream
        .write_all(b"0\r\n\r\nPOST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
}

/// With windows that are too small, a batch of images would wait for a round trip, or for ever.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_do_not_stall_over_http_2() {
    let world = World::start(settings());
    let client = Arc::new(Client2::new(world.address).await);
    let streams = (0..8).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.echo(5 << 20).await })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    assert_eq!(client.opened.load(Ordering::Relaxed), 1);
}

/// A bug in one request is an error for that request alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_answer_and_the_connection_goes_on() {
    let world = World::start(settings());
    let mut sender = connect(world.address).await;
    assert_eq!(exchange(&mut sender, get("/panic")).await, (500, false));
    assert_eq!(exchange(&mut sender, echo(10)).await, (200, false));
    let mut sender = connect_http_2(world.address).await;
    let request = Request::get("http://photos/panic").header("content-type", "application/grpc");
    let request = request.body(Full::default());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["grpc-status"]),
        (200, &"13".parse().unwrap())
    );
    assert_eq!(world.lifecycle.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::start(Settings {
        max_header_bytes: 2000,
        ..settings()
    });
    let with = |size: usize| {
        let mut request = echo(0);
        request
            .headers_mut()
            .insert("x-large", "x".repeat(size).parse().unwrap());
        request
    };
    assert_eq!(
        exchange(&mut connect(world.address).await, with(1000)).await.0,
        200
    );
    assert_eq!(
        exchange(&mut connect(world.address).await, with(9000)).await.0,
        431
    );
    let mut sender = connect_http_2(world.address).await;
    let request = Request::post("http://photos/echo").header("x-large", "x".repeat(2500));
    let answer = sender
        .send_request(request.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), 431);
}

/// Clients disconnect at every point of an exchange; what they held is freed.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let world = World::start(settings());
    let whole = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789";
    for end in (0..whole.len()).step_by(3) {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(&whole[..end]).await.unwrap();
        if end % 2 == 0 {
            // It disappears without closing properly.
            stream.set_zero_linger().unwrap();
        }
    }
    let chunked = b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01";
    TcpStream::connect(world.address)
        .await
        .unwrap()
        .write_all(chunked)
        .await
        .unwrap();
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream
        .write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    world
        .until("it waits", |world| world.lifecycle.in_flight() > 0)
        .await;
    drop(stream);
    world
        .until("nothing is left", |world| {
            world.metrics().accepted.get() > 20
                && world.metrics().open.get() == 0
                && world.lifecycle.in_flight() == 0
        })
        .await;
    assert_eq!(
        exchange(&mut connect(world.address).await, echo(10)).await,
        (200, false)
    );
}

/// A client that sends everything at once keeps the requests that do not fit into the queue.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_alone_never_finds_the_queue_full() {
    let models = serde_json::json!([{"name": "photos", "path": example("efficientnet-lite0")}]);
    let mut server = Process::start(&serde_json::json!({ "models": models }).to_string(), &[]);
    let (address, _) = server.addresses();
    let sender = connect_http_2(address).await;
    let photo = Bytes::from(std::fs::read(example("photos/cat.jpg")).unwrap());
    let requests = (0..160).map(|_| {
        let (mut sender, photo) = (sender.clone(), photo.clone());
        async move {
            let request = Request::post("http://a/v1/models/photos:classify").body(Full::new(photo));
            sender.send_request(request.unwrap()).await.unwrap().status()
        }
    });
    let statuses = futures::future::join_all(requests).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// "Rapid reset" (CVE-2023-44487): requests that are cancelled as soon as they are sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_cancelled_requests_harms_nobody_else() {
    let world = World::start(settings());
    let mut other = connect(world.address).await;
    for _ in 0..20 {
        let mut sender = connect_http_2(world.address).await;
        for _ in 0..200 {
            let request = Request::get("http://photos/wait").body(Full::default()).unwrap();
            // Sent, and cancelled when the response's future is dropped.
            let answer = sender.send_request(request);
            let _ = tokio::time::timeout(Duration::from_micros(50), answer).await;
        }
    }
    assert_eq!(exchange(&mut other, echo(10)).await, (200, false));
    world
        .until("nothing is left", |world| world.lifecycle.in_flight() == 0)
        .await;
}
