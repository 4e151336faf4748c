//! A web server with a certificate of a private authority, and one file.

use crate::{
    bucket::{Secret, access},
    proxy::Proxy,
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use modelservice_fetch::{error::FetchError, source::https::HttpsSource};
use modelservice_test_stores::certificate::Certificate;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What the server has, and how it answers.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) body: Vec<u8>,
    /// As it is sent, with its quotes.
    pub(crate) tag: Option<String>,
    pub(crate) has_ranges: bool,
    pub(crate) heeds_conditions: bool,
    pub(crate) says_length: bool,
    /// Whether a part says how long all of it is.
    pub(crate) says_total: bool,
    pub(crate) extra: Option<(&'static str, &'static str)>,
    /// The header without which it refuses.
    pub(crate) wants: Option<(&'static str, &'static str)>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            body: b"0123456789".to_vec(),
            tag: Some("\"one\"".to_owned()),
            has_ranges: true,
            heeds_conditions: true,
            says_length: true,
            says_total: true,
            extra: None,
            wants: None,
        }
    }
}

/// A server, behind a proxy that speaks TLS.
pub(crate) struct Web {
    pub(crate) proxy: Proxy,
    pub(crate) file: Arc<Mutex<File>>,
    pub(crate) authority: String,
}

impl Web {
    pub(crate) async fn start(file: File) -> Self {
        let file = Arc::new(Mutex::new(file));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&file));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (acceptor, authority) = tls();
        Self {
            proxy: Proxy::start(&url, Some(acceptor)).await,
            file,
            authority,
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut File)) {
        change(&mut self.file.lock().unwrap());
    }

    /// A Secret that makes its certificate trusted.
    pub(crate) fn secret(&self) -> Secret {
        let secret = Secret::new(&self.proxy.url);
        secret.set("ca.crt", &self.authority);
        secret
    }

    pub(crate) fn source(
        &self,
        path: &str,
        secret: Option<&Secret>,
        digest: Option<&str>,
    ) -> Result<HttpsSource, FetchError> {
        let uri = self.proxy.url.join(path).unwrap();
        HttpsSource::new(uri.as_str(), access(None, secret)?, digest.map(str::to_owned))
    }
}

/// A server's certificate for `localhost`, and the authority that vouches for it.
fn tls() -> (TlsAcceptor, String) {
    let made = Certificate::of("localhost");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.server.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.authority)
}

async fn answer(State(file): State<Arc<Mutex<File>>>, request: Request) -> Response {
    let file = file.lock().unwrap().clone();
    let headers = request.headers();
    if let Some((name, value)) = file.wants
        && headers.get(name).is_none_or(|sent| sent != value)
    {
        return (StatusCode::UNAUTHORIZED, "log in first").into_response();
    }
    if request.uri().path() != "/models/resnet.onnx" {
        return (StatusCode::NOT_FOUND, "no such file").into_response();
    }
    let tag = file.tag.clone().unwrap_or_default();
    if file.heeds_conditions && headers.get(header::IF_MATCH).is_some_and(|wanted| *wanted != tag) {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    let is_other =
        file.heeds_conditions && headers.get(header::IF_RANGE).is_some_and(|wanted| *wanted != tag);
    let range = range(headers).filter(|_| file.has_ranges && !is_other);
    let mut response = match range {
        Some((first, _)) if first >= file.body.len() => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some((first, last)) => {
            let last = last.min(file.body.len() - 1);
            let total = if file.says_total {
                file.body.len().to_string()
            } else {
                "*".to_owned()
            };
            let content_range = format!("bytes {first}-{last}/{total}");
            let headers = [(header::CONTENT_RANGE, content_range)];
            (
                StatusCode::PARTIAL_CONTENT,
                headers,
                file.body[first..=last].to_vec(),
            )
                .into_response()
        }
        None if file.says_length => file.body.clone().into_response(),
        None => {
            let pieces = [Ok::<_, std::io::Error>(file.body.clone())];
            Body::from_stream(futures::stream::iter(pieces)).into_response()
        }
    };
    let headers = response.headers_mut();
    if !tag.is_empty() {
        headers.insert(header::ETAG, tag.parse().unwrap());
    }
    if let Some((name, value)) = file.extra {
        headers.insert(name, value.parse().unwrap());
    }
    response
}

fn range(headers: &HeaderMap) -> Option<(usize, usize)> {
    let text = headers.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}
