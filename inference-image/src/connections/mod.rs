//! Connections: accepts them, serves them, and shuts down without breaking one that is in use. Requests are passed to
//! `middleware`.

mod connection;
mod exchange;
mod framing;
mod http1;
mod hyper_body;
mod lifetime;
mod limit;
mod listen;
mod stream;
mod tls;

pub use http1::fuzz;
pub use listen::{listen, listen_at};
pub use tls::Tls;

use crate::metrics::ConnectionMetrics;
use crate::middleware::Middleware;
use crate::process::cgroup;
use crate::process::lifecycle::{Lifecycle, Phase};
use connection::Shared;
use hyper::server::conn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lifetime::{Activity, Times};
use limit::{ConnectionLimit, Permit};
use modelservice_contract::{Connections, Drain, Limits};
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Pause after a connection could not be accepted for lack of memory or file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an old connection must have been idle before it is closed: a client that is about to use it sends a
/// request in this time, and the response asks it to close.
const QUIET: Duration = Duration::from_secs(30);
/// The age, and the quiet time after it, vary by this part, so that connections of the same age do not all end at
/// once.
const JITTER: f64 = 0.1;

/// Bytes that an HTTP/2 client may send before they are read. Per request, this lets a batch of images be sent
/// without waiting for a round trip. Per connection, it bounds the memory that a slow reader takes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest HTTP/2 frame that is accepted: large frames make large bodies cheaper.
const FRAME: u32 = 64 << 10;
/// HTTP/2 connections are pinged after this time, and closed if there is no reply.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(20);
/// Requests that an HTTP/2 client may cancel before they are processed, and requests of one connection that the
/// server itself may have to cancel: more are an attack ("rapid reset", CVE-2023-44487).
const RESETS: usize = 20;
const OWN_RESETS: usize = 1024;

/// Settings for connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Maximum number of connections.
    pub max: usize,
    /// Maximum number of connections of one address; `None` is `max`.
    pub max_per_peer: Option<usize>,
    /// A connection retires after this time, ±10 %; `None` is never.
    pub max_age: Option<Duration>,
    /// A connection retires after this many requests; `None` is never.
    pub max_requests: Option<u32>,
    /// An idle connection is closed after this time.
    pub idle: Duration,
    /// An idle connection that has reached its age is closed after this time, ±10 %.
    pub quiet: Duration,
    /// Time for a request's head, and for a TLS handshake.
    pub header: Duration,
    /// Largest head of a request, in bytes.
    pub max_header_bytes: u32,
    /// Concurrent requests on an HTTP/2 connection.
    pub max_streams: u32,
}

impl Settings {
    /// The settings of the configuration, in this process: raises its limit on open files.
    #[must_use]
    pub fn of_process(connections: &Connections, limits: &Limits) -> Self {
        let files = limit::by_open_files();
        let memory = cgroup::memory_limit(Path::new("/"));
        let most = match connections.max {
            Some(_) => files,
            None => files.min(limit::by_memory(memory)),
        };
        Self::new(connections, limits, most)
    }

    /// The settings of the configuration, with at most `most` connections.
    #[must_use]
    pub fn new(connections: &Connections, limits: &Limits, most: usize) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let some = |number: u32| (number > 0).then_some(number);
        Self {
            max: connections.max.map_or(most, |max| most.min(max as usize)),
            max_per_peer: None,
            max_age: some(connections.max_age_seconds).map(seconds),
            max_requests: some(connections.max_requests),
            idle: seconds(connections.idle_seconds),
            quiet: QUIET,
            header: seconds(limits.header_seconds),
            max_header_bytes: limits.max_header_bytes,
            max_streams: connections.max_concurrent_requests,
        }
    }
}

/// Serves the connections of a listener.
pub struct Server {
    shared: Arc<Shared>,
    limit: Arc<ConnectionLimit>,
    settings: Settings,
    metrics: ConnectionMetrics,
}

impl Server {
    /// Responds with `middleware`, over TLS if that is given.
    #[must_use]
    pub fn new(
        middleware: Middleware,
        settings: Settings,
        tls: Option<Tls>,
        metrics: &ConnectionMetrics,
    ) -> Self {
        let times = Times {
            header: settings.header,
            idle: settings.idle,
            quiet: settings.quiet,
        };
        let shared = Shared {
            middleware,
            max_head: settings.max_header_bytes as usize,
            http1: hyper_1(&settings),
            http2: hyper_2(&settings),
            times,
            tls,
        };
        Self {
            shared: Arc::new(shared),
            limit: ConnectionLimit::new(settings.max, settings.max_per_peer),
            settings,
            metrics: metrics.clone(),
        }
    }

    /// Serves until `stop`, then shuts down:
    ///
    /// 1. The phase is `Draining`: the server is not ready, and every response asks its client to close.
    /// 2. New connections are still accepted for `accept_seconds`: clients learn only gradually that they should go
    ///    elsewhere.
    /// 3. The listener closes, after the last connection in its queue has been accepted.
    /// 4. When no request is in flight, the remaining connections are closed; idle ones come last, since their
    ///    clients may use them at any moment.
    ///
    /// Steps 3 and 4 take at most `finish_seconds`. Returns the number of requests that were cut off.
    pub async fn serve(
        self,
        listener: TcpListener,
        lifecycle: &Lifecycle,
        drain: &Drain,
        stop: impl Future<Output = ()>,
    ) -> usize {
        let stop = async {
            stop.await;
            drain.clone()
        };
        self.serve_until(listener, lifecycle, stop).await
    }

    /// The same; `stop` says how to shut down.
    pub async fn serve_until(
        self,
        listener: TcpListener,
        lifecycle: &Lifecycle,
        stop: impl Future<Output = Drain>,
    ) -> usize {
        let mut acceptor = Acceptor {
            listener,
            waiting: None,
        };
        let drain = self.accept_until(&mut acceptor, stop).await;
        lifecycle.enter(Phase::Draining);
        tracing::info!(
            in_flight = lifecycle.in_flight(),
            accept_seconds = drain.accept_seconds,
            "draining"
        );
        let accepting = Duration::from_secs(drain.accept_seconds.into());
        self.accept_until(&mut acceptor, sleep(accepting)).await;
        self.accept_waiting(acceptor).await;

        let finishing = Duration::from_secs(drain.finish_seconds.into());
        let finished = timeout(finishing, async {
            // HTTP/2 clients may keep a connection busy for ever: halfway through they are told to stop.
            let _ = timeout(finishing / 2, lifecycle.quiet()).await;
            self.limit.close().await;
        });
        if finished.await.is_ok() {
            0
        } else {
            lifecycle.in_flight()
        }
    }

    async fn accept_until<T>(&self, acceptor: &mut Acceptor, end: impl Future<Output = T>) -> T {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                accepted = acceptor.accept(&self.limit) => match accepted {
                    Ok(accepted) => self.spawn(accepted),
                    Err(error) => pause(&error).await,
                },
                ended = &mut end => return ended,
            }
        }
    }

    /// Accepts what is already in the listener's queue: closing the listener would reset those connections.
    async fn accept_waiting(&self, mut acceptor: Acceptor) {
        while let Ok(accepted) = timeout(Duration::ZERO, acceptor.accept(&self.limit)).await {
            match accepted {
                Ok(accepted) => self.spawn(accepted),
                Err(_) => return,
            }
        }
    }

    fn spawn(&self, accepted: Accepted) {
        let Accepted { stream, peer, free } = accepted;
        let age = self.settings.max_age.map(jittered);
        let activity = Arc::new(Activity::new(age, self.settings.max_requests));
        let place = self.limit.take(free, peer, &activity);
        let (shared, metrics) = (Arc::clone(&self.shared), self.metrics.clone());
        let times = Times {
            quiet: jittered(shared.times.quiet),
            ..shared.times
        };
        metrics.accepted.inc();
        metrics.open.inc();
        tokio::spawn(async move {
            let reason = connection::run(stream, shared, activity, times).await;
            metrics.closed(reason);
            drop(place);
        });
    }
}

/// Accepts connections. At the limit, one connection waits here and the others wait in the listener's queue.
struct Acceptor {
    listener: TcpListener,
    waiting: Option<(TcpStream, IpAddr)>,
}

struct Accepted {
    stream: TcpStream,
    peer: IpAddr,
    free: Permit,
}

impl Acceptor {
    /// The next connection and its permit; nothing is lost if this future is dropped. A connection of a peer that may
    /// have no more is closed.
    async fn accept(&mut self, limit: &ConnectionLimit) -> std::io::Result<Accepted> {
        loop {
            if self.waiting.is_none() {
                let (stream, address) = self.listener.accept().await?;
                let peer = address.ip().to_canonical();
                if !limit.admits(peer) {
                    continue;
                }
                self.waiting = Some((stream, peer));
            }
            let free = limit.free().await;
            if let (Some((stream, peer)), Some(free)) = (self.waiting.take(), free) {
                return Ok(Accepted { stream, peer, free });
            }
        }
    }
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

fn hyper_1(settings: &Settings) -> conn::http1::Builder {
    let mut builder = conn::http1::Builder::new();
    // hyper's own timer cannot tell a slow head from an idle connection.
    builder
        .header_read_timeout(None)
        // A client that has closed its sending side may be waiting for its response.
        .half_close(true)
        .max_header_size(settings.max_header_bytes as usize);
    builder
}

fn hyper_2(settings: &Settings) -> conn::http2::Builder<TokioExecutor> {
    let mut builder = conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(settings.max_header_bytes)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(OWN_RESETS);
    builder
}

/// When file descriptors run out, the only remedy is that other connections close. An error of a single connection
/// does not affect the listener.
async fn pause(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset) {
        tracing::warn!("cannot accept a connection: {error}");
        sleep(ACCEPT_PAUSE).await;
    }
}
