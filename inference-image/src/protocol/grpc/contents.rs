//! The elements of a tensor in `InferTensorContents`: one list for each family of types, packed in one or several
//! pieces, or one element at a time.

use super::wire::{Fields, Malformed, Value, varint};
use crate::tensor::{DataType, Element, Tensor, element_count};
use bytes::Bytes;

/// How the elements of a list are written.
#[derive(Clone, Copy)]
enum Kind {
    Varint,
    Fixed32,
    Fixed64,
}

/// The list that holds the elements of a type.
struct List<'a> {
    number: u32,
    name: &'static str,
    kind: Kind,
    datatype: DataType,
    contents: &'a [u8],
    /// Number of elements that the shape holds.
    count: usize,
}

/// Reads the tensor from `contents`, which are a part of `message`.
///
/// # Errors
/// What is wrong with them.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
pub(super) fn read(
    message: &Bytes,
    contents: &[u8],
    datatype: DataType,
    shape: Vec<i64>,
) -> Result<Tensor, String> {
    let count = element_count(&shape).unwrap_or(0);
    let list = |number, name, kind| List {
        number,
        name,
        kind,
        datatype,
        contents,
        count,
    };
    let bools = list(1, "bool_contents", Kind::Varint);
    let ints = list(2, "int_contents", Kind::Varint);
    let longs = list(3, "int64_contents", Kind::Varint);
    let uints = list(4, "uint_contents", Kind::Varint);
    let ulongs = list(5, "uint64_contents", Kind::Varint);
    let floats = list(6, "fp32_contents", Kind::Fixed32);
    let doubles = list(7, "fp64_contents", Kind::Fixed64);
    match datatype {
        DataType::Bool => bools.tensor(shape, |value| Some(value != 0)),
        DataType::Int8 => ints.tensor(shape, |value| i8::try_from(value as i32).ok()),
        DataType::Int16 => ints.tensor(shape, |value| i16::try_from(value as i32).ok()),
        DataType::Int32 => ints.tensor(shape, |value| Some(value as i32)),
        DataType::Int64 => longs.tensor(shape, |value| Some(value as i64)),
        DataType::Uint8 => uints.tensor(shape, |value| u8::try_from(value as u32).ok()),
        DataType::Uint16 => uints.tensor(shape, |value| u16::try_from(value as u32).ok()),
        DataType::Uint32 => uints.tensor(shape, |value| Some(value as u32)),
        DataType::Uint64 => ulongs.tensor(shape, Some),
        DataType::Fp32 => floats.fixed(message, shape, |bits| Some(f32::from_bits(bits as u32))),
        DataType::Fp64 => doubles.fixed(message, shape, |bits| Some(f64::from_bits(bits))),
        DataType::Bytes => list(8, "bytes_contents", Kind::Varint).strings(message, shape),
        DataType::Fp16 | DataType::Bf16 => Err(format!(
            "{} cannot be sent in contents: send it in raw_input_contents",
            datatype.name()
        )),
    }
}

impl List<'_> {
    /// Little-endian numbers in one piece are a tensor already.
    fn fixed<T: Element>(
        &self,
        message: &Bytes,
        shape: Vec<i64>,
        convert: impl Fn(u64) -> Option<T>,
    ) -> Result<Tensor, String> {
        let mut fields = Fields(self.contents);
        match (fields.next(), fields.next()) {
            (Some(Ok((number, Value::Bytes(bytes)))), None) if number == self.number => {
                Tensor::from_wire(self.datatype, shape, message.slice_ref(bytes))
                    .map_err(|problem| problem.to_string())
            }
            _ => self.tensor(shape, convert),
        }
    }

    fn tensor<T: Element>(
        &self,
        shape: Vec<i64>,
        convert: impl Fn(u64) -> Option<T>,
    ) -> Result<Tensor, String> {
        // Does not allocate more memory for announced elements than the received bytes can fill.
        let mut elements = Vec::with_capacity(self.count.min(self.contents.len()));
        let mut push = |bits: u64| {
            if elements.len() == self.count {
                return Err(self.too_many(&shape));
            }
            let element = convert(bits).ok_or_else(|| {
                format!(
                    "{} holds a number that is not a valid \
                    {}",
                    self.name,
                    self.datatype.name()
                )
            })?;
            elements.push(element);
            Ok(())
        };
        for field in Fields(self.contents) {
            match (self.field(field)?, self.kind) {
                (Value::Bytes(mut packed), kind) => {
                    while !packed.is_empty() {
                        push(kind.next(&mut packed).map_err(|_| self.broken())?)?;
                    }
                }
                (Value::Varint(bits) | Value::Fixed64(bits), Kind::Varint | Kind::Fixed64) => push(bits)?,
                (Value::Fixed32(bits), Kind::Fixed32) => push(bits.into())?,
                _ => return Err(self.broken()),
            }
        }
        let found = elements.len();
        let tensor = Tensor::from_vec(shape.clone(), elements);
        tensor.ok_or_else(|| format!("shape {shape:?} does not hold {found} elements"))
    }

    fn strings(&self, message: &Bytes, shape: Vec<i64>) -> Result<Tensor, String> {
        let mut elements = Vec::with_capacity(self.count.min(self.contents.len() / 2));
        for field in Fields(self.contents) {
            let Value::Bytes(bytes) = self.field(field)? else {
                return Err(self.broken());
            };
            if elements.len() == self.count {
                return Err(self.too_many(&shape));
            }
            elements.push(message.slice_ref(bytes));
        }
        Tensor::from_strings(shape, elements).map_err(|problem| problem.to_string())
    }

    fn field<'a>(&self, field: Result<(u32, Value<'a>), Malformed>) -> Result<Value<'a>, String> {
        match field {
            Ok((number, value)) if number == self.number => Ok(value),
            Ok(_) => Err(format!(
                "{} elements belong in {}, but another list is used",
                self.datatype.name(),
                self.name
            )),
            Err(Malformed) => Err(self.broken()),
        }
    }

    fn broken(&self) -> String {
        format!("{} is not a valid list", self.name)
    }

    fn too_many(&self, shape: &[i64]) -> String {
        format!("{} holds more elements than shape {shape:?}", self.name)
    }
}

impl Kind {
    fn next(self, packed: &mut &[u8]) -> Result<u64, Malformed> {
        match self {
            Self::Varint => varint(packed),
            Self::Fixed32 => {
                let (bytes, rest) = packed.split_first_chunk().ok_or(Malformed)?;
                *packed = rest;
                Ok(u32::from_le_bytes(*bytes).into())
            }
            Self::Fixed64 => {
                let (bytes, rest) = packed.split_first_chunk().ok_or(Malformed)?;
                *packed = rest;
                Ok(u64::from_le_bytes(*bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::protocol::proto::InferTensorContents;
    use prost::Message;

    fn tensor(contents: &InferTensorContents, datatype: DataType, shape: &[i64]) -> Result<Tensor, String> {
        let message = Bytes::from(contents.encode_to_vec());
        read(&message, &message, datatype, shape.to_vec())
    }

    #[test]
    fn every_type_has_its_list() {
        let contents = InferTensorContents {
            int_contents: vec![-3, 127],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Int8, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![-3_i8, 127]).unwrap())
        );
        assert_eq!(
            tensor(&contents, DataType::Int16, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![-3_i16, 127]).unwrap())
        );
        assert_eq!(
            tensor(&contents, DataType::Int32, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![-3, 127]).unwrap())
        );
        let contents = InferTensorContents {
            uint_contents: vec![0, 255],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Uint8, &[2, 1]),
            Ok(Tensor::from_vec(vec![2, 1], vec![0_u8, 255]).unwrap())
        );
        assert_eq!(
            tensor(&contents, DataType::Uint16, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![0_u16, 255]).unwrap())
        );
        assert_eq!(
            tensor(&contents, DataType::Uint32, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![0_u32, 255]).unwrap())
        );
        let contents = InferTensorContents {
            bool_contents: vec![true, false],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Bool, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![true, false]).unwrap())
        );
        let contents = InferTensorContents {
            int64_contents: vec![i64::MIN],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Int64, &[1]),
            Ok(Tensor::from_vec(vec![1], vec![i64::MIN]).unwrap())
        );
        let contents = InferTensorContents {
            uint64_contents: vec![u64::MAX],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Uint64, &[1]),
            Ok(Tensor::from_vec(vec![1], vec![u64::MAX]).unwrap())
        );
        let contents = InferTensorContents {
            fp32_contents: vec![1.5, -2.5],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Fp32, &[2]),
            Ok(Tensor::from_vec(vec![2], vec![1.5_f32, -2.5]).unwrap())
        );
        let contents = InferTensorContents {
            fp64_contents: vec![1.5],
            ..Default::default()
        };
        assert_eq!(
            tensor(&contents, DataType::Fp64, &[1]),
            Ok(Tensor::from_vec(vec![1], vec![1.5_f64]).unwrap())
        );
        let contents = InferTensorContents {
            bytes_contents: vec!["é".into(), "".into()],
            ..Default::default()
        };
        let strings = Tensor::from_strings(vec![2], vec!["é".into(), "".into()]);
        assert_eq!(tensor(&contents, DataType::Bytes, &[2]), Ok(strings.unwrap()));
    }

    /// Protocol Buffers leaves the choice to the sender; some libraries never pack.
    #[test]
    fn a_list_may_come_unpacked_or_in_pieces() {
        let expected = Tensor::from_vec(vec![3], vec![1.0_f32, 2.0, 3.0]).unwrap();
        let mut unpacked = Vec::new();
        for value in [1.0_f32, 2.0, 3.0] {
            unpacked.push(6 << 3 | 5);
            unpacked.extend_from_slice(&value.to_le_bytes());
        }
        let mut pieces = vec![6 << 3 | 2, 8];
        pieces.extend_from_slice(&1.0_f32.to_le_bytes());
        pieces.extend_from_slice(&2.0_f32.to_le_bytes());
        pieces.extend_from_slice(&unpacked[10..]);
        for contents in [unpacked, pieces] {
            let message = Bytes::from(contents);
            assert_eq!(
                read(&message, &message, DataType::Fp32, vec![3]),
                Ok(expected.clone())
            );
        }
    }

    #[test]
    fn contents_that_do_not_fit_are_refused() {
        let ints = InferTensorContents {
            int_contents: vec![1, 300],
            ..Default::default()
        };
        for (contents, datatype, shape, word) in [
            (&ints, DataType::Int8, &[2][..], "not a valid INT8"),
            (&ints, DataType::Int16, &[1], "more elements"),
            (&ints, DataType::Int16, &[3], "does not hold 2"),
            (&ints, DataType::Fp32, &[2], "belong in fp32_contents"),
            (&ints, DataType::Bytes, &[2], "belong in bytes_contents"),
            (&ints, DataType::Fp16, &[2], "raw_input_contents"),
        ] {
            let problem = tensor(contents, datatype, shape).unwrap_err();
            assert!(problem.contains(word), "{datatype:?}: {problem}");
        }
        for broken in [&b"\x12\x01\x80"[..], b"\x15\0\0\0\0", b"\x12\x05"] {
            let message = Bytes::from_static(broken);
            let problem = read(&message, &message, DataType::Int32, vec![1]).unwrap_err();
            assert!(problem.contains("not a valid list"), "{problem}");
        }
    }
}
