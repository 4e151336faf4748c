//! Reason: the closed set of reasons that conditions, events and metrics carry, and the problems of a reconcile.
//! Data only; nothing here refers to another module.

use kube::core::Status;
use modelservice_contract::ExitReason;

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
    /// The model image cannot be pulled.
    ModelFetchFailed,
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

/// Why a cluster does not give what an AcceleratorClass asks for "by …".
pub const NO_DRA: &str = "Dynamic Resource Allocation (resource.k8s.io/v1), which this cluster does not have: use \
    Kubernetes 1.34 or newer, or a class whose devices a device plug-in offers (spec.resource)";

/// Why a service's children cannot be as planned. Each variant has its own condition reason and a message that says
/// what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The spec contradicts itself, or the API server rejects objects that follow from it.
    #[error("{0}")]
    InvalidSpec(String),
    /// This cluster lacks what every model service needs.
    #[error("{0}")]
    UnsupportedCluster(String),
    /// `spec.accelerators` names a class that does not exist.
    #[error(
        "there is no AcceleratorClass \"{0}\": name another in spec.accelerators, or have an administrator \
         create it; `kubectl get acceleratorclasses` lists them, if you are allowed to"
    )]
    AcceleratorClassNotFound(String),
    /// An object that we did not create has the name that a child needs.
    #[error(
        "{kind} \"{name}\" already exists and belongs to {owner}; it was not changed: delete or rename it, \
         or give this ModelService another name"
    )]
    NameConflict {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Its owner.
        owner: String,
    },
    /// A deleted service of the same name left a child behind.
    #[error(
        "{kind} \"{name}\" was left behind by a ModelService of this name that was deleted with \
         --cascade=orphan, and was not changed. To adopt everything that it left behind, without an outage, \
         run: {command}"
    )]
    Orphaned {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Shell command that makes the present ModelService the owner of all orphans.
        command: String,
    },
    /// A child of a deleted service of the same name still exists.
    #[error(
        "{kind} \"{name}\" belongs to a deleted ModelService of the same name; waiting until the garbage collector has removed it"
    )]
    WaitingForDeletion {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Somebody changed a revision's pod template and its frozen copy into one that this operator would not write.
    #[error(
        "the pod template of Deployment \"{deployment}\" was changed by somebody else: the operator does not \
         write {field}, so it applies nothing; if this Deployment is still needed, delete it to have it \
         recreated"
    )]
    TemplateChanged {
        /// Name of the Deployment.
        deployment: String,
        /// Path in the template.
        field: String,
    },
    /// A quota of the namespace does not allow it.
    #[error("{0}; raise the quota or lower what the service requests")]
    QuotaExceeded(String),
    /// The operator lacks a right.
    #[error("the operator may not {verb} {kind}: {message}; grant the verb (see the chart's ClusterRole)")]
    Forbidden {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The API server's words.
        message: String,
    },
    /// The API server did not do what it was asked; it is tried again.
    #[error("could not {verb} {kind}: {message}; trying again")]
    Api {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The API server's answer.
        message: String,
    },
}

impl Problem {
    /// The reason in conditions and events, and the label of the metric.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::InvalidSpec(_) => Reason::InvalidSpec,
            Self::UnsupportedCluster(_) => Reason::UnsupportedCluster,
            Self::AcceleratorClassNotFound(_) => Reason::AcceleratorClassNotFound,
            Self::NameConflict { .. } | Self::Orphaned { .. } => Reason::NameConflict,
            Self::WaitingForDeletion { .. } => Reason::WaitingForDeletion,
            Self::TemplateChanged { .. } => Reason::TemplateChanged,
            Self::QuotaExceeded(_) => Reason::QuotaExceeded,
            Self::Forbidden { .. } => Reason::Forbidden,
            Self::Api { .. } => Reason::ApiError,
        }
    }

    /// Whether it may resolve itself: then the service is reconciling, not stalled.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::WaitingForDeletion { .. } | Self::Api { .. })
    }

    /// Whether only a change of a watched object can help: then nothing is tried again.
    #[must_use]
    pub const fn waits_for_a_change(&self) -> bool {
        matches!(
            self,
            Self::InvalidSpec(_) | Self::AcceleratorClassNotFound(_) | Self::TemplateChanged { .. }
        )
    }

    /// The problem that the API server's answer to a request means.
    #[must_use]
    pub fn of_request(verb: &'static str, kind: &str, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Api {
                verb,
                kind: kind.to_owned(),
                message: error.to_string(),
            };
        };
        match status.code {
            422 => Self::InvalidSpec(format!("the API server rejects the {kind}: {}", status.message)),
            403 if is_missing_right(status) => Self::Forbidden {
                verb,
                kind: kind.to_owned(),
                message: status.message.clone(),
            },
            403 if status.message.contains("exceeded quota") => Self::QuotaExceeded(status.message.clone()),
            // A namespace that is being deleted takes its services with it.
            403 if status.message.contains("being terminated") => Self::Api {
                verb,
                kind: kind.to_owned(),
                message: status.message.clone(),
            },
            403 => Self::InvalidSpec(format!(
                "the cluster's policies refuse the {kind}: {}",
                status.message
            )),
            _ => Self::Api {
                verb,
                kind: kind.to_owned(),
                message: status.message.clone(),
            },
        }
    }
}

/// Refusals by RBAC name the user and the verb; those by admission do not.
fn is_missing_right(status: &Status) -> bool {
    status.message.contains(" cannot ") && status.message.contains("User \"")
}
