//! The operators that are known to keep rows apart, if their attributes and the shapes of their inputs allow it.
//!
//! A rule gets inputs of which each keeps rows apart, and gives what is known of the outputs, or says why rows are not
//! apart any more. It must hold for each row by itself: an output's entry of a row follows from the inputs' entries of
//! that row alone, in a batch of any size in the same way. What a rule does not check, it must not let pass.

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
