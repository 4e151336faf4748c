//! An inference response: JSON, or JSON followed by the bytes of the tensors that were asked for so.

use super::HEADER_LENGTH;
use crate::engine::Signature;
use crate::protocol::ApiError;
use crate::protocol::infer::Answer as Tensors;
use crate::tensor::{DataType, Element, Tensor};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::ser::{Error, Serializer};

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<AnswerOutput<'a>>,
}

#[derive(Serialize)]
struct AnswerOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "elements")]
    data: Option<&'a Tensor>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// The answer with these outputs.
pub(super) fn encode(
    model: &str,
    id: Option<&str>,
    signature: &Signature,
    answer: &Tensors,
) -> Result<Response, ApiError> {
    let described = answer.outputs.iter().map(|(output, tensor)| AnswerOutput {
        name: &signature.outputs[output.index].name,
        datatype: tensor.datatype().name(),
        shape: tensor.shape(),
        parameters: output.binary.then(|| Parameters {
            binary_data_size: tensor.wire_len(),
        }),
        data: (!output.binary).then_some(tensor),
    });
    let head = Answer {
        model_name: model,
        id,
        outputs: described.collect(),
    };
    // Only FP16 and BF16 have no JSON form: the client can ask for another.
    let mut body = serde_json::to_vec(&head).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if !answer.outputs.iter().any(|(output, _)| output.binary) {
        return Ok((
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            body,
        )
            .into_response());
    }
    let json_length = body.len();
    for (output, tensor) in &answer.outputs {
        if output.binary {
            body.extend_from_slice(&tensor.to_wire());
        }
    }
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (HEADER_LENGTH, HeaderValue::from(json_length)),
    ];
    Ok((headers, body).into_response())
}

/// Values that JSON has no number for (infinities, not-a-number) become null.
fn elements<S: Serializer>(tensor: &Option<&Tensor>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(tensor) = tensor else {
        return serializer.serialize_none();
    };
    match tensor.datatype() {
        DataType::Bool => list::<bool, S>(tensor, serializer),
        DataType::Uint8 => list::<u8, S>(tensor, serializer),
        DataType::Uint16 => list::<u16, S>(tensor, serializer),
        DataType::Uint32 => list::<u32, S>(tensor, serializer),
        DataType::Uint64 => list::<u64, S>(tensor, serializer),
        DataType::Int8 => list::<i8, S>(tensor, serializer),
        DataType::Int16 => list::<i16, S>(tensor, serializer),
        DataType::Int32 => list::<i32, S>(tensor, serializer),
        DataType::Int64 => list::<i64, S>(tensor, serializer),
        DataType::Fp32 => list::<f32, S>(tensor, serializer),
        DataType::Fp64 => list::<f64, S>(tensor, serializer),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {
            let message = format!(
                "{} has no JSON form: ask for the output with binary_data",
                tensor.datatype().name()
            );
            Err(S::Error::custom(message))
        }
    }
}

fn list<T: Element + Serialize, S: Serializer>(tensor: &Tensor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tensor.elements::<T>().unwrap_or_default())
}
