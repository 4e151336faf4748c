//! The HTTP client against real servers on this machine: what it sends to whom, and what it makes of bad answers.
#![allow(clippy::unwrap_used, clippy::panic)]

use axum::{
    Router,
    body::Body,
    extract::{Request as Received, State},
    response::{IntoResponse, Response as Answer},
};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use modelservice_contract::FetchReason;
use modelservice_fetch::{
    error::FetchError,
    http::{Asked, Audience, Client, Policy, Request, Timeouts, exactly, failure},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use url::Url;

type Respond = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

/// A request: its line, and its headers by name.
type Seen = (String, BTreeMap<String, String>);

/// A server that answers as a test says, and remembers what it was sent.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    respond: Respond,
}

impl Server {
    async fn start(respond: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            respond: Arc::new(respond),
        };
        let router = Router::new().fallback(Self::answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    async fn answer(State(server): State<Self>, request: Received) -> Answer {
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        server.seen.lock().unwrap().push((
            format!("{} {}", request.method(), request.uri()),
            headers.collect(),
        ));
        (server.respond)(&request)
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A server that sends these bytes, whatever it is asked, and then closes the connection or waits.
async fn raw(answer: &'static [u8], closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                if !closes {
                    // Until the client gives up.
                    let _ = stream.read(&mut request).await;
                }
            });
        }
    });
    address
}

fn client() -> Client {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        headers: Duration::from_millis(500),
        idle: Duration::from_millis(500),
        window: Duration::from_secs(5),
    };
    Client::new(Policy::default().with_loopback(), None, timeouts).unwrap()
}

fn redirect(to: &str) -> Answer {
    (StatusCode::FOUND, [(header::LOCATION, to.to_owned())]).into_response()
}

fn credentials(request: Request) -> Request {
    request
        .secret_header(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer hf_secret"),
        )
        .secret_header(header::COOKIE, HeaderValue::from_static("session=secret"))
        .secret_header(
            HeaderName::from_static("x-token"),
            HeaderValue::from_static("secret"),
        )
        .header(
            HeaderName::from_static("x-amz-security-token"),
            HeaderValue::from_static("secret"),
        )
        .header(
            HeaderName::from_static("x-amz-date"),
            HeaderValue::from_static("20260101T000000Z"),
        )
        .header(header::IF_MATCH, HeaderValue::from_static("\"1\""))
        .range(&(10..20))
}

/// Otherwise a redirect to a content delivery network, or to an attacker, gets the credentials.
#[tokio::test]
async fn another_host_gets_no_credential_and_nothing_that_it_need_not_know() {
    let other = Server::start(|_| "there".into_response()).await;
    let target = other.url("/object?X-Amz-Signature=theirs&Signature=ours-secret&part=1");
    let first = Server::start(move |_| redirect(target.as_str())).await;
    let url = first.url("/object?X-Amz-Signature=ours-secret");
    let request = credentials(Request::get(url.clone())).audience(Audience::origin_of(&url));
    let response = client().send(request).await.unwrap();
    assert_eq!(response.bytes(100).await.unwrap(), Bytes::from_static(b"there"));

    let (line, headers) = first.seen().remove(0);
    assert_eq!(line, "GET /object?X-Amz-Signature=ours-secret");
    assert_eq!(headers["authorization"], "Bearer hf_secret");
    let [(line, headers)] = &other.seen()[..] else {
        panic!()
    };
    assert_eq!(line, "GET /object?X-Amz-Signature=theirs&part=1");
    let expected = [
        ("accept-encoding", "identity"),
        ("host", &other.address.to_string()),
        ("if-match", "\"1\""),
        ("range", "bytes=10-19"),
        (
            "user-agent",
            concat!("modelservice-fetch/", env!("CARGO_PKG_VERSION")),
        ),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(*headers, BTreeMap::from(expected));
}

#[tokio::test]
async fn the_same_host_gets_the_credentials_again() {
    let server = Server::start(|request| match request.uri().path() {
        "/old" => redirect("/new"),
        _ => "there".into_response(),
    })
    .await;
    let url = server.url("/old");
    let request = credentials(Request::get(url.clone())).audience(Audience::origin_of(&url));
    client().send(request).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[1].0, "GET /new");
    assert_eq!(seen[0].1, seen[1].1);
}

/// There and back again: what was dropped stays dropped.
#[tokio::test]
async fn credentials_do_not_come_back_after_a_detour() {
    let back = Arc::new(Mutex::new(String::new()));
    let location = Arc::clone(&back);
    let other = Server::start(move |_| redirect(&location.lock().unwrap())).await;
    let away = other.url("/").to_string();
    let first = Server::start(move |request| match request.uri().path() {
        "/start" => redirect(&away),
        _ => "there".into_response(),
    })
    .await;
    *back.lock().unwrap() = first.url("/end").to_string();
    let url = first.url("/start");
    client()
        .send(credentials(Request::get(url.clone())).audience(Audience::origin_of(&url)))
        .await
        .unwrap();
    let seen = first.seen();
    assert!(seen[0].1.contains_key("authorization"));
    assert_eq!(seen[1].0, "GET /end");
    for name in [
        "authorization",
        "cookie",
        "x-token",
        "x-amz-security-token",
        "x-amz-date",
    ] {
        assert!(!seen[1].1.contains_key(name), "{name}");
    }
}

/// Otherwise whoever may name an endpoint gets any Secret.
#[tokio::test]
async fn credentials_are_sent_to_no_server_that_is_not_listed() {
    let server = Server::start(|_| "there".into_response()).await;
    let listed = Audience::parse("https://other.example").unwrap();
    for request in [
        Request::get(server.url("/"))
            .secret_header(header::AUTHORIZATION, HeaderValue::from_static("Bearer x")),
        Request::get(server.url("/")).header(header::AUTHORIZATION, HeaderValue::from_static("Bearer x")),
        Request::get(server.url("/?sig=abc")),
    ] {
        let error = client().send(request.audience(listed.clone())).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::Forbidden);
        let line = format!("add a line http://{} to the key `endpoints`", server.address);
        assert!(error.message.contains(&line), "{}", error.message);
    }
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn redirects_are_bounded_and_circles_end() {
    let circle = Server::start(|request| match request.uri().path() {
        "/a" => redirect("/b"),
        _ => redirect("/a"),
    })
    .await;
    let endless = Server::start(|request| redirect(&format!("{}x", request.uri().path()))).await;
    for (server, part, requests) in [(circle, "in a circle", 2), (endless, "too often", 11)] {
        let error = client().send(Request::get(server.url("/a"))).await.unwrap_err();
        assert!(error.message.contains(part), "{}", error.message);
        assert_eq!(server.seen().len(), requests);
    }
}

/// Addresses are judged at every hop, after the name is resolved.
#[tokio::test]
async fn addresses_that_are_no_stores_are_not_reached() {
    let inside = Server::start(|_| "inside".into_response()).await;
    let strict = Client::new(Policy::default(), None, Timeouts::default()).unwrap();
    let port = inside.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "0x7f.1",
        "2130706433",
    ] {
        let url = Url::parse(&format!("http://{host}:{port}/")).unwrap();
        let error = strict.send(Request::get(url)).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::Forbidden, "{host}: {}", error.message);
        assert!(error.message.contains("loopback"), "{}", error.message);
    }
    for to in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://0.0.0.0/",
    ] {
        let server = Server::start(move |_| redirect(to)).await;
        let error = client().send(Request::get(server.url("/"))).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::Forbidden, "{to}: {}", error.message);
    }
    assert_eq!(inside.seen(), []);
}

#[tokio::test]
async fn the_api_server_is_not_reached() {
    let server = Server::start(|_| "pods".into_response()).await;
    let policy = Policy::new([server.address.ip()]).with_loopback();
    let client = Client::new(policy, None, Timeouts::default()).unwrap();
    let error = client
        .send(Request::get(server.url("/api/v1/pods")))
        .await
        .unwrap_err();
    assert!(error.message.contains("API server"), "{}", error.message);
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn a_user_in_a_url_is_refused() {
    let server = Server::start(|_| "there".into_response()).await;
    let mut url = server.url("/");
    url.set_username("me").unwrap();
    url.set_password(Some("hunter2")).unwrap();
    let error = client().send(Request::get(url)).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::ConfigInvalid);
    assert!(!error.message.contains("hunter2"), "{}", error.message);
}

/// Each of these may be over in a moment: it is tried again.
#[tokio::test]
async fn an_answer_that_does_not_come_or_breaks_off_is_unavailable() {
    for (answer, closes, part) in [
        (&b""[..], true, "has not answered"),
        (b"", false, "has not answered within 0 s"),
        (b"no HTTP at all\r\n\r\n", true, "has not answered"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            true,
            "broke off",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            false,
            "has sent nothing",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            true,
            "broke off",
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
            true,
            "after 4 of 10 bytes",
        ),
    ] {
        let url = Url::parse(&format!("http://{}/", raw(answer, closes).await)).unwrap();
        let error = read(url).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::Unavailable);
        assert_eq!(
            error.retry,
            modelservice_fetch::error::Retry::Soon,
            "{}",
            error.message
        );
        assert!(error.message.contains(part), "{}", error.message);
    }
}

async fn read(url: Url) -> Result<Vec<Bytes>, FetchError> {
    let response = client().send(Request::get(url)).await?;
    let pieces: Vec<_> = exactly(response.stream(), 10, "a.onnx".to_owned())
        .collect()
        .await;
    pieces.into_iter().collect()
}

/// A server that keeps a connection open with a byte now and then would hold the pod forever.
#[tokio::test]
async fn a_body_that_drips_is_broken_off() {
    let server = Server::start(|_| {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b".")), ()))
        });
        Body::from_stream(drops).into_response()
    })
    .await;
    let timeouts = Timeouts {
        window: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let client = Client::new(Policy::default().with_loopback(), None, timeouts).unwrap();
    let response = client.send(Request::get(server.url("/"))).await.unwrap();
    let error = response.bytes(1 << 20).await.unwrap_err();
    assert!(error.message.contains("drips"), "{}", error.message);
}

#[tokio::test]
async fn nobody_listens_and_nobody_of_that_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for (url, part) in [
        (format!("http://{address}/"), "cannot be reached"),
        (
            "http://nobody.invalid/".to_owned(),
            "the name nobody.invalid cannot be resolved",
        ),
    ] {
        let error = client()
            .send(Request::get(Url::parse(&url).unwrap()))
            .await
            .unwrap_err();
        assert!(error.message.contains(part), "{}", error.message);
    }
}

/// The message goes into the object's status, which many may read.
#[tokio::test]
async fn a_failed_answer_repeats_no_credential() {
    let server = Server::start(|request| {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        (StatusCode::FORBIDDEN, format!("no access with {token}")).into_response()
    })
    .await;
    let url = server.url("/");
    let request = credentials(Request::new(Method::GET, url.clone())).audience(Audience::origin_of(&url));
    let shown = format!("{request:?}");
    let response = client().send(request).await.unwrap();
    let error = failure(response, &Asked::default()).await;
    assert_eq!(error.reason, FetchReason::Denied);
    assert!(
        error.message.contains("no access with [redacted]"),
        "{}",
        error.message
    );
    for text in [shown, error.message] {
        assert!(!text.contains("secret"), "{text}");
    }
}
