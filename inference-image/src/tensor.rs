//! Tensors between the protocols, the pre-processing and the engine: owned, typed, row-major.

use half::{bf16, f16};

/// Element types of the Open Inference Protocol that this server serves (all but `BYTES`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `BOOL`, one byte.
    Bool,
    /// `UINT8`.
    Uint8,
    /// `UINT16`.
    Uint16,
    /// `UINT32`.
    Uint32,
    /// `UINT64`.
    Uint64,
    /// `INT8`.
    Int8,
    /// `INT16`.
    Int16,
    /// `INT32`.
    Int32,
    /// `INT64`.
    Int64,
    /// `FP16`; binary only.
    Fp16,
    /// `BF16`; binary only.
    Bf16,
    /// `FP32`.
    Fp32,
    /// `FP64`.
    Fp64,
}

impl DataType {
    /// Every type.
    pub const ALL: [Self; 13] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
    ];

    /// The protocol's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
        }
    }

    /// The type of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Bytes of one element in the binary tensor extension.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
        }
    }
}

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp16(Vec<f16>),
    Bf16(Vec<bf16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
}

/// Runs `$body` with `$vec` bound to the elements, whatever their type.
#[macro_export]
macro_rules! with_elements {
    ($data:expr, $vec:ident => $body:expr) => {
        match $data {
            $crate::tensor::Data::Bool($vec) => $body,
            $crate::tensor::Data::Uint8($vec) => $body,
            $crate::tensor::Data::Uint16($vec) => $body,
            $crate::tensor::Data::Uint32($vec) => $body,
            $crate::tensor::Data::Uint64($vec) => $body,
            $crate::tensor::Data::Int8($vec) => $body,
            $crate::tensor::Data::Int16($vec) => $body,
            $crate::tensor::Data::Int32($vec) => $body,
            $crate::tensor::Data::Int64($vec) => $body,
            $crate::tensor::Data::Fp16($vec) => $body,
            $crate::tensor::Data::Bf16($vec) => $body,
            $crate::tensor::Data::Fp32($vec) => $body,
            $crate::tensor::Data::Fp64($vec) => $body,
        }
    };
}

impl Data {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        with_elements!(self, elements => elements.len())
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    #[must_use]
    pub fn datatype(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::Uint8(_) => DataType::Uint8,
            Self::Uint16(_) => DataType::Uint16,
            Self::Uint32(_) => DataType::Uint32,
            Self::Uint64(_) => DataType::Uint64,
            Self::Int8(_) => DataType::Int8,
            Self::Int16(_) => DataType::Int16,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
            Self::Fp16(_) => DataType::Fp16,
            Self::Bf16(_) => DataType::Bf16,
            Self::Fp32(_) => DataType::Fp32,
            Self::Fp64(_) => DataType::Fp64,
        }
    }

    /// `count` zeros.
    #[must_use]
    pub fn zeros(datatype: DataType, count: usize) -> Self {
        match datatype {
            DataType::Bool => Self::Bool(vec![false; count]),
            DataType::Uint8 => Self::Uint8(vec![0; count]),
            DataType::Uint16 => Self::Uint16(vec![0; count]),
            DataType::Uint32 => Self::Uint32(vec![0; count]),
            DataType::Uint64 => Self::Uint64(vec![0; count]),
            DataType::Int8 => Self::Int8(vec![0; count]),
            DataType::Int16 => Self::Int16(vec![0; count]),
            DataType::Int32 => Self::Int32(vec![0; count]),
            DataType::Int64 => Self::Int64(vec![0; count]),
            DataType::Fp16 => Self::Fp16(vec![f16::ZERO; count]),
            DataType::Bf16 => Self::Bf16(vec![bf16::ZERO; count]),
            DataType::Fp32 => Self::Fp32(vec![0.0; count]),
            DataType::Fp64 => Self::Fp64(vec![0.0; count]),
        }
    }

    /// Elements from the little-endian bytes of the binary tensor extension; `None` if the length is no
    /// multiple of the element size. The copy aligns them: a body's bytes are not.
    #[must_use]
    pub fn from_bytes(datatype: DataType, bytes: &[u8]) -> Option<Self> {
        fn copy<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
            let mut elements = vec![T::zeroed(); bytes.len() / size_of::<T>()];
            bytemuck::cast_slice_mut::<T, u8>(&mut elements).copy_from_slice(bytes);
            elements
        }
        if !bytes.len().is_multiple_of(datatype.size()) {
            return None;
        }
        Some(match datatype {
            DataType::Bool => Self::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
            DataType::Uint8 => Self::Uint8(bytes.to_vec()),
            DataType::Uint16 => Self::Uint16(copy(bytes)),
            DataType::Uint32 => Self::Uint32(copy(bytes)),
            DataType::Uint64 => Self::Uint64(copy(bytes)),
            DataType::Int8 => Self::Int8(copy(bytes)),
            DataType::Int16 => Self::Int16(copy(bytes)),
            DataType::Int32 => Self::Int32(copy(bytes)),
            DataType::Int64 => Self::Int64(copy(bytes)),
            DataType::Fp16 => Self::Fp16(copy(bytes)),
            DataType::Bf16 => Self::Bf16(copy(bytes)),
            DataType::Fp32 => Self::Fp32(copy(bytes)),
            DataType::Fp64 => Self::Fp64(copy(bytes)),
        })
    }

    /// The elements as little-endian bytes, without a copy.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bool(elements) => bytemuck::cast_slice(elements),
            Self::Uint8(elements) => elements,
            Self::Uint16(elements) => bytemuck::cast_slice(elements),
            Self::Uint32(elements) => bytemuck::cast_slice(elements),
            Self::Uint64(elements) => bytemuck::cast_slice(elements),
            Self::Int8(elements) => bytemuck::cast_slice(elements),
            Self::Int16(elements) => bytemuck::cast_slice(elements),
            Self::Int32(elements) => bytemuck::cast_slice(elements),
            Self::Int64(elements) => bytemuck::cast_slice(elements),
            Self::Fp16(elements) => bytemuck::cast_slice(elements),
            Self::Bf16(elements) => bytemuck::cast_slice(elements),
            Self::Fp32(elements) => bytemuck::cast_slice(elements),
            Self::Fp64(elements) => bytemuck::cast_slice(elements),
        }
    }
}

// The binary tensor extension is little-endian, and bytes are copied as they are.
#[cfg(not(target_endian = "little"))]
compile_error!("modelservice-server supports little-endian targets only");

/// Elements and their shape; the product of the shape is the number of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<i64>,
    data: Data,
}

impl Tensor {
    /// `None` if the shape has a negative dimension or does not hold that many elements.
    #[must_use]
    pub fn new(shape: Vec<i64>, data: Data) -> Option<Self> {
        (element_count(&shape) == Some(data.len())).then_some(Self { shape, data })
    }

    /// The dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Shape and elements.
    #[must_use]
    pub fn into_parts(self) -> (Vec<i64>, Data) {
        (self.shape, self.data)
    }
}

/// Number of elements of a shape; `None` if a dimension is negative or the product overflows.
#[must_use]
pub fn element_count(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, &dimension| {
        count.checked_mul(usize::try_from(dimension).ok()?)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_survive_the_way_through_every_type() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::parse(datatype.name()), Some(datatype));
            let bytes: Vec<u8> = (0..datatype.size() * 3)
                .map(|byte| u8::from(byte % 2 == 0))
                .collect();
            let data = Data::from_bytes(datatype, &bytes).unwrap();
            assert_eq!(
                (data.len(), data.datatype(), data.as_bytes()),
                (3, datatype, bytes.as_slice())
            );
        }
    }

    #[test]
    fn half_an_element_is_refused() {
        assert_eq!(Data::from_bytes(DataType::Fp32, &[0; 7]), None);
    }

    #[test]
    fn a_shape_must_hold_its_elements() {
        assert!(Tensor::new(vec![2, 3], Data::Uint8(vec![0; 6])).is_some());
        assert!(Tensor::new(vec![2, 3], Data::Uint8(vec![0; 5])).is_none());
        assert_eq!(element_count(&[-1, 2]), None);
        assert_eq!(element_count(&[i64::MAX, 4]), None);
    }
}
