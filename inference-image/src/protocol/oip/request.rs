//! An inference request: which tensors it holds, where their bytes are, and which outputs it wants.

use super::elements;
use crate::engine::{Port, Signature};
use crate::scheduling::{InputError, InputProblem};
use crate::tensor::{DataType, Tensor, element_count};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A request whose names, types and shapes fit the model.
pub(super) struct Parsed {
    /// Echoed in the answer.
    pub(super) id: Option<String>,
    /// One per input of the model, in its order.
    pub(super) inputs: Vec<Input>,
    /// Outputs to return, in the request's order.
    pub(super) outputs: Vec<Output>,
}

/// An input whose elements have not been read yet.
pub(super) struct Input {
    name: String,
    datatype: DataType,
    shape: Vec<i64>,
    source: Source,
}

enum Source {
    Json(Bytes),
    Binary(Bytes),
}

/// An output and its form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Output {
    /// Index in the signature.
    pub(super) index: usize,
    /// Whether its elements follow the JSON as bytes.
    pub(super) binary: bool,
}

#[derive(Deserialize)]
struct Request<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: RequestParameters,
    #[serde(borrow)]
    inputs: Vec<RequestInput<'a>>,
    #[serde(default)]
    outputs: Vec<RequestOutput>,
}

#[derive(Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
}

#[derive(Deserialize)]
struct RequestInput<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
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
struct RequestOutput {
    name: String,
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
    let mut inputs: Vec<Option<Input>> = signature.inputs.iter().map(|_| None).collect();
    for given in request.inputs {
        let index = position("input", &given.name, &signature.inputs)?;
        let name = given.name.clone();
        // In the request's order: that is the order of the bytes.
        let input = read_input(given, &signature.inputs[index], &json, &mut binary)?;
        if inputs[index].replace(input).is_some() {
            return Err(format!("input {name:?} is given twice"));
        }
    }
    if !binary.is_empty() {
        return Err(format!(
            "{} bytes follow the last tensor; check each binary_data_size",
            binary.len()
        ));
    }
    let given = inputs.into_iter().zip(&signature.inputs);
    let inputs = given.map(|(input, port)| input.ok_or_else(|| format!("input {:?} is missing", port.name)));
    let outputs = choose_outputs(&request.outputs, request.parameters.binary_data_output, signature)?;
    Ok(Parsed {
        id: request.id,
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs,
    })
}

fn position(kind: &str, name: &str, ports: &[Port]) -> Result<usize, String> {
    ports.iter().position(|port| port.name == name).ok_or_else(|| {
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        format!("the model has no {kind} {name:?}, it has: {}", names.join(", "))
    })
}

fn read_input(given: RequestInput, port: &Port, json: &Bytes, binary: &mut Bytes) -> Result<Input, String> {
    let name = given.name;
    let datatype = DataType::parse(&given.datatype)
        .ok_or_else(|| format!("input {name:?} has the unknown datatype {:?}", given.datatype))?;
    port.check(datatype, &given.shape)?;
    let source = match (given.data, given.parameters.binary_data_size) {
        (Some(data), None) => Source::Json(json.slice_ref(data.get().as_bytes())),
        (None, Some(size)) => Source::Binary(take(binary, size, &name, datatype, &given.shape)?),
        (None, None) => return Err(format!("input {name:?} has neither data nor binary_data_size")),
        (Some(_), Some(_)) => return Err(format!("input {name:?} has both data and binary_data_size")),
    };
    Ok(Input {
        name,
        datatype,
        shape: given.shape,
        source,
    })
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

fn choose_outputs(
    wanted: &[RequestOutput],
    binary: bool,
    signature: &Signature,
) -> Result<Vec<Output>, String> {
    if wanted.is_empty() {
        return Ok((0..signature.outputs.len())
            .map(|index| Output { index, binary })
            .collect());
    }
    let mut outputs: Vec<Output> = Vec::with_capacity(wanted.len());
    for output in wanted {
        let index = position("output", &output.name, &signature.outputs)?;
        if outputs.iter().any(|other| other.index == index) {
            return Err(format!("output {:?} is asked for twice", output.name));
        }
        outputs.push(Output {
            index,
            binary: output.parameters.binary_data.unwrap_or(binary),
        });
    }
    Ok(outputs)
}

impl Input {
    /// Reads the elements; not cheap for JSON.
    pub(super) fn tensor(self) -> Result<Tensor, InputError> {
        let tensor = match self.source {
            Source::Json(json) => elements::read(&json, self.datatype, &self.shape),
            Source::Binary(bytes) => {
                Tensor::from_wire(self.datatype, self.shape, bytes).map_err(|error| error.to_string())
            }
        };
        tensor.map_err(|problem| {
            let message = format!("input {:?}: {problem}", self.name);
            InputError {
                problem: InputProblem::Malformed,
                message,
            }
        })
    }
}
