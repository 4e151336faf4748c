//! Observe: gathers what is known about one ModelService. Only reads caches: no requests, no decisions.

use crate::{
    cache::{Caches, classes::Classes, pod::Pod},
    crd::{AcceleratorClass, CLASS_ANNOTATION, ModelService},
    placement::split,
    resolution::resolves,
    revision::{is_made_by, is_ours, number, revision_of, selected_by},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget, resource::v1::ResourceClaimTemplate,
};
use kube::{Resource, ResourceExt as _};
use modelservice_contract::{Assignment, Report};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// Everything that a reconcile of one service may use. The children are ours: their controller has the service's UID.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The service itself.
    pub service: Arc<ModelService>,
    /// AcceleratorClasses that exist, by name: only those that the spec or a revision names.
    pub classes: BTreeMap<String, Arc<AcceleratorClass>>,
    /// One Deployment per revision, newest first: of a revision that names several classes, the one in use.
    pub deployments: Vec<Arc<Deployment>>,
    /// Other Deployments of such revisions, best class first.
    pub beside: Vec<Arc<Deployment>>,
    /// ResourceClaimTemplates of revisions whose pods get devices by DRA.
    pub claim_templates: Vec<Arc<ResourceClaimTemplate>>,
    /// The Service that carries the URL.
    pub endpoint: Option<Arc<Service>>,
    /// The autoscaler.
    pub autoscaler: Option<Arc<HorizontalPodAutoscaler>>,
    /// The disruption budget.
    pub disruption_budget: Option<Arc<PodDisruptionBudget>>,
    /// Pods that carry the service's label, whoever created them; see [`Self::pods_of`].
    pub pods: Vec<Arc<Pod>>,
    /// Pods that look for the version of a new revision's model.
    pub resolvers: Vec<Arc<Pod>>,
    /// What servers reported about themselves.
    pub reported: Reported,
    /// What runs the model of each server on an accelerator, by UID of the pod; `None` if it does not say.
    pub devices: BTreeMap<String, Option<Arc<Engaged>>>,
    /// What the load asks for, if the operator decides the size and has decided.
    pub scaling: Option<Scaling>,
    /// What the cluster can do.
    pub cluster: Capabilities,
    /// The time of this pass.
    pub now: Timestamp,
}

/// What a cluster can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Why it cannot mount images as volumes, if it cannot.
    pub no_image_volumes: Option<String>,
    /// Whether it has Dynamic Resource Allocation (`resource.k8s.io/v1`).
    pub has_dra: bool,
}

/// How many servers the load asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// This many.
    pub wanted: i32,
    /// What decided it: a word.
    pub decided_by: &'static str,
    /// The same as a sentence, with the figure that was measured.
    pub message: String,
    /// Why the load of a server is not known, if it has not been for a while.
    pub blind: Option<String>,
}

/// What decides a size where nothing keeps it from following the load.
const FREE: &[&str] = &["Load", "Minimum", "Schedule"];

/// Whether what decides a size keeps it from following the load.
#[must_use]
pub fn is_limit(decided_by: &str) -> bool {
    !FREE.contains(&decided_by)
}

/// What servers reported about themselves, as long as the status does not say it.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// By revision.
    pub models: BTreeMap<String, Arc<Report>>,
    /// Why there is no report.
    pub unreachable: Option<Unreachable>,
}

/// What runs the model of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engaged {
    /// Which alternative of the class's device request the scheduler took, if there are several.
    pub request: Option<String>,
    /// Which compute nodes run on which device.
    pub assignment: Assignment,
}

/// A ready server that cannot be asked what it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Its revision.
    pub revision: String,
    /// Name of its pod.
    pub pod: String,
    /// What happened when it was asked.
    pub error: String,
}

impl Observed {
    /// The Deployment of a revision.
    #[must_use]
    pub fn deployment(&self, revision: &str) -> Option<&Arc<Deployment>> {
        self.deployments
            .iter()
            .find(|deployment| revision_of(deployment.as_ref()) == Some(revision))
    }

    /// The ResourceClaimTemplate of this name.
    #[must_use]
    pub fn claim_template(&self, name: &str) -> Option<&ResourceClaimTemplate> {
        let mut templates = self.claim_templates.iter();
        let found = templates.find(|template| template.metadata.name.as_deref() == Some(name));
        found.map(AsRef::as_ref)
    }

    /// Pods of a revision that are not being deleted.
    pub fn pods_of<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.remaining_pods_of(revision)
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    }

    /// Pods of a revision that are starting, running or terminating. Pods that have ended for good hold no resources
    /// any more, and pods that merely carry the labels are not ours.
    pub fn remaining_pods_of<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.made_for(revision).filter(|pod| !pod.is_terminal())
    }

    /// Pods of a revision that failed as a whole and still exist.
    pub fn failed_pods_of<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.made_for(revision).filter(|pod| pod.has_failed())
    }

    /// A Deployment by its name.
    #[must_use]
    pub fn deployment_named(&self, name: &str) -> Option<&Arc<Deployment>> {
        let mut all = self.deployments.iter().chain(&self.beside);
        all.find(|deployment| deployment.metadata.name.as_deref() == Some(name))
    }

    /// Pods of a Deployment that have not ended for good.
    pub fn remaining_pods_made_by<'a>(
        &'a self,
        deployment: &'a Deployment,
    ) -> impl Iterator<Item = &'a Arc<Pod>> {
        let name = deployment.name_any();
        let pods = self.pods.iter();
        pods.filter(move |pod| {
            revision_of(pod.as_ref()) == revision_of(deployment)
                && is_made_by(pod.as_ref(), &name)
                && !pod.is_terminal()
        })
    }

    /// Pods that a ReplicaSet of the revision's Deployment created.
    fn made_for<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        let deployment = self.deployment(revision).map(|deployment| deployment.name_any());
        self.pods.iter().filter(move |pod| {
            revision_of(pod.as_ref()) == Some(revision)
                && deployment
                    .as_deref()
                    .is_some_and(|name| is_made_by(pod.as_ref(), name))
        })
    }

    /// The revision that the Service sends traffic to now.
    #[must_use]
    pub fn traffic(&self) -> Option<&str> {
        selected_by(self.endpoint.as_ref()?)
    }

    /// Whether nothing of the service exists yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.deployments.is_empty() && self.endpoint.is_none()
    }
}

/// Added to each wait for a deadline, so that the deadline has certainly passed: clocks and timers differ a little.
pub const MARGIN: SignedDuration = SignedDuration::from_millis(100);

/// How long to wait from `now` until the earliest of these times that is still to come has passed.
#[must_use]
pub fn until_next(times: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Option<SignedDuration> {
    let next = times.into_iter().filter(|time| *time > now).min()?;
    Some(next.duration_since(now) + MARGIN)
}

/// Gathers what the caches know about a service. `reported` is what its servers say, `devices` what runs
/// their models, `scaling` what their load asks for.
#[must_use]
pub fn observe(
    caches: &Caches,
    classes: &Classes,
    service: Arc<ModelService>,
    reported: Reported,
    devices: BTreeMap<String, Option<Arc<Engaged>>>,
    scaling: Option<Scaling>,
    cluster: Capabilities,
) -> Observed {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let mut deployments = caches.deployments.of(&namespace, &name);
    deployments.retain(|deployment| is_ours(deployment.as_ref(), &service));
    deployments.sort_by_key(|deployment| (Reverse(number(deployment)), deployment.name_any()));
    let endpoint = ours(caches.endpoints.of(&namespace, &name), &service);
    let pods = caches.pods.of(&namespace, &name);
    let is_resolver = |pod: &Arc<Pod>| resolves(pod).is_some() && is_ours(pod.as_ref(), &service);
    let (resolvers, pods) = pods.into_iter().partition::<Vec<_>, _>(is_resolver);
    let named = deployments
        .iter()
        .filter_map(|deployment| deployment.annotations().get(CLASS_ANNOTATION));
    let named = service.spec.accelerators.iter().chain(named);
    let mut claim_templates = caches.claim_templates.of(&namespace, &name);
    claim_templates.retain(|template| is_ours(template.as_ref(), &service));
    let classes = named
        .filter_map(|name| Some((name.clone(), classes.get(name)?)))
        .collect();
    let (deployments, beside) = split(deployments, &pods, endpoint.as_deref());
    Observed {
        claim_templates,
        classes,
        endpoint,
        autoscaler: ours(caches.autoscalers.of(&namespace, &name), &service),
        disruption_budget: ours(caches.disruption_budgets.of(&namespace, &name), &service),
        pods,
        resolvers,
        reported,
        devices,
        scaling,
        cluster,
        now: Timestamp::now(),
        deployments,
        beside,
        service,
    }
}

/// The child that has the service's name, if it really belongs to this service.
fn ours<K: Resource>(children: Vec<Arc<K>>, service: &ModelService) -> Option<Arc<K>> {
    children
        .into_iter()
        .find(|child| child.meta().name == service.metadata.name && is_ours(child.as_ref(), service))
}
