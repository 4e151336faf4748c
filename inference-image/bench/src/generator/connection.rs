//! One connection of either protocol, with at most one request in flight.

use super::Message;
use super::http::Http;
use super::http2::Http2;
use crate::spec::{Drive, Wire};
use anyhow::{Context, Result};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A server that does not respond for this long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A response.
pub(super) struct Reply<'a> {
    /// The HTTP status; for gRPC 200 if there is a message, else 0.
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    /// Including its head.
    pub(super) whole: &'a [u8],
}

/// What a connection reports to the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing yet.
    Waiting,
    /// The response has arrived: [`Connection::reply`].
    Answered,
    /// The server closed it.
    Closed,
}

enum Protocol {
    Http(Http),
    Http2(Box<Http2>),
}

/// A connection; `sent` and `message` belong to the request in flight.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    protocol: Protocol,
    pub(super) sent: Instant,
    pub(super) message: Option<usize>,
    /// Nothing can be written until the socket reports it.
    pub(super) is_blocked: bool,
}

impl Connection {
    /// Connects; a blocking one gives up after [`PATIENCE`].
    pub(super) fn open(spec: &Drive, blocking: bool) -> Result<Self> {
        let stream =
            connect(spec.address, blocking).with_context(|| format!("cannot connect to {}", spec.address))?;
        let protocol = match spec.wire {
            Wire::Http => Protocol::Http(Http::default()),
            Wire::Grpc => Protocol::Http2(Box::new(Http2::new(spec.address))),
        };
        Ok(Self {
            stream,
            protocol,
            sent: Instant::now(),
            message: None,
            is_blocked: false,
        })
    }

    /// Starts sending a message.
    pub(super) fn start(&mut self, index: usize, messages: &[Message], now: Instant) -> io::Result<()> {
        (self.sent, self.message) = (now, Some(index));
        match &mut self.protocol {
            Protocol::Http(http) => http.start(),
            Protocol::Http2(http2) => http2.start(),
        }
        self.flush(messages)
    }

    /// Sends as much as the socket, and the peer, accept now.
    pub(super) fn flush(&mut self, messages: &[Message]) -> io::Result<()> {
        let bytes = self
            .message
            .and_then(|index| messages.get(index))
            .map_or(&[][..], |message| &message.bytes);
        let sent = match &mut self.protocol {
            Protocol::Http(http) => http.send(&mut self.stream, bytes),
            Protocol::Http2(http2) => http2.send(&mut self.stream, bytes),
        };
        self.is_blocked = matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if self.is_blocked { Ok(()) } else { sent }
    }

    /// Reads what has arrived; a blocking connection waits for something.
    pub(super) fn receive(&mut self, messages: &[Message]) -> io::Result<Progress> {
        let progress = match &mut self.protocol {
            Protocol::Http(http) => http.receive(&mut self.stream),
            Protocol::Http2(http2) => http2.receive(&mut self.stream),
        };
        match progress {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Progress::Waiting),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Ok(Progress::Closed)
            }
            Ok(Progress::Waiting) if self.message.is_some() && !self.is_blocked => {
                // The peer may accept more of the request, or want an acknowledgement.
                self.flush(messages)?;
                Ok(Progress::Waiting)
            }
            other => other,
        }
    }

    /// The response that [`Progress::Answered`] reported.
    pub(super) fn reply(&self) -> Reply<'_> {
        match &self.protocol {
            Protocol::Http(http) => http.reply(),
            Protocol::Http2(http2) => http2.reply(),
        }
    }

    /// Whether the server will close this connection, so that the next request needs a new one.
    pub(super) fn is_ending(&self) -> bool {
        match &self.protocol {
            Protocol::Http(http) => http.is_ending(),
            Protocol::Http2(http2) => http2.is_ending(),
        }
    }
}

fn connect(address: SocketAddr, blocking: bool) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    if blocking {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    } else {
        stream.set_nonblocking(true)?;
    }
    Ok(stream)
}
