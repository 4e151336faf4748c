//! How the server ends by itself, and its termination message.

use serde::{Deserialize, Serialize};

/// Why the server ended by itself: its exit code and the reason in its [`TerminationMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExitReason {
    /// The configuration cannot be read, or has an impossible value.
    ConfigInvalid,
    /// The model package has no `model.onnx` (a mounted OCI artifact looks like an empty folder).
    ModelMissing,
    /// The configured digest is neither that of `model.onnx` nor of the package, or does not cover all weights.
    ModelDigestMismatch,
    /// `model.onnx` is not a model that this ONNX Runtime can load, or `model.yaml` does not fit it.
    ModelInvalid,
    /// The requested execution provider is not in this runtime, or its device is missing, does not work or is lost while
    /// serving.
    AcceleratorUnavailable,
    /// The execution provider is available but does not run enough of the graph.
    ExecutionProviderFallback,
    /// The ONNX Runtime library cannot be loaded.
    RuntimeUnavailable,
    /// A port cannot be bound or another system resource is missing.
    SystemError,
}

impl ExitReason {
    /// Every reason, in the order of the exit codes.
    pub const ALL: [Self; 8] = [
        Self::ConfigInvalid,
        Self::ModelMissing,
        Self::ModelDigestMismatch,
        Self::ModelInvalid,
        Self::AcceleratorUnavailable,
        Self::ExecutionProviderFallback,
        Self::RuntimeUnavailable,
        Self::SystemError,
    ];

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::ConfigInvalid => 10,
            Self::ModelMissing => 11,
            Self::ModelDigestMismatch => 12,
            Self::ModelInvalid => 13,
            Self::AcceleratorUnavailable => 14,
            Self::ExecutionProviderFallback => 15,
            Self::RuntimeUnavailable => 16,
            Self::SystemError => 17,
        }
    }
}

/// The server's termination message, written as JSON to [`TERMINATION_LOG`](crate::TERMINATION_LOG).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// The reason.
    pub reason: ExitReason,
    /// What happened and what to do, for a person.
    pub message: String,
}
