//! A request body that hyper reads, on its way to the handlers. If the request is refused before all of the body has
//! been read, the response is sent at once, and the rest of the body is discarded in the background.

use super::lifetime::Activity;
use crate::protocol::{DISCARD_TIME, discard};
use axum::http::{HeaderMap, Version, header};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;

/// The body of a request.
pub(super) struct HyperBody {
    /// Taken when the rest is discarded.
    body: Option<Incoming>,
    /// The connection, if the unread rest must be discarded so that it can be used again.
    connection: Option<Arc<Activity>>,
}

impl HyperBody {
    /// Over HTTP/2, each request has its own stream. A client that asks before it sends (`Expect: 100-continue`)
    /// sends nothing after a refusal.
    pub(super) fn new(
        body: Incoming,
        headers: &HeaderMap,
        version: Version,
        activity: &Arc<Activity>,
    ) -> Self {
        let shared = version <= Version::HTTP_11 && !headers.contains_key(header::EXPECT);
        Self {
            connection: shared.then(|| Arc::clone(activity)),
            body: Some(body),
        }
    }
}

impl Body for HyperBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for HyperBody {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| !body.is_end_stream());
        let (Some(rest), Some(activity)) = (rest, &self.connection) else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            // The connection is not idle in the meantime.
            let busy = activity.busy();
            runtime.spawn(async move {
                discard(rest, DISCARD_TIME).await;
                drop(busy);
            });
        }
    }
}
