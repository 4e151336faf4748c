//! Why rows are not known to be independent.

use std::fmt;

/// Why an operator's outputs are not known to keep rows independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It computes along the rows.
    Along,
    /// Nothing is known about it.
    Unknown,
    /// Its attributes or shapes are invalid, or not known well enough.
    Shape,
    /// The rows are combined with a dimension that does not have one entry per row.
    Meets,
    /// It creates dimensions that mix the rows with other dimensions.
    Mixes,
    /// It computes with the number of rows.
    Counts,
    /// What should be the same for all rows depends on them.
    Depends,
    /// It draws random numbers.
    Random,
    /// It contains a graph.
    Nested,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Along => "computes along the batch",
            Self::Unknown => "is not known to keep the rows of a batch independent",
            Self::Shape => "cannot be analysed: its shapes or attributes are unknown",
            Self::Meets => "combines the batch with a dimension that is not the batch",
            Self::Mixes => "merges the batch dimension with another one",
            Self::Counts => "computes with the number of rows",
            Self::Depends => "needs a value that is the same for all rows, but depends on them",
            Self::Random => "draws random numbers, which differ in every run",
            Self::Nested => "contains a graph of its own, which is not analysed",
        })
    }
}
