//! The PodDisruptionBudget: at most one of the servers that get requests is evicted at a time. Pure.

use super::{meta, rollout::Rollout};
use crate::{
    observe::Observed,
    revision::wanted_replicas,
    validate::{Size, ValidatedService},
};
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

/// There is one if there is more than one server. An autoscaled service keeps its budget when it shrinks to one
/// server, for which every eviction is allowed: otherwise the budget would come and go with the load.
pub(super) fn disruption_budget(
    service: &ValidatedService,
    observed: &Observed,
    rollout: &Rollout,
) -> Option<PodDisruptionBudget> {
    let wanted = match &service.size {
        _ if service.spec().suspend => false,
        Size::Fixed(replicas) => *replicas > 1,
        Size::Autoscaled(range) => {
            let grown = observed
                .deployment(&rollout.traffic)
                .is_some_and(|d| wanted_replicas(d) > 1);
            range.min > 1 || (range.max > 1 && (grown || observed.disruption_budget.is_some()))
        }
    };
    wanted.then(|| PodDisruptionBudget {
        metadata: meta::meta(service, service.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(rollout.selector(service)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
