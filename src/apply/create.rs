//! Create: makes a child that the caches do not show, unless somebody else's object has its name.

use super::request::{Child, Requests};
use crate::{
    crd::{APPLIED_ANNOTATION, FIELD_MANAGER, ModelService, SERVICE_LABEL},
    plan::meta::{labels, owner},
    reason::Problem,
    revision::is_ours,
    validate::ValidatedService,
};
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

/// A resource version that no object has: etcd's first write has the second one. An API server that is given it
/// with an apply creates the object, and refuses with a conflict if one exists already. So in the usual case, in
/// which nobody else has the name, it takes one request and no read before it.
const CREATE_ONLY: &str = "1";

impl Requests<'_> {
    /// Creates an object that the caches do not show. One that exists nevertheless is touched only if it is ours
    /// and merely lost its label.
    pub(super) async fn create<K: Child>(&self, wanted: &mut Value) -> Result<K, Problem> {
        wanted["metadata"]["resourceVersion"] = CREATE_ONLY.into();
        let answer = self.try_patch(FIELD_MANAGER, wanted).await;
        if let Some(metadata) = wanted["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        match answer {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let uid = self.ours_by_name::<K>(&wanted["metadata"]["name"]).await?;
                self.change(wanted, uid).await
            }
            answer => answer.map_err(|error| Problem::of_request("patch", &K::kind(&()), &error)),
        }
    }

    /// UID of the object with this name, if it is ours and merely lost its label; `None` if it is gone by now.
    async fn ours_by_name<K: Child>(&self, name: &Value) -> Result<Option<String>, Problem> {
        let (kind, name) = (K::kind(&()), name.as_str().unwrap_or_default());
        let found = self.api::<K>().get_metadata_opt(name).await;
        let Some(found) = found.map_err(|error| Problem::of_request("get", &kind, &error))? else {
            return Ok(None);
        };
        if is_ours(&found, &self.service.source) {
            return Ok(found.metadata.uid);
        }
        Err(foreign(&found, &kind, name, self.service))
    }
}

/// Says whose object has the name of a child.
fn foreign<K: Resource>(found: &K, kind: &str, name: &str, service: &ValidatedService) -> Problem {
    let controller = found
        .meta()
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let (kind, name) = (kind.to_owned(), name.to_owned());
    match controller {
        Some(owner) if owner.kind == ModelService::kind(&()) && owner.name == service.name => {
            Problem::WaitingForDeletion { kind, name }
        }
        Some(owner) => Problem::NameConflict {
            kind,
            name,
            owner: format!("{} \"{}\"", owner.kind, owner.name),
        },
        None if is_orphan(found, service) => Problem::Orphaned {
            kind,
            name,
            command: adoption(service),
        },
        None => Problem::NameConflict {
            kind,
            name,
            owner: "somebody else (it has no controller)".to_owned(),
        },
    }
}

/// Whether this operator made the object for a service of this name.
fn is_orphan<K: Resource>(found: &K, service: &ValidatedService) -> bool {
    let has = |(key, value): (&String, &String)| found.labels().get(key) == Some(value);
    found.annotations().contains_key(APPLIED_ANNOTATION) && labels(service).iter().all(has)
}

/// A shell command that makes the service the owner of all that an earlier one of its name left behind.
fn adoption(service: &ValidatedService) -> String {
    let namespace = &service.namespace;
    let name = &service.name;
    let owners = json!({"metadata": {"ownerReferences": [owner(service)]}});
    format!(
        "kubectl -n {namespace} get deployments,services,horizontalpodautoscalers,poddisruptionbudgets -l {SERVICE_LABEL}={name},app.kubernetes.io/managed-by=modelservice-operator -o name | xargs -n 1 kubectl -n {namespace} patch -p '{owners}'"
    )
}
