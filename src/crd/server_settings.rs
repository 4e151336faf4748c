//! `ModelService`: the part of the spec that configures the inference server.

use super::constraints;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the inference server.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServerSettings {
    /// Name of the model in request paths (`/v2/models/{name}`); the ModelService's name if absent.
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
    /// Maximum number of images in one form, all of which are in memory at once (default 16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_images_per_request: Option<i32>,
    /// Maximum number of rows in one run of the model (default 8). The server measures how many to combine, and
    /// combines requests only if that is faster. With 1, it never combines requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_batch_size: Option<i32>,
    /// Requests that may wait in one server; further requests are answered with 429 (default 128).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub queue_length: Option<i32>,
    /// How long clients' connections live.
    #[serde(default, skip_serializing_if = "is_default")]
    pub connections: ConnectionSettings,
    /// Who may send requests; anyone if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// Which requests the servers log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access_log: AccessLogSettings,
    /// Where traces of requests are sent; none are sent if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSettings>,
    /// Where each server stores its optimised graphs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cache: CacheSettings,
}

/// How long clients' connections live. Kubernetes balances connections, not requests: a new server gets no requests
/// from connections that stay open.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSettings {
    /// Age in seconds at which a connection is closed without losing a request, give or take 10 % (default 300); 0
    /// means never. It takes this long for a new server to get its share of keep-alive and gRPC clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub max_age_seconds: Option<i32>,
    /// Requests after which a connection is closed in the same way (default 0, which means never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647_i64))]
    pub max_requests: Option<i32>,
    /// Seconds after which an idle connection is closed (default 620). Must be longer than the idle timeout of a load
    /// balancer in front: if the server closes a connection while the load balancer is sending, that request is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub idle_seconds: Option<i32>,
}

/// Who may send requests.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthSettings {
    /// Secret in the service's namespace whose key `tokens` has one bearer token per line. Every request except
    /// health checks needs one of them. A changed Secret takes effect a few minutes later, without a restart.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a Secret of this namespace"))]
    pub token_secret_name: String,
}

/// Which requests the servers log.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AccessLogSettings {
    /// Share of all requests, from 0 to 1 (default 0.0, which means none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<f64>,
    /// Whether every request that a server fails to answer is logged, whatever the share (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<bool>,
}

/// Where traces of requests are sent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TracingSettings {
    /// An OpenTelemetry collector that accepts OTLP over gRPC without TLS, such as
    /// `http://collector.observability:4317`.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = constraints::collector())]
    pub endpoint: String,
    /// Share of requests that are traced, from 0 to 1 (default 0.01). For a request with a `traceparent` header, the
    /// header decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<f64>,
}

/// Where a server stores its optimised graphs, so that it starts faster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CacheSettings {
    /// A volume that outlives the servers. Without it, each pod has its own empty folder, which helps only when the
    /// pod's container restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaim>,
}

/// A PersistentVolumeClaim in the service's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaim {
    /// Its name. All servers of a service write to it, and several services may share it; servers on several nodes
    /// need the access mode ReadWriteMany.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a PersistentVolumeClaim of this namespace"))]
    pub name: String,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
