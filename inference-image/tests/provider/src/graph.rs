//! Which nodes of a graph the provider runs, and how.

use crate::abi::{ComputeInfo, Ep, GraphSupportInfo, VERSION, api, ep_api};
use crate::kernel::{self, Operator};
use crate::mode::Mode;
use crate::status::{Outcome, check, status};
use ort_sys::{ONNXTensorElementDataType, OrtGraph, OrtNode, OrtStatusPtr};
use std::ffi::CStr;
use std::ptr;
use std::slice::from_raw_parts;
use std::sync::Arc;

/// Each node becomes a function of its own.
pub(crate) unsafe extern "system" fn capability(
    provider: *mut Ep,
    graph: *const OrtGraph,
    support: *mut GraphSupportInfo,
) -> OrtStatusPtr {
    // SAFETY: ONNX Runtime passes valid pointers.
    status(unsafe { claim((&*provider).device.mode, graph, support) })
}

unsafe fn claim(mode: Mode, graph: *const OrtGraph, support: *mut GraphSupportInfo) -> Outcome<()> {
    // SAFETY: as above.
    unsafe {
        for node in nodes(graph)? {
            let is_claimed = match operator(node)? {
                _ if mode == Mode::None => false,
                Some(Operator::Relu) => true,
                Some(_) => mode != Mode::Part,
                None => false,
            };
            if is_claimed && is_float(node)? {
                check((ep_api().add_nodes_to_fuse)(support, &node, 1, ptr::null()))?;
            }
        }
    }
    Ok(())
}

pub(crate) unsafe extern "system" fn compile(
    provider: *mut Ep,
    graphs: *const *const OrtGraph,
    _: *const *const OrtNode,
    count: usize,
    compiled: *mut *mut ComputeInfo,
    _: *mut *mut OrtNode,
) -> OrtStatusPtr {
    let compile = |index| {
        // SAFETY: ONNX Runtime passes lists of `count` elements; each graph has the node of `capability`.
        unsafe {
            let mut operators = nodes(*graphs.add(index))?.into_iter().map(|node| operator(node));
            let operator = operators.next().transpose()?.flatten().unwrap_or(Operator::Relu);
            *compiled.add(index) = Box::into_raw(Box::new(ComputeInfo {
                version: VERSION,
                create_state: kernel::create_state,
                compute: kernel::compute,
                release_state: kernel::release_state,
                operator,
                device: Arc::clone(&(&*provider).device),
            }));
        }
        Ok(())
    };
    status((0..count).try_for_each(compile))
}

pub(crate) unsafe extern "system" fn release(_: *mut Ep, compiled: *mut *mut ComputeInfo, count: usize) {
    for index in 0..count {
        // SAFETY: they are from `compile`.
        drop(unsafe { Box::from_raw(*compiled.add(index)) });
    }
}

unsafe fn nodes(graph: *const OrtGraph) -> Outcome<Vec<*const OrtNode>> {
    let mut count = 0;
    // SAFETY: the graph is valid, and the list has room for its nodes.
    unsafe {
        check((api().Graph_GetNumNodes)(graph, &mut count))?;
        let mut nodes = vec![ptr::null(); count];
        check((api().Graph_GetNodes)(graph, nodes.as_mut_ptr(), count))?;
        Ok(nodes)
    }
}

unsafe fn operator(node: *const OrtNode) -> Outcome<Option<Operator>> {
    let mut name = ptr::null();
    // SAFETY: the node is valid, and the text belongs to it.
    unsafe {
        check((api().Node_GetOperatorType)(node, &mut name))?;
        Ok(Operator::of(CStr::from_ptr(name)))
    }
}

/// Whether all inputs are tensors of floats.
unsafe fn is_float(node: *const OrtNode) -> Outcome<bool> {
    let mut count = 0;
    // SAFETY: the node is valid, and so are its inputs and their types.
    unsafe {
        check((api().Node_GetNumInputs)(node, &mut count))?;
        let mut inputs = vec![ptr::null(); count];
        check((api().Node_GetInputs)(node, inputs.as_mut_ptr(), count))?;
        for &input in from_raw_parts(inputs.as_ptr(), count) {
            let (mut kind, mut tensor) = (ptr::null(), ptr::null());
            let mut element = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
            check((api().GetValueInfoTypeInfo)(input, &mut kind))?;
            check((api().CastTypeInfoToTensorInfo)(kind, &mut tensor))?;
            if !tensor.is_null() {
                check((api().GetTensorElementType)(tensor, &mut element))?;
            }
            if element != ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
