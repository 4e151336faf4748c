//! Calls of ONNX Runtime's C API for which `ort` has no functions.
#![allow(unsafe_code)]

use ort::device::Device;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::{AsPointer, ortsys, sys};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// A node of a session's graph, and the execution provider that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AssignedNode {
    pub(super) provider: String,
    pub(super) operator: String,
    /// Empty if the model does not name it.
    pub(super) name: String,
}

/// The graph assignment of a session that records it.
pub(super) fn assigned_nodes(session: &Session) -> ort::Result<Vec<AssignedNode>> {
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session is alive, and owns the list that it returns.
    ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &mut subgraphs, &mut count)?];
    let mut assigned = Vec::new();
    // SAFETY: the list has that many elements, and lives as long as the session.
    for &subgraph in unsafe { list(subgraphs, count) } {
        let mut provider = ptr::null();
        // SAFETY: the subgraph belongs to the session, as do the text and the list.
        ortsys![unsafe EpAssignedSubgraph_GetEpName(subgraph, &mut provider)?];
        let (mut nodes, mut count) = (ptr::null(), 0);
        ortsys![unsafe EpAssignedSubgraph_GetNodes(subgraph, &mut nodes, &mut count)?];
        for &node in unsafe { list(nodes, count) } {
            let (mut operator, mut name) = (ptr::null(), ptr::null());
            ortsys![unsafe EpAssignedNode_GetOperatorType(node, &mut operator)?];
            ortsys![unsafe EpAssignedNode_GetName(node, &mut name)?];
            // SAFETY: the texts belong to the session.
            let text = |text| unsafe { text_of(text) };
            assigned.push(AssignedNode {
                provider: text(provider),
                operator: text(operator),
                name: text(name),
            });
        }
    }
    Ok(assigned)
}

/// Whether the number of dimensions of an output is known. `ort` gives an output of unknown shape no dimensions.
pub(super) fn has_shape(session: &Session, output: usize) -> ort::Result<bool> {
    let mut info = ptr::null_mut();
    // SAFETY: the session is alive; the information is released below, after its last use.
    ortsys![unsafe SessionGetOutputTypeInfo(session.ptr(), output, &mut info)?];
    let mut tensor = ptr::null();
    // SAFETY: as above. It fails only without a pointer, which the call before would have reported.
    let cast = ortsys![@ort: unsafe CastTypeInfoToTensorInfo(info, &mut tensor) as Result];
    // SAFETY: the tensor's information is part of the other.
    let has_shape = !tensor.is_null() && ortsys![unsafe TensorTypeAndShape_HasShape(tensor)];
    ortsys![unsafe ReleaseTypeInfo(info)];
    cast.map(|()| has_shape)
}

/// What the provider's library and ONNX Runtime say about a device.
pub(super) fn metadata(device: &Device<'_>) -> BTreeMap<String, String> {
    let hardware = device.hardware_device();
    // SAFETY: both devices belong to the environment that `device` borrows, and so do their pairs.
    let by_hardware = unsafe { pairs(ortsys![HardwareDevice_Metadata](hardware.ptr())) };
    let by_provider = unsafe { pairs(ortsys![EpDevice_EpMetadata](device.ptr())) };
    by_hardware.into_iter().chain(by_provider).collect()
}

/// Has sessions of this builder use a provider by its short name.
///
/// # Errors
/// When this build does not have it, or it refuses an option.
pub(super) fn append_provider(
    builder: &mut SessionBuilder,
    name: &CStr,
    options: &BTreeMap<String, String>,
) -> ort::Result<()> {
    let texts = |texts: Vec<&String>| -> Result<Vec<CString>, std::ffi::NulError> {
        texts
            .into_iter()
            .map(|text| CString::new(text.as_bytes()))
            .collect()
    };
    let (keys, values) = (
        texts(options.keys().collect())?,
        texts(options.values().collect())?,
    );
    let pointers =
        |texts: &[CString]| -> Vec<*const c_char> { texts.iter().map(|text| text.as_ptr()).collect() };
    let (key_pointers, value_pointers) = (pointers(&keys), pointers(&values));
    // SAFETY: the texts outlive the call, which copies them; both lists have as many elements as there are options.
    ortsys![unsafe SessionOptionsAppendExecutionProvider(
        builder.ptr_mut(),
        name.as_ptr(),
        key_pointers.as_ptr(),
        value_pointers.as_ptr(),
        options.len()
    )?];
    Ok(())
}

/// # Safety
/// `pairs` is null or valid.
unsafe fn pairs(pairs: *const sys::OrtKeyValuePairs) -> BTreeMap<String, String> {
    if pairs.is_null() {
        return BTreeMap::new();
    }
    let (mut keys, mut values, mut count) = (ptr::null(), ptr::null(), 0);
    ortsys![unsafe GetKeyValuePairs(pairs, &mut keys, &mut values, &mut count)];
    // SAFETY: both lists have that many texts, which belong to the pairs.
    let texts = |texts| unsafe { list(texts, count).iter().map(|&text| text_of(text)) };
    texts(keys).zip(texts(values)).collect()
}

/// # Safety
/// `first` is null or points to that many elements, which live long enough.
unsafe fn list<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// # Safety
/// `text` is null or a valid C string.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
