//! The closed set of reasons that conditions, events and metrics carry. Data only.

use modelservice_contract::{ExitReason, FetchReason};

/// Declares the reasons once: the enum, the list of all of them, and their names.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The reason of a condition. Each has a row in docs/troubleshooting.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name, as it appears in conditions.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// The current spec's revision answers requests.
    Serving,
    /// The service is on the way there.
    Progressing,
    /// `spec.suspend` is set: no server is running.
    Suspended,
    /// The size is zero: no server is running.
    ScaledToZero,
    /// The model image cannot be pulled, or the model cannot be fetched.
    ModelFetchFailed,
    /// The version of the model that a revision was created with is no longer at its source.
    SourceChanged,
    /// The source of the model does not keep the version that is served.
    SourceNotRetained,
    /// The model's signature is that of the key in the spec.
    SignatureValid,
    /// The model's signature is missing or wrong.
    SignatureInvalid,
    /// `model.onnx` is not the file that `spec.model.digest` names.
    ModelDigestMismatch,
    /// There is no `model.onnx`, or it is not a model that the runtime loads.
    ModelInvalid,
    /// The device or its execution provider is missing.
    AcceleratorUnavailable,
    /// The execution provider does not run the whole graph.
    ExecutionProviderFallback,
    /// The execution provider runs the model on the device.
    DeviceEngaged,
    /// No node can run the pods.
    Unschedulable,
    /// A rolling update of a single server: the old one ends before the new one starts.
    ServiceInterrupted,
    /// A pod is replaced because its device is lost.
    DeviceLost,
    /// No claim of devices was made for a pod.
    ResourceClaimMissing,
    /// Nodes have what an AcceleratorClass asks for.
    NodesFound,
    /// No node has what an AcceleratorClass asks for.
    NoNodes,
    /// A DeviceClass offers what an AcceleratorClass asks for.
    DeviceClassFound,
    /// An AcceleratorClass names DeviceClasses, none of which exists.
    DeviceClassNotFound,
    /// The runtime image cannot be pulled.
    ImagePullFailed,
    /// The server was killed because of its memory use.
    OutOfMemory,
    /// The server terminates again and again.
    CrashLooping,
    /// A container that was injected beside the server fails.
    InjectedContainerFailed,
    /// A node terminated or rejected a server's pod: evicted, preempted, shut down.
    PodFailed,
    /// A quota does not allow the pods.
    QuotaExceeded,
    /// A policy does not allow the pods.
    PodsForbidden,
    /// The spec cannot be met.
    InvalidSpec,
    /// This cluster lacks what every model service needs.
    UnsupportedCluster,
    /// `spec.accelerators` names a class that does not exist.
    AcceleratorClassNotFound,
    /// Somebody else's object has the name that a child needs.
    NameConflict,
    /// A child of a deleted service of the same name still exists.
    WaitingForDeletion,
    /// Somebody changed the Service so that requests do not reach the servers.
    EndpointChanged,
    /// Somebody sets fields of children otherwise than the operator does.
    FieldOverridden,
    /// A ready server cannot be asked what it serves.
    ServerUnreachable,
    /// The autoscaler does not act.
    AutoscalerInactive,
    /// The load asks for more servers.
    ScalingUp,
    /// The load asks for fewer servers.
    ScalingDown,
    /// Somebody changed a revision's pod template into one that this operator does not write.
    TemplateChanged,
    /// The operator lacks a right.
    Forbidden,
    /// The API server did not do what it was asked.
    ApiError,
    /// No problem can be seen, but too much time has passed.
    ProgressDeadlineExceeded,
    /// A newer operator brings another runtime.
    RuntimeUpdate,
}

impl Reason {
    /// The reason that corresponds to a failure of what fetches models.
    #[must_use]
    pub const fn of_fetch(failure: FetchReason) -> Self {
        match failure {
            FetchReason::ConfigInvalid => Self::InvalidSpec,
            FetchReason::NotFound
            | FetchReason::Denied
            | FetchReason::Forbidden
            | FetchReason::Unavailable
            | FetchReason::SystemError => Self::ModelFetchFailed,
            FetchReason::SourceChanged => Self::SourceChanged,
            FetchReason::PackageInvalid => Self::ModelInvalid,
            FetchReason::DigestMismatch => Self::ModelDigestMismatch,
            FetchReason::SignatureInvalid => Self::SignatureInvalid,
        }
    }

    /// The reason that corresponds to an exit of the server.
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
