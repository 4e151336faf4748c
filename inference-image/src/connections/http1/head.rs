//! The head of a request: whether it is served here, and what it says. Pure.

use crate::connections::framing::{self, Refused};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, Request, Uri, Version, request};
use bytes::{Bytes, BytesMut};
use httparse::Status;
use std::mem::MaybeUninit;

/// Maximum number of headers; a request with more is left to hyper.
const MAX_HEADERS: usize = 64;

/// What the bytes read so far begin with.
pub(super) enum Head {
    /// An incomplete head.
    Partial,
    /// A request that is served here.
    Plain(Box<Plain>),
    /// A request that is refused.
    Refused(Refused),
    /// Something else.
    Other,
}

/// A GET or POST with a body of known length, or none.
pub(super) struct Plain {
    pub(super) head: request::Parts,
    /// Bytes of its body.
    pub(super) length: u64,
    /// Whether this is the last request of its client on the connection.
    pub(super) is_last: bool,
}

/// Takes a complete head of at most `max` bytes out of `buffer`; leaves it there if it is not served here. Anything
/// unusual is left to hyper, which knows how to respond.
pub(super) fn take(buffer: &mut BytesMut, max: usize) -> Head {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buffer, &mut headers) {
        Ok(Status::Complete(length)) if length <= max => length,
        Ok(Status::Partial) if buffer.len() < max => return Head::Partial,
        _ => return Head::Other,
    };
    let version = match request.version {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let headers = request.headers.iter().map(|header| (header.name, header.value));
    if let Some(refused) = framing::refuses(version, headers) {
        return Head::Refused(refused);
    }
    let method = match request.method {
        Some("POST") => Method::POST,
        Some("GET") => Method::GET,
        _ => return Head::Other,
    };
    let path = request
        .path
        .filter(|path| path.starts_with('/') && !is_grpc(path));
    let (Some(path), Version::HTTP_11) = (path, version) else {
        return Head::Other;
    };
    let Some(body) = body_length(request.headers) else {
        return Head::Other;
    };
    let is_last = request.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close")
    });
    // Positions in the buffer, so that the values can be sliced from it without a copy.
    let start = buffer.as_ptr() as usize;
    let place = |part: &[u8]| {
        let from = part.as_ptr() as usize - start;
        from..from + part.len()
    };
    let path = place(path.as_bytes());
    let mut places = [const { (0..0, 0..0) }; MAX_HEADERS];
    let count = request.headers.len();
    for (header, places) in request.headers.iter().zip(&mut places) {
        *places = (place(header.name.as_bytes()), place(header.value));
    }
    let bytes = buffer.split_to(length).freeze();
    match parts(method, &bytes, path, &places[..count]) {
        Some(head) => Head::Plain(Box::new(Plain {
            head,
            length: body,
            is_last,
        })),
        None => {
            let rest = std::mem::replace(buffer, BytesMut::from(bytes));
            buffer.unsplit(rest);
            Head::Other
        }
    }
}

/// For fuzzers: whether the bytes begin with a head that is served here. No byte may get lost, and a prefix must not
/// be read differently.
#[must_use]
pub fn fuzz(bytes: &[u8]) -> bool {
    const MAX: usize = 1 << 12;
    let mut buffer = BytesMut::from(bytes);
    let Head::Plain(plain) = take(&mut buffer, MAX) else {
        assert_eq!(buffer, bytes);
        return false;
    };
    let head = &bytes[..bytes.len() - buffer.len()];
    assert!(head.ends_with(b"\n") && bytes.ends_with(&buffer));
    assert!(plain.length < 1_000_000_000_000_000);
    assert!(!plain.head.headers.contains_key(header::TRANSFER_ENCODING));
    let mut less = BytesMut::from(&head[..head.len() - 1]);
    assert!(matches!(take(&mut less, MAX), Head::Partial));
    true
}

type Span = std::ops::Range<usize>;

fn parts(method: Method, bytes: &Bytes, path: Span, places: &[(Span, Span)]) -> Option<request::Parts> {
    let mut headers = HeaderMap::with_capacity(places.len());
    for (name, value) in places {
        let name = HeaderName::from_bytes(&bytes[name.clone()]).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value.clone())).ok()?;
        headers.append(name, value);
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice(path)).ok()?;
    *request.headers_mut() = headers;
    Some(request.into_parts().0)
}

/// Whether the path is gRPC's, `/package.Service/Method`: such calls may never end.
fn is_grpc(path: &str) -> bool {
    let service = path[1..].split_once('/').map(|(service, _)| service);
    service.is_some_and(|service| service.contains('.'))
}

/// The length of the body; `None` if it is given in another way, or the request asks for more than a response.
fn body_length(headers: &[httparse::Header<'_>]) -> Option<u64> {
    let mut length = None;
    for header in headers {
        let is = |name: &HeaderName| header.name.eq_ignore_ascii_case(name.as_str());
        if is(&header::CONTENT_LENGTH) {
            if length.is_some() {
                return None;
            }
            length = Some(digits(header.value)?);
        }
        let unusual = [
            header::TRANSFER_ENCODING,
            header::EXPECT,
            header::UPGRADE,
            header::TE,
        ];
        let is_known = |value: &[u8]| {
            [&b"keep-alive"[..], b"close"]
                .iter()
                .any(|known| value.eq_ignore_ascii_case(known))
        };
        if unusual.iter().any(is) || is(&header::CONNECTION) && !is_known(header.value) {
            return None;
        }
    }
    Some(length.unwrap_or(0))
}

/// Only digits: `+1` and ` 1` are not lengths (RFC 9110, section 8.6).
fn digits(value: &[u8]) -> Option<u64> {
    let is_short = (1..=15).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_short.then(|| {
        value
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const MAX: usize = 1 << 10;

    fn plain(text: &str) -> (Plain, BytesMut) {
        let mut buffer = BytesMut::from(text);
        match take(&mut buffer, MAX) {
            Head::Plain(plain) => (*plain, buffer),
            Head::Partial => panic!("{text:?} is partial"),
            Head::Refused(refused) => panic!("{text:?}: {refused:?}"),
            Head::Other => panic!("{text:?} is something else"),
        }
    }

    #[test]
    fn a_head_is_taken_out_and_its_body_left() {
        let (plain, rest) =
            plain("POST /v2/x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: 1\r\nx: 2\r\n\r\nabc");
        assert_eq!((plain.length, &rest[..]), (3, &b"abc"[..]));
        assert_eq!(
            (plain.head.method, plain.head.uri),
            (Method::POST, "/v2/x?y".parse().unwrap())
        );
        let values: Vec<_> = plain.head.headers.get_all("x").iter().collect();
        assert_eq!(values, ["1", "2"]);
    }

    #[test]
    fn a_head_that_is_not_whole_is_waited_for_until_it_is_too_large() {
        let whole = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n";
        for length in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..length]);
            assert!(matches!(take(&mut buffer, MAX), Head::Partial), "{length}");
            assert_eq!(buffer, whole[..length]);
            assert!(length == 0 || matches!(take(&mut buffer, length), Head::Other));
        }
        assert_eq!(plain(whole).0.length, 0);
        let mut buffer = BytesMut::from(whole);
        assert!(matches!(take(&mut buffer, whole.len() - 1), Head::Other));
    }

    #[test]
    fn a_head_may_be_the_last_one() {
        for (lines, expected) in [
            ("", false),
            ("Connection: keep-alive\r\n", false),
            ("connection: Close\r\n", true),
            ("Connection: keep-alive\r\nConnection: close\r\n", true),
            ("x: close\r\n", false),
        ] {
            let (plain, _) = plain(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
            assert_eq!(plain.is_last, expected, "{lines}");
        }
    }

    #[test]
    fn whatever_is_unusual_is_left_to_hyper_as_it_came() {
        let many = "a: b\r\n".repeat(MAX_HEADERS);
        for (line, headers) in [
            ("POST / HTTP/1.1", "Content-Length: 1\r\nContent-Length: 1\r\n"),
            ("POST / HTTP/1.1", "Content-Length: 0000000000000001\r\n"),
            ("POST / HTTP/1.1", "transfer-encoding: chunked\r\n"),
            ("POST / HTTP/1.1", "Content-Length: 1\r\nExpect: 100-continue\r\n"),
            ("GET / HTTP/1.1", "Connection: close, te\r\n"),
            (
                "GET / HTTP/1.1",
                "Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\n",
            ),
            (
                "POST /grpc.health.v1.Health/Watch HTTP/1.1",
                "Content-Length: 5\r\n",
            ),
            ("GET / HTTP/1.0", ""),
            ("HEAD / HTTP/1.1", ""),
            ("OPTIONS * HTTP/1.1", ""),
            ("GET http://a/ HTTP/1.1", ""),
            ("GET / HTTP/1.1", "Name : value\r\n"),
            ("GET / HTTP/1.1", "Name: a\r\n b\r\n"),
            ("GET /\u{7f} HTTP/1.1", ""),
            ("GET /\"<> HTTP/1.1", ""),
            ("\u{16}\u{3}\u{1}", ""),
            ("GET / HTTP/1.1", &many),
        ] {
            let text = format!("{line}\r\nHost: a\r\n{headers}\r\n\0\0\0\0\0");
            let mut buffer = BytesMut::from(&*text);
            let head = take(&mut buffer, 1 << 20);
            assert!(matches!(head, Head::Other), "{text:?}");
            assert_eq!(buffer, text);
        }
    }

    /// This includes requests that would be left to hyper.
    #[test]
    fn a_head_that_is_refused_stays_as_it_came() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "HEAD / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let mut buffer = BytesMut::from(text);
            assert!(matches!(take(&mut buffer, MAX), Head::Refused(_)), "{text:?}");
            assert_eq!(buffer, text);
        }
    }
}
