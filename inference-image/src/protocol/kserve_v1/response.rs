//! Responses: the outputs as nested lists, by rows or by columns as the request was.

use super::request::Form;
use crate::engine::Signature;
use crate::protocol::inference::{Answer, Output};
use crate::protocol::json;
use crate::tensor::Tensor;

/// `{"predictions": …}`: the output, or an object with all outputs by name.
pub(super) fn encode(form: Form, signature: &Signature, answer: &Answer) -> Result<Vec<u8>, String> {
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
    let no_rows = "the outputs do not have one row per instance: send inputs by columns";
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
