//! Compresses JSON responses if the client asks for it and they are large. Responses of `/infer`, which are sent in
//! parts, are compressed by their own code.

use super::encoding::Encoding;
use crate::protocol::error::ApiError;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Body as _;

/// A response below this size is only a few packets: compressing it would take longer than sending it.
const WORTH: u64 = 16 << 10;

/// Wraps a handler.
pub(crate) async fn layer(request: Request, next: Next) -> Result<Response, ApiError> {
    let accepted = Encoding::accepted(request.headers());
    compressed(next.run(request).await, accepted).await
}

/// The response, compressed if it is large and JSON.
///
/// # Errors
/// When it cannot be compressed.
pub(crate) async fn compressed(response: Response, accepted: Option<Encoding>) -> Result<Response, ApiError> {
    let Some(encoding) = accepted.filter(|_| is_worth_it(&response)) else {
        return Ok(response);
    };
    let (mut head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await;
    let body = body.map_err(|error| ApiError::internal(error.to_string()))?;
    let body = compress(encoding, vec![body]).await?;
    head.headers.remove(header::CONTENT_LENGTH);
    let name = HeaderValue::from_static(encoding.name());
    head.headers.insert(header::CONTENT_ENCODING, name);
    let depends = HeaderValue::from_static("accept-encoding");
    head.headers.insert(header::VARY, depends);
    Ok(Response::from_parts(head, body))
}

/// The parts as one body, compressed on another thread, so that the network does not wait.
///
/// # Errors
/// When they cannot be compressed.
pub(crate) async fn compress(encoding: Encoding, parts: Vec<Bytes>) -> Result<Body, ApiError> {
    let body = tokio::task::spawn_blocking(move || encoding.compress(&parts)).await;
    let body = body.map_err(std::io::Error::from).flatten();
    body.map(Body::from)
        .map_err(|error| ApiError::internal(error.to_string()))
}

fn is_worth_it(response: &Response) -> bool {
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    let large = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|size| size >= WORTH);
    let headers = response.headers();
    large
        && headers.get(header::CONTENT_TYPE).is_some_and(is_json)
        && !headers.contains_key(header::CONTENT_ENCODING)
}
