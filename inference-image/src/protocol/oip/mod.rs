//! The Open Inference Protocol, version 2, over HTTP with JSON, its binary tensor extension, and those of Triton's
//! extensions that its clients call. The protocol: <https://github.com/kserve/open-inference-protocol>; the
//! extensions: <https://github.com/triton-inference-server/server/tree/main/docs/protocol>

mod metadata;
mod raw;
mod request;
mod response;
pub(super) mod template;
pub(super) mod triton;

use crate::engine::Signature;
use crate::protocol::api::{Api, Named};
use crate::protocol::body::zero_copy::ZeroCopyBody;
use crate::protocol::body::{Encoding, ReadOptions, Received};
use crate::protocol::error::ApiError;
use crate::protocol::inference;
use crate::protocol::inference::request::{Answered, Target, deadline, measured, only};
use crate::protocol::routing::routes::Routes;
use crate::scheduling::RunOptions;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use request::{Echo, Parsed};
use response::HEADER_LENGTH;
use std::sync::Arc;
use std::time::Instant;

/// Adds the paths of the protocol, except those of a model with nothing after its name.
pub(super) fn add(routes: Routes) -> Routes {
    let mut routes = routes
        .get("/v2", metadata::server)
        .get("/v2/health/live", metadata::live)
        .get("/v2/health/ready", metadata::ready)
        .get("/v2/models", metadata::models)
        .get("/v2/models/stats", metadata::all_statistics)
        .get("/v2/models/{model}/versions/{version}", metadata::model);
    for path in ["/v2/repository/index", "/v2/repository/{repository}/index"] {
        routes = routes.get(path, metadata::index).post(path, metadata::index);
    }
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        routes = routes
            .get(&format!("{model}/ready"), metadata::model_ready)
            .get(&format!("{model}/config"), metadata::config)
            .get(&format!("{model}/stats"), metadata::statistics)
            .post(&format!("{model}/infer"), infer_tensors)
            .any(&format!("{model}/trace/setting"), metadata::no_trace_settings);
    }
    for repository in ["/v2/repository", "/v2/repository/{repository}"] {
        for call in ["load", "unload"] {
            routes = routes.any(
                &format!("{repository}/models/{{model}}/{call}"),
                metadata::no_loading,
            );
        }
    }
    routes
        .any("/v2/systemsharedmemory/{*path}", metadata::no_shared_memory)
        .any("/v2/cudasharedmemory/{*path}", metadata::no_shared_memory)
        .any("/v2/trace/setting", metadata::no_trace_settings)
        .any("/v2/logging", metadata::no_log_settings)
}

pub(super) use metadata::{model, model_ready, models};

async fn infer_tensors(
    State(api): State<Arc<Api>>,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let named = api.wanted(target.model(), target.version())?;
    Ok(infer(&api, named, request).await)
}

/// Runs a model on the tensors of a request.
pub(super) async fn infer(api: &Api, named: Named<'_>, request: Request) -> Response {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let zero_copy = parts.extensions.get().cloned();
    let work = answer(api, named, arrived, &parts.headers, (body, zero_copy));
    measured(named.model.metrics(), work).await
}

async fn answer(
    api: &Api,
    named: Named<'_>,
    arrived: Instant,
    headers: &HeaderMap,
    (body, zero_copy): (Body, Option<ZeroCopyBody>),
) -> Result<Answered<Response>, ApiError> {
    let Named { model, template, .. } = named;
    let header_length = header_length(headers)?;
    let deadline = deadline(headers, arrived)?;
    let options = RunOptions {
        deadline,
        ..RunOptions::default()
    };
    inference::admit(model, &options)?;
    let wanted = ReadOptions {
        aligned_at: header_length.unwrap_or(0),
        deadline,
        zero_copy,
    };
    let Received { bytes, room } = api.budget.read(headers, body, wanted).await?;
    model.metrics().request_bytes.inc_by(bytes.len() as u64);
    let parsed = parse(&bytes, header_length, model.signature());
    let Parsed { echo, request } = parsed.map_err(ApiError::bad_request)?;
    let options = request.urgency.options(arrived, deadline);
    let answer = inference::run(model, request, Arc::clone(&room), options).await?;
    drop((bytes, room));
    let started = Instant::now();
    answer.check_json(model.signature(), "request it with binary_data")?;
    let timing = answer.timing;
    let response = response::encode(template, &echo, answer, Encoding::accepted(headers)).await?;
    Ok(Answered::new(response, timing, started))
}

/// Reads a body whose JSON has this length, or which is all JSON.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(
    body: &Bytes,
    header_length: Option<usize>,
    signature: &Signature,
) -> Result<Parsed, String> {
    match header_length {
        Some(0) => raw::parse(body, signature).map(|request| Parsed {
            echo: Echo::default(),
            request,
        }),
        length => request::parse(body, length, signature),
    }
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = only(headers, &HEADER_LENGTH)? else {
        return Ok(None);
    };
    let digits = value.to_str().ok().filter(|text| !text.starts_with('+'));
    let length = digits.and_then(|text| text.parse().ok());
    let refused = || {
        ApiError::bad_request(format!(
            "{HEADER_LENGTH} is {value:?}, but must be a number of bytes"
        ))
    };
    length.map(Some).ok_or_else(refused)
}
