//! Why a tensor cannot be built from what a client sent.

/// Why inputs cannot be built from what a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputProblem {
    /// In a form that is not supported.
    Unsupported,
    /// Larger than the limits allow.
    TooLarge,
    /// Broken.
    Malformed,
}

/// [`InputProblem`] and its message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// The kind.
    pub problem: InputProblem,
    /// What is wrong.
    pub message: String,
}
