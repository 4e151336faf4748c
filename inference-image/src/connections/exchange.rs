//! A request and its response on a connection: the request is in flight until the response has been sent, and the
//! client learns when to close the connection.

use super::lifetime::Activity;
use crate::middleware::Middleware;
use crate::process::lifecycle::Phase;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// A response of this many bytes fits into the system's buffers at once, however slowly it is read.
const SMALL: u64 = 16 << 10;
/// Largest number of bytes that are passed to the connection at once: what has been passed counts as sent.
const PART: usize = 64 << 10;

/// Responds to a request on the connection of this activity.
pub(super) async fn answer(
    middleware: &Middleware,
    mut request: Request<Body>,
    activity: &Arc<Activity>,
) -> Response<Body> {
    let lifecycle = middleware.lifecycle();
    let under_way = (lifecycle.request(), activity.begin());
    let version = request.version();
    if version == Version::HTTP_2 {
        // Only HTTP/2 has calls that may never end.
        request.extensions_mut().insert(activity.retirement().clone());
    }
    let mut response = middleware.answer(request).await;
    let is_last = || lifecycle.phase() == Phase::Draining || activity.is_last(Instant::now());
    // HTTP/2 has no such header; its clients get a GOAWAY frame.
    if version <= Version::HTTP_11 && is_last() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| kept_under_way(body, under_way))
}

/// A response that is built while it is sent, or that its client may read slowly, keeps its request in flight until
/// it has been sent.
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

/// A body that keeps its request in flight.
struct UnderWay<G> {
    body: Body,
    /// The rest of the last frame.
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
    use crate::process::lifecycle::Lifecycle;
    use http_body_util::BodyExt;

    /// A server that shuts down must not cut off a response that its client is still reading.
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
