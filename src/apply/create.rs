//! Create: creates a child that is not in the caches, or a pod, unless somebody else's object has its name.

use super::request::{Child, Requests};
use crate::{
    cache::pod::Pod,
    crd::{APPLIED_ANNOTATION, FIELD_MANAGER, ModelService, SERVICE_LABEL},
    plan::meta::{labels, owner},
    reason::Problem,
    revision::is_ours,
    validate::ValidatedService,
};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Resource, ResourceExt as _,
    api::{ListParams, PostParams, Request},
};
use serde_json::{Value, json};

/// A resource version that no object has: etcd's first write gets version 2. An apply with this version creates the
/// object, or fails with a conflict if it already exists. So in the usual case, in which the name is free, one
/// request is enough and no read is needed.
const CREATE_ONLY: &str = "1";

impl Requests<'_> {
    /// Creates an object that is not in the caches. If it exists after all, it is changed only if it is ours and has
    /// merely lost its label.
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

    /// Creates a pod. The right to create pods is enough for this; to apply one needs the right to change pods.
    pub(super) async fn start(&self, pod: &core::Pod) -> Result<Pod, Problem> {
        let problem = |error: &kube::Error| Problem::of_request("create", &Pod::kind(&()), error);
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let body = serde_json::to_vec(pod).map_err(|error| problem(&kube::Error::SerdeError(error)))?;
        let request = Request::new(self.api::<Pod>().resource_url()).create(&parameters, body);
        let request = request.map_err(|error| problem(&kube::Error::BuildRequest(error)))?;
        match self.client.request(request).await {
            // Other conflicts are not about the name: a quota, for example, that somebody else has just used.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                Err(self.name_taken(&pod.name_any()).await)
            }
            answer => answer.map_err(|error| problem(&error)),
        }
    }

    /// The problem that a pod with this name exists. The operator may list pods, but not get one.
    async fn name_taken(&self, name: &str) -> Problem {
        let kind = Pod::kind(&());
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = match self.api::<Pod>().list_metadata(&named).await {
            Ok(found) => found.items.into_iter().next(),
            Err(error) => return Problem::of_request("list", &kind, &error),
        };
        match found {
            Some(found) if !is_ours(&found, &self.service.source) => {
                foreign(&found, &kind, name, self.service)
            }
            // It is being deleted, mostly, or is gone by now.
            _ => Problem::NameTaken {
                kind: kind.into_owned(),
                name: name.to_owned(),
            },
        }
    }

    /// UID of the object with this name, if it is ours and has merely lost its label; `None` if it is gone.
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

/// The problem that somebody else's object has the name of a child.
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
            command: adoption(service, &kind),
            kind,
            name,
        },
        None => Problem::NameConflict {
            kind,
            name,
            owner: "somebody else (it has no controller)".to_owned(),
        },
    }
}

/// Whether this operator created the object for a service of this name.
fn is_orphan<K: Resource>(found: &K, service: &ValidatedService) -> bool {
    let has = |(key, value): (&String, &String)| found.labels().get(key) == Some(value);
    found.annotations().contains_key(APPLIED_ANNOTATION) && labels(service).iter().all(has)
}

/// A shell command that makes the service the owner of everything that an earlier service of its name left behind.
/// ResourceClaimTemplates, which a cluster may not have, are looked for if one of them is in the way.
fn adoption(service: &ValidatedService, kind: &str) -> String {
    let claims = if kind == "ResourceClaimTemplate" {
        ",resourceclaimtemplates"
    } else {
        ""
    };
    let namespace = &service.namespace;
    let name = &service.name;
    let owners = json!({"metadata": {"ownerReferences": [owner(service)]}});
    format!(
        "kubectl -n {namespace} get deployments,services,horizontalpodautoscalers,poddisruptionbudgets{claims} -l {SERVICE_LABEL}={name},app.kubernetes.io/managed-by=modelservice-operator -o name | xargs -n 1 kubectl -n {namespace} patch -p '{owners}'"
    )
}
