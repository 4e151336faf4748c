//! Checks whether a response is right.

use crate::spec::Answer;
use anyhow::{Context, Result};
use std::fs;

/// Largest difference of a value, relative to the largest value of the tensor: float32 sums depend on their order.
const TOLERANCE: f32 = 1e-3;

/// What a correct response contains.
pub(super) enum Check {
    Tensor {
        bytes: Vec<u8>,
        values: Vec<f32>,
        tolerance: f32,
    },
    Class(usize),
    Any,
}

impl Check {
    pub(super) fn new(answer: &Answer) -> Result<Self> {
        Ok(match answer {
            Answer::Any => Self::Any,
            Answer::Class(class) => Self::Class(*class),
            Answer::Tensor(path) => {
                Self::tensor(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
        })
    }

    fn tensor(bytes: Vec<u8>) -> Self {
        let values = floats(&bytes);
        let largest = values
            .iter()
            .fold(0_f32, |largest, value| largest.max(value.abs()));
        Self::Tensor {
            bytes,
            values,
            tolerance: largest * TOLERANCE,
        }
    }

    /// The problem with this body, if there is one.
    pub(super) fn problem(&self, body: &[u8]) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Class(class) => {
                let seen = first_class(body);
                (seen != Some(*class)).then(|| format!("class {seen:?} instead of {class}"))
            }
            Self::Tensor {
                bytes,
                values,
                tolerance,
            } => {
                let Some(start) = body.len().checked_sub(bytes.len()) else {
                    return Some(format!(
                        "an answer of {} bytes, its tensor alone has {}",
                        body.len(),
                        bytes.len()
                    ));
                };
                // Most responses are identical to the last bit, which is cheap to check.
                if &body[start..] == bytes.as_slice() {
                    return None;
                }
                let given = floats(&body[start..]);
                // NaN is not close to anything.
                let near = |(given, right): (&f32, &f32)| (given - right).abs() <= *tolerance;
                (!given.iter().zip(values).all(near)).then(|| "another tensor than ONNX Runtime's".to_owned())
            }
        }
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|four| f32::from_le_bytes(*four))
        .collect()
}

/// The first `"class": 282` of a JSON text.
fn first_class(json: &[u8]) -> Option<usize> {
    let key = b"\"class\"";
    let start = json.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = json[start..]
        .iter()
        .skip_while(|byte| !byte.is_ascii_digit())
        .take_while(|byte| byte.is_ascii_digit());
    digits
        .map(|&byte| usize::from(byte - b'0'))
        .reduce(|number, digit| number * 10 + digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// A benchmark that counts wrong responses measures nothing.
    #[test]
    fn only_rounding_may_differ() {
        let check = Check::tensor(bytes(&[0.5, -1.0, 0.0]));
        let answer = |values: &[f32]| [b"{}".as_slice(), &bytes(values)].concat();
        assert_eq!(check.problem(&answer(&[0.5, -1.0, 0.0])), None);
        assert_eq!(check.problem(&answer(&[0.5002, -1.0, -0.0001])), None);
        assert!(check.problem(&answer(&[-1.0, 0.5, 0.0])).is_some());
        assert!(check.problem(&answer(&[0.5, f32::NAN, 0.0])).is_some());
        assert!(check.problem(b"{}").is_some());
    }

    #[test]
    fn the_first_class_is_the_one_that_counts() {
        let json = br#"{"model": "m", "predictions": [{"class": 282, "label": "cat"}, {"class": 7}]}"#;
        assert_eq!(Check::Class(282).problem(json), None);
        assert!(Check::Class(7).problem(json).is_some());
        assert!(Check::Class(7).problem(b"{}").is_some());
    }
}
