//! Requests and responses.

use super::{
    audience::{self, Audience},
    timeouts::Timeouts,
};
use crate::error::FetchError;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use modelservice_contract::FetchReason;
use std::{
    error::Error,
    fmt::{self, Debug, Formatter},
    ops::Range,
};
use tokio::time::{Instant, timeout};
use url::Url;

/// A request. Its credentials are the headers that are marked as sensitive, and what signs its query.
#[derive(Clone)]
pub struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) audience: Audience,
}

impl Request {
    /// A request without headers, whose credentials may go nowhere.
    #[must_use]
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            audience: Audience::default(),
        }
    }

    /// A `GET`.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    /// A `HEAD`.
    #[must_use]
    pub fn head(url: Url) -> Self {
        Self::new(Method::HEAD, url)
    }

    /// Sets a header that everybody may see.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets a header that is a credential.
    #[must_use]
    pub fn secret_header(mut self, name: HeaderName, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.headers.insert(name, value);
        self
    }

    /// Sets all headers.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Asks for a part of the body. An empty range asks for all of it.
    #[must_use]
    pub fn range(self, range: &Range<u64>) -> Self {
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return self;
        };
        // Digits are always a header.
        match HeaderValue::try_from(format!("bytes={}-{last}", range.start)) {
            Ok(value) => self.header(header::RANGE, value),
            Err(_) => self,
        }
    }

    /// Sends a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// To which servers the credentials may be sent.
    #[must_use]
    pub fn audience(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }

    /// Values that must appear nowhere.
    pub(super) fn secrets(&self) -> Vec<String> {
        audience::secrets(&self.url, &self.headers)
    }

    /// Whether it carries any credential.
    pub(super) fn has_credentials(&self) -> bool {
        let has_header = self
            .headers
            .iter()
            .any(|(name, value)| audience::is_secret_header(name, value));
        has_header
            || self
                .url
                .query_pairs()
                .any(|(name, _)| audience::is_secret_parameter(&name))
    }
}

/// Says where it goes; never what it carries.
impl Debug for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, bare(&self.url))
    }
}

/// A URL without its query, for messages.
#[must_use]
pub fn bare(url: &Url) -> String {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.into()
}

/// An answer, after all redirects.
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Who answered.
    pub url: Url,
    pub(super) body: Incoming,
    pub(super) timeouts: Timeouts,
    pub(super) secrets: Vec<String>,
}

impl Debug for Response {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.status, bare(&self.url))
    }
}

impl Response {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The length that the server states.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The body, piece by piece: `Unavailable` if it breaks off, stands still or drips.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<Bytes, FetchError>> {
        let host = host(&self.url);
        guarded(self.body.into_data_stream(), host, self.timeouts).boxed()
    }

    /// All of the body.
    ///
    /// # Errors
    /// `Unavailable` if it breaks off or is longer than `limit` bytes.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, FetchError> {
        let url = bare(&self.url);
        let mut stream = self.stream();
        let mut body = BytesMut::new();
        while let Some(piece) = stream.next().await {
            body.extend_from_slice(&piece?);
            if body.len() > limit {
                let message = format!("{url} answers with more than {limit} bytes");
                return Err(FetchError::new(FetchReason::Unavailable, message));
            }
        }
        Ok(body.freeze())
    }
}

/// Host and port of a URL.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Ends a body that stands still or drips. Time in which nobody asks for the next piece is not the server's.
fn guarded(
    body: impl Stream<Item = Result<Bytes, hyper::Error>> + Send + Unpin + 'static,
    host: String,
    timeouts: Timeouts,
) -> impl Stream<Item = Result<Bytes, FetchError>> + Send {
    let rate = Rate::default();
    futures::stream::unfold(Some((body, host, rate)), move |state| async move {
        let (mut body, host, mut rate) = state?;
        let asked = Instant::now();
        let piece = match timeout(timeouts.idle, body.next()).await {
            Err(_) => {
                let seconds = timeouts.idle.as_secs();
                return Some((
                    Err(FetchError::unavailable(format!(
                        "{host} has sent nothing for {seconds} s"
                    ))),
                    None,
                ));
            }
            Ok(None) => return None,
            Ok(Some(Err(error))) => {
                let message = format!("{host}: the body broke off: {}", root_cause(&error));
                return Some((Err(FetchError::unavailable(message)), None));
            }
            Ok(Some(Ok(piece))) => piece,
        };
        rate.waited += asked.elapsed();
        rate.bytes += piece.len() as u64;
        if rate.waited >= timeouts.window {
            if rate.bytes < Timeouts::SLOWEST {
                let (bytes, seconds) = (rate.bytes, timeouts.window.as_secs());
                let message = format!("{host} drips: {bytes} bytes in {seconds} s");
                return Some((Err(FetchError::unavailable(message)), None));
            }
            rate = Rate::default();
        }
        Some((Ok(piece), Some((body, host, rate))))
    })
}

/// What a body has brought in the current window.
#[derive(Default)]
struct Rate {
    waited: std::time::Duration,
    bytes: u64,
}

/// The innermost error, which says what happened; the outer ones repeat where.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
