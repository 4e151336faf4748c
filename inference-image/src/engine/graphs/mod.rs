//! What sessions are created from: the graph of a package, or what ONNX Runtime has made of it.

pub(super) mod cache;
pub(super) mod optimised;
pub(super) mod prefetch;
pub(super) mod source;
