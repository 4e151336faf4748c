//! The problems of a reconcile, and what the API server's answers mean. Data only.

use super::list::Reason;
use kube::core::Status;

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
         recreated{recreated}"
    )]
    TemplateChanged {
        /// Name of the Deployment.
        deployment: String,
        /// Path in the template.
        field: String,
        /// How its model may then be another one.
        recreated: &'static str,
    },
    /// A pod has the name of one that is to be created. It is tried again: mostly, it is being deleted.
    #[error("{kind} \"{name}\" already exists; waiting until it is deleted")]
    NameTaken {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Policies of the namespace do not allow a pod.
    #[error("the namespace's policies forbid the pod that finds the model: {0}")]
    PodsForbidden(String),
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
            Self::WaitingForDeletion { .. } | Self::NameTaken { .. } => Reason::WaitingForDeletion,
            Self::PodsForbidden(_) => Reason::PodsForbidden,
            Self::TemplateChanged { .. } => Reason::TemplateChanged,
            Self::QuotaExceeded(_) => Reason::QuotaExceeded,
            Self::Forbidden { .. } => Reason::Forbidden,
            Self::Api { .. } => Reason::ApiError,
        }
    }

    /// Whether it may resolve itself: then the service is reconciling, not stalled.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::WaitingForDeletion { .. } | Self::NameTaken { .. } | Self::Api { .. }
        )
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
            403 if kind == "Pod" && status.message.contains("must specify") => {
                Self::QuotaExceeded(status.message.clone())
            }
            // A namespace that is being deleted takes its services with it.
            403 if status.message.contains("being terminated") => Self::Api {
                verb,
                kind: kind.to_owned(),
                message: status.message.clone(),
            },
            403 if kind == "Pod" => Self::PodsForbidden(status.message.clone()),
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
