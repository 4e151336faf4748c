//! Tensors as JSON: lists in row-major order, flat or nested like the shape.

mod extract;
pub(super) mod limited;
mod list;
mod number;
mod write;

pub(super) use extract::{Extracted, Location, extract};
pub(super) use write::{check, flat, nested, row};

use crate::tensor::{DataType, Element, Tensor, element_count};
use bytes::Bytes;
use list::{Item, List, Problem, Text};
use serde::de::IgnoredAny;

/// Maximum number of elements of a `BYTES` tensor: each takes about 32 bytes of memory, and as few as 3 in a request.
pub(super) const MAX_TEXTS: usize = 1 << 20;

/// Whether the type has a JSON form; half-precision numbers have none, as in Triton.
pub(super) const fn has_json(datatype: DataType) -> bool {
    !matches!(datatype, DataType::Fp16 | DataType::Bf16)
}

/// Where and why a text is not valid JSON; `None` if it is.
pub(super) fn syntax_error(text: &[u8]) -> Option<String> {
    let read = serde_json::from_slice::<IgnoredAny>(text);
    read.err().map(|error| error.to_string())
}

/// The tensor of this shape; a nested list must have the same shape.
///
/// # Errors
/// What is wrong with the list.
pub(super) fn read(json: &[u8], datatype: DataType, shape: &[i64]) -> Result<Tensor, String> {
    tensor(json, datatype, Some(shape))
}

/// The tensor of the shape that the nested lists have, or of one element in no list; its texts may be `{"b64": "…"}`.
///
/// # Errors
/// What is wrong with the list.
pub(super) fn read_nested(json: &[u8], datatype: DataType) -> Result<Tensor, String> {
    if datatype != DataType::Bytes {
        return tensor(json, datatype, None);
    }
    let list = list::<Text>(json, None, MAX_TEXTS)?;
    let texts = list.elements.into_iter().map(|text| text.0).collect();
    Tensor::from_strings(list.shape, texts).map_err(|problem| problem.to_string())
}

fn tensor(json: &[u8], datatype: DataType, shape: Option<&[i64]>) -> Result<Tensor, String> {
    match datatype {
        DataType::Bool => numbers::<bool>(json, shape),
        DataType::Uint8 => numbers::<u8>(json, shape),
        DataType::Uint16 => numbers::<u16>(json, shape),
        DataType::Uint32 => numbers::<u32>(json, shape),
        DataType::Uint64 => numbers::<u64>(json, shape),
        DataType::Int8 => numbers::<i8>(json, shape),
        DataType::Int16 => numbers::<i16>(json, shape),
        DataType::Int32 => numbers::<i32>(json, shape),
        DataType::Int64 => numbers::<i64>(json, shape),
        DataType::Fp32 => numbers::<f32>(json, shape),
        DataType::Fp64 => numbers::<f64>(json, shape),
        DataType::Bytes => {
            let list = list::<Bytes>(json, shape, MAX_TEXTS)?;
            Tensor::from_strings(list.shape, list.elements).map_err(|problem| problem.to_string())
        }
        DataType::Fp16 | DataType::Bf16 => Err(format!(
            "{} has no JSON form: send it as binary data",
            datatype.name()
        )),
    }
}

fn numbers<T: Item + Element>(json: &[u8], shape: Option<&[i64]>) -> Result<Tensor, String> {
    let list = list::<T>(json, shape, usize::MAX)?;
    Tensor::from_vec(list.shape, list.elements).ok_or_else(|| Problem::Ragged.to_string())
}

/// A list that has the shape, or is flat and gets it.
fn list<T: Item>(json: &[u8], shape: Option<&[i64]>, most: usize) -> Result<List<T>, String> {
    let expected = shape.map_or(most, |shape| element_count(shape).unwrap_or(0));
    let Some(shape) = shape else {
        return list::read_any::<T>(json, expected).map_err(|problem| problem.to_string());
    };
    let list = list::read::<T>(json, expected).map_err(|problem| format!("{problem} ({shape:?})"))?;
    let found = list.elements.len();
    if list.shape.len() == 1 && found == expected {
        return Ok(List {
            shape: shape.to_vec(),
            ..list
        });
    }
    if list.shape.len() == 1 {
        return Err(format!("shape {shape:?} does not hold {found} elements"));
    }
    if list.shape == shape {
        return Ok(list);
    }
    Err(format!(
        "the nested lists have the shape {:?} instead of {shape:?}",
        list.shape
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flat_and_nested_lists_mean_the_same() {
        for json in ["[1, 2.5, -3, 4e3]", "[[1, 2.5], [-3, 4000]]"] {
            let tensor = read(json.as_bytes(), DataType::Fp32, &[2, 2]).unwrap();
            assert_eq!(tensor.elements::<f32>().unwrap(), [1.0, 2.5, -3.0, 4e3], "{json}");
            assert_eq!(tensor.shape(), [2, 2]);
        }
        let truth = read(b"[true, false]", DataType::Bool, &[2]).unwrap();
        assert_eq!(truth.elements::<bool>().unwrap(), [true, false]);
        let largest = read(b"[18446744073709551615]", DataType::Uint64, &[1]).unwrap();
        assert_eq!(largest.elements::<u64>().unwrap(), [u64::MAX]);
        let strings = read(br#"[["a\u0000"], ["\u00e9"]]"#, DataType::Bytes, &[2, 1]).unwrap();
        assert_eq!(strings.strings().unwrap(), ["a\0", "é"]);
        let inferred = read_nested(b"[[1, 2, 3]]", DataType::Int8).unwrap();
        assert_eq!(inferred.shape(), [1, 3]);
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        for (json, datatype, words) in [
            (
                "[[1, 2, 3], [4, 5, 6]]",
                DataType::Fp32,
                "have the shape [2, 3] instead of [3, 2]",
            ),
            ("[1, 2]", DataType::Fp32, "shape [3, 2] does not hold 2 elements"),
            (
                "[1, 2, 3, 4, 5, 6, 7]",
                DataType::Fp32,
                "too many elements ([3, 2])",
            ),
            (
                "[1, 2, 3, 4, 5, 600]",
                DataType::Int8,
                "expected an INT8, found 600",
            ),
            ("[1, 2, 3, 4, 5, 6]", DataType::Fp16, "binary"),
        ] {
            let problem = read(json.as_bytes(), datatype, &[3, 2]).unwrap_err();
            assert!(problem.contains(words), "{json}: {problem}");
        }
    }
}
