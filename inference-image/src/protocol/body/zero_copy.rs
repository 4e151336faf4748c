//! A zero-copy body: it can be read straight into the buffer that will hold its tensors. It is an extension of
//! requests on connections that support it; code that does not look for it reads the body as usual.

use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Where the bytes come from. Clones read the same bytes; each byte is returned once.
#[derive(Clone)]
pub(crate) struct ZeroCopyBody(Arc<dyn ZeroCopySource>);

/// The bytes of a body, in order.
pub(crate) trait ZeroCopySource: Send + Sync {
    /// Appends at most `most` bytes to the buffer, without making it larger; 0 at the end of the body.
    ///
    /// # Errors
    /// When the client disconnects.
    fn poll_append(
        &self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>>;
}

impl ZeroCopyBody {
    /// A body that is read from `source`.
    pub(crate) fn new(source: Arc<dyn ZeroCopySource>) -> Self {
        Self(source)
    }

    /// As [`ZeroCopySource::poll_append`].
    ///
    /// # Errors
    /// When the client disconnects.
    pub(crate) async fn append(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        poll_fn(|context| self.0.poll_append(context, buffer, most)).await
    }
}
