//! `ModelService`: the part of the spec that says how many servers there are when that is not a fixed number.

use super::{schemas, server_settings::is_default};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Range for the number of servers, and what decides within it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas").message("minReplicas must not be larger than maxReplicas"))]
#[x_kube(validation = Rule::new("has(self.target.external) || has(self.maxReplicas)").message("maxReplicas is required: how many servers there may be at most"))]
#[x_kube(validation = Rule::new("!has(self.target.external) || !(has(self.minReplicas) || has(self.maxReplicas) || has(self.scaleUp) || has(self.scaleDown) || has(self.schedules) || has(self.behavior))").message("with target.external, whoever scales this ModelService has the range and its settings: remove minReplicas, maxReplicas, scaleUp, scaleDown, schedules and behavior"))]
#[x_kube(validation = Rule::new("!has(self.target.cpuUtilization) || !(has(self.scaleUp) || has(self.scaleDown))").message("scaleUp and scaleDown belong to target.utilization and target.concurrency; with target.cpuUtilization, set behavior"))]
#[x_kube(validation = Rule::new("!has(self.behavior) || has(self.target.cpuUtilization)").message("behavior is that of a HorizontalPodAutoscaler and belongs to target.cpuUtilization; otherwise set scaleUp and scaleDown"))]
#[x_kube(validation = Rule::new("!has(self.schedules) || !has(self.maxReplicas) || self.schedules.all(schedule, schedule.minReplicas <= self.maxReplicas)").message("minReplicas of a schedule must not be larger than maxReplicas"))]
pub struct Autoscaling {
    /// Minimum number of servers; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Maximum number of servers; required unless the target is `external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
    /// What decides the number of servers.
    #[serde(default)]
    pub target: ScaleTarget,
    /// How fast servers are added, with the targets `utilization` and `concurrency`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale_up: ScaleUp,
    /// How fast servers are removed, with the targets `utilization` and `concurrency`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale_down: ScaleDown,
    /// Hours in which there are more servers than `minReplicas` at least.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub schedules: Vec<ScaleSchedule>,
    /// With the target `cpuUtilization`, the HorizontalPodAutoscaler's own `behavior`, passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::behavior")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// What decides the number of servers: exactly one of these.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.utilization), has(self.concurrency), has(self.cpuUtilization), has(self.external)].filter(is_set, is_set).size() == 1").message("set exactly one of utilization, concurrency, cpuUtilization and external; to replace one in a merge patch or with kubectl apply, set the old one to null"))]
pub struct ScaleTarget {
    /// How busy the servers are to be, in percent: the run time of all requests that arrive, also of those that are
    /// refused or expire, in relation to what the servers can run at the same time. 70 if no target is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub utilization: Option<i32>,
    /// Requests in flight per server, including those that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency: Option<i32>,
    /// Average CPU use of the servers' containers, in percent of their CPU request, by a HorizontalPodAutoscaler.
    /// Needs metrics-server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub cpu_utilization: Option<i32>,
    /// Somebody else scales this ModelService: your own HorizontalPodAutoscaler, KEDA or a person. Needs
    /// `spec.replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalTarget>,
}

impl ScaleTarget {
    /// Whether the operator itself decides, by the load that the servers report.
    #[must_use]
    pub const fn is_load(&self) -> bool {
        self.utilization.is_some() || self.concurrency.is_some()
    }
}

impl Default for ScaleTarget {
    fn default() -> Self {
        Self {
            utilization: Some(70),
            concurrency: None,
            cpu_utilization: None,
            external: None,
        }
    }
}

/// Somebody else scales the ModelService: no settings.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalTarget {}

/// How fast servers are added.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleUp {
    /// Seconds over which the load is averaged when it rises.
    #[schemars(range(min = 5, max = 60))]
    pub window_seconds: i32,
    /// How many servers are added at once, in percent of those that are ready; one at least.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_percent: i32,
    /// How far the load may be above the target, in percent of it, before servers are added.
    #[schemars(range(min = 0, max = 50))]
    pub tolerance_percent: i32,
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self {
            window_seconds: 6,
            max_percent: 300,
            tolerance_percent: 10,
        }
    }
}

/// How fast servers are removed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// Seconds over which the load is averaged when it falls.
    #[schemars(range(min = 5, max = 60))]
    pub window_seconds: i32,
    /// Seconds in which fewer servers must have been enough all the time before any is removed.
    #[schemars(range(min = 0, max = 3600))]
    pub delay_seconds: i32,
    /// How many servers are removed at once, in percent of all; one at least.
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: i32,
    /// How far the load may be below the target, in percent of it, before servers are removed.
    #[schemars(range(min = 0, max = 50))]
    pub tolerance_percent: i32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            window_seconds: 30,
            delay_seconds: 60,
            max_percent: 50,
            tolerance_percent: 10,
        }
    }
}

/// Hours in which there are more servers than usual at least.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSchedule {
    /// When they begin: minute, hour, day of the month, month and day of the week, as in a CronJob; for example
    /// `30 7 * * 1-5`.
    #[schemars(length(min = 9, max = 128))]
    pub cron: String,
    /// Time zone of `cron`, as the IANA database names it, for example `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// Minimum number of servers in these hours.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// How long they last: a number with `s`, `m` or `h`, for example `10h`; at most `168h`.
    #[serde(rename = "for")]
    #[schemars(regex(pattern = "^([0-9]{1,6}(h|m|s))+$"), length(max = 24))]
    pub duration: String,
}

fn utc() -> String {
    "Etc/UTC".to_owned()
}
