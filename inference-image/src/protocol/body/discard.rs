//! Discards what is left of a refused body: most clients read the response only after they have sent everything, and
//! a connection that is closed with unread bytes is reset, which loses the response.

use http_body_util::BodyExt;
use hyper::body::Body;
use std::time::Duration;
use tokio::time::timeout;

/// How long an unwanted body is read; after that its connection is closed.
pub(crate) const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Reads the body and discards it, for at most `time`.
pub(crate) async fn discard(mut body: impl Body + Unpin, time: Duration) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(time, all).await;
}
