//! KServe's protocol, version 1, which is TensorFlow Serving's: tensors as nested lists without the names of types or
//! shapes, by rows (`instances`) or by columns (`inputs`)
//! (<https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol>,
//! <https://www.tensorflow.org/tfx/serving/api_rest#predict_api>).

mod objects;

use crate::engine::{Port, Signature};
use crate::protocol::api::{Api, Named};
use crate::protocol::body::{ReadOptions, Received};
use crate::protocol::error::ApiError;
use crate::protocol::inference::request::{Answered, server_timing};
use crate::protocol::inference::{self, Answer, Input, Output, Request, RequestBuilder, Urgency, position};
use crate::protocol::json::{self, Location, extract};
use crate::scheduling::RunOptions;
use crate::tensor::{DataType, Tensor};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use objects::{Listener, read_list, read_one};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Instant;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where the tensors are; a third one is one too many, whatever its name.
const TENSORS: Location<'_> = Location {
    within: None,
    depth: 1,
    keys: &["instances", "inputs"],
    most: 3,
};

/// A request whose lists have been extracted: numbers stand in their place.
#[derive(Deserialize)]
struct Predict {
    instances: Option<usize>,
    inputs: Option<usize>,
}

/// What to do with tensors that have no JSON form.
const VERSION_2: &str =
    "use version 2 of the protocol (/v2/models/NAME/infer), which takes and returns it as binary data";

/// How tensors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A list of instances.
    Rows,
    /// A tensor for each input.
    Columns,
}

pub(super) async fn predict(
    api: &Api,
    named: Named<'_>,
    options: RunOptions,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answered<Response>, ApiError> {
    let model = named.model;
    inference::admit(model, &options)?;
    let wanted = ReadOptions {
        deadline: options.deadline,
        ..ReadOptions::default()
    };
    let Received { bytes, room } = api.budget.read(headers, body, wanted).await?;
    model.metrics().request_bytes.inc_by(bytes.len() as u64);
    let (request, form) = parse(&bytes, model.signature()).map_err(ApiError::bad_request)?;
    let answer = inference::run(model, request, Arc::clone(&room), options).await?;
    drop((bytes, room));
    let started = Instant::now();
    let timing = server_timing(answer.timing);
    answer.check_json(model.signature(), VERSION_2)?;
    let text = encode(form, model.signature(), &answer).map_err(ApiError::bad_request)?;
    let response = ([timing, (header::CONTENT_TYPE, JSON)], text).into_response();
    Ok(Answered::new(response, answer.timing, started))
}

pub(super) fn parse(body: &Bytes, signature: &Signature) -> Result<(Request, Form), String> {
    has_json(signature)?;
    let extracted = extract(body, TENSORS);
    let predict: Predict =
        serde_json::from_slice(&extracted.rest).map_err(|_| match json::syntax_error(body) {
            Some(problem) => format!("the request is no valid JSON: {problem}"),
            None => "the request is no JSON object with instances or inputs".to_owned(),
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

/// Whether a list begins with an object of inputs. `{"b64": …}` is one only if an input has this name, and otherwise
/// an encoded text.
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
            "the model has several inputs, name each: {}",
            names.join(", ")
        ));
    };
    let port = port.clone();
    builder.give(0, Input::Nested { port, json });
    Ok(())
}

/// Takes each value as the tensor of its name.
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

/// Objects with a row for each name.
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

/// `{"predictions": …}`: the output, or an object with all outputs by name.
fn encode(form: Form, signature: &Signature, answer: &Answer) -> Result<Vec<u8>, String> {
    let mut text = br#"{"predictions":"#.to_vec();
    match (&answer.outputs[..], form) {
        ([(_, tensor)], _) => json::nested(&mut text, tensor),
        (outputs, Form::Columns) => {
            let outputs = outputs.iter().map(|(output, tensor)| (output, tensor));
            named(&mut text, signature, outputs, json::nested);
        }
        (outputs, Form::Rows) => instances(&mut text, signature, outputs)?,
    }
    text.push(b'}');
    Ok(text)
}

/// A list of objects, one for each row of the outputs.
fn instances(text: &mut Vec<u8>, signature: &Signature, outputs: &[(Output, Tensor)]) -> Result<(), String> {
    let count = outputs
        .first()
        .and_then(|(_, tensor)| tensor.shape().first())
        .copied();
    let ones = vec![1; usize::try_from(count.unwrap_or(0)).unwrap_or(0)];
    let rows = outputs
        .iter()
        .map(|(output, tensor)| tensor.split(&ones).map(|rows| (output, rows)));
    let rows: Option<Vec<_>> = rows.collect();
    let no_rows = "the outputs have no row for each instance: send inputs by columns";
    let rows = rows.filter(|_| count.is_some()).ok_or(no_rows)?;
    text.push(b'[');
    for index in 0..ones.len() {
        if index > 0 {
            text.push(b',');
        }
        named(
            text,
            signature,
            rows.iter().map(|(output, rows)| (*output, &rows[index])),
            json::row,
        );
    }
    text.push(b']');
    Ok(())
}

fn named<'a>(
    text: &mut Vec<u8>,
    signature: &Signature,
    outputs: impl Iterator<Item = (&'a Output, &'a Tensor)>,
    write: fn(&mut Vec<u8>, &Tensor),
) {
    for (index, (output, tensor)) in outputs.enumerate() {
        text.push(if index == 0 { b'{' } else { b',' });
        let name = serde_json::Value::from(signature.outputs[output.index].name.as_str());
        text.extend_from_slice(name.to_string().as_bytes());
        text.push(b':');
        write(text, tensor);
    }
    text.push(b'}');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::protocol::inference::tests::signature;
    use crate::scheduling::Timing;
    use serde_json::{Value, json};

    fn one() -> Signature {
        signature(
            &[("x", DataType::Fp32, &[-1, 2])],
            &[("y", DataType::Fp32, &[-1, 2])],
        )
    }

    fn two() -> Signature {
        let ports: [(&str, DataType, &[i64]); 2] =
            [("a", DataType::Int64, &[-1, 2]), ("b", DataType::Bytes, &[-1])];
        signature(&ports, &ports)
    }

    /// The response of a model that returns its inputs.
    fn echoed(signature: &Signature, request: Value) -> Result<Value, String> {
        let (request, form) = parse(&request.to_string().into(), signature)?;
        let inputs = request
            .inputs
            .into_iter()
            .map(|input| input.tensor().map_err(|error| error.to_string()));
        let tensors: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
        let answer = Answer {
            outputs: request.outputs.into_iter().zip(tensors).collect(),
            timing: Timing::default(),
        };
        let refused = |error: ApiError| error.message().to_owned();
        answer.check_json(signature, VERSION_2).map_err(refused)?;
        let text = encode(form, signature, &answer)?;
        Ok(serde_json::from_slice::<Value>(&text).unwrap()["predictions"].clone())
    }

    #[test]
    fn rows_and_columns_of_one_input() {
        for request in [
            json!({"instances": [[1.5, 2.0], [3.0, 4.0]]}),
            json!({"instances": [{"x": [1.5, 2.0]}, {"x": [3, 4]}], "signature_name": "serving_default"}),
            json!({"inputs": [[1.5, 2], [3, 4]]}),
            json!({"inputs": {"x": [[1.5, 2], [3, 4]]}}),
        ] {
            assert_eq!(echoed(&one(), request).unwrap(), json!([[1.5, 2.0], [3.0, 4.0]]));
        }
        let flags = signature(&[("x", DataType::Bool, &[-1])], &[("y", DataType::Bool, &[-1])]);
        assert_eq!(
            echoed(&flags, json!({"instances": [true, false]})).unwrap(),
            json!([true, false])
        );
    }

    #[test]
    fn rows_and_columns_of_several_inputs() {
        let rows = json!([{"a": [1, 2], "b": "é"}, {"a": [3, 4], "b": ""}]);
        assert_eq!(echoed(&two(), json!({"instances": rows})).unwrap(), rows);
        let columns = json!({"a": [[1, 2], [3, 4]], "b": ["é", ""]});
        assert_eq!(echoed(&two(), json!({"inputs": columns})).unwrap(), columns);
    }

    #[test]
    fn texts_may_be_base64_by_rows_and_by_columns() {
        let texts = signature(&[("s", DataType::Bytes, &[-1])], &[("t", DataType::Bytes, &[-1])]);
        for request in [
            json!({"instances": [{"b64": "w6k="}, "a"]}),
            json!({"instances": [{"s": {"b64": "w6k="}}, {"s": "a"}]}),
            json!({"inputs": [{"b64": "w6k"}, {"b64": "YQ=="}]}),
            json!({"inputs": {"s": ["é", {"b64": "YQ=="}]}}),
        ] {
            assert_eq!(echoed(&texts, request).unwrap(), json!(["é", "a"]));
        }
        let row = json!([{"a": [1, 2], "b": {"b64": "w6k="}}]);
        assert_eq!(
            echoed(&two(), json!({"instances": row})).unwrap(),
            json!([{"a": [1, 2], "b": "é"}])
        );
        // An input of this name is not an encoding.
        let named = signature(
            &[("b64", DataType::Bytes, &[-1])],
            &[("t", DataType::Bytes, &[-1])],
        );
        assert_eq!(
            echoed(&named, json!({"instances": [{"b64": "w6k="}]})).unwrap(),
            json!(["w6k="])
        );
        for (text, words) in [
            (
                "w6k!",
                r#"expected a string or {"b64": BASE64}, found {"b64":"w6k!""#,
            ),
            // It is taken, and sent back.
            ("/w==", "output \"t\": element 0 is not UTF-8"),
        ] {
            let problem = echoed(&texts, json!({"instances": [{"b64": text}]})).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
        let problem = echoed(&one(), json!({"instances": [{"b64": "AAAA"}]})).unwrap_err();
        assert!(problem.contains("no input \"b64\""), "{problem}");
    }

    #[test]
    fn what_is_no_prediction_request_is_refused() {
        for (signature, request, words) in [
            (one(), json!({}), "neither instances nor inputs"),
            (one(), json!([]), "no JSON object"),
            (one(), json!({"instances": [], "inputs": []}), "both"),
            (one(), json!({"instances": {"x": [1, 2]}}), "must be a list"),
            (one(), json!({"instances": [[1, 2], {"x": [1, 2]}]}), "mixed"),
            (
                one(),
                json!({"instances": [{"x": [1, 2]}, [1, 2]]}),
                "expected an object of inputs",
            ),
            (
                one(),
                json!({"instances": [{"x": [1, 2]}, {}]}),
                "instance 1: input \"x\" is missing",
            ),
            (
                one(),
                json!({"instances": [{"z": [1, 2]}]}),
                "instance 0: the model has no input \"z\"",
            ),
            (one(), json!({"instances": [[1, 2, 3]]}), "has shape [-1, 2]"),
            (one(), json!({"instances": []}), "has shape [-1, 2]"),
            (one(), json!({"inputs": {"z": 1}}), "has no input \"z\""),
            (one(), json!({"inputs": 7}), "the request says []"),
            (one(), json!({"inputs": {"x": null}}), "expected a list"),
            (
                two(),
                json!({"instances": [[1, 2]]}),
                "several inputs, name each: a, b",
            ),
            (
                two(),
                json!({"inputs": {"a": [[1, 2]]}}),
                "input \"b\" is missing",
            ),
        ] {
            let problem = echoed(&signature, request).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }

    /// This version has no binary data: to advise it would lead nowhere.
    #[test]
    fn a_type_without_a_json_form_is_referred_to_version_2() {
        let float: (&str, DataType, &[i64]) = ("x", DataType::Fp32, &[-1]);
        let half: (&str, DataType, &[i64]) = ("h", DataType::Fp16, &[-1]);
        for (inputs, outputs, kind) in [([half], [float], "input"), ([float], [half], "output")] {
            let problem = echoed(&signature(&inputs, &outputs), json!({"instances": [1]})).unwrap_err();
            let words = format!("{kind} \"h\" of the model is FP16");
            assert!(
                problem.contains(&words) && problem.contains("/v2/models/"),
                "{problem}"
            );
        }
    }

    #[test]
    fn outputs_without_rows_need_columns() {
        let outputs: [(&str, DataType, &[i64]); 2] =
            [("m", DataType::Int64, &[2]), ("n", DataType::Int64, &[])];
        let signature = signature(&[("x", DataType::Int64, &[-1])], &outputs);
        let tensors = [
            Tensor::from_vec(vec![2], vec![1_i64, 2]).unwrap(),
            Tensor::from_vec(vec![], vec![7_i64]).unwrap(),
        ];
        let (request, _) = parse(&Bytes::from_static(b"{\"inputs\": [1]}"), &signature).unwrap();
        let answer = Answer {
            outputs: request.outputs.into_iter().zip(tensors).collect(),
            timing: Timing::default(),
        };
        let columns = encode(Form::Columns, &signature, &answer).unwrap();
        assert_eq!(columns, br#"{"predictions":{"m":[1,2],"n":7}}"#);
        assert!(
            encode(Form::Rows, &signature, &answer)
                .unwrap_err()
                .contains("by columns")
        );
    }
}
