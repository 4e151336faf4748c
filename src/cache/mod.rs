//! Cache: the objects that the operator keeps in memory, filled by watches and by the answers to its own writes. It
//! is not a source of truth: after a restart, the watches fill it again.
//!
//! A trap: [`Children::settle`] erases what was only needed to compare an object with the wanted one, above all a
//! Deployment's pod template. So `spec.template` of a cached Deployment may be empty. Read the template that is
//! frozen in its annotation, with `crate::revision`.

pub mod children;
pub mod classes;
mod entry;
pub mod pod;
pub mod retention;
pub mod watch;
pub mod written;

use self::{children::Children, pod::Pod};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget, resource::v1::ResourceClaimTemplate,
};
use std::sync::Arc;

/// Children of every service, by kind.
#[derive(Debug, Default)]
pub struct Caches {
    /// Deployments: one per revision.
    pub deployments: Arc<Children<Deployment>>,
    /// Services.
    pub endpoints: Arc<Children<Service>>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Arc<Children<HorizontalPodAutoscaler>>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Arc<Children<PodDisruptionBudget>>,
    /// ResourceClaimTemplates: one for each Deployment whose pods get devices by DRA.
    pub claim_templates: Arc<Children<ResourceClaimTemplate>>,
    /// Pods of every revision.
    pub pods: Arc<Children<Pod>>,
}

impl Caches {
    /// Returns once every cache has its first list: until then, children may seem to be missing.
    pub async fn wait_filled(&self) {
        self.deployments.wait_filled().await;
        self.endpoints.wait_filled().await;
        self.autoscalers.wait_filled().await;
        self.disruption_budgets.wait_filled().await;
        self.claim_templates.wait_filled().await;
        self.pods.wait_filled().await;
    }
}
