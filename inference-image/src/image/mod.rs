//! Images: from the bytes of one to the model's input tensor, and from its outputs to labelled classes.

pub mod classifier;
mod decode;
mod pixels;
mod preprocess;

pub use preprocess::{Pipeline, fuzz};
