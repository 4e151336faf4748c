//! `POST /v1/models/{model}:classify` (and below `/v2`): takes an image as the body, or a form with several images,
//! and returns labelled classes.

mod multipart;

use crate::image::classifier::{ImageClassifier, Prediction};
use crate::models::Model;
use crate::protocol::api::{Api, Named};
use crate::protocol::body::{ReadOptions, Received};
use crate::protocol::error::ApiError;
use crate::protocol::error::Quoted;
use crate::protocol::inference;
use crate::protocol::inference::request::{Answered, server_timing};
use crate::scheduling::{RunOptions, Timing};
use crate::tensor::{InputError, Tensor};
use axum::Json;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The query of a request.
pub(crate) type Parameters = BTreeMap<String, String>;

/// The response to an image as the body.
#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    predictions: Vec<Prediction>,
}

/// The response to a form.
#[derive(Serialize)]
struct FormAnswer<'a> {
    model: &'a str,
    results: Vec<FormResult>,
}

#[derive(Serialize)]
struct FormResult {
    name: String,
    predictions: Vec<Prediction>,
}

pub(super) async fn classify(
    api: &Api,
    named: Named<'_>,
    options: RunOptions,
    query: &Parameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answered<Response>, ApiError> {
    let Named { name, model, .. } = named;
    let Some(classifier) = model.classifier() else {
        let message = format!(
            "the package of model {name:?} has no model.yaml that says how to classify images: add one, or \
             send tensors to /v2/models/{name}/infer"
        );
        return Err(ApiError::bad_request(message));
    };
    let top_k = top_k(query, classifier)?;
    let boundary = multipart::boundary(headers)?;
    inference::admit(model, &options)?;
    let wanted = ReadOptions {
        deadline: options.deadline,
        ..ReadOptions::default()
    };
    let mut body = api.budget.read(headers, body, wanted).await?;
    model.metrics().request_bytes.inc_by(body.bytes.len() as u64);
    let request = Request {
        name,
        model,
        classifier,
        top_k,
        options,
    };
    let Some(boundary) = boundary else {
        return request.image(body).await;
    };
    let max = api.service.limits().max_images_per_request as usize;
    let parts = multipart::parts(std::mem::take(&mut body.bytes), boundary, max).await?;
    request.form(parts, body).await
}

/// A classification and its model.
struct Request<'a> {
    name: &'a str,
    model: &'a Model,
    classifier: &'a Arc<ImageClassifier>,
    top_k: usize,
    options: RunOptions,
}

impl Request<'_> {
    async fn image(&self, mut body: Received) -> Result<Answered<Response>, ApiError> {
        let images = Images {
            images: vec![std::mem::take(&mut body.bytes)],
            labels: Vec::new(),
            body: Arc::new(body),
        };
        let (mut predictions, timing) = self.run(images).await?;
        let started = Instant::now();
        let answer = Answer {
            model: self.name,
            predictions: predictions.pop().unwrap_or_default(),
        };
        let response = ([server_timing(timing)], Json(answer)).into_response();
        Ok(Answered::new(response, timing, started))
    }

    async fn form(
        &self,
        parts: Vec<multipart::Part>,
        body: Received,
    ) -> Result<Answered<Response>, ApiError> {
        let (names, images): (Vec<_>, Vec<_>) = parts.into_iter().map(|part| (part.name, part.bytes)).unzip();
        let label = |(index, name): (usize, &String)| format!("image {} ({}): ", index + 1, Quoted(name));
        let images = Images {
            images,
            labels: names.iter().enumerate().map(label).collect(),
            body: Arc::new(body),
        };
        let (predictions, timing) = self.run(images).await?;
        let started = Instant::now();
        let result = |(name, predictions)| FormResult { name, predictions };
        let answer = FormAnswer {
            model: self.name,
            results: names.into_iter().zip(predictions).map(result).collect(),
        };
        let response = ([server_timing(timing)], Json(answer)).into_response();
        Ok(Answered::new(response, timing, started))
    }

    /// The results in the order of the images: from one run if the model accepts a batch, else from one run each.
    async fn run(&self, images: Images) -> Result<(Vec<Vec<Prediction>>, Timing), ApiError> {
        if images.images.len() == 1 || self.classifier.takes_batches() {
            return self.run_once(images).await;
        }
        let (mut all, mut total) = (Vec::with_capacity(images.images.len()), Timing::default());
        for image in images.split() {
            let (predictions, timing) = self.run_once(image).await?;
            all.extend(predictions);
            total.queue += timing.queue;
            total.prepare += timing.prepare;
            total.inference += timing.inference;
            total.output += timing.output;
            total.rows = timing.rows;
        }
        Ok((all, total))
    }

    async fn run_once(&self, images: Images) -> Result<(Vec<Vec<Prediction>>, Timing), ApiError> {
        let (steps, count) = (Arc::clone(self.classifier), images.images.len());
        let prepare = Box::new(move || images.inputs(&steps));
        let outputs = vec![self.classifier.output()];
        let mut completed = self.model.run(prepare, outputs, self.options).await?;
        let started = Instant::now();
        let scores = completed
            .outputs
            .first()
            .ok_or_else(|| ApiError::internal("the model returned no output"))?;
        let answers = self.classifier.answers(scores, count, self.top_k);
        completed.timing.output = started.elapsed();
        Ok((answers.map_err(ApiError::internal)?, completed.timing))
    }
}

/// The images of one request.
struct Images {
    images: Vec<Bytes>,
    /// The name of each image in an error; empty if there is only one.
    labels: Vec<String>,
    /// Keeps the reservation of the bytes.
    body: Arc<Received>,
}

impl Images {
    /// One by one.
    fn split(self) -> impl Iterator<Item = Self> {
        let labels = self.labels.into_iter().map(Some).chain(std::iter::repeat(None));
        self.images
            .into_iter()
            .zip(labels)
            .map(move |(image, label)| Self {
                images: vec![image],
                labels: label.into_iter().collect(),
                body: Arc::clone(&self.body),
            })
    }

    /// The model's inputs; the bytes are released before the model runs.
    fn inputs(self, classifier: &ImageClassifier) -> Result<Vec<Tensor>, InputError> {
        classifier
            .inputs(&self.images)
            .map_err(|(index, error)| InputError {
                message: format!("{}{error}", self.labels.get(index).map_or("", String::as_str)),
                ..error
            })
    }
}

fn top_k(query: &Parameters, classifier: &ImageClassifier) -> Result<usize, ApiError> {
    if let Some(unknown) = query.keys().find(|key| *key != "top_k") {
        return Err(ApiError::bad_request(format!(
            "the query parameter {unknown:?} is unknown, the only one is top_k"
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
                "top_k is {text:?}, but must be a number from 1 to {classes}"
            ))
        })
}
