//! Cache: what the operator keeps in memory of the cluster. No truth lives here: watches fill it again after a
//! restart.

pub mod children;
pub mod classes;
pub mod retention;
pub mod written;

use self::{children::Children, retention::Pod};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget,
};
use std::sync::Arc;

/// Children of every service, filled by watches.
#[derive(Debug, Default)]
pub struct Caches {
    /// One per revision.
    pub deployments: Arc<Children<Deployment>>,
    /// Services.
    pub endpoints: Arc<Children<Service>>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Arc<Children<HorizontalPodAutoscaler>>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Arc<Children<PodDisruptionBudget>>,
    /// Pods of every revision.
    pub pods: Arc<Children<Pod>>,
}

impl Caches {
    /// Returns once every cache holds its first list: before that a child may seem to be missing.
    pub async fn wait_filled(&self) {
        self.deployments.wait_filled().await;
        self.endpoints.wait_filled().await;
        self.autoscalers.wait_filled().await;
        self.disruption_budgets.wait_filled().await;
        self.pods.wait_filled().await;
    }
}
