//! Inputs that each model accepts, for requests that can be copied from the page and from `/openapi.json`.

use crate::engine::Port;
use crate::models::Model;
use crate::tensor::{DataType, element_count};
use modelservice_contract::TensorSpec;
use serde_json::{Map, Value, json};

/// Height and width of images for models that accept any size: a small image may shrink to nothing after a few
/// layers.
const SIDE: i64 = 224;
/// The same for inputs that would have more than `MOST` elements.
const SMALL_SIDE: i64 = 32;
const MOST: usize = 1 << 20;
/// An element of `BYTES`: a text that is also a number, for models that parse it.
const TEXT: &str = "0";

/// The inputs of the model in a size that it accepts, or probably accepts if it takes several.
pub(crate) fn inputs(model: &Model) -> Vec<TensorSpec> {
    let image = model.classifier().and_then(|classifier| classifier.blank());
    let sized = |(index, port): (usize, &Port)| {
        let mut spec = port.spec();
        match image.as_ref().and_then(|inputs| inputs.get(index)) {
            Some(image) => spec.shape = image.shape().to_vec(),
            None => spec.shape = sized(&spec.shape),
        }
        spec
    };
    model.signature().inputs.iter().enumerate().map(sized).collect()
}

/// A shape for an input that takes any size in some dimensions.
fn sized(shape: &[i64]) -> Vec<i64> {
    let fits = |shape: &Vec<i64>| element_count(shape).is_some_and(|count| count <= MOST);
    let candidates = [SIDE, SMALL_SIDE].map(|side| with_side(shape, side));
    candidates
        .into_iter()
        .find(fits)
        .unwrap_or_else(|| with_side(shape, 1))
}

/// One row, and images with sides of this length if there are enough dimensions for images.
fn with_side(shape: &[i64], side: i64) -> Vec<i64> {
    let is_free = |index: usize| shape.get(index).is_some_and(|&size| size < 0);
    // Height, width and channels of an image without a batch.
    let is_image = shape.len() == 3 && is_free(0) && is_free(1) && matches!(shape[2], 1 | 3 | 4);
    let size = |(index, &size): (usize, &i64)| match (size, index) {
        (0.., _) => size,
        (_, 0) if !is_image => 1,
        // Of an image that may also have any number of channels.
        (_, 1) if shape.len() == 4 && is_free(2) && is_free(3) => 3,
        _ if shape.len() < 3 => 1,
        _ => side,
    };
    shape.iter().enumerate().map(size).collect()
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
            "BYTES" => json!(TEXT),
            "FP32" | "FP64" => json!(0.0),
            _ => json!(0),
        };
        Some((input, zero))
    };
    inputs(model).into_iter().map(zero).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command copied from the page must work, even if the smallest image is too small.
    #[test]
    fn an_example_is_large_enough_for_images_and_small_enough_to_send() {
        for (shape, expected) in [
            (&[][..], &[][..]),
            (&[-1], &[1]),
            (&[7], &[7]),
            (&[-1, -1], &[1, 1]),
            (&[-1, 0], &[1, 0]),
            (&[-1, 3, -1, -1], &[1, 3, 224, 224]),
            (&[-1, -1, -1, 3], &[1, 224, 224, 3]),
            (&[1, 1, -1, -1], &[1, 1, 224, 224]),
            (&[-1, -1, -1, -1], &[1, 3, 224, 224]),
            (&[3, -1, -1], &[3, 224, 224]),
            (&[-1, -1, 3], &[224, 224, 3]),
            (&[-1, -1, 768], &[1, 224, 768]),
            (&[-1, 3, 32, 32], &[1, 3, 32, 32]),
            (&[-1, 512, -1, -1], &[1, 512, 32, 32]),
            (&[-1, 3, -1, -1, -1], &[1, 3, 32, 32, 32]),
            (&[-1, 65536, -1, -1], &[1, 65536, 1, 1]),
        ] {
            assert_eq!(sized(shape), expected, "{shape:?}");
        }
    }
}
