//! `ModelService`: how a model is fetched.

use super::{
    constraints,
    server_settings::{VolumeClaim, is_default},
    sizes,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a model is fetched.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FetchSettings {
    /// What to show the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<FetchCredentials>,
    /// Whether the identity that a cloud gives to the pod's service account may be used.
    #[serde(default, skip_serializing_if = "is_default")]
    pub identity: FetchIdentity,
    /// CPU and memory of what finds and fetches the model; by default requests of 50m and 64Mi, limits of 1 and 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<FetchResources>,
    /// User that fetches, for meshes that let only certain users past their proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647_i64))]
    pub run_as_user: Option<i64>,
    /// An ephemeral volume for the model, instead of an emptyDir.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<FetchVolume>,
    /// A cache that servers share, so that each model is fetched once. Each server has a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<FetchCacheSettings>,
}

/// Credentials for a store.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FetchCredentials {
    /// Secret of this namespace, whose key `endpoints` lists the servers that it is for.
    #[schemars(length(max = 253))]
    #[x_kube(validation = constraints::object_name("a Secret of this namespace"))]
    pub secret_name: String,
}

/// Whose identity is used.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchIdentity {
    /// Nobody's.
    #[default]
    None,
    /// That of the pod's service account.
    Pod,
}

/// CPU and memory of what fetches.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FetchResources {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sizes::few_quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// The limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sizes::few_quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// An ephemeral volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FetchVolume {
    /// Its StorageClass; the cluster's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = constraints::object_name("a StorageClass"))]
    pub storage_class_name: Option<String>,
    /// Its size.
    #[schemars(schema_with = "sizes::size")]
    pub size: Quantity,
}

/// A cache that servers share.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FetchCacheSettings {
    /// A claim with the access mode ReadWriteMany.
    pub volume_claim: VolumeClaim,
    /// How much it may hold. Beyond it, models that no pod uses are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "sizes::size")]
    pub maximum_size: Option<Quantity>,
}
