//! A response body of parts that are sent as they are, one after the other: the head of a response and its tensors,
//! without copying them into one buffer.

use axum::http::HeaderMap;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The remaining parts.
pub(crate) struct Frames {
    parts: std::vec::IntoIter<Bytes>,
    left: u64,
    trailers: Option<HeaderMap>,
}

impl Frames {
    /// The parts in their order.
    pub(crate) fn new(parts: Vec<Bytes>) -> Self {
        Self {
            left: parts.iter().map(|part| part.len() as u64).sum(),
            parts: parts.into_iter(),
            trailers: None,
        }
    }

    /// With trailers after the last part.
    pub(crate) fn trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(part) = self.parts.find(|part| !part.is_empty()) {
            self.left -= part.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
