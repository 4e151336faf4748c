//! `GET /openapi.json`: the paths of the HTTP port, with the models of this server. The description is
//! `openapi.yaml`; the parts that depend on the models are added here.

use crate::models::{Model, Service, VERSION};
use crate::protocol::api::Api;
use crate::protocol::docs::examples;
use crate::protocol::error::ApiError;
use axum::Json;
use axum::extract::State;
use modelservice_contract::TensorSpec;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

/// The description without models.
static DESCRIPTION: LazyLock<Result<Value, String>> = LazyLock::new(|| {
    let document = serde_saphyr::from_str(include_str!("openapi.yaml"));
    let mut document: Value = document.map_err(|error| error.to_string())?;
    add_versions(&mut document);
    Ok(document)
});

/// A path with this mark also exists with the model's version in it.
const VERSIONED: &str = "x-versioned";
const MODEL: &str = "/v2/models/{model}";

/// Requests with more elements are not used as examples.
const MAX_EXAMPLE_ELEMENTS: usize = 1000;

pub(crate) async fn document(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let mut document = DESCRIPTION.clone().map_err(ApiError::internal)?;
    document["info"]["version"] = json!(VERSION);
    let service = &*api.service;
    let parameters = &mut document["components"]["parameters"];
    choose(&mut parameters["Model"]["schema"], service.names());
    let classifies = |name: &&str| {
        service
            .model(name)
            .is_some_and(|model| model.classifier().is_some())
    };
    choose(
        &mut parameters["Classifier"]["schema"],
        service.names().filter(classifies),
    );
    let bodies = &mut document["components"]["requestBodies"];
    if let Some(text) = bodies["Tensors"]["description"].as_str() {
        bodies["Tensors"]["description"] = json!(format!("{text}\n{}", signatures(service)));
    }
    for (body, request) in [
        ("Tensors", examples::infer as Example),
        ("Predict", examples::predict),
    ] {
        bodies[body]["content"]["application/json"]["examples"] = Value::Object(requests(service, request));
    }
    Ok(Json(document))
}

/// Describes the paths with a version like those without.
fn add_versions(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    let mut versioned = Map::new();
    for (path, item) in paths.iter_mut() {
        let Some(fields) = item.as_object_mut() else {
            continue;
        };
        if fields.remove(VERSIONED).is_none() {
            continue;
        }
        let mut fields = fields.clone();
        for (key, field) in &mut fields {
            if let Some(parameters) = field.as_array_mut().filter(|_| key == "parameters") {
                parameters.push(json!({"$ref": "#/components/parameters/Version"}));
            } else if let Some(name) = field["operationId"].as_str() {
                field["operationId"] = json!(format!("{name}OfVersion"));
            }
        }
        let path = path.replacen(MODEL, &format!("{MODEL}/versions/{{version}}"), 1);
        versioned.insert(path, Value::Object(fields));
    }
    paths.extend(versioned);
}

/// Restricts the schema to these names. Without names the schema stays as it is, since an `enum` cannot be empty.
fn choose<'a>(schema: &mut Value, names: impl Iterator<Item = &'a str>) {
    let names: Vec<&str> = names.collect();
    if !names.is_empty() {
        schema["enum"] = json!(names);
    }
}

/// Inputs and outputs of every model, in Markdown.
fn signatures(service: &Service) -> String {
    let mut text = String::from("| Model | Inputs | Outputs |\n|---|---|---|\n");
    for model in &service.report().models {
        let (inputs, outputs) = (tensors(&model.inputs), tensors(&model.outputs));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}` | {inputs} | {outputs} |", model.name);
    }
    text
}

fn tensors(specs: &[TensorSpec]) -> String {
    let tensor = |spec: &TensorSpec| format!("{} {} {:?}", code(&spec.name), spec.datatype, spec.shape);
    specs.iter().map(tensor).collect::<Vec<_>>().join(", ")
}

/// A name from a model's file, in a cell of a table: whatever it contains, it stays in the cell and is not markup.
fn code(name: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "_-./: ".contains(character);
    let plain = name
        .chars()
        .map(|character| if is_plain(character) { character } else { '?' });
    format!("`{}`", plain.collect::<String>())
}

/// A request for a model with at most this many elements.
type Example = fn(&Model, usize) -> Option<Value>;

/// A request for each model, if it is short.
fn requests(service: &Service, request: Example) -> Map<String, Value> {
    let named = |name: &str| {
        let request = request(service.model(name)?, MAX_EXAMPLE_ELEMENTS)?;
        let summary = format!("zeros for {name}");
        Some((name.to_owned(), json!({"summary": summary, "value": request})))
    };
    service.names().filter_map(named).collect()
}

#[cfg(test)]
mod tests;
