//! The Open Inference Protocol over gRPC. `ModelInfer` reads its message into one buffer with aligned tensors and
//! sends its outputs from where they are, so that no general codec stands between the network and the engine. The
//! other calls use whole messages.

mod contents;
mod ending;
mod health;
mod message;
mod metadata;
mod reflection;
mod request;
mod response;
mod stream;
mod wire;

/// The messages, as `proto/inference.proto` describes them.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

use crate::engine::Signature;
use crate::metrics::Outcome;
use crate::process::lifecycle::Lifecycle;
use crate::protocol::body::Received;
use crate::protocol::inference::request::{counted, unassigned};
use crate::protocol::{Api, ApiError, Named, inference};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, post};
use bytes::Bytes;
use prost::Message;
use request::Envelope;

use std::sync::Arc;
use std::time::Instant;

pub(super) use message::receive;
pub(super) use request::first_tensor_at;

const SERVICE: &str = "inference.GRPCInferenceService";
/// The path of the most frequent call.
pub(super) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The calls of the service, of health and of reflection.
pub(super) fn router(lifecycle: &Lifecycle) -> Router<Arc<Api>> {
    let path = |call: &str| format!("/{SERVICE}/{call}");
    let others = health::router(lifecycle).merge(reflection::router());
    Router::new()
        .route(&path("ServerLive"), unary(metadata::server_live))
        .route(&path("ServerReady"), unary(metadata::server_ready))
        .route(&path("ServerMetadata"), unary(metadata::server_metadata))
        .route(&path("ModelReady"), unary(metadata::model_ready))
        .route(&path("ModelMetadata"), unary(metadata::model_metadata))
        .route(&path("ModelConfig"), unary(metadata::model_config))
        .route(&path("ModelStatistics"), unary(metadata::model_statistics))
        .route(&path("RepositoryIndex"), unary(metadata::repository_index))
        .route(
            MODEL_INFER,
            post(|State(api): State<Arc<Api>>, request: Request| async move { model_infer(&api, request).await }),
        )
        .route(&path("ModelStreamInfer"), post(stream::model_stream_infer))
        .route(&path("{call}"), any(not_implemented))
        .merge(others.layer(from_fn(ending::layer)))
}

/// A call with one message in each direction.
fn unary<Q, A>(call: fn(&Api, Q) -> Result<A, ApiError>) -> MethodRouter<Arc<Api>>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    post(move |State(api): State<Arc<Api>>, request: Request| async move {
        let arrived = Instant::now();
        let (parts, body) = request.into_parts();
        called(&parts.headers, async {
            let deadline = message::deadline(&parts.headers, arrived)?;
            let received = message::receive(&api.budget, &parts.headers, body, deadline, |_| 0).await?;
            let message = Q::decode(received.bytes)
                .map_err(|error| ApiError::bad_request(format!("the message is not valid: {error}")))?;
            Ok(vec![call(&api, message)?.encode_to_vec().into()])
        })
        .await
    })
}

pub(super) async fn model_infer(api: &Api, request: Request) -> Response {
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
async fn answer(
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
        let parts = response::encode(name, envelope.id, parameters, signature, answer);
        metrics.statistics.compute_output.add(started.elapsed());
        Ok(parts)
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
pub(super) fn parse(message: &Bytes, signature: &Signature) -> Result<inference::Request, String> {
    Envelope::read(message).request(message, signature)
}

/// Frames the result of a call.
async fn called(headers: &HeaderMap, call: impl Future<Output = Result<Vec<Bytes>, ApiError>>) -> Response {
    if let Err(error) = message::check(headers) {
        return error.into_response();
    }
    match call.await {
        Ok(parts) => message::answer(parts),
        Err(error) => message::failure(&error),
    }
}

/// Calls of Triton that load or unload models or use the memory of the host, and calls that do not exist.
async fn not_implemented(Path(call): Path<String>, headers: HeaderMap) -> Response {
    let message = format!("{call} is not implemented; docs/server.md lists the calls");
    let error = ApiError::new(StatusCode::NOT_IMPLEMENTED, message);
    called(&headers, async { Err(error) }).await
}
