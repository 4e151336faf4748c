//! ONNX Runtime's strings, which hold any bytes. `ort` takes and returns them only as UTF-8 without a zero, so ONNX
//! Runtime's own functions are called here.

use bytes::Bytes;
use ort::memory::Allocator;
use ort::value::{DynTensor, DynValue, TensorElementType};
use ort::{AsPointer, ortsys};
use std::ffi::c_char;
use std::ptr;

/// A value with a copy of these strings.
#[allow(unsafe_code)]
pub(super) fn value(shape: &[i64], strings: &[Bytes]) -> ort::Result<DynTensor> {
    let mut value = DynTensor::new(&Allocator::default(), TensorElementType::String, shape)?;
    for (index, string) in strings.iter().enumerate() {
        let mut buffer: *mut c_char = ptr::null_mut();
        // SAFETY: the value is a tensor of strings, and ONNX Runtime checks the index.
        ortsys![unsafe GetResizedStringTensorElementBuffer(value.ptr_mut(), index, string.len(), &mut buffer)?];
        if !string.is_empty() {
            // SAFETY: the buffer has this length and belongs to the value alone.
            unsafe { ptr::copy_nonoverlapping(string.as_ptr(), buffer.cast(), string.len()) };
        }
    }
    Ok(value)
}

/// The strings of a value that holds this many.
#[allow(unsafe_code)]
pub(super) fn read(value: &DynValue, count: usize) -> ort::Result<Vec<Bytes>> {
    let mut length = 0;
    // SAFETY: ONNX Runtime checks that it is a tensor of strings.
    ortsys![unsafe GetStringTensorDataLength(value.ptr(), &mut length)?];
    let mut bytes = vec![0_u8; length];
    let mut starts = vec![0_usize; count];
    // SAFETY: both buffers have the lengths that are given, which ONNX Runtime compares with the value's.
    ortsys![unsafe GetStringTensorContent(
        value.ptr(),
        bytes.as_mut_ptr().cast(),
        length,
        starts.as_mut_ptr(),
        count
    )?];
    let bytes = Bytes::from(bytes);
    let ends = starts.iter().skip(1).copied().chain([length]);
    Ok(starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| bytes.slice(start..end))
        .collect())
}
