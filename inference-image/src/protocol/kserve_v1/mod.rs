//! KServe's protocol, version 1, which is TensorFlow Serving's: tensors as nested lists without the names of types or
//! shapes, by rows (`instances`) or by columns (`inputs`)
//! (<https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol>,
//! <https://www.tensorflow.org/tfx/serving/api_rest#predict_api>).

mod objects;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(super) use request::parse;

use crate::protocol::api::{Api, Named};
use crate::protocol::body::{ReadOptions, Received};
use crate::protocol::error::ApiError;
use crate::protocol::inference;
use crate::protocol::inference::request::{Answered, server_timing};
use crate::scheduling::RunOptions;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use request::VERSION_2;
use response::encode;
use std::sync::Arc;
use std::time::Instant;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) async fn predict(
    api: &Api,
    named: Named<'_>,
    options: RunOptions,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answered<Response>, ApiError> {
    let model = named.model;
    inference::admit(model, &options)?;
    let wanted = ReadOptions {
        deadline: options.deadline,
        ..ReadOptions::default()
    };
    let Received { bytes, room } = api.budget.read(headers, body, wanted).await?;
    model.metrics().request_bytes.inc_by(bytes.len() as u64);
    let (request, form) = parse(&bytes, model.signature()).map_err(ApiError::bad_request)?;
    let answer = inference::run(model, request, Arc::clone(&room), options).await?;
    drop((bytes, room));
    let started = Instant::now();
    let timing = server_timing(answer.timing);
    answer.check_json(model.signature(), VERSION_2)?;
    let text = encode(form, model.signature(), &answer).map_err(ApiError::bad_request)?;
    let response = ([timing, (header::CONTENT_TYPE, JSON)], text).into_response();
    Ok(Answered::new(response, answer.timing, started))
}
