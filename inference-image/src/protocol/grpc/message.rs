//! gRPC's framing: each message after its length, errors as a status in the trailers, deadlines in a header
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use crate::protocol::body::frames::Frames;
use crate::protocol::body::{self, Budget, Decoder, Encoding, Received};
use crate::protocol::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Refuses requests that are not gRPC calls.
///
/// # Errors
/// HTTP status 415.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_grpc(headers) {
        return Ok(());
    }
    let message = "this path speaks gRPC with Protocol Buffers: its requests have the content type application/grpc or \
                   application/grpc+proto";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// Whether the content type is gRPC's, for messages in Protocol Buffers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], HeaderValue::as_bytes);
    let end = content_type.iter().position(|&byte| byte == b';');
    let media_type = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
    let known: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];
    known.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

/// When the caller stops waiting.
///
/// # Errors
/// If the header does not have the form that gRPC defines.
pub(super) fn deadline(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>, ApiError> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let timeout = value.to_str().ok().and_then(timeout);
    let refused = || {
        ApiError::bad_request(format!(
            "{GRPC_TIMEOUT} is {value:?}, but must be at most 8 digits and a unit"
        ))
    };
    Ok(arrived.checked_add(timeout.ok_or_else(refused)?))
}

fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The messages of a call, as they arrive.
pub(super) struct Messages {
    body: Body,
    /// Bytes that have arrived after the last message.
    rest: Bytes,
}

impl Messages {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            rest: Bytes::new(),
        }
    }

    /// Waits for the beginning of another message; false if there is none.
    ///
    /// # Errors
    /// 400 if the client disconnects.
    pub(super) async fn begin(&mut self) -> Result<bool, ApiError> {
        while self.rest.is_empty() {
            let Some(data) = body::next(&mut self.body).await? else {
                return Ok(false);
            };
            self.rest = data;
        }
        Ok(true)
    }

    /// Reads a message. `align` finds out, from the beginning of the message, which byte should be aligned like a
    /// tensor.
    ///
    /// # Errors
    /// As [`Budget::read`].
    pub(super) async fn read(
        &mut self,
        budget: &Budget,
        headers: &HeaderMap,
        align: fn(&[u8]) -> usize,
    ) -> Result<Received, ApiError> {
        while self.rest.len() < PREFIX {
            let more = body::next(&mut self.body).await?.ok_or_else(broken_off)?;
            self.rest = [&self.rest[..], &more].concat().into();
        }
        let (encoding, length) = prefix(headers, &self.rest)?;
        if length > budget.max_body() {
            return Err(budget.too_large());
        }
        let mut data = self.rest.slice(PREFIX..);
        let aligned_at = if encoding.is_none() { align(&data) } else { 0 };
        let expected = encoding.is_none().then_some(length);
        let mut decoder = Decoder::new(encoding, budget.sink(expected, aligned_at).await?);
        let mut missing = length;
        loop {
            let part = data.split_to(missing.min(data.len()));
            missing -= part.len();
            let pushed = budget.push(&mut decoder, &part).await;
            pushed.map_err(|refused| budget.refused(refused))?;
            if missing == 0 {
                break;
            }
            data = body::next(&mut self.body).await?.ok_or_else(broken_off)?;
        }
        self.rest = data;
        let sink = decoder.finish().map_err(|refused| budget.refused(refused))?;
        let (bytes, room) = sink.finish();
        Ok(Received { bytes, room })
    }
}

/// Reads the only message of a call, and waits for the end of its body. For `align` see [`Messages::read`].
///
/// # Errors
/// As [`Budget::read`].
pub(crate) async fn receive(
    budget: &Budget,
    headers: &HeaderMap,
    body: Body,
    deadline: Option<Instant>,
    align: fn(&[u8]) -> usize,
) -> Result<Received, ApiError> {
    let mut messages = Messages::new(body);
    let reading = async {
        let message = messages.read(budget, headers, align).await?;
        if messages.begin().await? {
            return Err(ApiError::bad_request("the call has more than one message"));
        }
        Ok(message)
    };
    budget.in_time(deadline, reading).await
}

fn broken_off() -> ApiError {
    ApiError::bad_request("the message is shorter than its length says")
}

/// The encoding and the length of the message that begins with `start`.
fn prefix(headers: &HeaderMap, start: &[u8]) -> Result<(Option<Encoding>, usize), ApiError> {
    let [flag, length @ ..] = start.first_chunk::<PREFIX>().ok_or_else(broken_off)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    match flag {
        0 => return Ok((None, length)),
        1 => {}
        _ => {
            return Err(ApiError::bad_request(
                "the message does not begin with gRPC's flag and length",
            ));
        }
    }
    let name = headers.get(GRPC_ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
    let encoding = Encoding::parse(&String::from_utf8_lossy(name))
        .map_err(|problem| ApiError::new(StatusCode::NOT_IMPLEMENTED, problem))?;
    let refused = || ApiError::bad_request("the message is compressed, but there is no grpc-encoding");
    Ok((Some(encoding.ok_or_else(refused)?), length))
}

/// A message of these parts, in parts, with its length in front.
///
/// # Errors
/// If it is larger than 4 GiB, far beyond the limits on requests.
pub(super) fn framed(parts: Vec<Bytes>) -> Result<Vec<Bytes>, ApiError> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let announced =
        u32::try_from(length).map_err(|_| ApiError::internal("the response is larger than gRPC allows"))?;
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u8(0);
    prefix.put_u32(announced);
    let mut all = Vec::with_capacity(parts.len() + 1);
    all.push(prefix.freeze());
    all.extend(parts);
    Ok(all)
}

/// The response to a call, with one message of these parts.
pub(super) fn answer(parts: Vec<Bytes>) -> Response {
    match framed(parts) {
        Ok(parts) => response(Body::new(Frames::new(parts).trailers(success()))),
        Err(error) => failure(&error),
    }
}

/// A response with this body, which ends in a status.
pub(super) fn response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

/// The status of success.
pub(super) fn success() -> HeaderMap {
    HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}

/// An error as a response: the status is in the headers, since nothing follows them.
pub(super) fn failure(error: &ApiError) -> Response {
    error.log();
    status(error).into_http::<Body>()
}

/// An error as the end of a response.
pub(super) fn trailers(error: &ApiError) -> HeaderMap {
    error.log();
    let mut trailers = HeaderMap::with_capacity(3);
    if status(error).add_header(&mut trailers).is_err() {
        // The message does not fit into a header, even escaped.
        trailers.insert(Status::GRPC_STATUS, (Code::Internal as i32).into());
    }
    trailers
}

/// The status of an error, with the time to try again if there is one.
pub(super) fn status(error: &ApiError) -> Status {
    let code = match error.status() {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        status if status.is_server_error() => Code::Internal,
        _ => Code::InvalidArgument,
    };
    match error.retry() {
        None => Status::new(code, error.message()),
        Some(after) => {
            Status::with_error_details(code, error.message(), ErrorDetails::with_retry_info(Some(after)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Other formats would be read as Protocol Buffers.
    #[test]
    fn only_messages_in_protocol_buffers_are_read() {
        let accepts = |content_type: &str| {
            let value = content_type.parse().unwrap();
            check(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)])).is_ok()
        };
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC",
            "application/grpc ; charset=utf-8",
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "",
            "application/grpc+json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpcfoo",
            "application/grpc+",
            "application/grpc, application/grpc",
            "application/json",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(check(&HeaderMap::new()).is_err());
    }
}
