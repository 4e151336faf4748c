//! Problem: why a reconcile could not do all that the spec asks for. Data only.

use kube::core::Status;

/// What stands between a service and its children. Each variant has a condition reason of its own and a
/// message that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The spec contradicts itself, or the API server refuses what follows from it.
    #[error("{0}")]
    InvalidSpec(String),
    /// This cluster lacks what every model service needs.
    #[error("{0}")]
    UnsupportedCluster(String),
    /// `spec.accelerators` names a class that does not exist.
    #[error(
        "there is no AcceleratorClass \"{0}\"; `kubectl get acceleratorclasses` lists those that exist: create it or name another in spec.accelerators"
    )]
    AcceleratorClassNotFound(String),
    /// An object that we did not make has the name that a child needs.
    #[error(
        "{kind} \"{name}\" exists already and belongs to {owner}; it was left as it is: delete or rename it, or give this ModelService another name"
    )]
    NameConflict {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Whose it is.
        owner: String,
    },
    /// A child of a deleted service of the same name is still there.
    #[error(
        "{kind} \"{name}\" belongs to a deleted ModelService of the same name; waiting until the garbage collector has removed it"
    )]
    WaitingForDeletion {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A quota of the namespace does not allow it.
    #[error("{0}; raise the quota or lower what the service asks for")]
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
        /// What was answered.
        message: String,
    },
}

impl Problem {
    /// Reason in conditions and events, and label of the metric.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::UnsupportedCluster(_) => "UnsupportedCluster",
            Self::AcceleratorClassNotFound(_) => "AcceleratorClassNotFound",
            Self::NameConflict { .. } => "NameConflict",
            Self::WaitingForDeletion { .. } => "WaitingForDeletion",
            Self::QuotaExceeded(_) => "QuotaExceeded",
            Self::Forbidden { .. } => "Forbidden",
            Self::Api { .. } => "ApiError",
        }
    }

    /// Whether it ends by itself: then the service is reconciling, not stalled.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::WaitingForDeletion { .. } | Self::Api { .. })
    }

    /// Whether nothing but a change of an object that is watched can help: then nothing is tried again.
    #[must_use]
    pub const fn waits_for_a_change(&self) -> bool {
        matches!(self, Self::InvalidSpec(_) | Self::AcceleratorClassNotFound(_))
    }

    /// Reads what the API server answered to a request.
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
            422 => Self::InvalidSpec(format!("the API server refuses the {kind}: {}", status.message)),
            403 if is_missing_right(status) => Self::Forbidden {
                verb,
                kind: kind.to_owned(),
                message: status.message.clone(),
            },
            403 if status.message.contains("exceeded quota") => Self::QuotaExceeded(status.message.clone()),
            // A namespace that is going takes its services with it.
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

/// RBAC's refusals name the user and the verb; admission's do not.
fn is_missing_right(status: &Status) -> bool {
    status.message.contains(" cannot ") && status.message.contains("User \"")
}
