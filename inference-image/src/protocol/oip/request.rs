//! An inference request: which tensors it holds, where their bytes are, and which outputs it wants.

use crate::engine::Signature;
use crate::protocol::infer::{self, Draft, Input, Wishes};
use crate::tensor::{DataType, element_count};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A request and what is echoed of it.
pub(super) struct Parsed {
    /// The request's identifier.
    pub(super) id: Option<String>,
    /// What it asks for.
    pub(super) request: infer::Request,
}

#[derive(Deserialize)]
struct Request<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: RequestParameters,
    #[serde(borrow)]
    inputs: Vec<RequestInput<'a>>,
    #[serde(borrow, default)]
    outputs: Vec<RequestOutput<'a>>,
}

#[derive(Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    priority: u64,
}

#[derive(Deserialize)]
struct RequestInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: InputParameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    binary_data_size: Option<usize>,
}

#[derive(Deserialize)]
struct RequestOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
}

/// Reads the JSON part of a body, and fits it to the model.
pub(super) fn parse(
    body: &Bytes,
    header_length: Option<usize>,
    signature: &Signature,
) -> Result<Parsed, String> {
    let header_length = header_length.unwrap_or(body.len());
    if header_length > body.len() {
        return Err(format!(
            "Inference-Header-Content-Length is {header_length}, but the body has only {} bytes",
            body.len()
        ));
    }
    let json = body.slice(..header_length);
    let mut binary = body.slice(header_length..);
    let request: Request = serde_json::from_slice(&json)
        .map_err(|error| format!("the request is no valid JSON of an inference request: {error}"))?;
    let mut draft = Draft::new(signature);
    for given in request.inputs {
        // In the request's order: that is the order of the bytes.
        give(&mut draft, given, &json, &mut binary)?;
    }
    if !binary.is_empty() {
        return Err(format!(
            "{} bytes follow the last tensor; check each binary_data_size",
            binary.len()
        ));
    }
    let parameters = request.parameters;
    for output in &request.outputs {
        let binary = output.parameters.binary_data;
        draft.want(&output.name, binary.unwrap_or(parameters.binary_data_output))?;
    }
    Ok(Parsed {
        id: request.id,
        request: draft.finish(parameters.binary_data_output, parameters.wishes())?,
    })
}

impl RequestParameters {
    fn wishes(&self) -> Wishes {
        let mut wishes = Wishes::default();
        wishes.set_timeout(self.timeout);
        wishes.set_priority(self.priority);
        wishes
    }
}

fn give(draft: &mut Draft<'_>, given: RequestInput, json: &Bytes, binary: &mut Bytes) -> Result<(), String> {
    let (name, shape) = (&*given.name, given.shape);
    let (index, datatype) = draft.input(name, &given.datatype, &shape)?;
    let input = match (given.data, given.parameters.binary_data_size) {
        (Some(data), None) => Input::Json {
            name: name.to_owned(),
            datatype,
            shape,
            json: json.slice_ref(data.get().as_bytes()),
        },
        (None, Some(size)) => {
            let bytes = take(binary, size, name, datatype, &shape)?;
            Input::wire(name, datatype, shape, bytes)?
        }
        (None, None) => return Err(format!("input {name:?} has neither data nor binary_data_size")),
        (Some(_), Some(_)) => return Err(format!("input {name:?} has both data and binary_data_size")),
    };
    draft.give(index, input);
    Ok(())
}

fn take(
    binary: &mut Bytes,
    size: usize,
    name: &str,
    datatype: DataType,
    shape: &[i64],
) -> Result<Bytes, String> {
    let wanted = element_count(shape).and_then(|count| count.checked_mul(datatype.size()?));
    if wanted != Some(size) && datatype != DataType::Bytes {
        return Err(format!(
            "input {name:?} has binary_data_size {size}, {} of shape {shape:?} takes {} bytes",
            datatype.name(),
            wanted.unwrap_or(usize::MAX)
        ));
    }
    if size > binary.len() {
        return Err(format!(
            "input {name:?} has binary_data_size {size}, but only {} bytes are left in the body \
             (is Inference-Header-Content-Length set?)",
            binary.len()
        ));
    }
    Ok(binary.split_to(size))
}
