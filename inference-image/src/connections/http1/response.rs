//! The bytes of a response.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::cell::RefCell;
use std::io;
use std::time::SystemTime;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Whether the connection ends after it.
pub(super) fn closes(response: &Response<Body>) -> bool {
    let said = response.headers().get(header::CONNECTION);
    said.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Writes a response, which tells the client whether the connection `closes` after it.
///
/// # Errors
/// When the connection or the body of the response breaks, or the body is not as long as it says: the client would
/// read what follows as a part of it.
pub(super) async fn write(
    mut stream: impl AsyncWrite + Unpin,
    response: Response<Body>,
    closes: bool,
) -> io::Result<()> {
    let (head, mut body) = response.into_parts();
    let has_body = !head.status.is_informational()
        && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = body.size_hint().exact();
    let framing = match length {
        _ if !has_body => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    let mut left = length.filter(|_| has_body);
    let mut text = lines(head.status, head.headers, &framing, closes);
    while has_body && !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(io::Error::other)?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(left) = &mut left {
            *left = left.checked_sub(data.len() as u64).ok_or_else(wrong_length)?;
        }
        let mut part = framed(std::mem::take(&mut text), data, &framing);
        stream.write_all_buf(&mut part).await?;
    }
    if left.is_some_and(|left| left > 0) {
        return Err(wrong_length());
    }
    if matches!(framing, Framing::Chunked) {
        text.extend_from_slice(b"0\r\n\r\n");
    }
    if !text.is_empty() {
        stream.write_all_buf(&mut text).await?;
    }
    stream.flush().await
}

fn wrong_length() -> io::Error {
    io::Error::other("a response body does not have its declared length")
}

/// How the client recognises the end of a body.
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// A part of the body, after whatever must be written before it.
fn framed(mut before: BytesMut, data: Bytes, framing: &Framing) -> impl Buf + use<> {
    let mut after: &[u8] = b"";
    if matches!(framing, Framing::Chunked) && !data.is_empty() {
        before.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        after = b"\r\n";
    }
    before.chain(data).chain(after)
}

/// Status line and headers.
fn lines(status: StatusCode, mut headers: HeaderMap, framing: &Framing, closes: bool) -> BytesMut {
    if closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut text = BytesMut::with_capacity(512);
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(status.as_str().as_bytes());
    text.extend_from_slice(b" ");
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    let mut line = |name: &str, value: &[u8]| {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    };
    for (name, value) in &headers {
        if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
            line(name.as_str(), value.as_bytes());
        }
    }
    match framing {
        Framing::None => {}
        Framing::Length(length) => line("content-length", length.to_string().as_bytes()),
        Framing::Chunked => line("transfer-encoding", b"chunked"),
    }
    if !headers.contains_key(header::DATE) {
        now(|date| line("date", date.as_bytes()));
    }
    text.extend_from_slice(b"\r\n");
    text
}

thread_local! {
    /// The current second since 1970 and its formatted date, cached for that second.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// The date as HTTP writes it (RFC 9110, section 6.6.1).
fn now(read: impl FnOnce(&str)) {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(known, text)| {
        if *known != second {
            (*known, *text) = (second, httpdate::fmt_http_date(now));
        }
        read(text);
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::stream;

    async fn written(response: Response<Body>, closes: bool) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, response, closes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (before, after) = text.split_once("date: ").unwrap();
        let (date, after) = after.split_once("\r\n").unwrap();
        httpdate::parse_http_date(date).unwrap();
        format!("{before}{after}")
    }

    #[tokio::test]
    async fn a_body_of_known_length_follows_its_head() {
        let response = Response::builder().header("x", "1").header("content-length", "3");
        let response = response.body(Body::from("abc")).unwrap();
        let expected = "HTTP/1.1 200 OK\r\nx: 1\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(written(response, false).await, expected);
        let empty = Response::builder().status(404).body(Body::empty()).unwrap();
        let expected = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(written(empty, true).await, expected);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_comes_in_chunks() {
        let parts = ["abc", "", "0123456789abcdef"].map(|part| Ok::<_, io::Error>(Bytes::from(part)));
        let response = Response::new(Body::from_stream(stream::iter(parts)));
        let expected = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        assert_eq!(written(response, false).await, expected);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_breaks_the_connection() {
        let parts = [Ok(Bytes::from("abc")), Err(io::Error::other("lost"))];
        let response = Response::new(Body::from_stream(stream::iter(parts)));
        assert!(write(&mut Vec::new(), response, false).await.is_err());
    }

    /// Claims to have three bytes.
    struct Lying(Option<Bytes>);

    impl hyper::body::Body for Lying {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<io::Result<hyper::body::Frame<Bytes>>>> {
            std::task::Poll::Ready(self.0.take().map(|data| Ok(hyper::body::Frame::data(data))))
        }

        fn size_hint(&self) -> hyper::body::SizeHint {
            hyper::body::SizeHint::with_exact(3)
        }
    }

    /// Otherwise the client would read the next response as a part of this one.
    #[tokio::test]
    async fn a_body_that_is_not_as_long_as_it_says_breaks_the_connection() {
        for (body, holds) in [("ab", false), ("abc", true), ("abcd", false)] {
            let response = Response::new(Body::new(Lying(Some(body.into()))));
            assert_eq!(
                write(&mut Vec::new(), response, false).await.is_ok(),
                holds,
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn a_status_without_a_body_has_no_length() {
        let response = Response::builder().status(204).body(Body::from("no")).unwrap();
        assert_eq!(written(response, false).await, "HTTP/1.1 204 No Content\r\n\r\n");
    }
}
