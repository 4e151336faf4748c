//! How a model is asked: paths, and commands that can be copied. They send the inputs that the model was tried with.

use crate::engine::{Port, Signature};
use crate::models::Inspected;
use crate::tensor::{DataType, Tensor};
use modelservice_contract::HTTP_PORT;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A request with more elements is not readable as JSON: they are sent as bytes.
const MOST_WRITTEN: usize = 32;
const GRPC: &str = "inference.GRPCInferenceService";

/// How a model is asked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Requests {
    /// Path of the Open Inference Protocol (version 2).
    pub(super) infer_path: String,
    /// The same over gRPC: service and call.
    pub(super) grpc: String,
    /// For images, if the package has a `model.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) images: Option<Images>,
    /// Starts a server for this package alone.
    pub(super) serve: String,
    /// Sends inputs to that server.
    pub(super) infer: String,
    /// Whether the model has accepted these inputs; otherwise they are made up.
    pub(super) is_tried: bool,
}

/// How a model is asked about images.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Images {
    /// The path.
    pub(super) classify_path: String,
    /// Sends an image to a server.
    pub(super) classify: String,
    /// How many classes the model knows.
    pub(super) classes: usize,
    /// How many of them an answer has unless the request says otherwise.
    pub(super) top_k: usize,
    /// Whether the images of one form go through the model together.
    pub(super) takes_batches: bool,
}

impl Requests {
    pub(super) fn new(model: &Inspected, folder: &str) -> Self {
        let name = &model.report.name;
        let host = format!("http://localhost:{HTTP_PORT}");
        let infer_path = format!("/v2/models/{name}/infer");
        let images = model.classifier.as_ref().map(|classifier| {
            let classify_path = format!("/v1/models/{name}:classify");
            Images {
                classify: format!(
                    "curl --data-binary @image.jpg {}",
                    quoted(&format!("{host}{classify_path}"))
                ),
                classify_path,
                classes: classifier.classes(),
                top_k: classifier.top_k(),
                takes_batches: classifier.takes_batches(),
            }
        });
        let made_up = || smallest(&model.signature);
        let row = model.row.clone().or_else(made_up).unwrap_or_default();
        Self {
            infer: infer(&model.signature, &row, &quoted(&format!("{host}{infer_path}"))),
            infer_path,
            grpc: format!("{GRPC}/ModelInfer"),
            images,
            serve: format!(
                "modelservice-server --model {}",
                quoted(&format!("{name}={folder}"))
            ),
            is_tried: model.row.is_some(),
        }
    }
}

/// Zeros of the smallest size.
fn smallest(signature: &Signature) -> Option<Vec<Tensor>> {
    let zeros = |port: &Port| {
        let shape = port
            .told_shape()
            .into_iter()
            .map(|size| if size < 0 { 1 } else { size });
        Tensor::zeros(port.datatype, shape.collect())
    };
    signature.inputs.iter().map(zeros).collect()
}

fn infer(signature: &Signature, row: &[Tensor], url: &str) -> String {
    let is_short = row.iter().map(Tensor::len).sum::<usize>() <= MOST_WRITTEN;
    let written: Option<Vec<Value>> = row.iter().map(written).collect();
    let kept = if has_no_json(&signature.outputs) {
        " --output answer"
    } else {
        ""
    };
    match written.filter(|_| is_short) {
        Some(written) => {
            let request = request(signature, row, |index, _| ("data", written[index].clone()));
            format!("curl {url}{kept} --data {}", quoted(&request))
        }
        None => {
            let size = |_, tensor: &Tensor| ("parameters", json!({"binary_data_size": tensor.wire_len()}));
            let request = request(signature, row, size);
            let data = row.iter().fold(String::new(), |mut data, tensor| {
                // Writing to a string cannot fail.
                let _ = write!(data, "; {}", bytes(tensor));
                data
            });
            format!(
                "(printf %s {}{data}) |\n  curl {url}{kept} --header 'Inference-Header-Content-Length: {}' --data-binary @-",
                quoted(&request),
                request.len()
            )
        }
    }
}

/// Whether an output can only be returned as bytes.
fn has_no_json(outputs: &[Port]) -> bool {
    outputs
        .iter()
        .any(|port| matches!(port.datatype, DataType::Fp16 | DataType::Bf16))
}

fn request(
    signature: &Signature,
    row: &[Tensor],
    content: impl Fn(usize, &Tensor) -> (&'static str, Value),
) -> String {
    let inputs = signature
        .inputs
        .iter()
        .zip(row)
        .enumerate()
        .map(|(index, (port, tensor))| {
            let (key, value) = content(index, tensor);
            json!({"name": port.name, "datatype": port.datatype.name(), "shape": tensor.shape(), key: value})
        });
    let mut request = json!({"inputs": inputs.collect::<Vec<_>>()});
    if has_no_json(&signature.outputs) {
        request["parameters"] = json!({"binary_data_output": true});
    }
    request.to_string()
}

/// The elements in JSON, for types that have such a form. All are the same: 0 or 1.
fn written(tensor: &Tensor) -> Option<Value> {
    let is_one = tensor.to_wire().iter().any(|&byte| byte != 0);
    let element = match tensor.datatype() {
        DataType::Fp16 | DataType::Bf16 => return None,
        DataType::Bool => json!(is_one),
        DataType::Bytes => json!(if is_one { "1" } else { "" }),
        _ => json!(u8::from(is_one)),
    };
    Some(Value::Array(vec![element; tensor.len()]))
}

/// A command that prints the elements as bytes.
fn bytes(tensor: &Tensor) -> String {
    let wire = tensor.to_wire();
    if wire.iter().all(|&byte| byte == 0) {
        return format!("head -c {} /dev/zero", wire.len());
    }
    let size = wire.len() / tensor.len().max(1);
    let element = wire[..size].iter().fold(String::new(), |mut element, byte| {
        let _ = write!(element, "\\{byte:03o}");
        element
    });
    format!("printf '{element}%.0s' $(seq {})", tensor.len())
}

/// For a shell.
fn quoted(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=@,+".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
