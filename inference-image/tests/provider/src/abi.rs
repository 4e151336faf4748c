//! The structures of a plug-in library, as ONNX Runtime 1.23 defines them in `onnxruntime_ep_c_api.h`.

use ort_sys::{
    ORT_API_VERSION, OrtApi, OrtApiBase, OrtEpDevice, OrtGraph, OrtHardwareDevice, OrtKernelContext,
    OrtKeyValuePairs, OrtLogger, OrtNode, OrtRunOptions, OrtSessionOptions, OrtStatusPtr,
};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// Later fields of the structures are not read.
pub(crate) const VERSION: u32 = 23;

static API: OnceLock<&OrtApi> = OnceLock::new();

/// # Safety
/// `base` is valid.
pub(crate) unsafe fn load(base: *const OrtApiBase) -> bool {
    // SAFETY: the caller's promise; the API lives as long as the process.
    let api = unsafe { ((*base).GetApi)(ORT_API_VERSION).as_ref() };
    api.map(|api| API.get_or_init(|| api)).is_some()
}

pub(crate) fn api() -> &'static OrtApi {
    match API.get() {
        Some(api) => api,
        None => std::process::abort(),
    }
}

pub(crate) fn ep_api() -> &'static EpApi {
    // SAFETY: it lives as long as the process, and begins with these fields.
    unsafe { &*(api().GetEpApi)().cast() }
}

/// An opaque type of ONNX Runtime.
pub(crate) enum GraphSupportInfo {}

/// The beginning of `OrtEpApi`.
#[repr(C)]
pub(crate) struct EpApi {
    pub(crate) create_device: unsafe extern "system" fn(
        *mut EpFactory,
        *const OrtHardwareDevice,
        *const OrtKeyValuePairs,
        *const OrtKeyValuePairs,
        *mut *mut OrtEpDevice,
    ) -> OrtStatusPtr,
    release_device: unsafe extern "system" fn(*mut OrtEpDevice),
    pub(crate) add_nodes_to_fuse: unsafe extern "system" fn(
        *mut GraphSupportInfo,
        *const *const OrtNode,
        usize,
        *const c_void,
    ) -> OrtStatusPtr,
}

/// `OrtEpFactory`.
#[repr(C)]
pub struct EpFactory {
    pub(crate) version: u32,
    pub(crate) name: unsafe extern "system" fn(*const Self) -> *const c_char,
    pub(crate) vendor: unsafe extern "system" fn(*const Self) -> *const c_char,
    pub(crate) supported_devices: unsafe extern "system" fn(
        *mut Self,
        *const *const OrtHardwareDevice,
        usize,
        *mut *mut OrtEpDevice,
        usize,
        *mut usize,
    ) -> OrtStatusPtr,
    pub(crate) create: unsafe extern "system" fn(
        *mut Self,
        *const *const OrtHardwareDevice,
        *const *const OrtKeyValuePairs,
        usize,
        *const OrtSessionOptions,
        *const OrtLogger,
        *mut *mut Ep,
    ) -> OrtStatusPtr,
    pub(crate) release: unsafe extern "system" fn(*mut Self, *mut Ep),
    pub(crate) vendor_id: unsafe extern "system" fn(*const Self) -> u32,
    pub(crate) version_text: unsafe extern "system" fn(*const Self) -> *const c_char,
    pub(crate) validate: Option<unsafe extern "system" fn()>,
    pub(crate) create_allocator: unsafe extern "system" fn(
        *mut Self,
        *const c_void,
        *const OrtKeyValuePairs,
        *mut *mut c_void,
    ) -> OrtStatusPtr,
    pub(crate) release_allocator: unsafe extern "system" fn(*mut Self, *mut c_void),
    pub(crate) create_data_transfer: unsafe extern "system" fn(*mut Self, *mut *mut c_void) -> OrtStatusPtr,
    pub(crate) is_stream_aware: unsafe extern "system" fn(*const Self) -> bool,
    pub(crate) create_stream: Option<unsafe extern "system" fn()>,
}

/// `OrtEp`; `device` is ours.
#[repr(C)]
pub(crate) struct Ep {
    pub(crate) version: u32,
    pub(crate) name: unsafe extern "system" fn(*const Self) -> *const c_char,
    pub(crate) capability:
        unsafe extern "system" fn(*mut Self, *const OrtGraph, *mut GraphSupportInfo) -> OrtStatusPtr,
    pub(crate) compile: unsafe extern "system" fn(
        *mut Self,
        *const *const OrtGraph,
        *const *const OrtNode,
        usize,
        *mut *mut ComputeInfo,
        *mut *mut OrtNode,
    ) -> OrtStatusPtr,
    pub(crate) release_compute_infos: unsafe extern "system" fn(*mut Self, *mut *mut ComputeInfo, usize),
    pub(crate) preferred_layout: Option<unsafe extern "system" fn()>,
    pub(crate) should_convert_layout: Option<unsafe extern "system" fn()>,
    pub(crate) set_dynamic_options: Option<unsafe extern "system" fn()>,
    pub(crate) on_run_start: unsafe extern "system" fn(*mut Self, *const OrtRunOptions) -> OrtStatusPtr,
    pub(crate) on_run_end: Option<unsafe extern "system" fn()>,
    pub(crate) create_allocator: Option<unsafe extern "system" fn()>,
    pub(crate) create_stream: Option<unsafe extern "system" fn()>,
    pub(crate) compatibility_info: Option<unsafe extern "system" fn()>,
    pub(crate) device: std::sync::Arc<crate::device::Device>,
}

/// `OrtNodeComputeInfo`; the last two fields are ours.
#[repr(C)]
pub(crate) struct ComputeInfo {
    pub(crate) version: u32,
    pub(crate) create_state:
        unsafe extern "system" fn(*mut Self, *mut c_void, *mut *mut c_void) -> OrtStatusPtr,
    pub(crate) compute:
        unsafe extern "system" fn(*mut Self, *mut c_void, *mut OrtKernelContext) -> OrtStatusPtr,
    pub(crate) release_state: unsafe extern "system" fn(*mut Self, *mut c_void),
    pub(crate) operator: crate::kernel::Operator,
    pub(crate) device: std::sync::Arc<crate::device::Device>,
}
