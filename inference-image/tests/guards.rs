//! Access control: TLS, client certificates and bearer tokens, and their rotation in a running server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get as on_get, post as on_post};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelservice_contract::{Auth, Connections, Drain, Limits, Tls as TlsConfig};
use modelservice_server::config::reload::{self, Watched};
use modelservice_server::connections::{self, Server, Settings, Tls};
use modelservice_server::metrics::Metrics;
use modelservice_server::middleware::{Middleware, Tokens};
use modelservice_server::process::lifecycle::Lifecycle;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::http::{connect, exchange, get, post};
use support::{Server as Process, example};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `localhost` and its key, as PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server with its access control; its files are in `folder`.
struct World {
    address: SocketAddr,
    metrics: Metrics,
    folder: TempDir,
}

impl World {
    /// Over TLS, with client certificates if there is an authority for them.
    fn tls(server: &Authority, clients: Option<&Authority>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (certificate, key) = server.sign();
        let mut files = vec![("tls.crt", certificate.as_str()), ("tls.key", &key)];
        files.extend(clients.map(|authority| ("ca.crt", authority.pem.as_str())));
        publish(folder.path(), &files);
        let config = TlsConfig {
            certificate_file: path("tls.crt"),
            key_file: path("tls.key"),
            client_ca_file: clients.map(|_| path("ca.crt")),
        };
        let (tls, watched) = Tls::read(&config).unwrap();
        Self::start(folder, Some(tls), None, watched)
    }

    fn tokens(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        publish(folder.path(), &[("tokens", text)]);
        let token_file = folder.path().join("tokens").display().to_string();
        let (tokens, watched) = Tokens::read(&Auth { token_file }).unwrap();
        Self::start(folder, None, Some(tokens), watched)
    }

    fn start(folder: TempDir, tls: Option<Tls>, tokens: Option<Tokens>, watched: Watched) -> Self {
        let (lifecycle, metrics) = (Lifecycle::default(), Metrics::new("", "", ""));
        let router = Router::new()
            .route("/v2/health/live", on_get(async || ""))
            .route("/echo", on_post(async |body: Bytes| body));
        let listener = connections::listen(0).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let settings = Settings {
            header: Duration::from_millis(500),
            ..Settings::new(&Connections::default(), &Limits::default(), 100)
        };
        let middleware = Middleware::new(router, lifecycle.clone(), tokens, metrics.connections());
        let server = Server::new(middleware, settings, tls, metrics.connections());
        tokio::spawn(reload::watch(
            watched,
            Duration::from_millis(10),
            metrics.connections().clone(),
        ));
        tokio::spawn(async move {
            let never = std::future::pending();
            server.serve(listener, &lifecycle, &Drain::default(), never).await;
        });
        Self {
            address,
            metrics,
            folder,
        }
    }

    /// Waits until the metrics contain this line.
    async fn until(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.metrics.encode().unwrap();
            if text.lines().any(|other| other == line) {
                return;
            }
            assert!(Instant::now() < deadline, "{line} does not come in\n{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A request over a new connection of a client that trusts `authority` and presents `identity`.
    async fn ask(&self, authority: &Authority, identity: Option<(String, String)>) -> Result<u16, String> {
        let stream = secure(self.address, authority, identity, b"http/1.1").await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        // With TLS 1.3 a client learns only now that its certificate was rejected.
        let answer: Result<Response<_>, _> = sender.send_request(post("/echo", vec![7; 100_000])).await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes().len(),
            100_000
        );
        Ok(status)
    }
}

/// Puts files into the folder, or replaces them, as the kubelet does with a Secret: in a new folder, to which a
/// symbolic link is then redirected.
fn publish(folder: &Path, files: &[(&str, &str)]) {
    let version = tempfile::Builder::new().tempdir_in(folder).unwrap().keep();
    for (name, content) in files {
        std::fs::write(version.join(name), content).unwrap();
        let _ = symlink(format!("..data/{name}"), folder.join(name));
    }
    let next = folder.join("..next");
    symlink(version, &next).unwrap();
    std::fs::rename(next, folder.join("..data")).unwrap();
}

/// Publishes a new certificate and its key.
fn certify(folder: &Path, authority: &Authority) {
    let (certificate, key) = authority.sign();
    publish(folder, &[("tls.crt", &certificate), ("tls.key", &key)]);
}

async fn secure(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<(String, String)>,
    protocol: &[u8],
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_served_over_tls() {
    let authority = Authority::new();
    let world = World::tls(&authority, None);
    assert_eq!(world.ask(&authority, None).await, Ok(200));
    let stream = secure(world.address, &authority, None, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://localhost/echo").body(Full::new(Bytes::from(vec![7; 1 << 20])));
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// Certificates live for a few weeks, servers longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_for_new_connections_and_open_ones_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = World::tls(&old, None);
    let stream = secure(world.address, &old, None, b"http/1.1").await.unwrap();
    let (mut kept, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    certify(world.folder.path(), &new);
    world
        .until("modelservice_reloads_total{what=\"certificate\",result=\"ok\"} 1")
        .await;
    assert_eq!(world.ask(&new, None).await, Ok(200));
    assert!(world.ask(&old, None).await.is_err(), "the old one is gone");
    assert_eq!(kept.send_request(post("/echo", "x")).await.unwrap().status(), 200);

    // A broken one changes nothing except the metrics.
    publish(world.folder.path(), &[("tls.crt", "broken"), ("tls.key", "")]);
    world
        .until("modelservice_reloads_total{what=\"certificate\",result=\"failed\"} 1")
        .await;
    assert_eq!(world.ask(&new, None).await, Ok(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_a_certificate_that_is_trusted_are_let_in() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let world = World::tls(&authority, Some(&clients));
    assert_eq!(world.ask(&authority, Some(clients.sign())).await, Ok(200));
    world.ask(&authority, None).await.unwrap_err();
    world.ask(&authority, Some(strangers.sign())).await.unwrap_err();
    world
        .until("modelservice_connections_closed_total{reason=\"handshake\"} 2")
        .await;

    // The authority is replaced.
    let (certificate, key) = authority.sign();
    let files = [
        ("tls.crt", certificate.as_str()),
        ("tls.key", &key),
        ("ca.crt", &strangers.pem),
    ];
    publish(world.folder.path(), &files);
    world
        .until("modelservice_reloads_total{what=\"certificate\",result=\"ok\"} 1")
        .await;
    assert_eq!(world.ask(&authority, Some(strangers.sign())).await, Ok(200));
    world.ask(&authority, Some(clients.sign())).await.unwrap_err();
}

/// Clients that do not start a handshake, or do not use TLS, must not keep their slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_is_given_up_and_keeps_nobody_waiting() {
    let authority = Authority::new();
    let world = World::tls(&authority, None);
    let _silent = TcpStream::connect(world.address).await.unwrap();
    let mut plain = connect(world.address).await;
    assert!(plain.send_request(get("/v2/health/live")).await.is_err());
    assert_eq!(world.ask(&authority, None).await, Ok(200));
    world
        .until("modelservice_connections_closed_total{reason=\"slow\"} 1")
        .await;
    world
        .until("modelservice_connections_closed_total{reason=\"handshake\"} 1")
        .await;
}

#[test]
fn files_that_do_not_go_together_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let problem = |ca: bool| {
        let config = TlsConfig {
            certificate_file: path("tls.crt"),
            key_file: path("tls.key"),
            client_ca_file: ca.then(|| path("ca.crt")),
        };
        Tls::read(&config).err().unwrap_or_default()
    };
    let ((certificate, key), (other, other_key)) = (authority.sign(), authority.sign());
    let publish = |key: &str, ca: &str| {
        let files = [
            ("tls.crt", certificate.as_str()),
            ("tls.key", key),
            ("ca.crt", ca),
        ];
        publish(folder.path(), &files);
    };
    assert!(problem(false).contains("tls.crt: No such file"));
    publish(&key, "");
    assert_eq!(problem(false), "");
    assert!(problem(true).contains("ca.crt: no PEM certificate"));
    publish(&other_key, "");
    assert!(problem(false).contains("do not match"), "{}", problem(false));
    publish(&other, "");
    assert!(problem(false).contains("tls.key: no PEM private key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_a_known_token_are_answered() {
    let world = World::tokens("first\n");
    let ask = async |token: Option<&str>, content_type: &str, path: &str| {
        let mut request = post(path, vec![7; 100_000]);
        if path != "/echo" {
            *request.method_mut() = hyper::Method::GET;
        }
        let headers = request.headers_mut();
        headers.insert("content-type", content_type.parse().unwrap());
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answer = connect(world.address).await.send_request(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        (parts, body.collect().await.unwrap().to_bytes())
    };
    assert_eq!(
        ask(Some("first"), "application/json", "/echo").await.0.status,
        200
    );
    assert_eq!(ask(None, "text/plain", "/v2/health/live").await.0.status, 200);
    let (refused, body) = ask(Some("second"), "application/json", "/echo").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    assert_eq!(body, r#"{"error":"the token is unknown"}"#);
    let (refused, _) = ask(
        None,
        "application/grpc",
        "/inference.GRPCInferenceService/ModelInfer",
    )
    .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["grpc-status"]),
        (200, &"16".parse().unwrap())
    );
    world.until("modelservice_unauthorized_requests_total 2").await;

    publish(world.folder.path(), &[("tokens", "second\n")]);
    world
        .until("modelservice_reloads_total{what=\"tokens\",result=\"ok\"} 1")
        .await;
    assert_eq!(
        ask(Some("second"), "application/json", "/echo").await.0.status,
        200
    );
    assert_eq!(
        ask(Some("first"), "application/json", "/echo").await.0.status,
        401
    );
}

/// A browser asks before it sends a token, and lets a page see only what it may see.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_may_do_what_the_configuration_says() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "secret\n").unwrap();
    let config = |cors: serde_json::Value| {
        let models = json!([{"name": "colors", "path": example("colors")}]);
        json!({"models": models, "auth": {"tokenFile": tokens.path()}, "cors": cors}).to_string()
    };
    let (known, other) = ("https://app.example", "https://other.example");
    let listed = json!({"allowedOrigins": ["http://localhost:3000", known]});
    for (cors, origin, allowed, vary) in [
        (json!(null), known, None, None),
        (listed.clone(), known, Some(known), Some("origin")),
        (listed, other, None, Some("origin")),
        (json!({"allowedOrigins": ["*"]}), other, Some("*"), None),
    ] {
        let mut server = Process::start(&config(cors), &[]);
        let (address, _) = server.addresses();
        for (method, token, expected) in [
            ("OPTIONS", None, if allowed.is_some() { 204 } else { 401 }),
            ("GET", Some("Bearer secret"), 200),
            ("GET", None, 401),
        ] {
            let mut request = Request::builder().method(method).uri("/v2").header("host", "a");
            request = request.header("origin", origin);
            if method == "OPTIONS" {
                request = request.header("access-control-request-method", "GET");
            }
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let request = request.body(Full::default()).unwrap();
            let answer = connect(address).await.send_request(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), expected, "{method} {origin}");
            let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(
                header("access-control-allow-origin"),
                allowed,
                "{method} {origin}"
            );
            assert_eq!(header("vary"), vary, "{method} {origin}");
            let asked = method == "OPTIONS" && allowed.is_some();
            let sent = header("access-control-allow-headers");
            assert_eq!(sent.is_some_and(|names| names.contains("authorization")), asked);
        }
    }
}

/// From the configuration to the response: the real process, its files, and their changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_guarded_as_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new();
    let (certificate, key) = authority.sign();
    let files = |tokens: &str| {
        let files = [
            ("tls.crt", certificate.as_str()),
            ("tls.key", &key),
            ("tokens", tokens),
        ];
        publish(folder.path(), &files);
    };
    files("first\n");
    let config = json!({
        "models": [{"name": "tiny", "path": example("tiny")}],
        "tls": {"certificateFile": path("tls.crt"), "keyFile": path("tls.key")},
        "auth": {"tokenFile": path("tokens")},
        "drain": {"acceptSeconds": 0},
    });
    let mut server = Process::start(&config.to_string(), &[]);
    let (http, management) = server.addresses();
    let ask = async |token: &str| {
        let stream = secure(http, &authority, None, b"http/1.1").await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = get("/v2/models/tiny");
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        sender.send_request(request).await.unwrap().status().as_u16()
    };
    assert_eq!((ask("first").await, ask("second").await), (200, 401));
    assert_eq!(
        exchange(&mut connect(management).await, get("/readyz")).await.0,
        200
    );
    files("second\n");
    server.wait_for("files reloaded");
    assert_eq!((ask("first").await, ask("second").await), (401, 200));
}
