//! `ModelStreamInfer`: many requests over one call, answered in their order. What is wrong with one is told in
//! its answer, and the stream goes on.

use super::message::{self, Messages};
use super::proto::{ModelInferResponse, ModelStreamInferResponse};
use super::request::{self, Envelope};
use super::{answer, message::framed};
use crate::lifecycle::Phase;
use crate::protocol::body::Received;
use crate::protocol::request::unassigned;
use crate::protocol::{Api, ApiError, MODEL_VERSION};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
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
use tokio::time::sleep;

/// Requests of one stream that are under way at once.
const UNDER_WAY: usize = 64;
/// A stream without a request for this long is ended when the server leaves.
const IDLE: Duration = Duration::from_secs(1);
/// The parameter that tells Triton's clients that no further answer follows to a request, as an entry of the map:
/// `{key: "triton_final_response", value: {bool_param: true}}`.
const FINAL: &[u8] = b"\x0a\x15triton_final_response\x12\x02\x08\x01";

pub(super) async fn model_stream_infer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
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
    };
    let answers = unfold(Some(incoming), |incoming| async move { incoming?.next().await })
        .map(move |received| one(Arc::clone(&api), received, deadline))
        .buffered(UNDER_WAY);
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
}

impl Incoming {
    /// The next request, and where those after it come from; after an error nothing does.
    async fn next(mut self) -> Option<(Result<Received, ApiError>, Option<Self>)> {
        match self.read().await {
            Ok(Some(received)) => Some((Ok(received), Some(self))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }

    async fn read(&mut self) -> Result<Option<Received>, ApiError> {
        tokio::select! {
            begun = self.messages.begin() => {
                if !begun? {
                    return Ok(None);
                }
            }
            () = leaving(&self.api) => {
                let message = "the server is leaving: open another stream";
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
            }
        }
        let budget = &self.api.budget;
        let reading = self
            .messages
            .read(budget, &self.headers, request::first_tensor_at);
        let reading = budget.in_time(self.deadline, reading);
        unassigned(self.api.service.unassigned(), reading).await.map(Some)
    }
}

async fn leaving(api: &Api) {
    api.lifecycle.reached(Phase::Draining).await;
    sleep(IDLE).await;
}

/// The answer to one request, in parts.
///
/// # Errors
/// If the stream cannot go on.
async fn one(
    api: Arc<Api>,
    received: Result<Received, ApiError>,
    deadline: Option<Instant>,
) -> Result<Vec<Bytes>, ApiError> {
    let received = received?;
    let envelope = Envelope::read(&received.bytes);
    let answer = answer(&api, Instant::now(), deadline, &received, &envelope, Some(FINAL));
    // A panic is a bug, and an error for this request alone.
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    let answer =
        answer.unwrap_or_else(|_| Err(ApiError::internal("an internal error; see the server's log")));
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

/// What is wrong with a request, and which one it was.
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

/// The answers as a body, and at its end how the stream ended.
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
