//! `ModelInfer`: from its message to the parts of its response.

use super::message;
use super::request::{self, Envelope};
use super::response;
use crate::engine::Signature;
use crate::metrics::Outcome;
use crate::protocol::api::{Api, Named};
use crate::protocol::body::Received;
use crate::protocol::error::ApiError;
use crate::protocol::inference;
use crate::protocol::inference::request::{Answered, counted, unassigned};
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

pub(crate) async fn model_infer(api: &Api, request: Request) -> Response {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    called(&parts.headers, infer(api, arrived, &parts.headers, body)).await
}

async fn infer(api: &Api, arrived: Instant, headers: &HeaderMap, body: Body) -> Result<Vec<Bytes>, ApiError> {
    let reading = async {
        let deadline = message::deadline(headers, arrived)?;
        inference::in_time(deadline)?;
        let align = request::first_tensor_at;
        let received = message::receive(&api.budget, headers, body, deadline, align).await?;
        Ok((received, deadline))
    };
    let (received, deadline) = unassigned(api.service.unassigned(), reading).await?;
    let envelope = Envelope::read(&received.bytes);
    answer(api, arrived, deadline, &received, &envelope, None).await
}

/// The response to the `ModelInferRequest` in `received`, in parts; with one more parameter, if there is one.
pub(super) async fn answer(
    api: &Api,
    arrived: Instant,
    deadline: Option<Instant>,
    received: &Received,
    envelope: &Envelope<'_>,
    parameter: Option<&'static [u8]>,
) -> Result<Vec<Bytes>, ApiError> {
    if let Some(problem) = envelope.nameless() {
        api.service.unassigned().count(Outcome::Invalid);
        return Err(ApiError::bad_request(problem));
    }
    let Named { name, model, .. } = api.wanted(envelope.model_name, envelope.model_version)?;
    let metrics = model.metrics();
    metrics.request_bytes.inc_by(received.bytes.len() as u64);
    let parts = counted(metrics, async {
        let signature = model.signature();
        let request = envelope
            .request(&received.bytes, signature)
            .map_err(ApiError::bad_request)?;
        let options = request.urgency.options(arrived, deadline);
        let answer = inference::run(model, request, Arc::clone(&received.room), options).await?;
        let started = Instant::now();
        let parameters = envelope.echoed().chain(parameter);
        let timing = answer.timing;
        let parts = response::encode(name, envelope.id, parameters, signature, answer);
        Ok(Answered::new(parts, timing, started))
    });
    let parts = parts.await?;
    let length: usize = parts.iter().map(Bytes::len).sum();
    metrics.response_bytes.inc_by(length as u64);
    Ok(parts)
}

/// Reads a `ModelInferRequest`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(message: &Bytes, signature: &Signature) -> Result<inference::Request, String> {
    Envelope::read(message).request(message, signature)
}

/// Frames the result of a call.
pub(super) async fn called(
    headers: &HeaderMap,
    call: impl Future<Output = Result<Vec<Bytes>, ApiError>>,
) -> Response {
    if let Err(error) = message::check(headers) {
        return error.into_response();
    }
    match call.await {
        Ok(parts) => message::answer(parts),
        Err(error) => message::failure(&error),
    }
}
