//! Ends calls that could last for ever when their connection retires, so that the connection and the server can
//! close. Such calls get UNAVAILABLE, which gRPC's own servers use for calls that outlive the age of a connection
//! (MAX_CONNECTION_AGE_GRACE) and which clients take for "try again elsewhere"
//! (<https://github.com/grpc/proposal/blob/master/A9-server-side-conn-mgt.md>).

use super::message;
use crate::process::lifecycle::Retirement;
use crate::protocol::error::ApiError;
use axum::Error;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use hyper::body::{Body as HttpBody, Frame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Waits until the connection retires; never returns if there is none.
pub(super) async fn retired(connection: Option<Retirement>) {
    match connection {
        Some(connection) => connection.begun().await,
        None => std::future::pending().await,
    }
}

/// The end of a call whose connection has retired.
pub(super) fn with_connection() -> ApiError {
    unavailable("the connection has reached its maximum age or the server is shutting down")
}

/// The end of a call, and what to do then.
pub(super) fn unavailable(why: &str) -> ApiError {
    let message = format!("{why}: open a new stream, and resend the requests that were not answered");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Wraps services whose responses end only when their clients end them.
pub(super) async fn layer(mut request: Request, next: Next) -> Result<Response, ApiError> {
    message::check(request.headers())?;
    if request.version() < Version::HTTP_2 && request.uri().path().ends_with("/Watch") {
        // HTTP/1 has no way to find out whether a client is still there.
        let message = "this call ends only when its client ends it, which requires HTTP/2";
        return Err(ApiError::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, message));
    }
    let connection = request.extensions_mut().remove();
    let response = next.run(request).await;
    Ok(response.map(|body| {
        Body::new(Until {
            body,
            retired: Some(retired(connection).boxed()),
        })
    }))
}

/// A body that ends when its connection retires.
struct Until {
    body: Body,
    /// `None` when it has retired.
    retired: Option<BoxFuture<'static, ()>>,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(retired) = &mut self.retired else {
            return Poll::Ready(None);
        };
        let retired = retired.poll_unpin(context);
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(retired);
        self.retired = None;
        let status = message::trailers(&with_connection());
        Poll::Ready(Some(Ok(Frame::trailers(status))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
