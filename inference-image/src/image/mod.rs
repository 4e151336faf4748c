//! Images: from the bytes of an image to the model's input tensor, and from its output to labelled classes.

pub mod classifier;
mod decode;
mod pixels;
mod preprocess;
mod problems;

pub use preprocess::{Pipeline, fuzz};
pub use problems::Problems;
