//! The Open Inference Protocol over gRPC. `ModelInfer` reads its message into one buffer with aligned tensors and
//! sends its outputs from where they are, so no general codec stands between the network and the engine. The other
//! calls use whole messages.

mod contents;
mod ending;
mod health;
mod infer;
mod message;
mod metadata;
mod reflection;
mod request;
mod response;
mod stream;
mod wire;

use crate::process::lifecycle::Lifecycle;
use crate::protocol::api::Api;
use crate::protocol::error::ApiError;
use crate::protocol::names::GRPC_SERVICE;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{MethodRouter, any, post};
use infer::called;
use prost::Message;

use std::sync::Arc;
use std::time::Instant;

pub(super) use infer::{model_infer, parse};
pub(crate) use message::is_grpc;
pub(super) use message::receive;
pub(super) use request::first_tensor_at;

/// The path of the most frequent call.
pub(super) const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The calls of the service, of health and of reflection.
pub(super) fn router(lifecycle: &Lifecycle) -> Router<Arc<Api>> {
    let path = |call: &str| format!("/{GRPC_SERVICE}/{call}");
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

/// Calls of Triton that load or unload models or use the memory of the host, and calls that do not exist.
async fn not_implemented(Path(call): Path<String>, headers: HeaderMap) -> Response {
    let message = format!("{call} is not implemented; docs/server.md lists the calls");
    let error = ApiError::new(StatusCode::NOT_IMPLEMENTED, message);
    called(&headers, async { Err(error) }).await
}
