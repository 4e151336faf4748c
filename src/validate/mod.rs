//! Validate: parses what a user wrote into types that are always valid. Pure: no client, no clock.

mod size;
mod source;

pub use size::{By, Range, Size};

use crate::{
    crd::{AcceleratorClass, ModelService, ModelServiceSpec, is_refused_annotation, is_refused_variable},
    observe::{Capabilities, Observed},
    reason::{NO_DRA, Problem},
    resolution::Next,
    revision::{self, Source},
};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use std::sync::Arc;

/// How many classes a spec may name.
const MAX_CLASSES: usize = 4;

/// A service whose spec is consistent.
#[derive(Clone, Debug)]
pub struct ValidatedService {
    /// The object as it was read.
    pub source: Arc<ModelService>,
    /// Its namespace.
    pub namespace: String,
    /// Its name, which its Service, autoscaler and disruption budget share.
    pub name: String,
    /// Its UID: a child whose controller has it is ours.
    pub uid: String,
    /// Name of the revision that the spec asks for.
    pub revision: String,
    /// The same revision, existing or to be created.
    pub target: Target,
    /// How many servers.
    pub size: Size,
    /// How long servers wait for the device of a class before the next one is tried.
    pub fallback_after: SignedDuration,
}

impl ValidatedService {
    /// What the user wrote.
    #[must_use]
    pub fn spec(&self) -> &ModelServiceSpec {
        &self.source.spec
    }
}

/// The revision that the spec asks for.
#[derive(Clone, Debug)]
pub enum Target {
    /// It exists: its Deployment.
    Existing(Arc<Deployment>),
    /// It has to be created.
    New(New),
    /// It has to be created, but the version of its model is not known yet.
    Unresolved(Next),
}

/// A revision that has to be created.
#[derive(Clone, Debug)]
pub struct New {
    /// For these classes, best first.
    pub classes: Vec<Arc<AcceleratorClass>>,
    /// With this model.
    pub source: Source,
}

/// Parses what was observed.
///
/// # Errors
/// [`Problem::UnsupportedCluster`], [`Problem::InvalidSpec`], [`Problem::TemplateChanged`] or
/// [`Problem::AcceleratorClassNotFound`]; the last only if a revision has to be created: an existing one no longer
/// needs its class.
pub fn validate(observed: &Observed) -> Result<ValidatedService, Problem> {
    let spec = &observed.service.spec;
    let size = size::size(spec, observed.now)?;
    let fallback_after = fallback_after(spec)?;
    accelerators(spec)?;
    refusals(spec)?;
    templates(observed)?;
    let revision = revision::asked_for(&observed.service);
    let target = match observed.deployment(&revision) {
        Some(deployment) => Target::Existing(deployment.clone()),
        None => new(observed, &revision)?,
    };
    Ok(ValidatedService {
        source: observed.service.clone(),
        namespace: observed.service.namespace().unwrap_or_default(),
        name: observed.service.name_any(),
        uid: observed.service.uid().unwrap_or_default(),
        revision,
        target,
        size,
        fallback_after,
    })
}

/// The revision that the spec asks for and that does not exist yet.
fn new(observed: &Observed, revision: &str) -> Result<Target, Problem> {
    let classes = classes(observed)?;
    Ok(match source::source(observed, revision)? {
        source::Known::Source(source) => Target::New(New { classes, source }),
        source::Known::Unresolved(next) => Target::Unresolved(next),
    })
}

/// Every class that the spec names: the templates for all of them are frozen with a new revision.
fn classes(observed: &Observed) -> Result<Vec<Arc<AcceleratorClass>>, Problem> {
    let named = observed.service.spec.accelerators.iter();
    named
        .map(|name| match observed.classes.get(name) {
            Some(class) => supported(class, &observed.cluster),
            None => Err(Problem::AcceleratorClassNotFound(name.clone())),
        })
        .collect()
}

/// The class, if the cluster can give its devices.
fn supported(
    class: &Arc<AcceleratorClass>,
    cluster: &Capabilities,
) -> Result<Arc<AcceleratorClass>, Problem> {
    if class.spec.device_request.is_some() && !cluster.has_dra {
        let name = class.name_any();
        return Err(Problem::UnsupportedCluster(format!(
            "AcceleratorClass \"{name}\" asks for devices by {NO_DRA}"
        )));
    }
    Ok(class.clone())
}

/// Repeats the CRD's rules: a spec may be older than they are.
fn accelerators(spec: &ModelServiceSpec) -> Result<(), Problem> {
    let names = &spec.accelerators;
    let is_repeated = |(index, name): (usize, &String)| names[..index].contains(name);
    if names.is_empty() || names.len() > MAX_CLASSES || names.iter().enumerate().any(is_repeated) {
        return Err(Problem::InvalidSpec(format!(
            "spec.accelerators must name one to {MAX_CLASSES} different AcceleratorClasses, best first"
        )));
    }
    Ok(())
}

/// The same for the time until the next class is tried.
fn fallback_after(spec: &ModelServiceSpec) -> Result<SignedDuration, Problem> {
    let text = &spec.fallback_after;
    let parsed = text.parse().ok().filter(SignedDuration::is_positive);
    parsed.ok_or_else(|| {
        Problem::InvalidSpec(format!(
            "spec.fallbackAfter \"{text}\" is not a time such as 10m or 90s"
        ))
    })
}

/// The same for settings of pods that would weaken them.
fn refusals(spec: &ModelServiceSpec) -> Result<(), Problem> {
    let mut variables = spec.pod.env.iter().map(|variable| &variable.name);
    let mut annotations = spec.pod.annotations.keys();
    let refused = variables
        .find(|name| is_refused_variable(name))
        .map(|name| format!("spec.pod.env may not set {name}"))
        .or_else(|| {
            let key = annotations.find(|key| is_refused_annotation(key))?;
            Some(format!("spec.pod.annotations may not have {key}"))
        });
    refused.map_or(Ok(()), |what| {
        Err(Problem::InvalidSpec(format!(
            "{what}: it would run code other than the runtime image's, reach \
            devices or weaken the pods; remove it"
        )))
    })
}

/// Checks that this operator could have written every template that the plan will read.
fn templates(observed: &Observed) -> Result<(), Problem> {
    let all = observed.deployments.iter().chain(&observed.beside);
    all.into_iter().try_for_each(|deployment| {
        let live = observed.claim_template(&deployment.name_any());
        revision::frozen_template(deployment)
            .and_then(|template| revision::frozen_claim(deployment, &template, live))
            .and_then(|_| revision::frozen_fallbacks(deployment))
            .map(drop)
            .map_err(|field| Problem::TemplateChanged {
                deployment: deployment.name_any(),
                field,
                recreated: revision::recreated(observed.service.spec.model.uri.as_deref()),
            })
    })
}
