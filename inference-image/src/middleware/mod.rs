//! What happens around every request on the serving port, whatever its protocol: it is counted, its token is
//! checked, a panic becomes an answer, and its client learns when to leave. Knows nothing of models.

mod access_log;
mod auth;
mod observe;
mod refusal;
mod traces;

pub use access_log::AccessLog;
pub use auth::Tokens;
pub use observe::Observer;
pub use traces::Traces;

use crate::connections::Activity;
use crate::metrics::ConnectionMetrics;
use crate::process::lifecycle::{Lifecycle, Phase};
use crate::protocol::Protocols;
use crate::request_log::{Notes, noted};
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use refusal::Refusal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// Bytes of an answer that the system's buffers take at once, however slowly they are read.
const SMALL: u64 = 16 << 10;
/// Most bytes that are given to the connection at once: what it has been given it is taken to have sent.
const PART: usize = 64 << 10;

/// Answers requests, with what goes for all of them.
pub struct Front {
    protocols: Protocols,
    lifecycle: Lifecycle,
    tokens: Option<Tokens>,
    observer: Observer,
    metrics: ConnectionMetrics,
}

impl Front {
    /// Answers with `protocols`; who has none of the `tokens` is refused, if there are some.
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
            metrics: metrics.clone(),
        }
    }

    /// The same, with somebody who reads what is known of requests.
    #[must_use]
    pub fn observed_by(self, observer: Observer) -> Self {
        Self { observer, ..self }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.lifecycle.phase() == Phase::Draining
    }

    pub(crate) async fn answer(
        &self,
        mut request: Request<Body>,
        activity: &Arc<Activity>,
    ) -> Response<Body> {
        let under_way = (self.lifecycle.request(), activity.begin());
        let version = request.version();
        if version == Version::HTTP_2 {
            // Only there are calls that could go on for ever.
            request.extensions_mut().insert(activity.retirement().clone());
        }
        let mut response = match self.observer.begin(&request) {
            None => self.admitted(request).await,
            Some(observed) => {
                let (response, notes) = if observed.is_sampled() {
                    noted(self.admitted(request)).await
                } else {
                    (self.admitted(request).await, Notes::default())
                };
                self.observer.end(&observed, &response, &notes);
                response
            }
        };
        // HTTP/2 has no such header; its clients are told by a GOAWAY frame.
        if version <= Version::HTTP_11 && (self.is_leaving() || activity.is_last(Instant::now())) {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| kept_under_way(body, under_way))
    }

    async fn admitted(&self, request: Request<Body>) -> Response<Body> {
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

    /// A panic is a bug, and an error for this request alone.
    async fn routed(&self, request: Request<Body>) -> Response<Body> {
        let lost = Refusal::prepare(request.headers());
        let mut answer = pin!(self.protocols.answer(request));
        let result = std::future::poll_fn(|context| {
            match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
                // The panic itself was logged by its hook.
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

/// An answer that is made while it is sent, or that its reader may take slowly, is under way until its end.
fn kept_under_way<G: Send + Unpin + 'static>(body: Body, guards: G) -> Body {
    if body.size_hint().exact().is_some_and(|size| size <= SMALL) {
        return body;
    }
    Body::new(UnderWay {
        body,
        rest: Bytes::new(),
        _guards: guards,
    })
}

/// A body that keeps its request under way.
struct UnderWay<G> {
    body: Body,
    /// Of the last frame.
    rest: Bytes,
    _guards: G,
}

impl<G: Unpin> HttpBody for UnderWay<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let exact = self.body.size_hint().exact();
        exact.map_or_else(SizeHint::default, |exact| {
            SizeHint::with_exact(exact + self.rest.len() as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    // A server that leaves must not cut an answer short that its client is still reading.
    #[tokio::test]
    async fn a_large_answer_is_under_way_until_its_last_part_is_taken() {
        let lifecycle = Lifecycle::default();
        let large = vec![7; 3 * PART];
        let mut body = kept_under_way(Body::from(large), lifecycle.request());
        for left in [2 * PART, PART, 0] {
            assert_eq!(body.size_hint().exact(), Some((left + PART) as u64));
            let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!((part.len(), body.is_end_stream()), (PART, left == 0));
            assert_eq!(lifecycle.in_flight(), 1);
        }
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(lifecycle.in_flight(), 0);
        let _small = kept_under_way(Body::from("small"), lifecycle.request());
        assert_eq!(lifecycle.in_flight(), 0);
    }
}
