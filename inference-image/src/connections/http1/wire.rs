//! The bytes of the connection. While a request is served, its body reads them; before and after, the connection
//! does. They never read at the same time.

use super::head::{self, Head};
use crate::connections::stream::Stream;
use crate::protocol::ZeroCopySource;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Sleep, sleep};

/// Bytes to read at once when it is not known what comes next.
const AHEAD: usize = 16 << 10;
/// Frame size, for code that reads a body in frames.
const FRAME: usize = 64 << 10;
/// How often a client that has closed its sending side is sent something, to find out whether it still receives.
const PROBE: Duration = Duration::from_millis(500);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The socket, and what has been read of it.
pub(super) struct Wire(Mutex<Inner>);

struct Inner {
    stream: Stream,
    /// Bytes that have been read but not consumed.
    ahead: BytesMut,
    /// The number of the current request.
    request: u64,
    /// Bytes of its body that have not been consumed yet.
    left: u64,
    /// Set once the client has closed its sending side: when to find out whether it still receives.
    half_closed: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            stream,
            ahead: BytesMut::new(),
            request: 0,
            left: 0,
            half_closed: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }

    /// Hands the socket over, together with what has been read but not consumed; `None` if a request still uses it.
    pub(super) fn into_stream(self: Arc<Self>) -> Option<Stream> {
        let Inner { stream, ahead, .. } = Arc::into_inner(self)?.0.into_inner();
        Some(stream.behind(ahead))
    }

    /// The next head in what has been read.
    pub(super) fn head(&self, max: usize) -> Head {
        let ahead = &mut self.lock().ahead;
        if ahead.is_empty() {
            return Head::Partial;
        }
        // A larger head is left to hyper: here it would be parsed from its start each time more bytes arrive.
        head::take(ahead, max.min(AHEAD))
    }

    /// Whether all that has been read has been consumed.
    pub(super) fn is_clear(&self) -> bool {
        self.lock().ahead.is_empty()
    }

    /// Reads more bytes; 0 if the client disconnected between two requests, in any way. An idle connection holds no
    /// buffer.
    ///
    /// # Errors
    /// When it disconnects within a request.
    pub(super) async fn read_ahead(&self) -> io::Result<usize> {
        poll_fn(|context| {
            let inner = &mut *self.lock();
            if !inner.ahead.is_empty() {
                return match ready!(inner.poll_ahead(context))? {
                    0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    read => Poll::Ready(Ok(read)),
                };
            }
            inner.ahead = BytesMut::new();
            if ready!(inner.stream.poll_read_ready(context)).is_err() {
                return Poll::Ready(Ok(0));
            }
            inner.poll_ahead(context).map(|read| Ok(read.unwrap_or(0)))
        })
        .await
    }

    /// The body that follows the head just consumed.
    pub(super) fn body(self: &Arc<Self>, length: u64) -> RequestBody {
        let inner = &mut *self.lock();
        inner.request += 1;
        inner.left = length;
        RequestBody {
            wire: Arc::clone(self),
            request: inner.request,
        }
    }

    /// Bytes of the body that have not been consumed.
    pub(super) fn left(&self) -> u64 {
        self.lock().left
    }

    /// Ready when the client has disconnected while its request, whose body has been read, is served. What the client
    /// sends meanwhile is buffered, up to a limit.
    ///
    /// A client that closes its sending side may still be waiting for the response, or be gone: both look the same
    /// until something is sent to it. So it gets `100 Continue` from time to time, which a client ignores (RFC 9110,
    /// section 15.2), and which the operating system of a client that is gone answers with a reset.
    pub(super) fn poll_left(&self, context: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.lock();
        while inner.half_closed.is_none() && inner.left == 0 && inner.ahead.len() < AHEAD {
            match ready!(inner.poll_ahead(context)) {
                Ok(0) => inner.half_closed = Some(Box::pin(sleep(PROBE))),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        let Inner {
            half_closed, stream, ..
        } = inner;
        let Some(timer) = half_closed else {
            return Poll::Pending;
        };
        while timer.as_mut().poll(context).is_ready() {
            timer.set(sleep(PROBE));
            match Pin::new(&mut *stream).poll_write(context, CONTINUE) {
                // If only a part of it is written, the response must not follow.
                Poll::Ready(Ok(written)) if written == CONTINUE.len() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                // The client has not even read the earlier responses.
                Poll::Pending => {}
            }
            let _ = Pin::new(&mut *stream).poll_flush(context);
        }
        Poll::Pending
    }

    /// Reads and discards the rest of the body.
    pub(super) async fn discard(&self) -> io::Result<()> {
        poll_fn(|context| {
            let inner = &mut *self.lock();
            while inner.left > 0 {
                drop(ready!(inner.poll_frame(context))?);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl Inner {
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.ahead.reserve(AHEAD);
        pin!(self.stream.read_buf(&mut self.ahead)).poll(context)
    }

    /// The bytes of the body that are available at once.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.ahead.is_empty() && ready!(self.poll_ahead(context))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let length = self.ahead.len().min(clamped(self.left)).min(FRAME);
        self.left -= length as u64;
        Poll::Ready(Ok(self.ahead.split_to(length).freeze()))
    }

    fn poll_append(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let most = most.min(clamped(self.left)).min(buffer.capacity() - buffer.len());
        if most == 0 {
            return Poll::Ready(Ok(0));
        }
        let length = if self.ahead.is_empty() {
            let read = ready!(pin!(self.stream.read_buf(&mut buffer.limit(most))).poll(context))?;
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            read
        } else {
            let length = self.ahead.len().min(most);
            buffer.extend_from_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            length
        };
        self.left -= length as u64;
        Poll::Ready(Ok(length))
    }
}

fn clamped(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// The body of a request. It is empty once the next request has begun.
#[derive(Clone)]
pub(super) struct RequestBody {
    wire: Arc<Wire>,
    request: u64,
}

impl RequestBody {
    /// Whether all of it has arrived.
    pub(super) fn has_come(&self) -> bool {
        let inner = self.wire.lock();
        inner.ahead.len() as u64 >= inner.left
    }

    /// The bytes of the connection, if some of them belong to this body.
    fn rest(&self) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.wire.lock();
        (inner.request == self.request && inner.left > 0).then_some(inner)
    }
}

impl ZeroCopySource for RequestBody {
    fn poll_append(
        &self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        match self.rest() {
            Some(mut rest) => rest.poll_append(context, buffer, most),
            None => Poll::Ready(Ok(0)),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(mut rest) = self.rest() else {
            return Poll::Ready(None);
        };
        let frame = rest.poll_frame(context);
        frame.map(|frame| Some(frame.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest().map_or(0, |rest| rest.left))
    }
}

/// For responses.
impl AsyncWrite for &Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(context)
    }
}
