//! Inputs that each model accepts, for requests that can be copied from the page and from `/openapi.json`.

use crate::engine::Port;
use crate::models::Model;
use crate::tensor::{DataType, element_count};
use modelservice_contract::TensorSpec;
use serde_json::{Map, Value, json};

/// The inputs of the model in a size that it accepts. A dimension of unknown size is 1.
pub(crate) fn inputs(model: &Model) -> Vec<TensorSpec> {
    let image = model.classifier().and_then(|classifier| classifier.blank());
    let sized = |(index, port): (usize, &Port)| {
        let mut spec = port.spec();
        match image.as_ref().and_then(|inputs| inputs.get(index)) {
            Some(image) => spec.shape = image.shape().to_vec(),
            None => spec.shape.iter_mut().for_each(|size| *size = (*size).abs()),
        }
        spec
    };
    model.signature().inputs.iter().enumerate().map(sized).collect()
}

/// A request of the Open Inference Protocol with zeros, if it is short and the model has a JSON form.
pub(crate) fn infer(model: &Model, max_elements: usize) -> Option<Value> {
    let inputs = zeros(model, max_elements)?.into_iter().map(|(input, zero)| {
        let data = vec![zero; element_count(&input.shape).unwrap_or_default()];
        let TensorSpec {
            name,
            datatype,
            shape,
        } = input;
        json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
    });
    Some(json!({ "inputs": inputs.collect::<Vec<_>>() }))
}

/// The same in KServe's version 1, by columns.
pub(crate) fn predict(model: &Model, max_elements: usize) -> Option<Value> {
    let nested = |(input, zero): (TensorSpec, Value)| {
        let list = |inner: Value, &size: &i64| json!(vec![inner; usize::try_from(size).unwrap_or_default()]);
        (input.name, input.shape.iter().rev().fold(zero, list))
    };
    let columns: Map<String, Value> = zeros(model, max_elements)?.into_iter().map(nested).collect();
    Some(json!({ "inputs": columns }))
}

/// The inputs and an element of each, if they are short and the model has a JSON form.
fn zeros(model: &Model, max_elements: usize) -> Option<Vec<(TensorSpec, Value)>> {
    let signature = model.signature();
    let is_binary = |port: &Port| matches!(port.datatype, DataType::Fp16 | DataType::Bf16);
    if signature.inputs.iter().chain(&signature.outputs).any(is_binary) {
        return None;
    }
    let mut left = max_elements;
    let zero = |input: TensorSpec| {
        left = left.checked_sub(element_count(&input.shape)?)?;
        let zero = match input.datatype.as_str() {
            "BOOL" => json!(false),
            "BYTES" => json!(""),
            "FP32" | "FP64" => json!(0.0),
            _ => json!(0),
        };
        Some((input, zero))
    };
    inputs(model).into_iter().map(zero).collect()
}
