//! The operators that are known to keep rows independent, depending on their attributes and the shapes of their
//! inputs.
//!
//! A rule gets inputs that all keep rows independent. It returns what is known about the outputs, or why rows are no
//! longer independent. It must hold for each row: the output of a row follows from the inputs of that row alone, in
//! the same way for a batch of any size. A rule must reject what it does not check.

mod axes;
mod fused;
mod operator;
mod pointwise;
mod products;
mod reshape;
mod resize;
mod selection;
mod shapes;
mod table;
mod windows;

pub(super) use operator::Operator;
pub(super) use table::outputs;
