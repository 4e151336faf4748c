//! Whether the rows of a batch stay apart in a model: only then may requests of different clients be one run.
//!
//! No number of trials can prove that, so it is read from the graph. Each input's first dimension is followed through
//! the operators to the outputs. A tensor along the way is one of these:
//!
//! - It has one dimension with an entry for each row, which depends on that row alone.
//! - It depends neither on what the rows hold nor on how many there are.
//! - It holds few integers, some of which may be the number of rows: what a graph computes shapes from.
//!
//! [`operators`] says which operators lead from such tensors to such tensors. What it does not know, or cannot prove
//! from what the file says, is taken for an operator that mixes rows. What depends on mixed rows is mixed; other
//! parts of the graph are not, so that it matters only where an output comes from.
//!
//! Requests are joined only if they differ in nothing but the number of rows. So all other sizes are the same for all
//! rows, whatever they are.
//!
//! Pure: what a file says in, a verdict out.

mod fact;
mod operators;
mod problem;
mod size;
mod walk;

pub(crate) use walk::rows_stay_apart;

#[cfg(test)]
mod tests;
