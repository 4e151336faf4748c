//! Whether a model computes the rows of a batch independently of each other. Only then may requests of different
//! clients share a run.
//!
//! No number of trials can prove that, so it is read from the graph. Each input's first dimension is followed through
//! the operators to the outputs. A tensor along the way is one of these:
//!
//! - It has one dimension with an entry for each row, which depends on that row alone.
//! - It depends neither on what the rows hold nor on how many there are.
//! - It holds a few integers, some of which may be the number of rows: graphs compute shapes from them.
//!
//! [`operators`] lists the operators whose outputs are such tensors if their inputs are. An operator that is not
//! listed, or for which this cannot be proved from the file, is assumed to mix rows. Whatever depends on mixed rows
//! is mixed too; only the parts of the graph that an output depends on matter.
//!
//! Requests are batched only if they differ in nothing but the number of rows, so all other sizes are the same for
//! all rows.
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
