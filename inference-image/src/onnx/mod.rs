//! What an ONNX file says, as far as anybody here reads it: ONNX Runtime reports neither who made a model, nor where its
//! weights are, nor what its operators do.
//!
//! A file is read once. Whatever is text or elements of a tensor is a slice of the file, so that nothing is copied; all
//! of it is released with the last slice. Text is bytes because not every exporter writes UTF-8, and ONNX Runtime does
//! not require it.

mod elements;
mod external;
mod messages;

pub(crate) use elements::datatype;
#[cfg(test)]
pub(crate) use messages::{Attribute, Dimension, Opset, Shape, TensorType, Type};
pub(crate) use messages::{Entry, Function, Graph, Model, Node, Port, Tensor, text};
