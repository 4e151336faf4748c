//! Results of calls.

use crate::abi::api;
use ort_sys::{OrtErrorCode, OrtStatusPtr};
use std::ffi::CString;
use std::ptr;

/// No problem.
pub(crate) const OK: OrtStatusPtr = OrtStatusPtr(ptr::null_mut());

/// What a call returned.
pub(crate) type Outcome<T> = Result<T, OrtStatusPtr>;

pub(crate) fn check(status: OrtStatusPtr) -> Outcome<()> {
    if status.0.is_null() { Ok(()) } else { Err(status) }
}

pub(crate) fn status(outcome: Outcome<()>) -> OrtStatusPtr {
    outcome.err().unwrap_or(OK)
}

/// The caller's fault.
pub(crate) fn refused(problem: &str) -> OrtStatusPtr {
    create(OrtErrorCode::ORT_INVALID_ARGUMENT, problem)
}

/// The device's fault.
pub(crate) fn failed(problem: &str) -> OrtStatusPtr {
    create(OrtErrorCode::ORT_EP_FAIL, problem)
}

fn create(code: OrtErrorCode, problem: &str) -> OrtStatusPtr {
    let text = CString::new(problem).unwrap_or_default();
    // SAFETY: the text outlives the call, which copies it.
    unsafe { (api().CreateStatus)(code, text.as_ptr()) }
}
