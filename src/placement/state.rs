//! What a placement's Deployment and pods say about it. Pure.

use super::waits::{Device, waits_for_device};
use crate::{
    cache::pod::Pod,
    crd::{CLASS_ANNOTATION, PLACED_ANNOTATION, WAITING_ANNOTATION},
    revision::{count_fallbacks, refused_pods, wanted_replicas},
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

/// One Deployment of a revision that names several classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its class.
    pub class: String,
    /// Whether a pod of it has ever been scheduled.
    pub placed: bool,
    /// Servers that are available.
    pub available: i32,
    /// Whether its pods wait for its device, and for nothing else.
    pub waits_for_device: bool,
    /// Since when they have been waiting, as its annotation says.
    pub since: Option<Timestamp>,
    /// How many classes of the list come after it.
    pub fallbacks: usize,
}

impl Placement {
    /// As far as its Deployment and those of its pods that have not ended tell, without what the pods wait for.
    pub fn of<'a>(live: &Deployment, mut pods: impl Iterator<Item = &'a Pod>) -> Self {
        let annotation = |key: &str| live.annotations().get(key);
        let status = live.status.as_ref();
        let available = status.and_then(|status| status.available_replicas).unwrap_or(0);
        Self {
            class: annotation(CLASS_ANNOTATION).cloned().unwrap_or_default(),
            placed: annotation(PLACED_ANNOTATION).is_some() || available > 0 || pods.any(Pod::is_scheduled),
            available,
            waits_for_device: false,
            since: annotation(WAITING_ANNOTATION).and_then(|since| since.parse().ok()),
            fallbacks: count_fallbacks(live),
        }
    }

    /// The same, with what the pods wait for.
    #[must_use]
    pub fn waiting<'a>(
        mut self,
        live: &Deployment,
        pods: impl Iterator<Item = &'a Pod>,
        device: &Device,
    ) -> Self {
        let mut told = pods.filter_map(Pod::unschedulable).peekable();
        self.waits_for_device = wanted_replicas(live) > 0
            && refused_pods(live).is_none()
            && told.peek().is_some()
            && told.all(|message| waits_for_device(message, device));
        self
    }
}
