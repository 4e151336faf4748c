//! Which pages of other sites may use the server: a browser asks, and hides responses from pages that are not allowed
//! to see them (<https://fetch.spec.whatwg.org/#http-cors-protocol>). Other programs are not affected.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use modelservice_contract::Cors as Config;

/// Stands for every origin.
const ANY: &str = "*";
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");
/// Headers that a page may send; `*` would not include `Authorization`.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-encoding, content-type, inference-header-content-length, traceparent, tracestate, \
     x-request-timeout",
);
/// Headers that a page may read.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "inference-header-content-length, retry-after, retry-after-ms, server-timing, www-authenticate",
);
/// How long a browser remembers this, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may use the server.
pub struct Cors(Vec<String>);

impl Cors {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(config.allowed_origins.clone())
    }

    fn allows_any(&self) -> bool {
        self.0.iter().any(|origin| origin == ANY)
    }

    /// The origin that the response allows; `None` if the request does not come from a page, or from one that is not
    /// allowed.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        if self.allows_any() {
            return Some(HeaderValue::from_static(ANY));
        }
        let is_known = |known: &String| known.as_bytes() == origin.as_bytes();
        self.0.iter().any(is_known).then(|| origin.clone())
    }

    /// The response to a browser's preflight request, which precedes most requests; `None` for other requests. It
    /// needs no token, because browsers send none.
    pub(super) fn preflight(request: &Request<Body>) -> Option<Response<Body>> {
        let asks = request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() != Method::OPTIONS || !asks {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// States in a response which pages may read it.
    pub(super) fn mark(&self, allowed: Option<HeaderValue>, headers: &mut HeaderMap) {
        if !self.allows_any() {
            // A cache must not give the response to another page.
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }
}
