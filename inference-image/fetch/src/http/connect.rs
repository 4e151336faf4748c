//! Connections: a name is resolved, each address is judged, and TLS is spoken with servers that a root vouches for.

use super::{policy::Policy, timeouts::Timeouts};
use crate::error::{FetchError, Retry};
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use modelservice_contract::FetchReason;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

/// Makes the connections of a client.
#[derive(Clone)]
pub(super) struct Connector {
    policy: Policy,
    tls: Arc<ClientConfig>,
    timeouts: Timeouts,
}

impl Connector {
    pub(super) fn new(
        policy: Policy,
        extra_roots: Option<&[u8]>,
        timeouts: Timeouts,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            policy,
            tls: Arc::new(tls(roots(extra_roots)?)?),
            timeouts,
        })
    }

    async fn connect(self, uri: Uri) -> Result<Stream, FetchError> {
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = self.connect_tcp(&host, port).await?;
        if !is_tls {
            return Ok(Stream::Plain(TokioIo::new(tcp)));
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| {
            FetchError::new(
                FetchReason::ConfigInvalid,
                format!("{host} is no name of a server"),
            )
        })?;
        let handshake = TlsConnector::from(self.tls).connect(name, tcp);
        match within(self.timeouts.connect, handshake).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(TokioIo::new(stream)))),
            Err(error) => Err(tls_failure(&host, &error)),
        }
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let unreachable =
            |error: &io::Error| FetchError::unavailable(format!("{host}:{port} cannot be reached: {error}"));
        let addresses = within(self.timeouts.connect, lookup_host((host, port)))
            .await
            .map_err(|error| {
                FetchError::unavailable(format!("the name {host} cannot be resolved: {error}"))
            })?;
        let mut refusal = None;
        let mut failure = None;
        for address in addresses {
            if let Some(why) = self.policy.refusal(address.ip()) {
                refusal = Some((address, why));
                continue;
            }
            match within(self.timeouts.connect, TcpStream::connect(address)).await {
                Ok(stream) => {
                    // Requests are small and answered before the next; this only saves a delay.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = Some(unreachable(&error)),
            }
        }
        Err(failure
            .or_else(|| refusal.map(|(address, why)| forbidden(host, address, why)))
            .unwrap_or_else(|| FetchError::unavailable(format!("the name {host} has no address"))))
    }
}

fn forbidden(host: &str, address: SocketAddr, why: &str) -> FetchError {
    let ip = address.ip();
    let who = if host == ip.to_string() {
        host.to_owned()
    } else {
        format!("{host} ({ip})")
    };
    let message = format!(
        "{who} must not be reached: {why}. A model's source is another server; see docs/model-sources.md"
    );
    FetchError::new(FetchReason::Forbidden, message)
}

/// What the other side's certificate lacks does not heal within a retry.
fn tls_failure(host: &str, error: &io::Error) -> FetchError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(problem)) = inner else {
        return FetchError::unavailable(format!("{host}: no TLS connection: {error}"));
    };
    FetchError {
        retry: Retry::Never,
        ..FetchError::unavailable(format!(
            "{host}: the server's certificate is not trusted ({problem}). If it comes from a private authority, add that \
             one's certificate as `ca.crt` to the credentials' Secret"
        ))
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", limit.as_secs()),
        )),
    }
}

/// Mozilla's roots, built in: the base of the images has no certificates, and a base that an administrator chooses may
/// have none either. Certificates of the Secret come on top.
fn roots(extra: Option<&[u8]>) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let Some(extra) = extra else { return Ok(roots) };
    let unusable = |what: &str| {
        let message =
            format!("credentials' Secret: `ca.crt` {what}; it must be one or more certificates in PEM");
        FetchError::new(FetchReason::ConfigInvalid, message)
    };
    let mut is_empty = true;
    for certificate in CertificateDer::pem_slice_iter(extra) {
        let certificate = certificate.map_err(|_| unusable("is no PEM"))?;
        roots
            .add(certificate)
            .map_err(|_| unusable("has a certificate that cannot be read"))?;
        is_empty = false;
    }
    if is_empty {
        return Err(unusable("has no certificate"));
    }
    Ok(roots)
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            FetchError::new(FetchReason::SystemError, format!("TLS cannot be set up: {error}"))
        })?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // Parts that are fetched at once are faster over connections of their own.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = FetchError;
    type Future = BoxFuture<'static, Result<Stream, FetchError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), FetchError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection, with or without TLS.
pub(super) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
