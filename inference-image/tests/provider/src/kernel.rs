//! The operators.

use crate::abi::{ComputeInfo, api};
use crate::status::{OK, Outcome, check, refused, status};
use ort_sys::{OrtKernelContext, OrtStatusPtr};
use std::ffi::{CStr, c_void};
use std::ptr;
use std::slice::{from_raw_parts, from_raw_parts_mut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Relu,
    Neg,
    Add,
}

impl Operator {
    pub(crate) fn of(name: &CStr) -> Option<Self> {
        Some(match name.to_bytes() {
            b"Relu" => Self::Relu,
            b"Neg" => Self::Neg,
            b"Add" => Self::Add,
            _ => return None,
        })
    }
}

pub(crate) unsafe extern "system" fn create_state(
    _: *mut ComputeInfo,
    _: *mut c_void,
    state: *mut *mut c_void,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime has room for it.
    unsafe { *state = ptr::null_mut() };
    OK
}

pub(crate) unsafe extern "system" fn release_state(_: *mut ComputeInfo, _: *mut c_void) {}

pub(crate) unsafe extern "system" fn compute(
    compiled: *mut ComputeInfo,
    _: *mut c_void,
    context: *mut OrtKernelContext,
) -> OrtStatusPtr {
    // SAFETY: it is alive while its session runs.
    let compiled = unsafe { &*compiled };
    // SAFETY: ONNX Runtime passes a valid context.
    let run = || unsafe { apply(compiled.operator, context) };
    status(compiled.device.check().and_then(|()| run()))
}

unsafe fn apply(operator: Operator, context: *mut OrtKernelContext) -> Outcome<()> {
    // SAFETY: the context is valid, and so are its values during the run.
    unsafe {
        let (shape, a) = input(context, 0)?;
        let result: Vec<f32> = match operator {
            Operator::Relu => a.iter().map(|a| a.max(0.0)).collect(),
            Operator::Neg => a.iter().map(|a| -a).collect(),
            Operator::Add => {
                let (other, b) = input(context, 1)?;
                if shape != other {
                    return Err(refused("the test device adds only tensors of one shape"));
                }
                a.iter().zip(b).map(|(a, b)| a + b).collect()
            }
        };
        let (mut value, mut data) = (ptr::null_mut(), ptr::null_mut());
        check((api().KernelContext_GetOutput)(
            context,
            0,
            shape.as_ptr(),
            shape.len(),
            &mut value,
        ))?;
        check((api().GetTensorMutableData)(value, &mut data))?;
        if !result.is_empty() {
            from_raw_parts_mut(data.cast(), result.len()).copy_from_slice(&result);
        }
    }
    Ok(())
}

unsafe fn input<'a>(context: *mut OrtKernelContext, index: usize) -> Outcome<(Vec<i64>, &'a [f32])> {
    let (mut value, mut info, mut dims, mut count) = (ptr::null(), ptr::null_mut(), 0, 0);
    let mut data = ptr::null_mut();
    // SAFETY: as above; ONNX Runtime has allocated as many elements as the shape has.
    unsafe {
        check((api().KernelContext_GetInput)(context, index, &mut value))?;
        check((api().GetTensorTypeAndShape)(value, &mut info))?;
        check((api().GetDimensionsCount)(info, &mut dims))?;
        let mut shape = vec![0; dims];
        check((api().GetDimensions)(info, shape.as_mut_ptr(), dims))?;
        check((api().GetTensorShapeElementCount)(info, &mut count))?;
        (api().ReleaseTensorTypeAndShapeInfo)(info);
        check((api().GetTensorMutableData)(value.cast_mut(), &mut data))?;
        let elements = if count == 0 {
            &[]
        } else {
            from_raw_parts(data.cast(), count)
        };
        Ok((shape, elements))
    }
}
