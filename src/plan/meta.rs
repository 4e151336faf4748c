//! Metadata: names, labels and owner of every child. Pure.

use crate::{
    crd::{COMPONENT_LABEL, ModelService, PLACEMENT_LABEL, REVISION_LABEL, SERVER, SERVICE_LABEL},
    revision::{placement_of, revision_of},
    validate::ValidatedService,
};
use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource as _;
use std::collections::BTreeMap;

pub(super) fn meta(service: &ValidatedService, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(service.namespace.clone()),
        labels: Some(labels(service)),
        owner_references: Some(vec![owner(service)]),
        ..ObjectMeta::default()
    }
}

pub(crate) fn labels(service: &ValidatedService) -> BTreeMap<String, String> {
    let mut labels = selector(service);
    labels.extend(
        [
            ("app.kubernetes.io/name", "modelservice"),
            ("app.kubernetes.io/instance", &service.name),
            (COMPONENT_LABEL, SERVER),
            ("app.kubernetes.io/part-of", "modelservice-operator"),
            ("app.kubernetes.io/managed-by", "modelservice-operator"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    labels
}

pub(super) fn selector(service: &ValidatedService) -> BTreeMap<String, String> {
    [(SERVICE_LABEL.to_owned(), service.name.clone())].into()
}

pub(super) fn revision_selector(service: &ValidatedService, revision: &str) -> BTreeMap<String, String> {
    let mut selector = selector(service);
    selector.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    selector
}

pub(crate) fn owner(service: &ValidatedService) -> OwnerReference {
    OwnerReference {
        api_version: ModelService::api_version(&()).into_owned(),
        kind: ModelService::kind(&()).into_owned(),
        name: service.name.clone(),
        uid: service.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Selects the servers of every revision, and no other pod.
pub(super) fn server_selector(service: &ValidatedService) -> BTreeMap<String, String> {
    let mut selector = selector(service);
    selector.insert(COMPONENT_LABEL.to_owned(), SERVER.to_owned());
    selector
}

/// Which of a service's Deployments is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeploymentId<'a> {
    /// Its revision.
    pub(super) revision: &'a str,
    /// Its class, if the revision names several.
    pub(super) class: Option<&'a str>,
}

impl<'a> DeploymentId<'a> {
    /// A Deployment that exists.
    pub(super) fn of(live: &'a Deployment) -> Self {
        Self {
            revision: revision_of(live).unwrap_or_default(),
            class: placement_of(live),
        }
    }

    /// The Deployment of the revision that the spec asks for, for a class of its list.
    pub(super) fn of_target(service: &'a ValidatedService, class: &'a str) -> Self {
        Self {
            revision: &service.revision,
            class: (service.spec().accelerators.len() > 1).then_some(class),
        }
    }

    /// Its name.
    pub(super) fn name(&self, service: &ValidatedService) -> String {
        let (service, revision) = (&service.name, self.revision);
        match self.class {
            Some(class) => format!("{service}-{revision}-{class}"),
            None => format!("{service}-{revision}"),
        }
    }

    /// Its labels, beside those of every child.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let class = self.class.map(|class| (PLACEMENT_LABEL, class));
        std::iter::once((REVISION_LABEL, self.revision))
            .chain(class)
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Selects its pods.
    pub(super) fn selector(&self, service: &ValidatedService) -> BTreeMap<String, String> {
        let mut selector = selector(service);
        selector.extend(self.labels());
        selector
    }
}
