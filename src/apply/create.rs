//! Create: makes a child that the caches do not show, unless somebody else's object has its name.

use super::request::{Child, Requests};
use crate::{
    crd::{FIELD_MANAGER, ModelService},
    reason::Problem,
    revision::is_ours,
};
use kube::Resource;
use serde_json::Value;

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
        Err(foreign(&found, &kind, name, &self.service.name))
    }
}

/// Says whose object has the name of a child.
fn foreign<K: Resource>(found: &K, kind: &str, name: &str, service: &str) -> Problem {
    let controller = found
        .meta()
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let (kind, name) = (kind.to_owned(), name.to_owned());
    match controller {
        Some(owner) if owner.kind == ModelService::kind(&()) && owner.name == service => {
            Problem::WaitingForDeletion { kind, name }
        }
        Some(owner) => Problem::NameConflict {
            kind,
            name,
            owner: format!("{} \"{}\"", owner.kind, owner.name),
        },
        None => Problem::NameConflict {
            kind,
            name,
            owner: "somebody else (it has no controller)".to_owned(),
        },
    }
}
