//! What happens around every request, whatever its protocol: it is logged and traced, its origin and token are
//! checked, and a panic becomes a response. Knows nothing of models and connections.

mod access_log;
mod auth;
mod cors;
mod facts;
mod observe;
mod refusal;
mod traces;

pub use access_log::AccessLog;
pub use auth::Tokens;
pub use cors::Cors;
pub use observe::Observer;
pub use traces::Traces;

use crate::metrics::ConnectionMetrics;
use crate::process::lifecycle::Lifecycle;
use crate::protocol::Protocols;
use crate::request_log::{RequestLog, recorded};
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use refusal::Refusal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Responds to requests, and does what every request needs.
pub struct Middleware {
    protocols: Protocols,
    lifecycle: Lifecycle,
    tokens: Option<Tokens>,
    observer: Observer,
    cors: Option<Cors>,
    metrics: ConnectionMetrics,
}

impl Middleware {
    /// Responds with `protocols`. If there are `tokens`, a request without one of them is refused.
    #[must_use]
    pub fn new(
        protocols: impl Into<Protocols>,
        lifecycle: Lifecycle,
        tokens: Option<Tokens>,
        metrics: &ConnectionMetrics,
    ) -> Self {
        Self {
            protocols: protocols.into(),
            lifecycle,
            tokens,
            observer: Observer::default(),
            cors: None,
            metrics: metrics.clone(),
        }
    }

    /// The same, with an observer of each request.
    #[must_use]
    pub fn observed_by(self, observer: Observer) -> Self {
        Self { observer, ..self }
    }

    /// The same, and lets pages of other sites use the server.
    #[must_use]
    pub fn with_cors(self, cors: Option<Cors>) -> Self {
        Self { cors, ..self }
    }

    /// The phase of the server and the requests in flight.
    pub(crate) const fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let Some(observed) = self.observer.begin(&request) else {
            return self.admitted(request).await;
        };
        let (response, log) = if observed.is_sampled() {
            recorded(self.admitted(request)).await
        } else {
            (self.admitted(request).await, RequestLog::default())
        };
        self.observer.end(&observed, &response, &log);
        response
    }

    async fn admitted(&self, request: Request<Body>) -> Response<Body> {
        let Some(cors) = &self.cors else {
            return self.authorized(request).await;
        };
        let allowed = cors.allowed(request.headers());
        let mut response = match Cors::preflight(&request).filter(|_| allowed.is_some()) {
            Some(response) => response,
            None => self.authorized(request).await,
        };
        cors.mark(allowed, response.headers_mut());
        response
    }

    async fn authorized(&self, request: Request<Body>) -> Response<Body> {
        match self.refused(&request) {
            None => self.routed(request).await,
            Some(refusal) => refusal.into_response(),
        }
    }

    fn refused(&self, request: &Request<Body>) -> Option<Refusal> {
        let problem = self.tokens.as_ref()?.refuses(request)?;
        self.metrics.unauthorized.inc();
        Some(Refusal::new(StatusCode::UNAUTHORIZED, problem, request.headers()))
    }

    /// A panic is a bug; only this request fails.
    async fn routed(&self, request: Request<Body>) -> Response<Body> {
        let lost = Refusal::prepare(request.headers());
        let mut answer = pin!(self.protocols.answer(request));
        let result = std::future::poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
                // The panic hook has logged it.
                Err(_) => Poll::Ready(None),
            }
        });
        result.await.unwrap_or_else(|| {
            lost.with(
                StatusCode::INTERNAL_SERVER_ERROR,
                "an internal error; see the server's log",
            )
            .into_response()
        })
    }
}
