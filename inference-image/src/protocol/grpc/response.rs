//! A `ModelInferResponse`: its head, then each tensor as bytes that are sent from where they are.

use crate::engine::Signature;
use crate::protocol::inference::Answer;
use crate::protocol::names::MODEL_VERSION;
use crate::protocol::proto::ModelInferResponse;
use crate::protocol::proto::model_infer_response::InferOutputTensor;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Field of the parameters, in the request and in the response.
const PARAMETERS: u32 = 4;
/// Field of the tensors.
const RAW_OUTPUT_CONTENTS: u32 = 6;

/// The message in parts.
pub(super) fn encode<'a>(
    model: &str,
    id: &str,
    parameters: impl Iterator<Item = &'a [u8]>,
    signature: &Signature,
    answer: Answer,
) -> Vec<Bytes> {
    let outputs = answer.outputs.iter().map(|(output, tensor)| InferOutputTensor {
        name: signature.outputs[output.index].name.clone(),
        datatype: tensor.datatype().name().to_owned(),
        shape: tensor.shape().to_vec(),
        ..Default::default()
    });
    let head = ModelInferResponse {
        model_name: model.to_owned(),
        model_version: MODEL_VERSION.to_owned(),
        id: id.to_owned(),
        outputs: outputs.collect(),
        ..Default::default()
    };
    let mut bytes = BytesMut::from(head.encode_to_vec().as_slice());
    for parameter in parameters {
        encode_key(PARAMETERS, WireType::LengthDelimited, &mut bytes);
        encode_varint(parameter.len() as u64, &mut bytes);
        bytes.put_slice(parameter);
    }
    let mut parts = Vec::with_capacity(answer.outputs.len() * 2);
    for (_, tensor) in answer.outputs {
        let raw = tensor.to_wire();
        encode_key(RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, &mut bytes);
        encode_varint(raw.len() as u64, &mut bytes);
        if raw.len() < SMALL {
            bytes.put_slice(&raw);
        } else {
            parts.push(bytes.split().freeze());
            parts.push(raw);
        }
    }
    parts.push(bytes.freeze());
    parts
}

/// A tensor below this size is copied next to the other fields: a separate part would cost more.
const SMALL: usize = 16 << 10;
