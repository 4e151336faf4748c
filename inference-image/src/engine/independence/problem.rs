//! Why rows are not known to stay apart.

use std::fmt;

/// Why an operator's outputs are not known to keep rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It computes along the rows.
    Along,
    /// Nothing is known of it.
    Unknown,
    /// Its attributes or shapes make no sense, or are not known well enough.
    Shape,
    /// Rows meet a dimension that has no entry for each of them.
    Meets,
    /// It makes dimensions in which rows are mixed with others.
    Mixes,
    /// It computes with the number of rows.
    Counts,
    /// What should be the same for all rows depends on them.
    Depends,
    /// It draws random numbers.
    Random,
    /// It runs a graph of its own.
    Nested,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Along => "computes along the batch",
            Self::Unknown => "is not known to keep the rows of a batch apart",
            Self::Shape => "cannot be followed: its shapes or attributes are not known",
            Self::Meets => "joins the batch with a dimension that is no batch",
            Self::Mixes => "moves the batch into a dimension with something else",
            Self::Counts => "computes with the number of rows",
            Self::Depends => "takes something from the batch that must be the same for all rows",
            Self::Random => "draws random numbers, of which each run has its own",
            Self::Nested => "runs a graph of its own, which is not followed",
        })
    }
}
