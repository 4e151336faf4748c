//! The element types of the Open Inference Protocol, and their Rust types.

use bytes::{Bytes, BytesMut};
use half::{bf16, f16};

/// Element types of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// `FP16`; has no JSON form.
    Fp16,
    /// `BF16`; has no JSON form.
    Bf16,
    /// `FP32`.
    Fp32,
    /// `FP64`.
    Fp64,
    /// `BYTES`: strings.
    Bytes,
}

impl DataType {
    /// Every type.
    pub const ALL: [Self; 14] = [
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
        Self::Bytes,
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
            Self::Bytes => "BYTES",
        }
    }

    /// The type of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.name() == name)
    }

    /// Bytes of one element; `None` for `BYTES`, whose elements vary.
    #[must_use]
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The same elements, aligned and with truth values as 0 and 1; copied only if necessary.
    pub(super) fn normalised(self, bytes: Bytes) -> Bytes {
        if self == Self::Bool && bytes.iter().any(|&byte| byte > 1) {
            return bytes.iter().map(|&byte| u8::from(byte != 0)).collect();
        }
        let size = self.size().unwrap_or(1);
        if (bytes.as_ptr() as usize).is_multiple_of(size) {
            return bytes;
        }
        let mut copy = aligned(bytes.len(), 0);
        copy.extend_from_slice(&bytes);
        copy.freeze()
    }
}

/// Alignment of elements: a cache line, which is also the widest vector that ONNX Runtime loads.
pub(crate) const ALIGNMENT: usize = 64;

/// An empty buffer for this many bytes, in which the byte `at` is aligned.
pub(crate) fn aligned(capacity: usize, at: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(capacity + ALIGNMENT);
    let target = buffer.as_ptr() as usize + at;
    let skip = target.next_multiple_of(ALIGNMENT) - target;
    buffer.resize(skip, 0);
    buffer.split_off(skip)
}

/// A Rust type that stands for an element type.
pub trait Element: Copy + Send + Sync + 'static {
    /// The element type.
    const DATATYPE: DataType;

    /// The bytes of elements, without a copy.
    fn into_bytes(elements: Vec<Self>) -> Bytes;

    /// Elements from aligned bytes; `None` if they do not fit.
    fn from_bytes(bytes: &[u8]) -> Option<&[Self]>;
}

/// Owns elements and exposes their bytes.
struct Owned<T>(Vec<T>);

impl<T: bytemuck::NoUninit> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

macro_rules! elements {
    ($($type:ty: $datatype:ident),* $(,)?) => {$(
        impl Element for $type {
            const DATATYPE: DataType = DataType::$datatype;

            fn into_bytes(elements: Vec<Self>) -> Bytes {
                Bytes::from_owner(Owned(elements))
            }

            fn from_bytes(bytes: &[u8]) -> Option<&[Self]> {
                // An empty slice needs no alignment.
                if bytes.is_empty() {
                    return Some(&[]);
                }
                bytemuck::checked::try_cast_slice(bytes).ok()
            }
        }
    )*};
}

elements!(
    bool: Bool,
    u8: Uint8,
    u16: Uint16,
    u32: Uint32,
    u64: Uint64,
    i8: Int8,
    i16: Int16,
    i32: Int32,
    i64: Int64,
    f16: Fp16,
    bf16: Bf16,
    f32: Fp32,
    f64: Fp64,
);

/// Runs `$body` with `$type` bound to the Rust type of an element type, or else `$strings` for `BYTES`.
#[macro_export]
macro_rules! with_element_type {
    ($datatype:expr, $type:ident => $body:expr, BYTES => $strings:expr) => {
        match $datatype {
            $crate::tensor::datatype::DataType::Bool => {
                type $type = bool;
                $body
            }
            $crate::tensor::datatype::DataType::Uint8 => {
                type $type = u8;
                $body
            }
            $crate::tensor::datatype::DataType::Uint16 => {
                type $type = u16;
                $body
            }
            $crate::tensor::datatype::DataType::Uint32 => {
                type $type = u32;
                $body
            }
            $crate::tensor::datatype::DataType::Uint64 => {
                type $type = u64;
                $body
            }
            $crate::tensor::datatype::DataType::Int8 => {
                type $type = i8;
                $body
            }
            $crate::tensor::datatype::DataType::Int16 => {
                type $type = i16;
                $body
            }
            $crate::tensor::datatype::DataType::Int32 => {
                type $type = i32;
                $body
            }
            $crate::tensor::datatype::DataType::Int64 => {
                type $type = i64;
                $body
            }
            $crate::tensor::datatype::DataType::Fp16 => {
                type $type = half::f16;
                $body
            }
            $crate::tensor::datatype::DataType::Bf16 => {
                type $type = half::bf16;
                $body
            }
            $crate::tensor::datatype::DataType::Fp32 => {
                type $type = f32;
                $body
            }
            $crate::tensor::datatype::DataType::Fp64 => {
                type $type = f64;
                $body
            }
            $crate::tensor::datatype::DataType::Bytes => $strings,
        }
    };
}
