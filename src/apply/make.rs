//! Makes a child that the caches do not show, unless somebody else's object has its name.

use super::{Applier, Child};
use crate::{
    crd::{FIELD_MANAGER, ModelService},
    reason::Problem,
    revision::is_ours,
};
use kube::Resource;
use serde_json::Value;

/// A resource version that no object has: etcd's first write has the second. An API server makes an object that
/// was applied with it, and refuses with a conflict where one exists already. So the usual case, that nobody else
/// has the name, takes one request and no read before it.
const OF_NO_OBJECT: &str = "1";

impl Applier<'_> {
    /// Makes an object that the caches do not show; one that exists nevertheless is not touched unless it is ours
    /// and only lost its label.
    pub(super) async fn make<K: Child>(&self, wanted: &mut Value) -> Result<K, Problem> {
        wanted["metadata"]["resourceVersion"] = OF_NO_OBJECT.into();
        let answer = self.try_patch(FIELD_MANAGER, wanted).await;
        if let Some(metadata) = wanted["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        match answer {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let uid = self.unseen::<K>(&wanted["metadata"]["name"]).await?;
                self.change(wanted, uid).await
            }
            answer => answer.map_err(|error| Problem::of_request("patch", &K::kind(&()), &error)),
        }
    }

    /// Changes the object that has this UID: one that was deleted and made anew by another since we looked is not
    /// touched.
    pub(super) async fn change<K: Child>(
        &self,
        wanted: &mut Value,
        uid: Option<String>,
    ) -> Result<K, Problem> {
        if let Some(uid) = uid {
            wanted["metadata"]["uid"] = uid.into();
        }
        self.patch(FIELD_MANAGER, wanted).await
    }

    /// Looks for an object that the caches do not show. Some UID: it is ours, only its label was lost. None: it went.
    async fn unseen<K: Child>(&self, name: &Value) -> Result<Option<String>, Problem> {
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

/// Says whose an object is that has the name of a child.
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
