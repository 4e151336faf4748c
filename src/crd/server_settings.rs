//! `ModelService`: the part of the spec that the inference server is configured by.

use super::constraints;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the inference server.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerSettings {
    /// Name of the model in request paths (`/v2/models/{name}`); the ModelService's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$")
    )]
    pub model_name: Option<String>,
    /// Largest request body in bytes (default 67108864).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 4_294_967_296_i64))]
    pub max_body_bytes: Option<i64>,
    /// Largest decoded image in pixels (default 67108864).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_073_741_824_i64))]
    pub max_image_pixels: Option<i64>,
    /// Images in one form, which are one batch in memory (default 16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_images_per_request: Option<i32>,
    /// Examples that may go into one run of the model (default 8). How many do is measured: more than 1 only
    /// where that is faster. 1 keeps requests apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_batch_size: Option<i32>,
    /// Requests that may wait in one server before the next is answered 429 (default 128).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub queue_length: Option<i32>,
    /// How long clients' connections live.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connections: ConnectionSettings,
    /// Who is answered; everybody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// Which requests have a line in the servers' logs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access_log: AccessLogSettings,
    /// Where traces of requests go; nowhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSettings>,
    /// Where each server keeps its optimised graphs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cache: CacheSettings,
}

/// How long clients' connections live. Kubernetes balances connections, not requests: a new server gets nothing
/// from those that are kept open until they end.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSettings {
    /// Age in seconds at which a connection is ended without losing a request, 10 % more or less (default 300);
    /// 0 is never. Within it, and no sooner, an added server has its share of kept-alive and gRPC clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub max_age_seconds: Option<i32>,
    /// Requests after which a connection is ended in the same way (default 0, which is never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647_i64))]
    pub max_requests: Option<i32>,
    /// Seconds after which an idle connection is closed (default 620). Longer than a load balancer in front
    /// keeps its own: whoever closes first while the other sends loses a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub idle_seconds: Option<i32>,
}

/// Who is answered.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthSettings {
    /// Secret of the service's namespace whose key `tokens` has one bearer token a line. Requests need one of
    /// them, health excepted. A change of the Secret takes effect some minutes later, without a restart.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a Secret of this namespace"))]
    pub token_secret_name: String,
}

/// Which requests have a line in the servers' logs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccessLogSettings {
    /// Share of all requests, from 0 to 1 (default 0.0, which is none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<f64>,
    /// Every request that a server fails to answer, whatever the share (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<bool>,
}

/// Where traces of requests go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TracingSettings {
    /// An OpenTelemetry collector that takes OTLP over gRPC without TLS, such as
    /// `http://collector.observability:4317`.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = constraints::collector())]
    pub endpoint: String,
    /// Share of requests that are traced, from 0 to 1, of those that do not say it themselves by `traceparent`
    /// (default 0.01).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<f64>,
}

/// Where a server keeps its optimised graphs, with which it starts faster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CacheSettings {
    /// A volume that outlives the servers. Without it each pod has an empty folder of its own, which helps it
    /// when its container restarts, and no other pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaim>,
}

/// A PersistentVolumeClaim of the service's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaim {
    /// Its name. All servers of a service write to it, those of several services may; servers on several nodes
    /// need the access mode ReadWriteMany.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a PersistentVolumeClaim of this namespace"))]
    pub name: String,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
