//! Requests that are posted to a model under its name and a verb: `/v1/models/NAME:VERB`, and below `/v2`.

use crate::protocol::api::Api;
use crate::protocol::body::Encoding;
use crate::protocol::body::compression::compressed;
use crate::protocol::error::ApiError;
use crate::protocol::images::{self, Parameters};
use crate::protocol::inference::request::{Answered, Target, deadline, measured};
use crate::protocol::{kserve_v1, oip};
use crate::scheduling::RunOptions;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Instant;

const VERBS: [&str; 2] = ["predict", "classify"];

/// Whether the model is ready.
pub(crate) async fn ready(state: State<Arc<Api>>, target: Target, method: Method, uri: Uri) -> Response {
    match refused(&target, &method, &uri) {
        Some(refused) => refused,
        None => oip::model_ready(state, target).await.into_response(),
    }
}

/// The model's description.
pub(crate) async fn described(state: State<Arc<Api>>, target: Target, method: Method, uri: Uri) -> Response {
    match refused(&target, &method, &uri) {
        Some(refused) => refused,
        None => oip::model(state, target).await.into_response(),
    }
}

/// Refuses other methods than POST where a verb follows the name.
fn refused(target: &Target, method: &Method, uri: &Uri) -> Option<Response> {
    let (_, verb) = target.model().rsplit_once(':')?;
    if !VERBS.contains(&verb) {
        return None;
    }
    let message = format!("{method} is not allowed at {}: use POST", uri.path());
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message);
    Some(([(header::ALLOW, "POST")], error).into_response())
}

pub(crate) async fn post(
    State(api): State<Arc<Api>>,
    target: Target,
    query: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let (Parts { headers, .. }, body) = request.into_parts();
    let target = target.model();
    let (name, verb) = target.rsplit_once(':').unwrap_or((target, ""));
    if !VERBS.contains(&verb) {
        return Err(ApiError::not_found(format!(
            "cannot POST to {target:?}, only to {name}:predict and {name}:classify"
        )));
    }
    let named = api.wanted(name, "")?;
    let work = async {
        let options = RunOptions {
            deadline: deadline(&headers, arrived)?,
            ..RunOptions::default()
        };
        let answer = if verb == "predict" {
            kserve_v1::predict(&api, named, options, &headers, body).await?
        } else {
            let query = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
            images::classify(&api, named, options, &query, &headers, body).await?
        };
        let started = Instant::now();
        let Answered { value, timing } = answer;
        let response = compressed(value, Encoding::accepted(&headers)).await?;
        Ok(Answered::new(response, timing, started))
    };
    Ok(measured(named.model.metrics(), work).await)
}
