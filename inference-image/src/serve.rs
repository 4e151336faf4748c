//! Connections: accepting them, serving them, and leaving without breaking one that is in use.

use crate::lifecycle::{Lifecycle, Phase};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use modelservice_contract::Drain;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// An idle connection is closed after this time. Longer than load balancers keep theirs (600 s at most among
/// the common ones): whoever closes first while the other sends loses a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(620);
/// Pause after a connection could not be accepted for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on every address of this machine, IPv6 and IPv4; port 0 is any free one.
///
/// # Errors
/// When the port is taken or may not be used.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        // A machine without IPv6.
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        listener => listener,
    }
}

/// Serves until `stop`, then leaves:
///
/// 1. The phase is `Draining`: the server is unready, and every answer asks its client to close.
/// 2. New connections are still accepted for `accept_seconds`: those who send here learn only little by
///    little that they should not.
/// 3. The listener closes, after the last connection in its queue has been accepted.
/// 4. When no request is under way, connections that are still there are closed; idle ones come last, since
///    their clients may use them at any moment.
///
/// Steps 3 and 4 take at most `finish_seconds`. Returns the number of requests that were cut off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    lifecycle: &Lifecycle,
    drain: &Drain,
    stop: impl Future<Output = ()>,
) -> usize {
    let connections = Connections::new(router);
    connections.accept_until(&listener, stop).await;
    lifecycle.enter(Phase::Draining);
    tracing::info!(
        in_flight = lifecycle.in_flight(),
        accept_seconds = drain.accept_seconds,
        "draining"
    );
    let accepting = Duration::from_secs(drain.accept_seconds.into());
    connections.accept_until(&listener, sleep(accepting)).await;
    connections.accept_waiting(&listener).await;
    drop(listener);

    let finishing = Duration::from_secs(drain.finish_seconds.into());
    let finished = timeout(finishing, async {
        // Clients of HTTP/2 may keep one connection busy for ever: they are told to leave at half time.
        let _ = timeout(finishing / 2, lifecycle.quiet()).await;
        connections.close().await;
    });
    if finished.await.is_ok() {
        0
    } else {
        lifecycle.in_flight()
    }
}

/// The connections that are open.
struct Connections {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    closing: watch::Sender<bool>,
}

impl Connections {
    fn new(router: Router) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        Self {
            router,
            builder,
            closing: watch::Sender::new(false),
        }
    }

    async fn accept_until(&self, listener: &TcpListener, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.spawn(stream),
                    Err(error) => pause(&error).await,
                },
                () = &mut end => return,
            }
        }
    }

    /// Accepts what is in the listener's queue already: closing it would reset them.
    async fn accept_waiting(&self, listener: &TcpListener) {
        while let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
            self.spawn(stream);
        }
    }

    fn spawn(&self, stream: TcpStream) {
        // Answers are written at once; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let mut closing = self.closing.subscribe();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let mut open = true;
            let result = loop {
                tokio::select! {
                    // The connection first: a request that has arrived is read before the connection is closed.
                    biased;
                    result = connection.as_mut() => break result,
                    _ = closing.wait_for(|&closing| closing), if open => {
                        open = false;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            };
            if let Err(error) = result {
                tracing::debug!("connection: {error}");
            }
        });
    }

    /// Closes idle connections, and the others after their answer; returns when all are closed.
    async fn close(&self) {
        self.closing.send_replace(true);
        self.closing.closed().await;
    }
}

/// Out of file descriptors there is nothing to wait for but that others close theirs; what is wrong with one
/// connection alone is none of the listener's business.
async fn pause(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset) {
        tracing::warn!("cannot accept a connection: {error}");
        sleep(ACCEPT_PAUSE).await;
    }
}
