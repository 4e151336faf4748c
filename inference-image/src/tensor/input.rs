//! Why there is no tensor: what a client sent is not what one can be made of.

/// Inputs that cannot be made from what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputProblem {
    /// Not in a form that is understood at all.
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
