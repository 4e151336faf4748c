//! Requests: nested lists by rows (`instances`) or by columns (`inputs`), without the names of types or shapes.

use super::objects::{Listener, read_list, read_one};
use crate::engine::{Port, Signature};
use crate::protocol::inference::{Input, Request, RequestBuilder, Urgency, position};
use crate::protocol::json::{self, Location, extract};
use crate::tensor::DataType;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Where the tensors are; a third one is an error, whatever its name.
const TENSORS: Location<'_> = Location {
    within: None,
    depth: 1,
    keys: &["instances", "inputs"],
    most: 3,
};

/// A request whose lists have been extracted and replaced by numbers.
#[derive(Deserialize)]
struct Predict {
    instances: Option<usize>,
    inputs: Option<usize>,
}

/// What to do with tensors that have no JSON form.
pub(super) const VERSION_2: &str =
    "use version 2 of the protocol (/v2/models/NAME/infer), which accepts and returns it as binary data";

/// How tensors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list of instances.
    Rows,
    /// A tensor for each input.
    Columns,
}

pub(crate) fn parse(body: &Bytes, signature: &Signature) -> Result<(Request, Form), String> {
    has_json(signature)?;
    let extracted = extract(body, TENSORS);
    let predict: Predict =
        serde_json::from_slice(&extracted.rest).map_err(|_| match json::syntax_error(body) {
            Some(problem) => format!("the request is not valid JSON: {problem}"),
            None => "the request is not a JSON object with instances or inputs".to_owned(),
        })?;
    let (index, form) = match (predict.instances, predict.inputs) {
        (Some(index), None) => (index, Form::Rows),
        (None, Some(index)) => (index, Form::Columns),
        (Some(_), Some(_)) => return Err("the request has both instances and inputs".to_owned()),
        (None, None) => return Err("the request has neither instances nor inputs".to_owned()),
    };
    let value = extracted
        .values
        .get(index)
        .cloned()
        .map(|range| body.slice(range))
        .unwrap_or_default();
    let mut builder = RequestBuilder::new(signature);
    match form {
        Form::Rows if value.first() != Some(&b'[') => return Err("instances must be a list".to_owned()),
        Form::Rows if holds_rows(&value, &signature.inputs) => rows(&mut builder, &value, &signature.inputs)?,
        Form::Columns if value.first() == Some(&b'{') => {
            let builder = &mut builder;
            read_one(
                &value,
                &mut Columns {
                    builder,
                    json: &value,
                },
            )?;
        }
        Form::Rows | Form::Columns => only(&mut builder, value, signature)?,
    }
    Ok((builder.finish(false, Urgency::default())?, form))
}

/// Whether all tensors of the model have a form here.
///
/// # Errors
/// Which has none, and what to use.
fn has_json(signature: &Signature) -> Result<(), String> {
    let inputs = signature.inputs.iter().map(|port| ("input", port));
    let outputs = signature.outputs.iter().map(|port| ("output", port));
    match inputs
        .chain(outputs)
        .find(|(_, port)| !json::has_json(port.datatype))
    {
        None => Ok(()),
        Some((kind, port)) => Err(format!(
            "{kind} {:?} of the model is {}, which has no JSON form: {VERSION_2}",
            port.name,
            port.datatype.name()
        )),
    }
}

/// Whether a list begins with an object of inputs. `{"b64": …}` is such an object only if an input has this name, and
/// otherwise an encoded text.
fn holds_rows(list: &[u8], ports: &[Port]) -> bool {
    let Some(object) = after(b'[', list).and_then(|list| after(b'{', list)) else {
        return false;
    };
    let is_text = matches!(ports, [port] if port.datatype == DataType::Bytes && port.name != "b64");
    !(is_text && object.starts_with(br#""b64""#))
}

/// What follows the byte and white space.
fn after(start: u8, text: &[u8]) -> Option<&[u8]> {
    let (first, rest) = text.split_first()?;
    (*first == start).then(|| rest.trim_ascii_start())
}

/// The tensor of a model with one input.
fn only(builder: &mut RequestBuilder<'_>, json: Bytes, signature: &Signature) -> Result<(), String> {
    let [port] = &signature.inputs[..] else {
        let names: Vec<&str> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
        return Err(format!(
            "the model has several inputs, give each by name: {}",
            names.join(", ")
        ));
    };
    let port = port.clone();
    builder.give(0, Input::Nested { port, json });
    Ok(())
}

/// Uses each value as the tensor of its name.
struct Columns<'a, 'b> {
    builder: &'a mut RequestBuilder<'b>,
    json: &'a Bytes,
}

impl Listener for Columns<'_, '_> {
    fn entry(&mut self, name: &str, value: &RawValue) -> Result<(), String> {
        let (index, port) = self.builder.port(name)?;
        let (port, json) = (port.clone(), self.json.slice_ref(value.get().as_bytes()));
        self.builder.give(index, Input::Nested { port, json });
        Ok(())
    }
}

/// Collects rows of the same name into a list.
struct Rows<'a> {
    ports: &'a [Port],
    /// For each port.
    lists: Vec<Vec<u8>>,
    /// How many rows each list has.
    counts: Vec<usize>,
    /// The object that is being read.
    instance: usize,
}

impl Listener for Rows<'_> {
    fn entry(&mut self, name: &str, value: &RawValue) -> Result<(), String> {
        let instance = self.instance;
        let index = position("input", name, self.ports);
        let index = index.map_err(|problem| format!("instance {instance}: {problem}"))?;
        if self.counts[index] > instance {
            return Err(format!("instance {instance}: input {name:?} is given twice"));
        }
        self.counts[index] += 1;
        let list = &mut self.lists[index];
        list.push(if instance == 0 { b'[' } else { b',' });
        list.extend_from_slice(value.get().as_bytes());
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.instance += 1;
        match self.counts.iter().position(|&count| count < self.instance) {
            None => Ok(()),
            Some(index) => Err(format!(
                "instance {}: input {:?} is missing",
                self.instance - 1,
                self.ports[index].name
            )),
        }
    }
}

/// Reads objects with a row for each name.
fn rows(builder: &mut RequestBuilder<'_>, json: &[u8], ports: &[Port]) -> Result<(), String> {
    let mut rows = Rows {
        ports,
        lists: vec![Vec::new(); ports.len()],
        counts: vec![0; ports.len()],
        instance: 0,
    };
    read_list(json, &mut rows)?;
    for (index, (port, mut list)) in ports.iter().zip(rows.lists).enumerate() {
        list.push(b']');
        let (port, json) = (port.clone(), list.into());
        builder.give(index, Input::Nested { port, json });
    }
    Ok(())
}
