//! An execution provider in a plug-in library, for tests. It computes Relu, Neg and Add of floats on the CPU, and its
//! option `mode` decides what goes wrong:
//!
//! | mode | the provider |
//! |---|---|
//! | `all` (the default) | runs each node that it can |
//! | `part` | runs Relu alone |
//! | `none` | runs no node |
//! | `fail-first-run` | fails in the first run of each session |
//! | `fail-after-N` | fails from then on, once there have been N runs in the process |
//! | `fail-at-N` | fails in the Nth run in the process |
//! | `slow` | takes 200 ms for each run |
//!
//! A session is refused if there is another option or mode.
#![allow(unsafe_code)]

mod abi;
mod device;
mod factory;
mod graph;
mod kernel;
mod mode;
mod status;

use abi::EpFactory;
use ort_sys::{OrtApiBase, OrtLogger, OrtStatusPtr};
use status::{OK, refused};
use std::ffi::c_char;

/// Name of the provider.
pub const NAME: &str = "TestExecutionProvider";
/// Name of its device.
pub const DEVICE: &str = "Test TPU";
/// Version of the device's driver.
pub const DRIVER: &str = "7.0.0.1";

/// What ONNX Runtime calls after it has loaded the library.
///
/// # Safety
/// The pointers are valid; there is room for `room` factories.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn CreateEpFactories(
    _name: *const c_char,
    base: *const OrtApiBase,
    _logger: *const OrtLogger,
    factories: *mut *mut EpFactory,
    room: usize,
    count: *mut usize,
) -> OrtStatusPtr {
    // SAFETY: the caller's promise. The API lives as long as the process.
    unsafe {
        if !abi::load(base) || room == 0 {
            return refused("this ONNX Runtime is too old");
        }
        *factories = factory::create();
        *count = 1;
    }
    OK
}

/// What ONNX Runtime calls before it unloads the library.
///
/// # Safety
/// The factory is from [`CreateEpFactories`].
#[unsafe(no_mangle)]
pub unsafe extern "system" fn ReleaseEpFactory(factory: *mut EpFactory) -> OrtStatusPtr {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(factory) });
    OK
}
