//! HTTP/1.1 as nearly all requests use it: GET or POST with a body of known length. Requests are read and answered
//! one after the other, and the body is read straight into the buffer that will hold its tensors, which saves a copy
//! and the bookkeeping of a more general implementation. At the first request that is anything else (chunked,
//! `Expect`, HTTP/1.0, gRPC, malformed, …) the connection, with all that has been read from it, is handed over to
//! hyper. A head that does not make clear where its request ends is always refused.
//!
//! - `head`: the bytes of a request's head, pure.
//! - `wire`: the bytes of the connection, read alternately by the body of a request and by the connection.
//! - `response`: the bytes of a response.

mod head;
mod response;
mod wire;

use super::exchange;
use super::framing::Refused;
use super::lifetime::Activity;
use super::stream::Stream;
use crate::middleware::Middleware;
use crate::protocol::{DISCARD_TIME, ZeroCopyBody};
use axum::body::Body;
use axum::http::{Request, Response};
pub use head::fuzz;
use head::{Head, Plain};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use wire::Wire;

/// How the connection continues.
pub(super) enum Next {
    /// The connection has ended.
    Ended,
    /// Hyper takes over.
    Other(Box<Stream>),
}

/// Serves requests until the connection ends or something else comes.
///
/// # Errors
/// When the connection breaks.
pub(super) async fn serve(
    stream: Stream,
    middleware: &Middleware,
    activity: &Arc<Activity>,
    max_head: usize,
) -> io::Result<Next> {
    let wire = Wire::new(stream);
    loop {
        let plain = match next(&wire, activity, max_head).await? {
            None => break,
            Some(Head::Plain(plain)) => plain,
            Some(Head::Refused(refused)) => {
                refuse(&wire, refused, activity).await?;
                return Ok(Next::Ended);
            }
            Some(Head::Partial | Head::Other) => {
                let stream = wire.into_stream().ok_or(io::ErrorKind::ResourceBusy)?;
                return Ok(Next::Other(Box::new(stream)));
            }
        };
        let is_last = plain.is_last;
        let Some(response) = answered(*plain, &wire, middleware, activity).await else {
            break;
        };
        let closes = is_last || response::closes(&response) || activity.retirement().has_begun();
        response::write(&*wire, response, closes).await?;
        let rest = discarded(&wire, activity).await;
        if closes || !rest {
            break;
        }
    }
    // The client may be gone.
    let _ = (&*wire).shutdown().await;
    Ok(Next::Ended)
}

/// The next head; `None` if there are no more.
async fn next(wire: &Arc<Wire>, activity: &Activity, max_head: usize) -> io::Result<Option<Head>> {
    loop {
        let head = wire.head(max_head);
        if !matches!(head, Head::Partial) {
            return Ok(Some(head));
        }
        let read = tokio::select! {
            // The request comes first: one that has arrived is answered.
            biased;
            read = wire.read_ahead() => read?,
            // A request that has begun to arrive is given time to complete.
            () = activity.retirement().begun(), if wire.is_clear() => return Ok(None),
        };
        if read == 0 {
            return Ok(None);
        }
    }
}

/// The response to a request; `None` if its client disconnects before there is one.
async fn answered(
    plain: Plain,
    wire: &Arc<Wire>,
    middleware: &Middleware,
    activity: &Arc<Activity>,
) -> Option<Response<Body>> {
    let body = wire.body(plain.length);
    let mut head = plain.head;
    if !body.has_come() {
        head.extensions.insert(ZeroCopyBody::new(Arc::new(body.clone())));
    }
    let request = Request::from_parts(head, Body::new(body));
    // On the heap only while it is needed: most connections are idle.
    let mut answer = Box::pin(exchange::answer(middleware, request, activity));
    poll_fn(|context| {
        if let Poll::Ready(response) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(response));
        }
        wire.poll_left(context).map(|()| None)
    })
    .await
}

/// Ends the connection with a refusal. What the client is still sending is read for a while: otherwise the connection
/// would be reset, and the response lost.
async fn refuse(wire: &Arc<Wire>, refused: Refused, activity: &Arc<Activity>) -> io::Result<()> {
    let _busy = activity.begin();
    response::write(&**wire, refused.into_response(), true).await?;
    (&**wire).shutdown().await?;
    let _rest = wire.body(u64::MAX);
    discarded(wire, activity).await;
    Ok(())
}

/// Reads the rest of a refused body, for the reason given in [`crate::protocol::discard`], and so that the next request can
/// follow; `false` if that takes too long.
async fn discarded(wire: &Arc<Wire>, activity: &Arc<Activity>) -> bool {
    if wire.left() == 0 {
        return true;
    }
    // The connection is not idle in the meantime.
    let _busy = activity.busy();
    let all = timeout(DISCARD_TIME, wire.discard()).await;
    matches!(all, Ok(Ok(())))
}
