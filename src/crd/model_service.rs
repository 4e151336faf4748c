//! `ModelService`: the spec that users write.

use super::{
    autoscaling::Autoscaling,
    constraints,
    fetch::FetchSettings,
    model::Model,
    refusals, schemas,
    server_settings::{ServerSettings, is_default},
    sizes,
    status::ModelServiceStatus,
};
use k8s_openapi::{
    api::core::v1::{Affinity, EnvVar, LocalObjectReference, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What to serve, with how many servers, on which device.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "serving.modelservice.dev",
    version = "v1alpha1",
    kind = "ModelService",
    plural = "modelservices",
    namespaced,
    shortname = "msvc",
    category = "modelserving",
    status = "ModelServiceStatus",
    derive = "PartialEq",
    doc = "A CNN or other ONNX model, served over HTTP by a revisioned, optionally autoscaled set of inference servers.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.currentRevision"),
    printcolumn(name = "Accelerator", type_ = "string", json_path = ".status.accelerator.class"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be at most 52 characters of a-z, 0-9 and '-', begin with a letter and end with a letter or digit, because the Service and the Deployments are named after it")
)]
#[x_kube(validation = Rule::new("!has(self.replicas) || !has(self.autoscaling) || has(self.autoscaling.target.external)").message("set either spec.replicas (a fixed size) or spec.autoscaling (a range), not both; to scale an autoscaled service change spec.autoscaling.minReplicas or maxReplicas"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || !has(self.autoscaling.target.external) || has(self.replicas)").message("spec.autoscaling.target.external needs spec.replicas: the number of servers until somebody scales this ModelService"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || !has(self.autoscaling.target.cpuUtilization) || (has(self.resources.requests) && 'cpu' in self.resources.requests) || (has(self.resources.limits) && 'cpu' in self.resources.limits)").message("spec.autoscaling.target.cpuUtilization is a percentage of the CPU request: set spec.resources.requests.cpu"))]
#[serde(rename_all = "camelCase")]
pub struct ModelServiceSpec {
    /// The model package. A change creates a new revision.
    pub model: Model,
    /// How the model is fetched, if it is not mounted. A change creates a new revision.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fetch: FetchSettings,
    /// Fixed number of servers; 1 if neither this nor `autoscaling` is set. With `autoscaling.target.external`, whoever
    /// scales this ModelService sets it. Changed in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Range for the number of servers, in which it follows the load. Changed in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Names of the AcceleratorClasses to run on, best first. The next one is used if no node gives any server the
    /// device of the one before it within `fallbackAfter`. A change creates a new revision.
    #[serde(default = "default_accelerators")]
    #[schemars(length(min = 1, max = 4), inner(length(min = 1, max = 63)))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("names an AcceleratorClass twice"))]
    #[x_kube(validation = Rule::new("self.all(name, !format.dns1123Subdomain().validate(name).hasValue())").message("must be the name of an AcceleratorClass: a-z, 0-9, '-' and '.'"))]
    pub accelerators: Vec<String>,
    /// How long servers wait for the device of an AcceleratorClass before the next one in `accelerators` is tried: a
    /// number with `s`, `m` or `h`. Node autoscalers take minutes. Changed in place.
    #[serde(default = "default_fallback_after")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('1s') && duration(self) <= duration('168h')").message("must be a duration from 1s to 168h, for example 10m"))]
    pub fallback_after: String,
    /// CPU and memory of each server. The CPU limit determines the server's number of threads. A change creates a new
    /// revision. The accelerator's resource is added by its AcceleratorClass. If `ephemeral-storage` is not set, the
    /// request is 64Mi and the limit 10Gi.
    #[serde(default)]
    pub resources: Resources,
    /// Settings of the inference server. A change creates a new revision.
    #[serde(default, skip_serializing_if = "is_default")]
    pub server: ServerSettings,
    /// True removes every server but keeps the URL, the Service and the revisions. Changed in place.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,
    /// How a new revision takes over. Changed in place.
    #[serde(default)]
    pub rollout: Rollout,
    /// Settings of the servers' pods. A change creates a new revision.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod: PodSettings,
    /// How many old revisions are kept, scaled to zero, for rollbacks. Changed in place.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: i32,
    /// Any new value creates a new revision with the operator's current runtime image and pod template. When the
    /// condition RuntimeUpdateAvailable appears, set this to the version that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub adopt_runtime: Option<String>,
}

impl ModelService {
    /// Whether `Ready` is True for the current spec.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status.as_ref().is_some_and(|status| {
            status.observed_generation == self.metadata.generation
                && status
                    .conditions
                    .iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
    }
}

/// CPU and memory of each server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sizes::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// The limits of what a server may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "sizes::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Default for Resources {
    fn default() -> Self {
        let set = |cpu: &str, memory: &str| {
            [("cpu", cpu), ("memory", memory)]
                .map(|(name, value)| (name.to_owned(), Quantity(value.to_owned())))
                .into()
        };
        Self {
            requests: set("500m", "256Mi"),
            limits: set("1", "1Gi"),
        }
    }
}

/// How a new revision takes over.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `BlueGreen` starts the new revision beside the old one and moves traffic when it is available. For devices
    /// without spares, `Rolling` replaces one server after the other, and `Recreate` stops the old revision first,
    /// which interrupts the service.
    #[serde(default)]
    pub strategy: RolloutStrategy,
    /// Seconds that a server may take to load and warm up its model before it is restarted. A revision keeps the
    /// value that it was created with.
    #[serde(default = "default_startup_deadline")]
    #[schemars(range(min = 10, max = 86400))]
    pub startup_deadline_seconds: i32,
    /// Seconds without progress after which a rollout counts as stalled.
    #[serde(default = "default_progress_deadline")]
    #[schemars(range(min = 10, max = 86400))]
    pub progress_deadline_seconds: i32,
    /// Seconds that finding and fetching the model may take, in addition.
    #[serde(default = "default_fetch_deadline")]
    #[schemars(range(min = 10, max = 604_800))]
    pub fetch_deadline_seconds: i32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            strategy: RolloutStrategy::default(),
            startup_deadline_seconds: default_startup_deadline(),
            progress_deadline_seconds: default_progress_deadline(),
            fetch_deadline_seconds: default_fetch_deadline(),
        }
    }
}

/// How a new revision takes over.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RolloutStrategy {
    /// The new revision starts beside the old one, then the traffic moves, then the old one drains.
    #[default]
    BlueGreen,
    /// The old revision stops, then the new one starts.
    Recreate,
    /// One old server stops, then a new one starts in its place, until all are new. Both answer requests meanwhile.
    Rolling,
}

/// Settings of the servers' pods. The operator sets ports, command and security context.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Additional labels. The operator sets those under `app.kubernetes.io/` and `serving.modelservice.dev/`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::labels")]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('app.kubernetes.io/') && !k.startsWith('serving.modelservice.dev/'))").message("labels under app.kubernetes.io/ and serving.modelservice.dev/ are set by the operator"))]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations. Annotations that change how a container runtime confines a pod are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::annotations")]
    #[x_kube(validation = refusals::annotations())]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('serving.modelservice.dev/'))").message("annotations under serving.modelservice.dev/ are set by the operator"))]
    pub annotations: BTreeMap<String, String>,
    /// Additional environment variables of the server. Variables with which it would load libraries or get devices
    /// are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::env")]
    #[x_kube(validation = refusals::variables())]
    pub env: Vec<EnvVar>,
    /// Labels that a node must have, in addition to those of the AcceleratorClass.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated, in addition to those of the AcceleratorClass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Scheduling preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::affinity")]
    pub affinity: Option<Affinity>,
    /// How servers are spread over zones and nodes. A constraint without a selector selects the service's own
    /// servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::topology_spread")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a PriorityClass"))]
    pub priority_class_name: Option<String>,
    /// Name of the scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a scheduler"))]
    pub scheduler_name: Option<String>,
    /// Name of the service account. Its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = constraints::object_name("a service account of this namespace"))]
    pub service_account_name: Option<String>,
    /// Secrets of this namespace with which the kubelet pulls the runtime and model images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::image_pull_secrets")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Group that owns mounted volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647_i64))]
    pub fs_group: Option<i64>,
}

fn default_accelerators() -> Vec<String> {
    vec!["cpu".to_owned()]
}

fn default_fallback_after() -> String {
    "10m".to_owned()
}

const fn default_history() -> i32 {
    3
}

const fn default_startup_deadline() -> i32 {
    300
}

const fn default_progress_deadline() -> i32 {
    600
}

const fn default_fetch_deadline() -> i32 {
    3600
}
