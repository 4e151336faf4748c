//! Requests over gRPC.

use modelservice_server::protocol::proto::ModelInferRequest;
use modelservice_server::protocol::proto::model_infer_request::InferInputTensor;

/// A request of the model `m`, whose input `x` is one byte.
pub(crate) fn one_byte(number: u8) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "UINT8".to_owned(),
            shape: vec![1],
            ..Default::default()
        }],
        raw_input_contents: vec![vec![number].into()],
        ..Default::default()
    }
}
