//! The elements of a tensor: mostly of few, such as sizes, axes and scales.

use super::messages::Tensor;
use bytes::Bytes;

/// A tensor with more elements is not a list of sizes or axes.
const FEW: usize = 64;

/// `TensorProto.DataType`.
pub(crate) mod datatype {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
}

impl Tensor {
    /// Its elements, if they are a few integers.
    pub(crate) fn ints(&self) -> Option<Vec<i64>> {
        self.few()?;
        self.integers()
    }

    /// Its elements, if they are integers, and in this file.
    pub(crate) fn integers(&self) -> Option<Vec<i64>> {
        let count = self.count()?;
        let ints: Vec<i64> = match (&self.raw, self.data_type) {
            (Some(raw), datatype::INT64) => fixed(raw, i64::from_le_bytes),
            (Some(raw), datatype::INT32) => fixed(raw, |four| i64::from(i32::from_le_bytes(four))),
            (Some(raw), datatype::BOOL) => fixed(raw, |[one]: [u8; 1]| i64::from(one)),
            (None, datatype::INT64) => varints(&self.int64s)?,
            (None, datatype::INT32 | datatype::BOOL) => varints(&self.int32s)?,
            _ => return None,
        };
        (ints.len() == count).then_some(ints)
    }

    /// Its elements, if they are a few FP32 numbers.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
        let count = self.few().filter(|_| self.data_type == datatype::FLOAT)?;
        let floats: Vec<f32> = match &self.raw {
            Some(raw) => fixed(raw, f32::from_le_bytes),
            None => {
                let parts = self.floats.iter();
                parts.flat_map(|part| fixed(part, f32::from_le_bytes)).collect()
            }
        };
        (floats.len() == count).then_some(floats)
    }

    /// The number of elements, if it is small and they are in this file.
    fn few(&self) -> Option<usize> {
        self.count().filter(|&count| count <= FEW)
    }

    /// The number of elements, if they are in this file.
    fn count(&self) -> Option<usize> {
        let count: i64 = self
            .dims
            .iter()
            .try_fold(1_i64, |count, &size| count.checked_mul(size))?;
        usize::try_from(count).ok().filter(|_| self.location == 0)
    }
}

/// Numbers of a fixed width.
fn fixed<const WIDTH: usize, T>(bytes: &[u8], read: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<WIDTH>();
    chunks.iter().map(|&chunk| read(chunk)).collect()
}

/// Numbers of a variable width; `None` if they are truncated.
fn varints(parts: &[Bytes]) -> Option<Vec<i64>> {
    let mut numbers = Vec::new();
    for part in parts {
        let mut left = &part[..];
        while !left.is_empty() {
            numbers.push(prost::encoding::decode_varint(&mut left).ok()?.cast_signed());
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tensor(data_type: i32, dims: &[i64]) -> Tensor {
        Tensor {
            data_type,
            dims: dims.to_vec(),
            ..Tensor::default()
        }
    }

    #[test]
    fn few_integers_are_read_in_each_form_that_a_file_may_hold_them_in() {
        let expected = Some(vec![0, -1]);
        let raw = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
        let minus_one: Vec<u8> = [vec![0], vec![0xFF; 9], vec![1]].concat();
        for form in [
            Tensor {
                raw: raw(&[[0; 8], [0xFF; 8]].concat()),
                ..tensor(datatype::INT64, &[2])
            },
            Tensor {
                raw: raw(&[[0; 4], [0xFF; 4]].concat()),
                ..tensor(datatype::INT32, &[2])
            },
            Tensor {
                int64s: vec![minus_one.clone().into()],
                ..tensor(datatype::INT64, &[2])
            },
            Tensor {
                int32s: vec![minus_one[..1].to_vec().into(), minus_one[1..].to_vec().into()],
                ..tensor(datatype::INT32, &[2])
            },
        ] {
            assert_eq!(form.ints(), expected, "{form:?}");
        }
    }

    #[test]
    fn what_is_not_all_there_is_not_read() {
        let whole = Tensor {
            raw: Some(vec![0; 16].into()),
            ..tensor(datatype::INT64, &[2])
        };
        assert!(whole.ints().is_some());
        let elsewhere = Tensor {
            location: 1,
            ..whole.clone()
        };
        let short = Tensor {
            dims: vec![3],
            ..whole.clone()
        };
        let negative = Tensor {
            dims: vec![-2],
            ..whole.clone()
        };
        let text = Tensor {
            data_type: 8,
            ..whole
        };
        let cut = Tensor {
            int64s: vec![vec![0, 0xFF].into()],
            ..tensor(datatype::INT64, &[2])
        };
        for tensor in [elsewhere, short, negative, text, cut] {
            assert_eq!(tensor.ints(), None, "{tensor:?}");
        }
    }

    #[test]
    fn many_elements_are_weights_and_only_looked_at_where_all_are_wanted() {
        let weights = Tensor {
            raw: Some(vec![0; 8 * 65].into()),
            ..tensor(datatype::INT64, &[65])
        };
        assert_eq!(weights.ints(), None);
        assert_eq!(weights.integers().unwrap().len(), 65);
    }
}
