//! The Open Inference Protocol, version 2, over HTTP with JSON, its binary tensor extension, and Triton's
//! extensions that its clients call. The protocol: <https://github.com/kserve/open-inference-protocol>; the
//! extensions: <https://github.com/triton-inference-server/server/tree/main/docs/protocol>

mod metadata;
mod raw;
mod request;
mod response;

use super::body::{Encoding, Received, Wanted};
use super::request::{Target, deadline, measured};
use super::{Api, ApiError, Named, infer};
use crate::scheduling::RunOptions;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use axum::routing::{any, get, post};
use request::{Echo, Parsed};
use std::sync::Arc;
use std::time::Instant;

/// Length of the JSON part of a body that tensors follow.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The protocol's paths, but for those of a model without anything behind its name.
pub(super) fn router() -> Router<Arc<Api>> {
    let index = || get(metadata::index).post(metadata::index);
    let mut router = Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(metadata::live))
        .route("/v2/health/ready", get(metadata::ready))
        .route("/v2/models", get(metadata::models))
        .route("/v2/models/stats", get(metadata::all_statistics))
        .route("/v2/models/{model}/versions/{version}", get(metadata::model))
        .route("/v2/repository/index", index())
        .route("/v2/repository/{repository}/index", index());
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router = router
            .route(&format!("{model}/ready"), get(metadata::model_ready))
            .route(&format!("{model}/config"), get(metadata::config))
            .route(&format!("{model}/stats"), get(metadata::statistics))
            .route(&format!("{model}/infer"), post(infer_tensors))
            .route(&format!("{model}/trace/setting"), any(metadata::not_implemented));
    }
    for path in [
        "/v2/repository/models/{model}/load",
        "/v2/repository/models/{model}/unload",
        "/v2/repository/{repository}/models/{model}/load",
        "/v2/repository/{repository}/models/{model}/unload",
        "/v2/systemsharedmemory/{*path}",
        "/v2/cudasharedmemory/{*path}",
        "/v2/trace/setting",
        "/v2/logging",
    ] {
        router = router.route(path, any(metadata::not_implemented));
    }
    router
}

pub(super) use metadata::{model, model_ready, models};

async fn infer_tensors(
    State(api): State<Arc<Api>>,
    target: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let named = api.named(&target.model, target.version())?;
    let work = answer(&api, named, arrived, &headers, body);
    Ok(measured(named.model.metrics(), work).await)
}

async fn answer(
    api: &Api,
    named: Named<'_>,
    arrived: Instant,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Named { model, kept, .. } = named;
    let header_length = header_length(headers)?;
    let deadline = deadline(headers, arrived)?;
    let options = RunOptions {
        deadline,
        ..RunOptions::default()
    };
    infer::admit(model, &options)?;
    let wanted = Wanted {
        aligned_at: header_length.unwrap_or(0),
        deadline,
    };
    let Received { bytes, room } = api.budget.read(headers, body, wanted).await?;
    model.metrics().request_bytes.inc_by(bytes.len() as u64);
    let parsed = match header_length {
        Some(0) => raw::parse(&bytes, model.signature()).map(|request| Parsed {
            echo: Echo::default(),
            request,
        }),
        length => request::parse(&bytes, length, model.signature()),
    };
    let Parsed { echo, request } = parsed.map_err(ApiError::bad_request)?;
    let options = request.wishes.options(arrived, deadline);
    let answer = infer::run(model, request, options).await?;
    drop(room);
    let started = Instant::now();
    let response = response::encode(kept, &echo, answer, Encoding::accepted(headers)).await;
    model.metrics().statistics.compute_output.add(started.elapsed());
    response
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
