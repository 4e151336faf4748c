//! Tensors as ONNX Runtime's values and back.

use super::strings;
use crate::engine::failure::explain;
use crate::engine::interface::EngineError;
use crate::tensor::{DataType, Element, Tensor, element_count};
use crate::with_element_type;
use bytes::Bytes;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};
use std::fmt::Debug;
use std::marker::PhantomData;

/// An output of at least this many bytes is not copied but stays in ONNX Runtime's memory until it is sent. For a
/// smaller one, the copy costs less than the bookkeeping.
const KEPT_BYTES: usize = 64 << 10;

/// The protocol's type; `None` if there is none (complex numbers, 4- and 8-bit floats).
pub(super) const fn datatype(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

/// A value that refers to the tensor's elements; strings are copied.
pub(super) fn borrow(tensor: &Tensor) -> Result<SessionInputValue<'_>, EngineError> {
    with_element_type!(tensor.datatype(), T => elements::<T>(tensor), BYTES => texts(tensor))
}

fn elements<T: Element + PrimitiveTensorElementType + Debug>(
    tensor: &Tensor,
) -> Result<SessionInputValue<'_>, EngineError> {
    let elements = tensor
        .elements::<T>()
        .ok_or_else(|| EngineError::Failed("a tensor's elements do not have its type".to_owned()))?;
    let value = TensorRef::from_array_view((tensor.shape(), elements)).map_err(|error| explain(&error))?;
    Ok(value.into())
}

fn texts(tensor: &Tensor) -> Result<SessionInputValue<'static>, EngineError> {
    let value = strings::value(tensor.shape(), tensor.strings().unwrap_or_default());
    Ok(value.map_err(|error| explain(&error))?.into())
}

/// The tensor of an output.
pub(super) fn take(value: DynValue) -> Result<Tensor, EngineError> {
    let ty = value.dtype().tensor_type().and_then(datatype);
    let ty = ty.ok_or_else(|| EngineError::Failed("an output is not a tensor".to_owned()))?;
    with_element_type!(ty, T => take_elements::<T>(value), BYTES => take_strings(&value))
}

fn take_elements<T: Element + PrimitiveTensorElementType + bytemuck::NoUninit>(
    value: DynValue,
) -> Result<Tensor, EngineError> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(|error| explain(&error))?;
    let shape = shape.to_vec();
    let bytes = if size_of_val(elements) < KEPT_BYTES {
        T::into_bytes(elements.to_vec())
    } else {
        Bytes::from_owner(Kept::<T>(value, PhantomData))
    };
    Tensor::from_wire(T::DATATYPE, shape, bytes).map_err(|error| EngineError::Failed(error.to_string()))
}

/// An output in ONNX Runtime's memory.
struct Kept<T>(DynValue, PhantomData<T>);

impl<T: PrimitiveTensorElementType + bytemuck::NoUninit> AsRef<[u8]> for Kept<T> {
    fn as_ref(&self) -> &[u8] {
        // It has been extracted once already.
        self.0
            .try_extract_tensor::<T>()
            .map_or(&[], |(_, elements)| bytemuck::cast_slice(elements))
    }
}

fn take_strings(value: &DynValue) -> Result<Tensor, EngineError> {
    let shape = value.dtype().tensor_shape().map(|shape| shape.to_vec());
    let shape = shape.unwrap_or_default();
    let count = element_count(&shape).unwrap_or_default();
    let strings = strings::read(value, count).map_err(|error| explain(&error))?;
    Tensor::from_strings(shape, strings).map_err(|error| EngineError::Failed(error.to_string()))
}
