//! Metadata: names, labels and owner of every child. Pure.

use crate::{
    crd::{ModelService, REVISION_LABEL, SERVICE_LABEL},
    validate::ValidatedService,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
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
            ("app.kubernetes.io/component", "server"),
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

/// Name of a revision's Deployment.
pub(super) fn deployment_name(service: &ValidatedService, revision: &str) -> String {
    format!("{}-{revision}", service.name)
}
