//! An inference request: JSON, or JSON followed by the bytes of its tensors.

use crate::engine::Signature;
use crate::protocol::inference::{self, Input, RequestBuilder, Urgency};
use crate::protocol::json::limited::Limited;
use crate::protocol::json::{Extracted, Location, extract, syntax_error};
use crate::tensor::{DataType, element_count};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Maximum number of inputs or outputs of a request: far more than a model has.
const MAX_TENSORS: usize = 1024;
/// Maximum number of dimensions of a shape.
const MAX_RANK: usize = 64;
/// Maximum number of parameters of a request that are echoed.
const MAX_PARAMETERS: usize = 1024;

/// Where the lists of numbers are.
const INPUT_DATA: Location<'_> = Location {
    within: Some("inputs"),
    depth: 3,
    keys: &["data"],
    most: MAX_TENSORS,
};

/// A request, and what is echoed from it.
pub(crate) struct Parsed {
    /// Echoed.
    pub(super) echo: Echo,
    /// The inference that it requests.
    pub(crate) request: inference::Request,
}

/// What is echoed in the response, as JSON.
#[derive(Default)]
pub(super) struct Echo {
    /// The request's identifier.
    pub(super) id: Option<String>,
    /// Its parameters that have no meaning for this server.
    pub(super) parameters: Option<String>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parameters: Parameters<'a>,
    #[serde(borrow)]
    inputs: Limited<RequestInput<'a>, MAX_TENSORS>,
    #[serde(borrow, default)]
    outputs: Limited<RequestOutput<'a>, MAX_TENSORS>,
}

#[derive(Deserialize)]
struct RequestInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Limited<i64, MAX_RANK>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: InputParameters,
    /// The index of the extracted value.
    data: Option<usize>,
}

#[derive(Default, Deserialize)]
struct InputParameters {
    binary_data_size: Option<usize>,
    shared_memory_region: Option<IgnoredAny>,
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
    classification: Option<usize>,
    shared_memory_region: Option<IgnoredAny>,
}

/// Parameters of the request as a whole.
#[derive(Default)]
struct Parameters<'a> {
    binary_data_output: bool,
    urgency: Urgency,
    others: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Parameters<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Parameters<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parameters = Parameters::default();
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "binary_data_output" => parameters.binary_data_output = map.next_value()?,
                        "timeout" => parameters.urgency.set_timeout(map.next_value()?),
                        "priority" => parameters.urgency.set_priority(map.next_value()?),
                        // Only stateful models have sequences, which this server does not support.
                        "sequence_id" | "sequence_start" | "sequence_end" => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        _ if parameters.others.len() == MAX_PARAMETERS => {
                            let problem = format!("there are more than {MAX_PARAMETERS} parameters");
                            return Err(A::Error::custom(problem));
                        }
                        _ => parameters.others.push((key, map.next_value()?)),
                    }
                }
                Ok(parameters)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// A key, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the JSON part of a body, and checks it against the model.
///
/// # Errors
/// What is wrong with it.
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
    let extracted = extract(&json, INPUT_DATA);
    let request: Request =
        serde_json::from_slice(&extracted.rest).map_err(|error| explain(&error, &extracted, &json))?;
    let mut builder = RequestBuilder::new(signature);
    for given in request.inputs.0 {
        let data = given.data.map(|index| extracted.values.get(index).cloned());
        let data = data.map(|range| range.map(|range| json.slice(range)));
        // In the order of the request: that is also the order of the bytes.
        give(
            &mut builder,
            given,
            data.map(Option::unwrap_or_default),
            &mut binary,
        )?;
    }
    if !binary.is_empty() {
        return Err(format!(
            "{} bytes follow the last tensor; check each binary_data_size",
            binary.len()
        ));
    }
    let parameters = &request.parameters;
    for output in &request.outputs.0 {
        want(&mut builder, output, parameters.binary_data_output)?;
    }
    Ok(Parsed {
        echo: echo(request.id, &parameters.others)?,
        request: builder.finish(parameters.binary_data_output, parameters.urgency)?,
    })
}

/// Explains an error without its position: that refers to the text without its lists, not to the client's text.
fn explain(error: &serde_json::Error, extracted: &Extracted<'_>, json: &[u8]) -> String {
    // The client's full text gives a better description of the problem.
    if let Some(problem) = syntax_error(json) {
        return format!("the request is not valid JSON: {problem}");
    }
    let text = error.to_string();
    let problem = match text.rsplit_once(" at line ") {
        Some((problem, _)) if !extracted.values.is_empty() => problem,
        _ => &text,
    };
    format!("the request is not an inference request: {problem}")
}

fn echo(id: Option<&RawValue>, others: &[(Cow<'_, str>, &RawValue)]) -> Result<Echo, String> {
    let id = id.map(RawValue::get).filter(|id| *id != "null");
    if id.is_some_and(|id| !id.starts_with('"')) {
        return Err("id must be a string".to_owned());
    }
    let parameters = (!others.is_empty()).then(|| {
        let pairs = others.iter();
        let pairs: Vec<String> = pairs
            .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(&**key)))
            .collect();
        format!("{{{}}}", pairs.join(","))
    });
    Ok(Echo {
        id: id.map(str::to_owned),
        parameters,
    })
}

fn give(
    builder: &mut RequestBuilder<'_>,
    given: RequestInput<'_>,
    data: Option<Bytes>,
    binary: &mut Bytes,
) -> Result<(), String> {
    let (name, shape) = (&*given.name, given.shape.0);
    if given.parameters.shared_memory_region.is_some() {
        return Err(inference::no_shared_memory("input", name));
    }
    let (index, datatype) = builder.input(name, &given.datatype, &shape)?;
    let data = data.filter(|data| data != "null");
    let input = match (data, given.parameters.binary_data_size) {
        (Some(json), None) => Input::Json {
            name: name.to_owned(),
            datatype,
            shape,
            json,
        },
        (None, Some(size)) => {
            let bytes = take(binary, size, name, datatype, &shape)?;
            Input::wire(name, datatype, shape, bytes)?
        }
        (None, None) => return Err(format!("input {name:?} has neither data nor binary_data_size")),
        (Some(_), Some(_)) => return Err(format!("input {name:?} has both data and binary_data_size")),
    };
    builder.give(index, input);
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
            "input {name:?} has binary_data_size {size}, but {} of shape {shape:?} takes {} bytes",
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

fn want(builder: &mut RequestBuilder<'_>, output: &RequestOutput<'_>, binary: bool) -> Result<(), String> {
    let OutputParameters {
        binary_data,
        classification,
        shared_memory_region,
    } = &output.parameters;
    if shared_memory_region.is_some() {
        return Err(inference::no_shared_memory("output", &output.name));
    }
    builder.want(&output.name, binary_data.unwrap_or(binary), *classification)
}
