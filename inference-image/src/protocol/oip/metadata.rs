//! Descriptions of the server and its models.

use super::triton;
use crate::engine::Port;
use crate::models::VERSION;
use crate::protocol::api::Api;
use crate::protocol::body::ReadOptions;
use crate::protocol::error::ApiError;
use crate::protocol::inference::request::Target;
use crate::protocol::names::{EXTENSIONS, MODEL_VERSION, NAME, PLATFORM};
use crate::protocol::proto::repository_index_response::ModelIndex;
use crate::protocol::proto::{
    InferBatchStatistics, ModelConfig, ModelInput, ModelOutput, ModelStatistics, ModelTensorReshape,
    StatisticDuration,
};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use modelservice_contract::TensorSpec;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn server() -> Json<Value> {
    Json(json!({"name": NAME, "version": VERSION, "extensions": EXTENSIONS}))
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let ready = api.is_ready();
    (status(ready), Json(json!({ "ready": ready }))).into_response()
}

pub(crate) async fn model_ready(State(api): State<Arc<Api>>, target: Target) -> Result<Response, ApiError> {
    let named = api.named(target.model(), target.version())?;
    let ready = api.is_ready();
    Ok((status(ready), Json(json!({"name": named.name, "ready": ready}))).into_response())
}

const fn status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

pub(crate) async fn models(State(api): State<Arc<Api>>) -> Json<Value> {
    let names: Vec<&str> = api.service.names().collect();
    Json(json!({ "models": names }))
}

pub(crate) async fn model(State(api): State<Arc<Api>>, target: Target) -> Result<Json<Value>, ApiError> {
    let named = api.named(target.model(), target.version())?;
    let signature = named.model.signature();
    let specs = |ports: &[Port]| ports.iter().map(Port::spec).collect::<Vec<TensorSpec>>();
    Ok(Json(json!({
        "name": named.name,
        "versions": [MODEL_VERSION],
        "platform": PLATFORM,
        "inputs": specs(&signature.inputs),
        "outputs": specs(&signature.outputs),
    })))
}

/// A request for the repository's index.
#[derive(Default, Deserialize)]
struct Index {
    #[serde(default)]
    ready: bool,
}

pub(super) async fn index(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body = api
        .budget
        .read(&headers, body, ReadOptions::default())
        .await?
        .bytes;
    let refused = |error| ApiError::bad_request(format!("the request is not a valid index request: {error}"));
    let index = if body.is_empty() {
        Index::default()
    } else {
        serde_json::from_slice(&body).map_err(refused)?
    };
    let model = |model: ModelIndex| json!({"name": model.name, "version": model.version, "state": model.state, "reason": model.reason});
    Ok(Json(
        triton::index(&api, index.ready).into_iter().map(model).collect(),
    ))
}

pub(super) async fn config(State(api): State<Arc<Api>>, target: Target) -> Result<Json<Value>, ApiError> {
    let named = api.named(target.model(), target.version())?;
    Ok(Json(config_json(&triton::config(&api, named))))
}

fn config_json(config: &ModelConfig) -> Value {
    let reshaped = |mut tensor: Value, reshape: &Option<ModelTensorReshape>| {
        if let Some(ModelTensorReshape { shape }) = reshape {
            tensor["reshape"] = json!({"shape": shape});
        }
        tensor
    };
    let input = |input: &ModelInput| {
        let tensor = json!({
            "name": input.name,
            "data_type": input.data_type().as_str_name(),
            "format": input.format().as_str_name(),
            "dims": input.dims,
        });
        reshaped(tensor, &input.reshape)
    };
    let output = |output: &ModelOutput| {
        let tensor = json!({
            "name": output.name,
            "data_type": output.data_type().as_str_name(),
            "dims": output.dims,
        });
        reshaped(tensor, &output.reshape)
    };
    json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": config.max_batch_size,
        "input": config.input.iter().map(input).collect::<Vec<_>>(),
        "output": config.output.iter().map(output).collect::<Vec<_>>(),
        "default_model_filename": config.default_model_filename,
    })
}

pub(super) async fn all_statistics(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(statistics_json(&triton::statistics(&api, "", "")?)))
}

pub(super) async fn statistics(State(api): State<Arc<Api>>, target: Target) -> Result<Json<Value>, ApiError> {
    let statistics = triton::statistics(&api, target.model(), target.version())?;
    Ok(Json(statistics_json(&statistics)))
}

fn statistics_json(models: &[ModelStatistics]) -> Value {
    let time = |time: &Option<StatisticDuration>| {
        let time = time.unwrap_or_default();
        json!({"count": time.count, "ns": time.ns})
    };
    let batch = |batch: &InferBatchStatistics| {
        json!({
            "batch_size": batch.batch_size,
            "compute_input": time(&batch.compute_input),
            "compute_infer": time(&batch.compute_infer),
            "compute_output": time(&batch.compute_output),
        })
    };
    let model = |model: &ModelStatistics| {
        let inference = model.inference_stats.unwrap_or_default();
        json!({
            "name": model.name,
            "version": model.version,
            "last_inference": model.last_inference,
            "inference_count": model.inference_count,
            "execution_count": model.execution_count,
            "inference_stats": {
                "success": time(&inference.success),
                "fail": time(&inference.fail),
                "queue": time(&inference.queue),
                "compute_input": time(&inference.compute_input),
                "compute_infer": time(&inference.compute_infer),
                "compute_output": time(&inference.compute_output),
                "cache_hit": time(&None),
                "cache_miss": time(&None),
            },
            "batch_stats": model.batch_stats.iter().map(batch).collect::<Vec<_>>(),
        })
    };
    json!({"model_stats": models.iter().map(model).collect::<Vec<_>>()})
}

pub(super) async fn no_loading(uri: Uri) -> ApiError {
    not_implemented(
        &uri,
        "models are loaded when the server starts, as its configuration says",
    )
}

pub(super) async fn no_shared_memory(uri: Uri) -> ApiError {
    not_implemented(&uri, "tensors are sent in requests and responses")
}

pub(super) async fn no_trace_settings(uri: Uri) -> ApiError {
    not_implemented(
        &uri,
        "which requests are traced is set in the configuration (tracing)",
    )
}

pub(super) async fn no_log_settings(uri: Uri) -> ApiError {
    not_implemented(
        &uri,
        "what is logged is set when the server starts (--log-level, accessLog)",
    )
}

/// Requests that would change the server or use the memory of its host.
fn not_implemented(uri: &Uri, instead: &str) -> ApiError {
    let message = format!("{} is not implemented: {instead}", uri.path());
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message)
}
