//! The elements of a JSON tensor: a flat list, or lists nested as the shape says, in row-major order.

use crate::tensor::{self, DataType, Tensor};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use std::fmt;

/// Whether the type has a JSON form; half-precision numbers have none, as in Triton.
pub(super) const fn has_json(datatype: DataType) -> bool {
    !matches!(datatype, DataType::Fp16 | DataType::Bf16)
}

/// Reads the elements and checks that a nested list has the shape.
pub(super) fn read(json: &[u8], datatype: DataType, shape: &[i64]) -> Result<Tensor, String> {
    match datatype {
        DataType::Bool => tensor::<bool>(json, shape),
        DataType::Uint8 => tensor::<u8>(json, shape),
        DataType::Uint16 => tensor::<u16>(json, shape),
        DataType::Uint32 => tensor::<u32>(json, shape),
        DataType::Uint64 => tensor::<u64>(json, shape),
        DataType::Int8 => tensor::<i8>(json, shape),
        DataType::Int16 => tensor::<i16>(json, shape),
        DataType::Int32 => tensor::<i32>(json, shape),
        DataType::Int64 => tensor::<i64>(json, shape),
        DataType::Fp32 => tensor::<f32>(json, shape),
        DataType::Fp64 => tensor::<f64>(json, shape),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => Err(format!(
            "{} has no JSON form: send it as binary data",
            datatype.name()
        )),
    }
}

fn tensor<T: Element + tensor::Element>(json: &[u8], shape: &[i64]) -> Result<Tensor, String> {
    let elements: Vec<T> = list(json, shape)?;
    let count = elements.len();
    Tensor::from_vec(shape.to_vec(), elements)
        .ok_or_else(|| format!("shape {shape:?} does not hold {count} elements"))
}

fn list<T: Element>(json: &[u8], shape: &[i64]) -> Result<Vec<T>, String> {
    let mut elements = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let seed = List {
        shape,
        level: 0,
        elements: &mut elements,
    };
    // serde_json gives a place in the list, not in the body: of no use to the client.
    seed.deserialize(&mut deserializer).map_err(|error| {
        let text = error.to_string();
        text.rsplit_once(" at line ")
            .map_or(text.as_str(), |(problem, _)| problem)
            .to_owned()
    })?;
    Ok(elements)
}

/// One number of the list.
trait Element: Sized {
    const NAME: &'static str;

    fn from_bool(_value: bool) -> Option<Self> {
        None
    }

    fn from_integer(_value: i128) -> Option<Self> {
        None
    }

    fn from_float(_value: f64) -> Option<Self> {
        None
    }
}

impl Element for bool {
    const NAME: &'static str = "true or false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

macro_rules! integer {
    ($($type:ty: $name:literal),*) => {$(
        impl Element for $type {
            const NAME: &'static str = $name;

            fn from_integer(value: i128) -> Option<Self> {
                value.try_into().ok()
            }
        }
    )*};
}

integer!(
    u8: "a UINT8", u16: "a UINT16", u32: "a UINT32", u64: "a UINT64",
    i8: "an INT8", i16: "an INT16", i32: "an INT32", i64: "an INT64"
);

macro_rules! float {
    ($($type:ty: $name:literal),*) => {$(
        impl Element for $type {
            const NAME: &'static str = $name;

            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
            fn from_integer(value: i128) -> Option<Self> {
                Some(value as $type)
            }

            #[allow(clippy::cast_possible_truncation)]
            fn from_float(value: f64) -> Option<Self> {
                let value = value as $type;
                value.is_finite().then_some(value)
            }
        }
    )*};
}

float!(f32: "an FP32", f64: "an FP64");

/// A list at `level` of the shape.
struct List<'a, T> {
    shape: &'a [i64],
    level: usize,
    elements: &'a mut Vec<T>,
}

/// What an item of a list was.
enum Kind {
    Element,
    List,
}

impl<'de, T: Element> DeserializeSeed<'de> for List<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Element> Visitor<'de> for List<'_, T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self {
            shape,
            level,
            elements,
        } = self;
        let (mut count, mut lists) = (0_i64, false);
        while let Some(kind) = items.next_element_seed(Item {
            shape,
            level,
            elements: &mut *elements,
        })? {
            let is_list = matches!(kind, Kind::List);
            if count > 0 && is_list != lists {
                return Err(A::Error::custom("lists and numbers are mixed"));
            }
            (count, lists) = (count + 1, is_list);
        }
        let is_flat = level == 0 && !lists;
        let is_nested = shape.get(level) == Some(&count) && lists == (level + 1 < shape.len());
        if is_flat || is_nested {
            return Ok(());
        }
        Err(A::Error::custom(format!(
            "the nested lists do not have the shape {shape:?}"
        )))
    }
}

struct Item<'a, T> {
    shape: &'a [i64],
    level: usize,
    elements: &'a mut Vec<T>,
}

impl<T: Element> Item<'_, T> {
    fn push<E: Error>(self, element: Option<T>, found: Unexpected) -> Result<Kind, E> {
        self.elements
            .push(element.ok_or_else(|| E::invalid_value(found, &T::NAME))?);
        Ok(Kind::Element)
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for Item<'_, T> {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Item<'_, T> {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(T::NAME)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Kind, E> {
        self.push(T::from_bool(value), Unexpected::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Kind, E> {
        self.push(T::from_integer(value.into()), Unexpected::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Kind, E> {
        self.push(T::from_integer(value.into()), Unexpected::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Kind, E> {
        self.push(T::from_float(value), Unexpected::Float(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Kind, A::Error> {
        // Deeper than the shape there can be nothing right; this also bounds the recursion.
        if self.level + 1 >= self.shape.len() {
            return Err(A::Error::custom(format!(
                "the nested lists do not have the shape {:?}",
                self.shape
            )));
        }
        List {
            shape: self.shape,
            level: self.level + 1,
            elements: self.elements,
        }
        .visit_seq(items)?;
        Ok(Kind::List)
    }
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
        }
        let truth = read(b"[true, false]", DataType::Bool, &[2]).unwrap();
        assert_eq!(truth.elements::<bool>().unwrap(), [true, false]);
        let largest = read(b"[18446744073709551615]", DataType::Uint64, &[1]).unwrap();
        assert_eq!(largest.elements::<u64>().unwrap(), [u64::MAX]);
        assert!(read(b"[[]]", DataType::Int8, &[1, 0]).unwrap().is_empty());
    }

    // A transposed tensor has the right number of elements and a wrong answer.
    #[test]
    fn nested_lists_of_another_shape_are_refused() {
        for json in [
            "[[1, 2, 3], [4, 5, 6]]",
            "[[1, 2], [3, 4], [5, [6]]]",
            "[[[1], [2]]]",
            "[[1, 2], 3]",
            "[1, [2, 3]]",
        ] {
            let problem = read(json.as_bytes(), DataType::Fp32, &[3, 2]).unwrap_err();
            assert!(
                problem.contains("shape [3, 2]") || problem.contains("mixed"),
                "{json}: {problem}"
            );
        }
    }

    #[test]
    fn an_element_that_does_not_fit_its_type_is_named() {
        for (json, datatype, word) in [
            ("[300]", DataType::Uint8, "300"),
            ("[-1]", DataType::Uint64, "-1"),
            ("[1.5]", DataType::Int32, "1.5"),
            ("[1]", DataType::Bool, "true or false"),
            ("[\"1\"]", DataType::Fp32, "FP32"),
            ("[null]", DataType::Fp32, "null"),
            ("[1e39]", DataType::Fp32, "1e+39"),
            ("{}", DataType::Fp32, "list"),
            ("[1]", DataType::Fp16, "binary"),
        ] {
            let problem = read(json.as_bytes(), datatype, &[1]).unwrap_err();
            assert!(problem.contains(word), "{json}: {problem}");
        }
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let json = "[".repeat(100_000);
        assert!(read(json.as_bytes(), DataType::Fp32, &[1, 2, 3]).is_err());
    }
}
