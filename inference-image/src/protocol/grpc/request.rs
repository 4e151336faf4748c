//! A `ModelInferRequest`: read in place, then checked against the model.

use super::contents;
use super::wire::{Fields, Malformed, Value, varint};
use crate::engine::Signature;
use crate::protocol::inference::{Input, Request, RequestBuilder, Urgency, no_shared_memory};
use bytes::Bytes;

/// Field of the tensors that are sent as bytes.
const RAW_INPUT_CONTENTS: u32 = 7;
/// Maximum number of inputs, outputs, parameters or tensors of a request: far more than a model has.
const MAX_ENTRIES: usize = 1024;
/// Maximum number of dimensions of a shape.
const MAX_RANK: usize = 64;

/// Parameter of a tensor that is not in the request.
const SHARED_MEMORY: &str = "shared_memory_region";

/// The parts of a message.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    /// The model's name.
    pub(super) model_name: &'a str,
    /// Its version; may be empty.
    pub(super) model_version: &'a str,
    /// Echoed in the response.
    pub(super) id: &'a str,
    parameters: Vec<&'a [u8]>,
    inputs: Vec<&'a [u8]>,
    outputs: Vec<&'a [u8]>,
    raw: Vec<&'a [u8]>,
    /// The first problem in the message, after the fields above.
    problem: Option<String>,
}

/// The value of a parameter, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parameter {
    Integer(Option<u64>),
    Other,
}

const MALFORMED: &str = "the message is not a valid ModelInferRequest";

impl From<Malformed> for String {
    fn from(_: Malformed) -> Self {
        MALFORMED.to_owned()
    }
}

/// Where the first tensor that is sent as bytes begins in a message, if the beginning `start` of the message shows
/// it; otherwise 0.
pub(crate) fn first_tensor_at(start: &[u8]) -> usize {
    let mut fields = Fields(start);
    while let Ok((number, length)) = fields.announced() {
        if number == RAW_INPUT_CONTENTS {
            return start.len() - fields.rest().len();
        }
        let Some(rest) = fields.rest().get(length.unwrap_or(0)..) else {
            break;
        };
        fields = Fields(rest);
    }
    0
}

impl<'a> Envelope<'a> {
    /// Reads the outermost fields, up to the end or the first error, so that the model of a bad message is known.
    pub(super) fn read(message: &'a [u8]) -> Self {
        let mut envelope = Self::default();
        envelope.problem = envelope.fill(message).err();
        envelope
    }

    fn fill(&mut self, message: &'a [u8]) -> Result<(), String> {
        for field in Fields(message) {
            let (number, value) = field?;
            let list = match number {
                1 => {
                    self.model_name = value.text()?;
                    continue;
                }
                2 => {
                    self.model_version = value.text()?;
                    continue;
                }
                3 => {
                    self.id = value.text()?;
                    continue;
                }
                4 => &mut self.parameters,
                5 => &mut self.inputs,
                6 => &mut self.outputs,
                RAW_INPUT_CONTENTS => &mut self.raw,
                _ => continue,
            };
            if list.len() == MAX_ENTRIES {
                return Err(format!(
                    "the request has more than {MAX_ENTRIES} inputs, outputs or parameters"
                ));
            }
            list.push(value.bytes()?);
        }
        Ok(())
    }

    /// What is wrong with a message that does not even name its model.
    pub(super) fn nameless(&self) -> Option<&str> {
        self.problem.as_deref().filter(|_| self.model_name.is_empty())
    }

    /// Parameters that have no meaning for this server and are echoed: the map's entries as they were sent.
    pub(super) fn echoed(&self) -> impl Iterator<Item = &'a [u8]> {
        let is_known = |entry: &&[u8]| matches!(parameter(entry), Ok((name, _)) if !RESERVED.contains(&name));
        self.parameters.iter().copied().filter(is_known)
    }

    /// Checks the request against the model; its tensors share the memory of `message`.
    ///
    /// # Errors
    /// What does not fit, or is wrong with the message itself.
    pub(super) fn request(&self, message: &Bytes, signature: &Signature) -> Result<Request, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let mut builder = RequestBuilder::new(signature);
        if !self.raw.is_empty() && self.raw.len() != self.inputs.len() {
            return Err(format!(
                "raw_input_contents has {} tensors for {} inputs: it must hold all of them or none",
                self.raw.len(),
                self.inputs.len()
            ));
        }
        for (index, input) in self.inputs.iter().enumerate() {
            let raw = self.raw.get(index).map(|raw| message.slice_ref(raw));
            give(&mut builder, message, input, raw)?;
        }
        for output in &self.outputs {
            want(&mut builder, output)?;
        }
        builder.finish(true, self.urgency()?)
    }

    fn urgency(&self) -> Result<Urgency, String> {
        let mut urgency = Urgency::default();
        for entry in &self.parameters {
            match parameter(entry)? {
                ("timeout", value) => urgency.set_timeout(value.integer("timeout")?),
                ("priority", value) => urgency.set_priority(value.integer("priority")?),
                _ => {}
            }
        }
        Ok(urgency)
    }
}

/// Parameters that have a meaning for this server or for Triton's clients.
const RESERVED: [&str; 7] = [
    "timeout",
    "priority",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "binary_data_output",
    "triton_enable_empty_final_response",
];

impl Parameter {
    fn integer(self, name: &str) -> Result<u64, String> {
        match self {
            Self::Integer(Some(value)) => Ok(value),
            _ => Err(format!("the parameter {name:?} must be a non-negative integer")),
        }
    }
}

/// An entry of a map of parameters.
fn parameter(entry: &[u8]) -> Result<(&str, Parameter), Malformed> {
    let (mut name, mut parameter) = ("", Parameter::Other);
    for field in Fields(entry) {
        match field? {
            (1, value) => name = value.text()?,
            (2, value) => {
                for field in Fields(value.bytes()?) {
                    parameter = match field? {
                        (2, Value::Varint(value)) => {
                            Parameter::Integer(i64::try_from(value).is_ok().then_some(value))
                        }
                        (5, Value::Varint(value)) => Parameter::Integer(Some(value)),
                        _ => Parameter::Other,
                    };
                }
            }
            _ => {}
        }
    }
    Ok((name, parameter))
}

fn give(
    builder: &mut RequestBuilder<'_>,
    message: &Bytes,
    input: &[u8],
    raw: Option<Bytes>,
) -> Result<(), String> {
    let (mut name, mut datatype, mut shape, mut elements) = ("", "", Vec::new(), None);
    let mut shared = false;
    for field in Fields(input) {
        match field? {
            (1, value) => name = value.text()?,
            (2, value) => datatype = value.text()?,
            (3, value) => dimensions(value, &mut shape)?,
            (4, value) => shared |= parameter(value.bytes()?)?.0 == SHARED_MEMORY,
            (5, value) => elements = Some(value.bytes()?),
            _ => {}
        }
    }
    if shared {
        return Err(no_shared_memory("input", name));
    }
    let (index, datatype) = builder.input(name, datatype, &shape)?;
    let input = match (raw, elements.filter(|elements| !elements.is_empty())) {
        (Some(raw), None) => Input::wire(name, datatype, shape, raw)?,
        (None, Some(elements)) => contents::read(message, elements, datatype, shape)
            .map(Input::Ready)
            .map_err(|problem| format!("input {name:?}: {problem}"))?,
        (None, None) => {
            return Err(format!(
                "input {name:?} has neither contents nor raw_input_contents"
            ));
        }
        (Some(_), Some(_)) => return Err(format!("input {name:?} has both contents and raw_input_contents")),
    };
    builder.give(index, input);
    Ok(())
}

fn want(builder: &mut RequestBuilder<'_>, output: &[u8]) -> Result<(), String> {
    let (mut name, mut classes, mut shared) = ("", None, false);
    for field in Fields(output) {
        match field? {
            (1, value) => name = value.text()?,
            (2, value) => match parameter(value.bytes()?)? {
                ("classification", count) => classes = Some(count.integer("classification")?),
                (key, _) => shared |= key == SHARED_MEMORY,
            },
            _ => {}
        }
    }
    if shared {
        return Err(no_shared_memory("output", name));
    }
    let classes = classes.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    builder.want(name, true, classes)
}

#[allow(clippy::cast_possible_wrap)]
fn dimensions(value: Value<'_>, shape: &mut Vec<i64>) -> Result<(), String> {
    let mut push = |dimension: u64| {
        if shape.len() == MAX_RANK {
            return Err(format!("a shape has more than {MAX_RANK} dimensions"));
        }
        shape.push(dimension as i64);
        Ok(())
    };
    match value {
        Value::Varint(dimension) => push(dimension),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                push(varint(&mut packed)?)?;
            }
            Ok(())
        }
        _ => Err(MALFORMED.to_owned()),
    }
}
