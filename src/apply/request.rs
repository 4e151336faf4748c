//! Request: one call to the API server about a service's child. A failed request becomes a [`Problem`].

use crate::{
    cache::{pod::Pod, retention::Retention},
    cluster::client::WithManagedFields,
    crd::FIELD_MANAGER,
    reason::Problem,
    validate::ValidatedService,
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
        policy::v1::PodDisruptionBudget, resource::v1::ResourceClaimTemplate,
    },
    apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, GetParams, PartialObjectMeta, Patch, PatchParams, Preconditions, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt::Debug;

/// A kind of child.
pub(super) trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Retention
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}
impl Child for Deployment {}
impl Child for Service {}
impl Child for HorizontalPodAutoscaler {}
impl Child for PodDisruptionBudget {}
impl Child for ResourceClaimTemplate {}
impl Child for Pod {}

/// Requests about the children of one service.
pub(super) struct Requests<'a> {
    pub(super) client: &'a Client,
    pub(super) service: &'a ValidatedService,
}

impl Requests<'_> {
    pub(super) fn api<K: Child>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.service.namespace)
    }

    /// Changes the object with this UID: if somebody else has meanwhile deleted and recreated it, the new one is not
    /// changed.
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

    pub(super) async fn patch<K: Child>(&self, manager: &str, body: &Value) -> Result<K, Problem> {
        let answer = self.try_patch(manager, body).await;
        answer.map_err(|error| Problem::of_request("patch", &K::kind(&()), &error))
    }

    pub(super) async fn try_patch<K: Child>(&self, manager: &str, body: &Value) -> kube::Result<K> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply(manager).force();
        self.api::<K>()
            .patch(name, &parameters, &Patch::Apply(body))
            .await
    }

    /// A child as it is now.
    pub(super) async fn get<K: Child>(&self, name: &str) -> Result<K, Problem> {
        let answer = self.api::<K>().get(name).await;
        answer.map_err(|error| Problem::of_request("get", &K::kind(&()), &error))
    }

    /// Who set which fields of a child.
    pub(super) async fn managers<K: Child>(&self, name: &str) -> kube::Result<Vec<ManagedFieldsEntry>> {
        let request = Request::new(self.api::<K>().resource_url()).get_metadata(name, &GetParams::default());
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert(WithManagedFields);
        let found: PartialObjectMeta<K> = self.client.request(request).await?;
        Ok(found.metadata.managed_fields.unwrap_or_default())
    }

    /// Deletes a child, if it is still the one that was observed.
    pub(super) async fn delete<K: Child>(&self, live: &K) -> Result<(), Problem> {
        let only = Preconditions {
            uid: live.uid(),
            resource_version: None,
        };
        let parameters = DeleteParams {
            preconditions: Some(only),
            ..DeleteParams::background()
        };
        match self.api::<K>().delete(&live.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            // It is already gone, or was replaced by an object that is not ours.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(Problem::of_request("delete", &K::kind(&()), &error)),
        }
    }
}
