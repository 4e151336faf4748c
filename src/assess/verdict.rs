//! Verdict: whether the cluster is as the spec says. Data only.

use crate::reason::Reason;

/// Whether the cluster is as the spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Ready(Reason, String),
    /// The current spec's revision answers requests, but with fewer servers than wanted.
    Incomplete {
        /// Says that requests are answered.
        answers: String,
        /// Why servers are missing.
        reason: Reason,
        /// A message for people, with the numbers.
        message: String,
        /// Whether only a change by somebody can help.
        stalled: bool,
    },
    /// Not yet.
    Progressing(String),
    /// Something prevents this.
    Failed {
        /// What it is.
        reason: Reason,
        /// A message for people.
        message: String,
        /// Whether only a change by somebody can help.
        stalled: bool,
    },
}
