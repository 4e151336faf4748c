//! `POST /v1/models/{model}:classify` (and below `/v2`): a JPEG or PNG image as the body, labelled classes out.

use super::request::{Target, measured, server_timing};
use super::{Api, ApiError};
use crate::classify::{ImageClassifier, Prediction};
use crate::scheduling::RunOptions;
use crate::service::Model;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const VERB: &str = ":classify";

/// The query of a request.
type Parameters = BTreeMap<String, String>;

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    predictions: Vec<Prediction>,
}

pub(super) async fn classify(
    State(api): State<Arc<Api>>,
    Target(target): Target,
    query: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(name) = target.strip_suffix(VERB) else {
        return Err(ApiError::not_found(format!(
            "nothing can be posted to the model {target:?} but {target}{VERB}"
        )));
    };
    let model = api.model(name)?;
    let query = query
        .map(|Query(query)| query)
        .map_err(|error| ApiError::bad_request(error.body_text()));
    Ok(measured(model.metrics(), answer(&api, name, model, query, &headers, body)).await)
}

async fn answer(
    api: &Api,
    name: &str,
    model: &Model,
    query: Result<Parameters, ApiError>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Some(classifier) = model.classifier() else {
        let message = format!(
            "the package of model {name:?} has no model.yaml that says how to classify images: \
             add one, or send tensors to /v2/models/{name}/infer"
        );
        return Err(ApiError::bad_request(message));
    };
    let top_k = top_k(&query?, classifier)?;
    refuse_forms(headers)?;
    let image = api.budget.read(headers, body).await?;
    model.metrics().request_bytes.inc_by(image.bytes.len() as u64);
    let steps = Arc::clone(classifier);
    let prepare = Box::new(move || {
        let inputs = steps.inputs(&image.bytes);
        drop(image);
        inputs
    });
    let completed = model
        .run(prepare, vec![classifier.output()], RunOptions::default())
        .await?;
    let scores = completed
        .outputs
        .first()
        .ok_or_else(|| ApiError::internal("the model returned no output"))?;
    let predictions = classifier.answer(scores, top_k).map_err(ApiError::internal)?;
    let timing = server_timing(completed.timing);
    Ok((
        [timing],
        Json(Answer {
            model: name,
            predictions,
        }),
    )
        .into_response())
}

fn top_k(query: &Parameters, classifier: &ImageClassifier) -> Result<usize, ApiError> {
    if let Some(unknown) = query.keys().find(|key| *key != "top_k") {
        return Err(ApiError::bad_request(format!(
            "the query parameter {unknown:?} is not known, there is: top_k"
        )));
    }
    let Some(text) = query.get("top_k") else {
        return Ok(classifier.top_k());
    };
    let classes = classifier.classes();
    text.parse()
        .ok()
        .filter(|top_k| (1..=classes).contains(top_k))
        .ok_or_else(|| {
            ApiError::bad_request(format!(
                "top_k is {text:?}, it must be a number from 1 to {classes}"
            ))
        })
}

/// The image's own first bytes say what it is, whatever the Content-Type: `curl --data-binary` sends that of
/// a form. But a form really sent by a browser has other bytes around the image.
fn refuse_forms(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if content_type.starts_with("multipart/") {
        let message = "the body must be the image itself, not a form: curl --data-binary @photo.jpg URL";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(())
}
