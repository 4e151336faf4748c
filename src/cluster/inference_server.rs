//! HTTP requests to an inference server.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why a server gave no usable response.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection broke, or the server does not speak HTTP.
    #[error("the server cannot be reached: {0}")]
    Http(#[from] hyper::Error),
    /// The response was incomplete or too long.
    #[error("the server's response cannot be read: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server responded with an error.
    #[error("the server responded with {0}: {1}")]
    Refused(StatusCode, String),
}

/// A connection to an inference server.
pub struct Connection(http1::SendRequest<Full<Bytes>>);

impl Connection {
    /// Speaks HTTP over `stream`.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn new(stream: TcpStream) -> Result<Self, RequestError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The request fails with the same error.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request; returns the body of a successful response of at most `max_bytes`.
    ///
    /// # Errors
    /// When no such response arrives.
    pub async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
        max_bytes: usize,
    ) -> Result<Bytes, RequestError> {
        request
            .headers_mut()
            .entry(HOST)
            .or_insert(HeaderValue::from_static("server"));
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max_bytes).collect().await;
        let body = body.map_err(RequestError::Body)?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(RequestError::Refused(
                status,
                String::from_utf8_lossy(&body).into_owned(),
            ))
        }
    }
}

/// Sends a request over a new connection; returns the body of a successful response of at most `max_bytes`.
///
/// # Errors
/// When no such response arrives.
pub async fn send(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<Bytes, RequestError> {
    Connection::new(stream).await?.send(request, max_bytes).await
}
