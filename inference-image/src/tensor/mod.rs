//! Tensors, passed between the protocols, the pre-processing and the engine: typed, row-major, immutable. Their bytes
//! are shared, so that a tensor can be taken from the body of a request, cut out of a batch, or put into a response
//! without a copy.

pub(crate) mod datatype;
mod input;

pub(crate) use datatype::{ALIGNMENT, aligned};
pub use datatype::{DataType, Element};
pub use input::{InputError, InputProblem};

use bytes::{Bytes, BytesMut};

/// Elements, their type and their shape; the product of the shape is the number of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    datatype: DataType,
    shape: Vec<i64>,
    data: Data,
}

/// The elements.
#[derive(Clone, Debug, PartialEq)]
enum Data {
    /// Native-endian and aligned for their type; a `BOOL` is 0 or 1.
    Fixed(Bytes),
    /// Any bytes.
    Strings(Vec<Bytes>),
}

/// Why bytes do not form a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// A negative dimension, or more elements than can be counted.
    #[error("{0:?} is not a valid shape of a tensor")]
    Shape(Vec<i64>),
    /// The elements do not fill the shape.
    #[error("shape {shape:?} does not hold {found} elements")]
    Elements {
        /// The shape.
        shape: Vec<i64>,
        /// Elements that were given.
        found: usize,
    },
    /// The bytes do not fill the shape.
    #[error("{datatype} of shape {shape:?} takes {expected} bytes, not {found}")]
    Bytes {
        /// Type of the elements.
        datatype: &'static str,
        /// The shape.
        shape: Vec<i64>,
        /// Bytes that the shape takes.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A `BYTES` tensor whose lengths do not fit its bytes.
    #[error(
        "the BYTES elements do not fit their lengths: each is 4 bytes of length (little-endian) and its bytes"
    )]
    Lengths,
}

// The protocols are little-endian, and bytes are used as they are.
#[cfg(not(target_endian = "little"))]
compile_error!("modelservice-server supports little-endian targets only");

impl Tensor {
    /// A tensor of these elements, without a copy; `None` if the shape does not hold that many.
    #[must_use]
    pub fn from_vec<T: Element>(shape: Vec<i64>, elements: Vec<T>) -> Option<Self> {
        let fits = element_count(&shape) == Some(elements.len());
        fits.then(|| Self {
            datatype: T::DATATYPE,
            shape,
            data: Data::Fixed(T::into_bytes(elements)),
        })
    }

    /// A `BYTES` tensor of these elements.
    ///
    /// # Errors
    /// When the shape does not hold this many.
    pub fn from_strings(shape: Vec<i64>, elements: Vec<Bytes>) -> Result<Self, TensorError> {
        if element_count(&shape) != Some(elements.len()) {
            let found = elements.len();
            return Err(TensorError::Elements { shape, found });
        }
        Ok(Self {
            datatype: DataType::Bytes,
            shape,
            data: Data::Strings(elements),
        })
    }

    /// A tensor from the bytes of the binary tensor extension or of gRPC's raw contents: little-endian elements, or
    /// for `BYTES` each element after its length in 4 bytes. They are copied only if they are not aligned.
    ///
    /// # Errors
    /// When the bytes do not fill the shape.
    pub fn from_wire(datatype: DataType, shape: Vec<i64>, bytes: Bytes) -> Result<Self, TensorError> {
        let Some(count) = element_count(&shape) else {
            return Err(TensorError::Shape(shape));
        };
        let Some(size) = datatype.size() else {
            return Self::from_strings(shape, read_strings(bytes, count)?);
        };
        let expected = count
            .checked_mul(size)
            .ok_or_else(|| TensorError::Shape(shape.clone()))?;
        if expected != bytes.len() {
            return Err(TensorError::Bytes {
                datatype: datatype.name(),
                shape,
                expected,
                found: bytes.len(),
            });
        }
        Ok(Self {
            datatype,
            shape,
            data: Data::Fixed(datatype.normalised(bytes)),
        })
    }

    /// Zeros, or empty strings; `None` if the shape is invalid.
    #[must_use]
    pub fn zeros(datatype: DataType, shape: Vec<i64>) -> Option<Self> {
        let count = element_count(&shape)?;
        let data = match datatype.size() {
            Some(size) => {
                Data::Fixed(datatype.normalised(BytesMut::zeroed(count.checked_mul(size)?).freeze()))
            }
            None => Data::Strings(vec![Bytes::new(); count]),
        };
        Some(Self {
            datatype,
            shape,
            data,
        })
    }

    /// The dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The type of the elements.
    #[must_use]
    pub const fn datatype(&self) -> DataType {
        self.datatype
    }

    /// The same elements in another shape; the same tensor if they do not fill it.
    #[must_use]
    pub fn reshaped(self, shape: Vec<i64>) -> Self {
        if element_count(&shape) == Some(self.len()) {
            Self { shape, ..self }
        } else {
            self
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Fixed(bytes) => bytes.len() / self.datatype.size().unwrap_or(1),
            Data::Strings(elements) => elements.len(),
        }
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements; `None` if they are of another type.
    #[must_use]
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        match &self.data {
            Data::Fixed(bytes) if T::DATATYPE == self.datatype => T::from_bytes(bytes),
            _ => None,
        }
    }

    /// The elements of a `BYTES` tensor.
    #[must_use]
    pub fn strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Strings(elements) => Some(elements),
            Data::Fixed(_) => None,
        }
    }

    /// The inverse of [`Self::from_wire`]; without a copy except for `BYTES`.
    #[must_use]
    pub fn to_wire(&self) -> Bytes {
        match &self.data {
            Data::Fixed(bytes) => bytes.clone(),
            Data::Strings(elements) => write_strings(elements),
        }
    }

    /// Length of [`Self::to_wire`], in bytes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        match &self.data {
            Data::Fixed(bytes) => bytes.len(),
            Data::Strings(elements) => elements.iter().map(|element| LENGTH + element.len()).sum(),
        }
    }

    /// Joins these tensors to one batch, along the first dimension; `None` if there are none, they have no first
    /// dimension, or differ in type or in another dimension.
    #[must_use]
    pub fn concatenate(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        let (_, rest) = first.shape.split_first()?;
        let fits = |part: &&Self| part.datatype == first.datatype && part.shape.get(1..) == Some(rest);
        if !parts.iter().all(fits) {
            return None;
        }
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        let data = match &first.data {
            Data::Fixed(_) => Data::Fixed(concatenated(parts)),
            Data::Strings(_) => {
                let strings = parts.iter().filter_map(|part| part.strings());
                Data::Strings(strings.flatten().cloned().collect())
            }
        };
        Some(Self {
            datatype: first.datatype,
            shape,
            data,
        })
    }

    /// Splits a batch into parts of these sizes along the first dimension, without a copy; `None` if they do not add
    /// up to it.
    #[must_use]
    pub fn split(&self, sizes: &[i64]) -> Option<Vec<Self>> {
        let (&batch, rest) = self.shape.split_first()?;
        if sizes.iter().any(|&size| size < 0) || sizes.iter().sum::<i64>() != batch {
            return None;
        }
        let row = element_count(rest)?;
        let mut start = 0;
        let part = |size: &i64| {
            let mut shape = self.shape.clone();
            shape[0] = *size;
            let count = usize::try_from(*size).ok()? * row;
            let range = start..start + count;
            start = range.end;
            let data = match &self.data {
                Data::Fixed(bytes) => {
                    let size = self.datatype.size()?;
                    Data::Fixed(bytes.slice(range.start * size..range.end * size))
                }
                Data::Strings(elements) => Data::Strings(elements[range].to_vec()),
            };
            Some(Self {
                datatype: self.datatype,
                shape,
                data,
            })
        };
        sizes.iter().map(part).collect()
    }
}

/// Number of elements of a shape; `None` if a dimension is negative or the product overflows.
#[must_use]
pub fn element_count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, &dimension| {
        count.checked_mul(usize::try_from(dimension).ok()?)
    })
}

fn concatenated(parts: &[&Tensor]) -> Bytes {
    let bytes = || {
        parts.iter().filter_map(|part| match &part.data {
            Data::Fixed(bytes) => Some(bytes),
            Data::Strings(_) => None,
        })
    };
    let mut all = aligned(bytes().map(Bytes::len).sum(), 0);
    for part in bytes() {
        all.extend_from_slice(part);
    }
    all.freeze()
}

/// Bytes of the length in front of each element of `BYTES`.
const LENGTH: usize = 4;

/// Reads at most one element more than expected: that is enough to detect too many, and an empty element takes eight
/// times as much memory as in the request.
fn read_strings(mut bytes: Bytes, expected: usize) -> Result<Vec<Bytes>, TensorError> {
    let mut elements = Vec::new();
    while elements.len() <= expected
        && let Some((length, _)) = bytes.split_first_chunk::<LENGTH>()
    {
        let end = usize::try_from(u32::from_le_bytes(*length))
            .ok()
            .and_then(|length| length.checked_add(LENGTH));
        let end = end
            .filter(|&end| end <= bytes.len())
            .ok_or(TensorError::Lengths)?;
        elements.push(bytes.split_to(end).slice(LENGTH..));
    }
    if bytes.is_empty() || elements.len() > expected {
        Ok(elements)
    } else {
        Err(TensorError::Lengths)
    }
}

fn write_strings(elements: &[Bytes]) -> Bytes {
    let mut bytes = BytesMut::new();
    for element in elements {
        // The body of a request is far smaller than 4 GiB, and so is the output of a model.
        let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(element);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_survive_the_way_through_every_type() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::parse(datatype.name()), Some(datatype));
            let bytes: Bytes = match datatype.size() {
                Some(size) => (0..size * 3).map(|byte| u8::from(byte % 2 == 0)).collect(),
                None => Bytes::from_static(b"\x02\0\0\0\xff\0\0\0\0\0\x01\0\0\0b"),
            };
            let tensor = Tensor::from_wire(datatype, vec![3, 1], bytes.clone()).unwrap();
            assert_eq!((tensor.len(), tensor.datatype()), (3, datatype));
            assert_eq!((tensor.wire_len(), tensor.to_wire()), (bytes.len(), bytes));
        }
    }

    /// The bytes of a body may start anywhere; ONNX Runtime's kernels require alignment.
    #[test]
    fn elements_are_aligned_wherever_their_bytes_come_from() {
        let mut body = vec![0_u8; 33];
        body[9..13].copy_from_slice(&7.5_f32.to_le_bytes());
        let body = Bytes::from(body);
        for offset in 0..8 {
            let bytes = body.slice(offset..offset + 24);
            let tensor = Tensor::from_wire(DataType::Fp32, vec![6], bytes.clone()).unwrap();
            assert_eq!(tensor.elements::<f32>().unwrap().len(), 6);
            assert_eq!(tensor.to_wire(), bytes);
        }
        let shifted = Tensor::from_wire(DataType::Fp32, vec![1], body.slice(9..13)).unwrap();
        assert_eq!(shifted.elements::<f32>().unwrap(), [7.5]);
        let both = Tensor::concatenate(&[&shifted, &shifted]).unwrap();
        for own in [&shifted, &both] {
            assert_eq!(own.elements::<f32>().unwrap().as_ptr().align_offset(ALIGNMENT), 0);
        }
    }

    /// In C++ a bool that is neither 0 nor 1 is undefined behaviour.
    #[test]
    fn any_byte_but_0_is_true() {
        let tensor = Tensor::from_wire(DataType::Bool, vec![3], Bytes::from_static(&[0, 1, 200])).unwrap();
        assert_eq!(tensor.elements::<bool>().unwrap(), [false, true, true]);
        assert_eq!(tensor.to_wire(), [0_u8, 1, 1].as_slice());
    }

    #[test]
    fn bytes_that_are_no_tensor_are_refused() {
        let wire = |datatype, shape: &[i64], bytes: &'static [u8]| {
            Tensor::from_wire(datatype, shape.to_vec(), Bytes::from_static(bytes)).unwrap_err()
        };
        let problem = wire(DataType::Fp32, &[2], &[0; 7]).to_string();
        assert!(problem.contains("takes 8 bytes, not 7"), "{problem}");
        for shape in [&[-1, 2][..], &[i64::MAX, 4], &[i64::MAX / 4, 1]] {
            assert!(matches!(
                wire(DataType::Fp64, shape, &[]),
                TensorError::Shape(_) | TensorError::Bytes { .. }
            ));
        }
        assert_eq!(wire(DataType::Bytes, &[1], b"\xff\0\0\0b"), TensorError::Lengths);
        assert_eq!(wire(DataType::Bytes, &[1], b"\x01\0\0\0bc"), TensorError::Lengths);
        assert!(matches!(
            wire(DataType::Bytes, &[2], b"\x01\0\0\0b"),
            TensorError::Elements { found: 1, .. }
        ));
        assert!(matches!(
            wire(DataType::Bytes, &[2], &[0; 40]),
            TensorError::Elements { found: 3, .. }
        ));
        assert!(Tensor::from_vec(vec![2, 3], vec![0_u8; 5]).is_none());
        assert_eq!(element_count(&[-1, 2]), None);
    }

    #[test]
    fn a_batch_is_cut_into_what_it_was_made_of() {
        let a = Tensor::from_vec(vec![1, 2], vec![1_i64, 2]).unwrap();
        let b = Tensor::from_vec(vec![2, 2], vec![3_i64, 4, 5, 6]).unwrap();
        let batch = Tensor::concatenate(&[&a, &b]).unwrap();
        assert_eq!(
            (batch.shape(), batch.elements::<i64>().unwrap()),
            (&[3, 2][..], &[1, 2, 3, 4, 5, 6][..])
        );
        assert_eq!(batch.split(&[1, 2]).unwrap(), [a.clone(), b]);
        assert!(batch.split(&[1, 1]).is_none() && batch.split(&[4, -1]).is_none());

        let strings = Tensor::from_strings(vec![1], vec!["é".into()]).unwrap();
        let twice = Tensor::concatenate(&[&strings, &strings]).unwrap();
        assert_eq!(twice.split(&[1, 1]).unwrap(), [strings.clone(), strings]);

        let wider = Tensor::from_vec(vec![1, 3], vec![1_i64, 2, 3]).unwrap();
        let other = Tensor::from_vec(vec![1, 2], vec![1_i32, 2]).unwrap();
        let scalar = Tensor::from_vec(vec![], vec![1_i64]).unwrap();
        for stranger in [&wider, &other, &scalar] {
            assert!(Tensor::concatenate(&[&a, stranger]).is_none());
        }
        assert!(Tensor::concatenate(&[&scalar]).is_none() && Tensor::concatenate(&[]).is_none());
    }
}
