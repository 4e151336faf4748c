//! The Open Inference Protocol, version 2, over REST, with the binary tensor extension.
//! <https://github.com/open-inference/open-inference-protocol>; the extension:
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md>

mod request;
mod response;

use super::body::{Received, Wanted};
use super::request::{Target, measured, server_timing};
use super::{Api, ApiError, EXTENSIONS, NAME, PLATFORM, infer};
use crate::engine::Port;
use crate::scheduling::RunOptions;
use crate::service::{Model, VERSION};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use modelservice_contract::TensorSpec;
use request::Parsed;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Length of the JSON part of a body that tensors follow.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

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

pub(super) async fn model_ready(
    State(api): State<Arc<Api>>,
    Target(name): Target,
) -> Result<Response, ApiError> {
    api.model(&name)?;
    let ready = api.is_ready();
    Ok((status(ready), Json(json!({"name": name, "ready": ready}))).into_response())
}

const fn status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

pub(super) async fn model(
    State(api): State<Arc<Api>>,
    Target(name): Target,
) -> Result<Json<Value>, ApiError> {
    let signature = api.model(&name)?.signature();
    let specs = |ports: &[Port]| ports.iter().map(Port::spec).collect::<Vec<TensorSpec>>();
    Ok(Json(json!({
        "name": name,
        "platform": PLATFORM,
        "inputs": specs(&signature.inputs),
        "outputs": specs(&signature.outputs),
    })))
}

pub(super) async fn infer_tensors(
    State(api): State<Arc<Api>>,
    Target(name): Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let model = api.model(&name)?;
    Ok(measured(model.metrics(), answer(&api, &name, model, &headers, body)).await)
}

async fn answer(
    api: &Api,
    name: &str,
    model: &Model,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let header_length = header_length(headers)?;
    infer::admit(model, &RunOptions::default())?;
    let wanted = Wanted {
        aligned_at: header_length.unwrap_or(0),
        deadline: None,
    };
    let Received { bytes, room } = api.budget.read(headers, body, wanted).await?;
    model.metrics().request_bytes.inc_by(bytes.len() as u64);
    let signature = model.signature();
    let Parsed { id, request } =
        request::parse(&bytes, header_length, signature).map_err(ApiError::bad_request)?;
    let options = request.wishes.options(arrived, None);
    let answer = infer::run(model, request, options).await?;
    drop(room);
    let timing = server_timing(answer.timing);
    let answer = response::encode(name, id.as_deref(), signature, &answer)?;
    Ok(([timing], answer).into_response())
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(HEADER_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let refused = || {
        ApiError::bad_request(format!(
            "{HEADER_LENGTH} is {value:?}, it must be a number of bytes"
        ))
    };
    length.map(Some).ok_or_else(refused)
}
