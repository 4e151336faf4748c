//! The factory: which device there is, and providers for sessions.

use crate::abi::{Ep, EpFactory, VERSION, api, ep_api};
use crate::device::Device;
use crate::mode::Mode;
use crate::status::{OK, Outcome, check, refused, status};
use crate::{DEVICE, DRIVER, graph};
use ort_sys::{
    OrtEpDevice, OrtHardwareDevice, OrtHardwareDeviceType, OrtKeyValuePairs, OrtLogger, OrtRunOptions,
    OrtSessionOptions, OrtStatusPtr,
};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::slice::from_raw_parts;
use std::sync::Arc;

const NAME: &CStr = c"TestExecutionProvider";
/// Options of a provider are entries of the session's configuration.
const OPTIONS: &str = "ep.testexecutionprovider.";

pub(crate) fn create() -> *mut EpFactory {
    Box::into_raw(Box::new(EpFactory {
        version: VERSION,
        name: factory_name,
        vendor,
        supported_devices,
        create: create_provider,
        release,
        vendor_id,
        version_text,
        validate: None,
        create_allocator,
        release_allocator,
        create_data_transfer,
        is_stream_aware,
        create_stream: None,
    }))
}

unsafe extern "system" fn factory_name(_: *const EpFactory) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "system" fn name(_: *const Ep) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "system" fn vendor(_: *const EpFactory) -> *const c_char {
    c"Example".as_ptr()
}

unsafe extern "system" fn vendor_id(_: *const EpFactory) -> u32 {
    0
}

unsafe extern "system" fn version_text(_: *const EpFactory) -> *const c_char {
    c"0.1.0".as_ptr()
}

unsafe extern "system" fn create_allocator(
    _: *mut EpFactory,
    _: *const c_void,
    _: *const OrtKeyValuePairs,
    allocator: *mut *mut c_void,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime has room for it.
    unsafe { *allocator = ptr::null_mut() };
    OK
}

unsafe extern "system" fn release_allocator(_: *mut EpFactory, _: *mut c_void) {}

unsafe extern "system" fn create_data_transfer(
    _: *mut EpFactory,
    transfer: *mut *mut c_void,
) -> OrtStatusPtr {
    // SAFETY: as above.
    unsafe { *transfer = ptr::null_mut() };
    OK
}

unsafe extern "system" fn is_stream_aware(_: *const EpFactory) -> bool {
    false
}

/// The processor, under another name.
unsafe extern "system" fn supported_devices(
    factory: *mut EpFactory,
    devices: *const *const OrtHardwareDevice,
    count: usize,
    supported: *mut *mut OrtEpDevice,
    room: usize,
    found: *mut usize,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime passes valid lists, and copies the pairs.
    unsafe {
        *found = 0;
        let is_processor = |device: &&*const OrtHardwareDevice| {
            (api().HardwareDevice_Type)(**device) == OrtHardwareDeviceType::OrtHardwareDeviceType_CPU
        };
        let Some(processor) = from_raw_parts(devices, count).iter().find(is_processor) else {
            return OK;
        };
        if room == 0 {
            return refused("there is no room for a device");
        }
        let metadata = metadata();
        let created = (ep_api().create_device)(factory, *processor, metadata, ptr::null(), supported);
        (api().ReleaseKeyValuePairs)(metadata);
        *found = usize::from(created.0.is_null());
        created
    }
}

fn metadata() -> *mut OrtKeyValuePairs {
    let mut pairs = ptr::null_mut();
    // SAFETY: the texts outlive the calls, which copy them.
    unsafe {
        (api().CreateKeyValuePairs)(&mut pairs);
        for (key, value) in [(c"device_name", DEVICE), (c"os_driver_version", DRIVER)] {
            let value = CString::new(value).unwrap_or_default();
            (api().AddKeyValuePair)(pairs, key.as_ptr(), value.as_ptr());
        }
    }
    pairs
}

unsafe extern "system" fn create_provider(
    _: *mut EpFactory,
    _: *const *const OrtHardwareDevice,
    _: *const *const OrtKeyValuePairs,
    _: usize,
    options: *const OrtSessionOptions,
    _: *const OrtLogger,
    created: *mut *mut Ep,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime passes valid options, and has room for a provider.
    status(unsafe { mode(options) }.map(|mode| {
        let provider = Box::new(Ep {
            version: VERSION,
            name,
            capability: graph::capability,
            compile: graph::compile,
            release_compute_infos: graph::release,
            preferred_layout: None,
            should_convert_layout: None,
            set_dynamic_options: None,
            on_run_start,
            on_run_end: None,
            create_allocator: None,
            create_stream: None,
            compatibility_info: None,
            device: Arc::new(Device::new(mode)),
        });
        unsafe { *created = Box::into_raw(provider) };
    }))
}

unsafe extern "system" fn release(_: *mut EpFactory, provider: *mut Ep) {
    // SAFETY: it is from `create_provider`.
    drop(unsafe { Box::from_raw(provider) });
}

unsafe extern "system" fn on_run_start(provider: *mut Ep, _: *const OrtRunOptions) -> OrtStatusPtr {
    // SAFETY: as above, and it is alive.
    unsafe { (&*provider).device.begin() };
    OK
}

/// # Safety
/// The options are valid.
unsafe fn mode(options: *const OrtSessionOptions) -> Outcome<Mode> {
    let (mut pairs, mut keys, mut values, mut count) = (ptr::null_mut(), ptr::null(), ptr::null(), 0);
    let mut mode = Ok(Mode::All);
    // SAFETY: the lists and texts belong to the pairs, which are released after their last use.
    unsafe {
        check((api().GetSessionOptionsConfigEntries)(options, &mut pairs))?;
        (api().GetKeyValuePairs)(pairs, &mut keys, &mut values, &mut count);
        for index in 0..count {
            let text = |texts: *const *const c_char| CStr::from_ptr(*texts.add(index)).to_string_lossy();
            if let Some(option) = text(keys).strip_prefix(OPTIONS) {
                mode = mode.and_then(|_| read(option, &text(values)));
            }
        }
        (api().ReleaseKeyValuePairs)(pairs);
    }
    mode
}

fn read(option: &str, value: &str) -> Outcome<Mode> {
    if option != "mode" {
        return Err(refused(&format!("there is no option {option}, only mode")));
    }
    Mode::parse(value).ok_or_else(|| refused(&format!("the option mode cannot be {value}")))
}
