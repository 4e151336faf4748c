//! `ModelStreamInfer`: many requests over one call, several of them in flight at once. They are answered in order, as
//! Triton does for models with one response per request. An error of one request is reported in its response, and the
//! stream continues.
//!
//! A stream ends with its connection. When that retires, because of its age or because the server shuts down, the
//! requests that have been read are answered, and then comes the status of `ending`. After OK, a client would assume
//! that requests still on their way had been answered.

use super::ending;
use super::infer::answer;
use super::message::{self, Messages, framed};
use super::request::{self, Envelope};
use crate::process::lifecycle::{Phase, Retirement};
use crate::protocol::api::Api;
use crate::protocol::body::Received;
use crate::protocol::error::ApiError;
use crate::protocol::inference::request::unassigned;
use crate::protocol::names::MODEL_VERSION;
use crate::protocol::proto::{ModelInferResponse, ModelStreamInferResponse};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::future::FutureExt;
use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Maximum number of requests of one stream that are in flight at once. It is no more than a model's queue can hold,
/// so that a single stream never finds the queue full. Further requests stay with the client.
const UNDER_WAY: usize = 64;
/// A stream without a request for this long is ended when the server shuts down, before its connection retires.
const IDLE: Duration = Duration::from_secs(1);
/// The message for a panic.
const BUG: &str = "an internal error; see the server's log";
/// The parameter that tells Triton's clients that no further response to a request follows, as an entry of the map:
/// `{key: "triton_final_response", value: {bool_param: true}}`.
const FINAL: &[u8] = b"\x0a\x15triton_final_response\x12\x02\x08\x01";

pub(super) async fn model_stream_infer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let arrived = Instant::now();
    let (mut parts, body) = request.into_parts();
    if let Err(error) = message::check(&parts.headers) {
        return error.into_response();
    }
    let deadline = match message::deadline(&parts.headers, arrived) {
        Ok(deadline) => deadline,
        Err(error) => {
            api.service.unassigned().count(error.outcome());
            return message::failure(&error);
        }
    };
    let incoming = Incoming {
        api: Arc::clone(&api),
        headers: parts.headers,
        messages: Messages::new(body),
        deadline,
        retirement: parts.extensions.remove(),
    };
    let under_way = UNDER_WAY.min(api.service.limits().queue_length as usize).max(1);
    let answers = unfold(Some(incoming), |incoming| async move { incoming?.next().await })
        .map(move |received| Answering::start(one(Arc::clone(&api), received, deadline)))
        .buffered(under_way);
    message::response(Body::new(Answers {
        answers: answers.boxed(),
        parts: Vec::new().into_iter(),
        ended: false,
    }))
}

/// The requests of a stream.
struct Incoming {
    api: Arc<Api>,
    headers: HeaderMap,
    messages: Messages,
    deadline: Option<Instant>,
    /// The connection's retirement, if there is one.
    retirement: Option<Retirement>,
}

impl Incoming {
    /// The next request, and the source of those after it; `None` after an error.
    async fn next(mut self) -> Option<(Result<Received, ApiError>, Option<Self>)> {
        match self.read().await {
            Ok(Some(received)) => Some((Ok(received), Some(self))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }

    async fn read(&mut self) -> Result<Option<Received>, ApiError> {
        let Self {
            api,
            headers,
            messages,
            deadline,
            retirement,
        } = self;
        let reading = async {
            tokio::select! {
                begun = messages.begin() => if !begun? {
                    return Ok(None);
                },
                () = shutting_down(api) => return Err(ending::unavailable("the server is shutting down")),
            }
            let message = messages.read(&api.budget, headers, request::first_tensor_at);
            let message = api.budget.in_time(*deadline, message);
            unassigned(api.service.unassigned(), message).await.map(Some)
        };
        tokio::select! {
            // Checked first, since a client may always have sent another request.
            biased;
            () = ending::retired(retirement.clone()) => Err(ending::with_connection()),
            message = reading => message,
        }
    }
}

async fn shutting_down(api: &Api) {
    api.lifecycle.reached(Phase::Draining).await;
    sleep(IDLE).await;
}

/// A response in the making, in a task of its own: a request may run on the thread that polls it, and must not delay
/// reading the next request. It is cancelled when nobody is waiting for it any more.
struct Answering(JoinHandle<Result<Vec<Bytes>, ApiError>>);

impl Answering {
    fn start(answer: impl Future<Output = Result<Vec<Bytes>, ApiError>> + Send + 'static) -> Self {
        Self(tokio::spawn(answer))
    }
}

impl Future for Answering {
    type Output = Result<Vec<Bytes>, ApiError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(ApiError::internal(BUG))))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The response to one request, in parts.
///
/// # Errors
/// If the stream cannot continue.
async fn one(
    api: Arc<Api>,
    received: Result<Received, ApiError>,
    deadline: Option<Instant>,
) -> Result<Vec<Bytes>, ApiError> {
    let received = received?;
    let envelope = Envelope::read(&received.bytes);
    let answer = answer(&api, Instant::now(), deadline, &received, &envelope, Some(FINAL));
    // A panic is a bug; only this request fails.
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    let answer = answer.unwrap_or_else(|_| Err(ApiError::internal(BUG)));
    framed(match answer {
        Ok(parts) => wrapped(parts),
        Err(error) => vec![refusal(&error, &envelope)],
    })
}

/// A `ModelStreamInferResponse` with this `ModelInferResponse`.
fn wrapped(parts: Vec<Bytes>) -> Vec<Bytes> {
    const INFER_RESPONSE: u32 = 2;
    let length: usize = parts.iter().map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(16);
    encode_key(INFER_RESPONSE, WireType::LengthDelimited, &mut head);
    encode_varint(length as u64, &mut head);
    let mut all = Vec::with_capacity(parts.len() + 1);
    all.push(head.freeze());
    all.extend(parts);
    all
}

/// An error in response to a request, with the request's ID.
fn refusal(error: &ApiError, envelope: &Envelope<'_>) -> Bytes {
    error.log();
    let response = ModelInferResponse {
        model_name: envelope.model_name.to_owned(),
        model_version: MODEL_VERSION.to_owned(),
        id: envelope.id.to_owned(),
        ..Default::default()
    };
    let answer = ModelStreamInferResponse {
        error_message: error.message().to_owned(),
        infer_response: Some(response),
    };
    answer.encode_to_vec().into()
}

/// The responses as a body, followed by the final status of the stream.
struct Answers {
    answers: BoxStream<'static, Result<Vec<Bytes>, ApiError>>,
    parts: std::vec::IntoIter<Bytes>,
    ended: bool,
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(part) = self.parts.find(|part| !part.is_empty()) {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let status = match ready!(Pin::new(&mut self.answers).poll_next(context)) {
                Some(Ok(parts)) => {
                    self.parts = parts.into_iter();
                    continue;
                }
                Some(Err(error)) => message::trailers(&error),
                None => message::success(),
            };
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(status))));
        }
    }
}
