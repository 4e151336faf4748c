//! Validate: parses what a user wrote into types that cannot be wrong. Pure: no client, no clock.

use crate::{
    crd::{AcceleratorClass, Autoscaling, ModelService, ModelServiceSpec},
    observe::Observed,
    plan::rollout::Scale,
    reason::Problem,
    revision,
};
use kube::ResourceExt as _;
use std::sync::Arc;

/// A service whose spec holds together.
#[derive(Clone, Debug)]
pub struct ValidatedService {
    /// The object as it was read.
    pub source: Arc<ModelService>,
    /// Its namespace.
    pub namespace: String,
    /// Its name, also of its Service, autoscaler and disruption budget.
    pub name: String,
    /// Its UID: what makes a child ours.
    pub uid: String,
    /// Hash of the fields that make a revision.
    pub revision: String,
    /// How many servers.
    pub size: Size,
    /// The class that a new revision is made with; absent only if the revision exists already.
    pub class: Option<Arc<AcceleratorClass>>,
}

impl ValidatedService {
    /// What the user wrote.
    #[must_use]
    pub fn spec(&self) -> &ModelServiceSpec {
        &self.source.spec
    }
}

/// How many servers a service has.
#[derive(Clone, Debug, PartialEq)]
pub enum Size {
    /// Always this many.
    Fixed(i32),
    /// As the autoscaler says.
    Autoscaled(Autoscaling),
}

impl Size {
    /// The size of a revision's Deployment; an autoscaled one starts at `start`, within its bounds.
    #[must_use]
    pub fn scale(&self, start: i32) -> Scale {
        match self {
            Self::Fixed(replicas) => Scale::Fixed(*replicas),
            Self::Autoscaled(range) => Scale::Autoscaled {
                start: start.min(range.max_replicas).max(range.min_replicas),
            },
        }
    }

    /// Whether no server is asked for.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        matches!(self, Self::Fixed(0))
    }
}

/// Parses what was observed.
///
/// # Errors
/// [`Problem::UnsupportedCluster`], [`Problem::InvalidSpec`] or [`Problem::AcceleratorClassNotFound`]; the
/// last only where a revision is to be made: one that exists needs its class no more.
pub fn validate(observed: &Observed) -> Result<ValidatedService, Problem> {
    if let Some(message) = &observed.unsupported {
        return Err(Problem::UnsupportedCluster(message.clone()));
    }
    let spec = &observed.service.spec;
    let size = match (&spec.replicas, &spec.autoscaling) {
        (Some(_), Some(_)) => {
            return Err(Problem::InvalidSpec(
                "set either spec.replicas or spec.autoscaling, not both".into(),
            ));
        }
        (None, Some(range)) => Size::Autoscaled(range.clone()),
        (replicas, None) => Size::Fixed(replicas.unwrap_or(1)),
    };
    let [class_name] = spec.accelerators.as_slice() else {
        return Err(Problem::InvalidSpec(
            "spec.accelerators must name exactly one AcceleratorClass".into(),
        ));
    };
    let revision = revision::name(spec);
    let class = observed.classes.get(class_name).cloned();
    if class.is_none() && observed.deployment(&revision).is_none() {
        return Err(Problem::AcceleratorClassNotFound(class_name.clone()));
    }
    Ok(ValidatedService {
        source: observed.service.clone(),
        namespace: observed.service.namespace().unwrap_or_default(),
        name: observed.service.name_any(),
        uid: observed.service.uid().unwrap_or_default(),
        revision,
        size,
        class,
    })
}
