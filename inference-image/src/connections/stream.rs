//! The bytes of a connection, plain or TLS. Bytes that were read to detect the protocol are put back.

use super::lifetime::Activity;
use bytes::{BufMut, BytesMut};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take to close after us.
const LINGER: Duration = Duration::from_secs(1);

/// The bytes as the protocol sees them.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Reports reads and writes to the connection's [`Activity`].
pub(super) struct Stream {
    transport: Transport,
    activity: Arc<Activity>,
    /// Bytes that were read and put back.
    ahead: BytesMut,
    end: End,
}

/// What follows the last byte that we send.
enum End {
    /// Nothing.
    Close,
    /// What the client still sends is read and discarded until it closes, for [`LINGER`] at most. Closing with unread
    /// bytes resets the connection (RFC 1122, section 4.2.2.13), and a reset discards what the client has not read yet.
    Linger,
    Lingers(Pin<Box<Sleep>>),
}

impl Stream {
    pub(super) fn new(transport: Transport, activity: Arc<Activity>) -> Self {
        Self {
            transport,
            activity,
            ahead: BytesMut::new(),
            end: End::Close,
        }
    }

    /// From now on, the client may send until it has read our last byte: a stream of HTTP/2 ends in both directions
    /// independently.
    pub(super) fn linger(&mut self) {
        self.end = End::Linger;
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let End::Lingers(patience) = &mut self.end else {
            return Poll::Ready(());
        };
        if patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut discarded = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut self.transport).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// The same stream, with these bytes, which were read from it, put back in front.
    pub(super) fn behind(mut self, mut read: BytesMut) -> Self {
        read.unsplit(self.ahead);
        self.ahead = read;
        self
    }

    /// Waits for the first bytes; false if the client closes without any.
    pub(super) async fn begin(&mut self) -> io::Result<bool> {
        self.ahead.reserve(PREFACE.len());
        let read = self.read_first().await?;
        self.activity.read();
        Ok(read > 0)
    }

    /// As many bytes as are needed to detect the protocol.
    async fn read_first(&mut self) -> io::Result<usize> {
        let missing = PREFACE.len() - self.ahead.len();
        self.transport
            .read_buf(&mut (&mut self.ahead).limit(missing))
            .await
    }

    /// Whether the first bytes are HTTP/2's preface; reads on until that is decided.
    pub(super) async fn speaks_http_2(&mut self) -> io::Result<bool> {
        while self.ahead.len() < PREFACE.len() && PREFACE.starts_with(&self.ahead) {
            if self.read_first().await? == 0 {
                return Ok(false);
            }
        }
        Ok(self.ahead == PREFACE[..])
    }

    /// Waits until there is something to read, or may be: with TLS this is unknown without a buffer.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.transport {
            Transport::Plain(stream) if self.ahead.is_empty() => stream.poll_read_ready(context),
            Transport::Plain(_) | Transport::Tls(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let part = this.ahead.split_to(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.transport).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            this.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.transport).poll_write(context, bytes));
        self.activity.wrote();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.transport).poll_write_vectored(context, parts));
        self.activity.wrote();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.end, End::Lingers(_)) {
            ready!(Pin::new(&mut self.transport).poll_shutdown(context))?;
        }
        if matches!(self.end, End::Linger) {
            self.end = End::Lingers(Box::pin(sleep(LINGER)));
        }
        self.poll_linger(context).map(Ok)
    }
}

/// Calls a method of whichever variant it is.
macro_rules! either {
    ($self:expr, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Transport::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(context, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    /// A stream, and the client at its other end.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let activity = Arc::new(Activity::new(None, None));
        (Stream::new(Transport::Plain(accepted), activity), client)
    }

    /// Clients that cannot send give up without reading why their streams have ended.
    #[tokio::test]
    async fn a_client_may_send_until_it_has_read_the_last_words() {
        let (mut stream, mut client) = pair().await;
        stream.linger();
        let server = tokio::spawn(async move {
            stream.write_all(b"the end").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut last = Vec::new();
        client.read_to_end(&mut last).await.unwrap();
        assert_eq!(last, b"the end");
        // More than buffers hold: somebody must read it.
        client.write_all(&vec![0; 20 << 20]).await.unwrap();
        drop(client);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_never_closes_is_left_after_a_while() {
        let (mut stream, client) = pair().await;
        stream.linger();
        timeout(20 * LINGER, stream.shutdown()).await.unwrap().unwrap();
        drop(client);
    }
}
