//! HTTP requests to an inference server.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use std::{future::poll_fn, pin::pin};
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

/// Sends a request over `stream`; returns the body of a successful response of at most `max_bytes`, and the stream for
/// the next request. Between requests there is nothing but the socket: hyper's buffers, 16 KiB, end with each request.
///
/// # Errors
/// When no such response arrives.
pub async fn send(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<(Bytes, TcpStream), RequestError> {
    let (sender, mut connection) = http1::handshake(TokioIo::new(stream)).await?;
    let body = {
        let mut exchange = pin!(exchange(sender, request, max_bytes));
        tokio::select! {
            biased;
            body = &mut exchange => body,
            // The request fails with the same error, or its response is complete.
            _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => exchange.await,
        }
    };
    Ok((body?, connection.into_parts().io.into_inner()))
}

async fn exchange(
    mut sender: SendRequest<Full<Bytes>>,
    mut request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<Bytes, RequestError> {
    request
        .headers_mut()
        .entry(HOST)
        .or_insert(HeaderValue::from_static("server"));
    sender.ready().await?;
    let response = sender.send_request(request).await?;
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
