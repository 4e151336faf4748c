//! Requests over HTTP/1 that are refused before anything else looks at them, because their heads do not make clear
//! which host they are for or where they end: another server on the way might read different requests from the same
//! bytes (RFC 9112, sections 3.2 and 6.3). Pure.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use serde_json::json;

/// A longer body must be a mistake, and no buffer can hold it.
const LONGEST_BODY: u64 = 1_000_000_000_000_000;

/// Why a request is refused. The connection ends with the response, because it is unclear what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    status: StatusCode,
    message: &'static str,
}

const fn bad_request(message: &'static str) -> Option<Refused> {
    Some(Refused {
        status: StatusCode::BAD_REQUEST,
        message,
    })
}

impl Refused {
    pub(super) fn into_response(self) -> Response<Body> {
        let body = Json(json!({"error": self.message}));
        let mut response = (self.status, body).into_response();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    }
}

/// Why a request with these headers is refused; `None` if it is not.
pub(super) fn refuses<'a>(
    version: Version,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Option<Refused> {
    let mut found = Found::default();
    for (name, value) in headers {
        let is = |header: header::HeaderName| name.eq_ignore_ascii_case(header.as_str());
        match name.len() {
            4 if is(header::HOST) => found.host(value),
            14 if is(header::CONTENT_LENGTH) => found.length(value),
            17 if is(header::TRANSFER_ENCODING) => found.codings(value),
            _ => {}
        }
    }
    found.problem(version)
}

/// The headers that matter, from all lines.
#[derive(Default)]
struct Found {
    hosts: u32,
    bad_host: bool,
    length: Option<u64>,
    bad_length: bool,
    /// Whether there is a `Transfer-Encoding`.
    is_coded: bool,
    /// Whether its last coding is `chunked`.
    ends_chunked: bool,
    /// How often it contains `chunked`.
    chunked: u32,
    unknown_coding: bool,
}

impl Found {
    fn host(&mut self, value: &[u8]) {
        self.hosts += 1;
        // A name or an address, and a port (RFC 3986, section 3.2.2); it may be empty.
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
        self.bad_host |= !value.iter().all(is_plain);
    }

    fn length(&mut self, value: &[u8]) {
        // `+1` is not a length, and `1, 1` need not be accepted as one (RFC 9110, section 8.6).
        self.bad_length |= value.is_empty() || !value.iter().all(u8::is_ascii_digit);
        let length = value.iter().fold(0_u64, |number, digit| {
            let digit = u64::from(digit.wrapping_sub(b'0'));
            number.saturating_mul(10).saturating_add(digit)
        });
        self.bad_length |= self.length.is_some_and(|other| other != length);
        self.length = Some(length);
    }

    fn codings(&mut self, value: &[u8]) {
        self.is_coded = true;
        let codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for coding in codings.filter(|coding| !coding.is_empty()) {
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += u32::from(self.ends_chunked);
            self.unknown_coding |= !self.ends_chunked;
        }
    }

    fn problem(&self, version: Version) -> Option<Refused> {
        if self.hosts > 1 || (self.hosts == 0 && version == Version::HTTP_11) {
            return bad_request("a request must have exactly one Host header");
        }
        if self.bad_host {
            return bad_request("the Host header must be a name or an address, optionally with a port");
        }
        if self.is_coded && (self.length.is_some() || version < Version::HTTP_11) {
            return bad_request(
                "Transfer-Encoding cannot be combined with Content-Length or used in HTTP/1.0: send only one \
                 of them",
            );
        }
        if self.is_coded && (!self.ends_chunked || self.chunked > 1) {
            return bad_request("chunked must be the last Transfer-Encoding and appear only once");
        }
        if self.unknown_coding {
            return Some(Refused {
                status: StatusCode::NOT_IMPLEMENTED,
                message: "the only supported Transfer-Encoding is chunked: compress a body with \
                          Content-Encoding",
            });
        }
        if self.bad_length {
            return bad_request("Content-Length must be a single number of bytes");
        }
        self.length
            .is_some_and(|length| length > LONGEST_BODY)
            .then_some(Refused {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                message: "the body is longer than this server ever accepts",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status for these header lines after a good `Host`; 200 if they are not refused.
    fn status(version: Version, lines: &str) -> u16 {
        let headers = lines.split('\n').filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        refuses(version, headers).map_or(200, |refused| refused.status.as_u16())
    }

    #[test]
    fn a_request_names_one_host() {
        for (lines, old, new) in [
            ("", 200, 400),
            ("Host: ", 200, 200),
            ("hOST: photos.team-a.svc:8080", 200, 200),
            ("host: [::1]:80", 200, 200),
            ("host: a_b", 200, 200),
            ("host: a\nhost: a", 400, 400),
            ("host: a\nx: y\nHOST: b", 400, 400),
            ("host: a b", 400, 400),
            ("host: a/b", 400, 400),
            ("host: user@a", 400, 400),
            ("host: é", 400, 400),
        ] {
            assert_eq!(status(Version::HTTP_10, lines), old, "{lines}");
            assert_eq!(status(Version::HTTP_11, lines), new, "{lines}");
        }
    }

    /// If two servers see different ends of a request, another request can be smuggled in behind it.
    #[test]
    fn the_end_of_a_request_is_beyond_doubt() {
        for (lines, expected) in [
            ("content-length: 0", 200),
            ("content-length: 000000000000000000000000007", 200),
            ("content-length: 7\nContent-Length: 7", 200),
            ("content-length: 7\ncontent-length: 8", 400),
            ("content-length: 7, 7", 400),
            ("content-length: +7", 400),
            ("content-length: -7", 400),
            ("content-length: 0x7", 400),
            ("content-length: ", 400),
            ("content-length: 1000000000000000", 200),
            ("content-length: 1000000000000001", 413),
            ("content-length: 18446744073709551615", 413),
            ("content-length: 18446744073709551616", 413),
            ("content-length: 99999999999999999999999999", 413),
            ("transfer-encoding: chunked", 200),
            ("Transfer-Encoding: , Chunked ,", 200),
            ("transfer-encoding: chunked\ncontent-length: 7", 400),
            ("content-length: 7\ntransfer-encoding: gzip", 400),
            ("transfer-encoding: gzip, chunked", 501),
            ("transfer-encoding: gzip\ntransfer-encoding: chunked", 501),
            ("transfer-encoding: identity, chunked", 501),
            ("transfer-encoding: chunked, gzip", 400),
            ("transfer-encoding: gzip", 400),
            ("transfer-encoding: xchunked", 400),
            ("transfer-encoding: chunked;a=b", 400),
            ("transfer-encoding: ", 400),
            ("transfer-encoding: chunked, chunked", 400),
            ("transfer-encoding: chunked\ntransfer-encoding: chunked", 400),
        ] {
            let lines = format!("host: a\n{lines}");
            assert_eq!(status(Version::HTTP_11, &lines), expected, "{lines}");
        }
        assert_eq!(status(Version::HTTP_10, "transfer-encoding: chunked"), 400);
    }
}
