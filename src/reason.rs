//! Reason: the closed set of reasons that conditions and events carry. Data only.

use modelservice_contract::ExitReason;

/// Why a condition is as it is. Documented one by one in docs/troubleshooting.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Requests are answered by what the spec says.
    Serving,
    /// On the way there.
    Progressing,
    /// `spec.suspend` is set: no server runs.
    Suspended,
    /// The size is zero: no server runs.
    ScaledToZero,
    /// The model image cannot be pulled.
    ModelFetchFailed,
    /// `model.onnx` is not the file that `spec.model.digest` names.
    ModelDigestMismatch,
    /// There is no `model.onnx`, or it is not a model that the runtime loads.
    ModelInvalid,
    /// The device or its execution provider is not there.
    AcceleratorUnavailable,
    /// The execution provider does not hold the whole graph.
    ExecutionProviderFallback,
    /// No node takes the pods.
    Unschedulable,
    /// The runtime image cannot be pulled.
    ImagePullFailed,
    /// The server was killed for its memory.
    OutOfMemory,
    /// The server ends again and again.
    CrashLooping,
    /// A quota does not allow the pods.
    QuotaExceeded,
    /// A policy does not allow the pods.
    PodsForbidden,
    /// The spec cannot be met as it is.
    InvalidSpec,
    /// Nothing went wrong that can be seen, but too much time has passed.
    ProgressDeadlineExceeded,
    /// A newer operator brings another runtime.
    RuntimeUpdate,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::Serving,
        Self::Progressing,
        Self::Suspended,
        Self::ScaledToZero,
        Self::ModelFetchFailed,
        Self::ModelDigestMismatch,
        Self::ModelInvalid,
        Self::AcceleratorUnavailable,
        Self::ExecutionProviderFallback,
        Self::Unschedulable,
        Self::ImagePullFailed,
        Self::OutOfMemory,
        Self::CrashLooping,
        Self::QuotaExceeded,
        Self::PodsForbidden,
        Self::InvalidSpec,
        Self::ProgressDeadlineExceeded,
        Self::RuntimeUpdate,
    ];

    /// As it is written in a condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "Serving",
            Self::Progressing => "Progressing",
            Self::Suspended => "Suspended",
            Self::ScaledToZero => "ScaledToZero",
            Self::ModelFetchFailed => "ModelFetchFailed",
            Self::ModelDigestMismatch => "ModelDigestMismatch",
            Self::ModelInvalid => "ModelInvalid",
            Self::AcceleratorUnavailable => "AcceleratorUnavailable",
            Self::ExecutionProviderFallback => "ExecutionProviderFallback",
            Self::Unschedulable => "Unschedulable",
            Self::ImagePullFailed => "ImagePullFailed",
            Self::OutOfMemory => "OutOfMemory",
            Self::CrashLooping => "CrashLooping",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::PodsForbidden => "PodsForbidden",
            Self::InvalidSpec => "InvalidSpec",
            Self::ProgressDeadlineExceeded => "ProgressDeadlineExceeded",
            Self::RuntimeUpdate => "RuntimeUpdate",
        }
    }

    /// What an exit of the server means for the service.
    #[must_use]
    pub const fn of_exit(exit: ExitReason) -> Self {
        match exit {
            ExitReason::ConfigInvalid => Self::InvalidSpec,
            ExitReason::ModelMissing | ExitReason::ModelInvalid => Self::ModelInvalid,
            ExitReason::ModelDigestMismatch => Self::ModelDigestMismatch,
            ExitReason::AcceleratorUnavailable => Self::AcceleratorUnavailable,
            ExitReason::ExecutionProviderFallback => Self::ExecutionProviderFallback,
            ExitReason::RuntimeUnavailable | ExitReason::SystemError => Self::CrashLooping,
        }
    }
}
