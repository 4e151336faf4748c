//! One connection, from its acceptance to its end.

use super::exchange;
use super::framing::{self, Refused};
use super::http1;
use super::hyper_body::HyperBody;
use super::lifetime::{Activity, Times, Verdict};
use super::stream::{Stream, Transport};
use super::tls::Tls;
use crate::metrics::Closed;
use crate::middleware::Middleware;
use crate::process::lifecycle::Phase;
use axum::body::Body;
use axum::http::{Request, Version, request};
use hyper::body::Incoming;
use hyper::server::conn;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until, timeout};

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) middleware: Middleware,
    /// Largest head of a request, in bytes.
    pub(super) max_head: usize,
    pub(super) http1: conn::http1::Builder,
    pub(super) http2: conn::http2::Builder<TokioExecutor>,
    pub(super) times: Times,
    pub(super) tls: Option<Tls>,
}

/// Serves a connection until its end; returns why it ended.
pub(super) async fn run(
    stream: TcpStream,
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    times: Times,
) -> Closed {
    let transport = match secure(stream, &shared).await {
        Ok(transport) => transport,
        Err(reason) => return reason,
    };
    let mut stream = Stream::new(transport, Arc::clone(&activity));
    let speaks_http_2 = match greet(&mut stream, &activity, &times).await {
        Ok(speaks) => speaks,
        Err(reason) => return reason,
    };
    let ended = if speaks_http_2 {
        activity.multiplex();
        stream.linger();
        Box::pin(by_hyper(stream, true, &shared, &activity, &times)).await
    } else {
        let own = http1::serve(stream, &shared.middleware, &activity, shared.max_head);
        // The activity tells it when to end.
        match drive(own, |_| (), own_ended, &activity, &times).await {
            Ended::Other(stream) => Box::pin(by_hyper(*stream, false, &shared, &activity, &times)).await,
            ended => ended,
        }
    };
    match ended {
        Ended::ByUs(reason) => reason,
        // Nothing takes over from hyper.
        Ended::Other(_) => Closed::Error,
        Ended::ByItself if shared.middleware.lifecycle().phase() == Phase::Draining => Closed::Drain,
        Ended::ByItself if activity.is_last(Instant::now()) => Closed::Age,
        Ended::ByItself => Closed::Client,
        Ended::Broken(error) => {
            tracing::debug!("connection: {error}");
            Closed::Error
        }
    }
}

/// Lets hyper serve a connection.
async fn by_hyper(
    stream: Stream,
    speaks_http_2: bool,
    shared: &Arc<Shared>,
    activity: &Arc<Activity>,
    times: &Times,
) -> Ended {
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, activity) = (Arc::clone(shared), Arc::clone(activity));
        // On the heap only while it is needed: most connections are idle.
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = Body::new(HyperBody::new(body, &head.headers, head.version, &activity));
            if let Some(refused) = refused(&head) {
                return Ok(refused.into_response());
            }
            let request = Request::from_parts(head, body);
            Ok::<_, Infallible>(exchange::answer(&shared.middleware, request, &activity).await)
        })
    });
    let stream = TokioIo::new(stream);
    if speaks_http_2 {
        let connection = shared.http2.serve_connection(stream, service);
        drive(
            connection,
            |connection| connection.graceful_shutdown(),
            by_itself,
            activity,
            times,
        )
        .await
    } else {
        let connection = shared.http1.serve_connection(stream, service);
        drive(
            connection,
            |connection| connection.graceful_shutdown(),
            by_itself,
            activity,
            times,
        )
        .await
    }
}

/// Why a request that hyper has read is refused. HTTP/2 has its own framing.
fn refused(head: &request::Parts) -> Option<Refused> {
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    (head.version <= Version::HTTP_11)
        .then(|| framing::refuses(head.version, headers))
        .flatten()
}

async fn secure(stream: TcpStream, shared: &Shared) -> Result<Transport, Closed> {
    let Some(tls) = &shared.tls else {
        return Ok(Transport::Plain(stream));
    };
    match timeout(shared.times.header, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => Ok(Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!("TLS: {error}");
            Err(Closed::Handshake)
        }
        Err(_) => Err(Closed::Slow),
    }
}

/// Waits for the first bytes, which show the protocol. Until then the connection needs no buffers.
async fn greet(stream: &mut Stream, activity: &Activity, times: &Times) -> Result<bool, Closed> {
    let patience = async {
        loop {
            match activity.judge(Instant::now(), &mut None, times) {
                Verdict::Wait(until) => tokio::select! {
                    () = sleep_until(until.into()) => {}
                    () = activity.woken() => {}
                },
                Verdict::Retire(reason) | Verdict::Cut(reason) => return reason,
            }
        }
    };
    let begun = tokio::select! {
        // The stream comes first: a request that has arrived is answered.
        biased;
        begun = stream.begin() => begun.map_err(|_| Closed::Client)?,
        reason = patience => return Err(reason),
    };
    if !begun {
        return Err(Closed::Client);
    }
    let speaks = timeout(times.header, stream.speaks_http_2()).await;
    speaks.map_err(|_| Closed::Slow)?.map_err(|_| Closed::Client)
}

/// How a connection ended.
enum Ended {
    ByUs(Closed),
    ByItself,
    Broken(String),
    /// It has not ended: hyper takes over.
    Other(Box<Stream>),
}

fn own_ended(output: io::Result<http1::Next>) -> Ended {
    match output {
        Ok(http1::Next::Ended) => Ended::ByItself,
        Ok(http1::Next::Other(stream)) => Ended::Other(stream),
        Err(error) => Ended::Broken(error.to_string()),
    }
}

fn by_itself(output: hyper::Result<()>) -> Ended {
    output.map_or_else(|error| Ended::Broken(error.to_string()), |()| Ended::ByItself)
}

/// Drives a connection to its end. `retire` lets it end when its requests in flight have been answered; `ended`
/// interprets its output.
async fn drive<C: Future>(
    connection: C,
    retire: impl Fn(Pin<&mut C>),
    ended: impl Fn(C::Output) -> Ended,
    activity: &Activity,
    times: &Times,
) -> Ended {
    let mut connection = pin!(connection);
    let mut watch = Watch {
        activity,
        times,
        reading_since: None,
        ending: None,
    };
    let mut timer = pin!(sleep_until(Instant::now().into()));
    let mut woken = pin!(activity.woken());
    let mut asleep = true;
    poll_fn(|context| {
        loop {
            // The connection comes first: a request that has arrived is read before the connection is closed.
            if let Poll::Ready(output) = connection.as_mut().poll(context) {
                return Poll::Ready(match (ended(output), watch.ending) {
                    (Ended::Other(stream), _) => Ended::Other(stream),
                    (_, Some(reason)) => Ended::ByUs(reason),
                    (ended, None) => ended,
                });
            }
            let awakened = asleep && woken.as_mut().poll(context).is_ready();
            asleep &= !awakened;
            match watch.look(timer.as_mut(), awakened, context) {
                Look::Wait => return Poll::Pending,
                Look::Retire => {
                    retire(connection.as_mut());
                    activity.retirement().begin();
                }
                Look::End(reason) => return Poll::Ready(Ended::ByUs(reason)),
            }
        }
    })
    .await
}

/// The timer of the connection. It is not reset with each request: when it fires, it checks what has changed.
struct Watch<'a> {
    activity: &'a Activity,
    times: &'a Times,
    reading_since: Option<Instant>,
    ending: Option<Closed>,
}

/// The result of a check.
enum Look {
    Wait,
    Retire,
    End(Closed),
}

impl Watch<'_> {
    fn look(&mut self, mut timer: Pin<&mut Sleep>, mut awakened: bool, context: &mut Context<'_>) -> Look {
        // Poll again after each reset, so that the timer wakes this task.
        while timer.as_mut().poll(context).is_ready() || awakened || self.has_news() {
            awakened = false;
            let now = Instant::now();
            let until = match (
                self.ending,
                self.activity.judge(now, &mut self.reading_since, self.times),
            ) {
                // Its client has had time to notice that it is closing, and no request is in flight.
                (Some(reason), _) if self.activity.idle_since().is_some() => return Look::End(reason),
                (Some(_), _) => now + self.times.header,
                (None, Verdict::Wait(until)) => until,
                (None, Verdict::Cut(reason)) => return Look::End(reason),
                (None, Verdict::Retire(reason)) => {
                    self.ending = Some(reason);
                    timer.as_mut().reset((now + self.times.header).into());
                    return Look::Retire;
                }
            };
            timer.as_mut().reset(until.into());
        }
        Look::Wait
    }

    fn has_news(&self) -> bool {
        let activity = self.activity;
        self.ending.is_none()
            && (activity.is_reading() && self.reading_since.is_none()
                || activity.is_multiplexed() && activity.has_served_enough())
    }
}
