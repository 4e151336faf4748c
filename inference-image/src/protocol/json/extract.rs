//! Extracts the long lists of tensors from the text of a request before the rest of it is parsed, so that a general
//! parser never has to scan them: the rest is short, and the lists go straight into tensors.
//!
//! It only finds where values end. The parsers of the values and of the rest check that they are valid JSON; a
//! malformed text is left unchanged.

use super::list::string_length;
use std::borrow::Cow;
use std::ops::Range;

/// Nesting at which the search stops; a parser rejects it anyway.
const MAX_DEPTH: usize = 128;

/// A text from which values were extracted.
pub(crate) struct Extracted<'a> {
    /// The text, with the index of each value, counted from 0, in its place.
    pub(crate) rest: Cow<'a, [u8]>,
    /// Where the values are in the original text.
    pub(crate) values: Vec<Range<usize>>,
}

/// Which values are extracted.
#[derive(Clone, Copy)]
pub(crate) struct Location<'a> {
    /// Only below this key of the outermost object.
    pub(crate) within: Option<&'a str>,
    /// The depth of their object; the outermost is 1.
    pub(crate) depth: usize,
    /// Their keys.
    pub(crate) keys: &'a [&'a str],
    /// Extract at most this many; the others stay where they are.
    pub(crate) most: usize,
}

/// Extracts the values at this location.
pub(crate) fn extract<'a>(json: &'a [u8], location: Location<'_>) -> Extracted<'a> {
    let values = find(json, location).unwrap_or_default();
    let mut rest = Cow::Borrowed(json);
    if !values.is_empty() {
        let mut text = Vec::with_capacity(1024);
        let mut end = 0;
        for (index, value) in values.iter().enumerate() {
            text.extend_from_slice(&json[end..value.start]);
            text.extend_from_slice(index.to_string().as_bytes());
            end = value.end;
        }
        text.extend_from_slice(&json[end..]);
        rest = Cow::Owned(text);
    }
    Extracted { rest, values }
}

fn find(json: &[u8], location: Location<'_>) -> Option<Vec<Range<usize>>> {
    let (mut values, mut at, mut depth) = (Vec::new(), 0, 0_usize);
    let mut within = location.within.is_none();
    while let Some(byte) = json.get(at).filter(|_| values.len() < location.most) {
        match byte {
            b'"' => {
                let length = string_length(&json[at..])?;
                let text = &json[at + 1..at + length - 1];
                at += length;
                if let Some(wanted) = location.within.filter(|_| depth == 1) {
                    within = wanted.as_bytes() == text;
                }
                let is_key = within
                    && depth == location.depth
                    && location.keys.iter().any(|key| key.as_bytes() == text);
                if let Some(start) = after_colon(json, at).filter(|_| is_key) {
                    at = start + value_length(&json[start..])?;
                    values.push(start..at);
                }
            }
            b'[' | b'{' if depth == MAX_DEPTH => return None,
            b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            _ => at += 1,
        }
    }
    Some(values)
}

/// Where the value begins, if a colon comes next.
fn after_colon(json: &[u8], at: usize) -> Option<usize> {
    let colon = at
        + json
            .get(at..)?
            .iter()
            .position(|byte| !byte.is_ascii_whitespace())?;
    if json[colon] != b':' {
        return None;
    }
    let start = colon + 1;
    Some(
        start
            + json
                .get(start..)?
                .iter()
                .position(|byte| !byte.is_ascii_whitespace())?,
    )
}

/// Length of the value at the beginning of `json`.
fn value_length(json: &[u8]) -> Option<usize> {
    match json.first()? {
        b'"' => string_length(json),
        b'[' => enclosed::<b'[', b']'>(json),
        b'{' => enclosed::<b'{', b'}'>(json),
        _ => json.iter().position(|byte| b",]} \n\r\t".contains(byte)),
    }
}

/// The length of a list or an object. Within a list, braces do not matter, since brackets are balanced within them;
/// nor do brackets within an object.
fn enclosed<const OPEN: u8, const CLOSE: u8>(json: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        at += memchr::memchr3(OPEN, CLOSE, b'"', json.get(at..)?)?;
        match json[at] {
            b'"' => at += string_length(&json[at..])? - 1,
            bracket if bracket == OPEN => depth += 1,
            _ => depth -= 1,
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn extracted(json: &str, depth: usize, keys: &[&str]) -> (String, Vec<String>) {
        let (within, most) = (None, usize::MAX);
        extracted_at(
            json,
            Location {
                within,
                depth,
                keys,
                most,
            },
        )
    }

    fn extracted_at(json: &str, location: Location<'_>) -> (String, Vec<String>) {
        let extracted = extract(json.as_bytes(), location);
        let values = extracted.values.into_iter().map(|range| json[range].to_owned());
        (
            String::from_utf8(extracted.rest.into_owned()).unwrap(),
            values.collect(),
        )
    }

    #[test]
    fn values_of_a_key_are_taken_out_at_one_depth_only() {
        let json = r#"{"data": 1, "inputs": [{"data" : [[1], ["]"]] , "name": "data"}, {"p": {"data": [2]}, "data":null}]}"#;
        let (rest, values) = extracted(json, 3, &["data"]);
        assert_eq!(
            rest,
            r#"{"data": 1, "inputs": [{"data" : 0 , "name": "data"}, {"p": {"data": [2]}, "data":1}]}"#
        );
        assert_eq!(values, [r#"[[1], ["]"]]"#, "null"]);
        let (rest, values) = extracted(
            r#"{"inputs": {"a": "}", "b": {}}, "instances": "x\"y"}"#,
            1,
            &["instances", "inputs"],
        );
        assert_eq!(rest, r#"{"inputs": 0, "instances": 1}"#);
        assert_eq!(values, [r#"{"a": "}", "b": {}}"#, r#""x\"y""#]);
    }

    /// Values that are not tensors must be echoed as they were sent, and a short text must not fill the memory.
    #[test]
    fn values_are_taken_out_below_one_key_and_only_so_many() {
        let location = Location {
            within: Some("inputs"),
            depth: 3,
            keys: &["data"],
            most: 2,
        };
        let json = r#"{"parameters": {"x": {"data": [1]}}, "inputs": [{"data": [2]}, {"data": [3]}, {"data": [4]}]}"#;
        let (rest, values) = extracted_at(json, location);
        assert_eq!(
            rest,
            r#"{"parameters": {"x": {"data": [1]}}, "inputs": [{"data": 0}, {"data": 1}, {"data": [4]}]}"#
        );
        assert_eq!(values, ["[2]", "[3]"]);
    }

    #[test]
    fn a_text_that_is_no_json_is_left_to_the_parser() {
        let deep = "[".repeat(200);
        for json in [
            "",
            "{",
            r#"{"data"#,
            r#"{"data": "#,
            r#"{"data": ["#,
            r#"{"data": [1, "x]}"#,
            "]]]",
            r#"{"data"}"#,
            &deep,
        ] {
            assert_eq!(
                extracted(json, 1, &["data"]),
                (json.to_owned(), Vec::new()),
                "{json}"
            );
        }
    }
}
