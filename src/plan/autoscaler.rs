//! The HorizontalPodAutoscaler: targets the Deployment of the revision that has the traffic. Pure.

use super::{meta, rollout::Rollout};
use crate::validate::{Size, ValidatedService};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};

/// `None` for a fixed size, and while suspended: an autoscaler would only complain about a Deployment of size zero.
pub(super) fn autoscaler(service: &ValidatedService, rollout: &Rollout) -> Option<HorizontalPodAutoscaler> {
    let Size::Autoscaled(range) = &service.size else {
        return None;
    };
    if service.spec().suspend {
        return None;
    }
    Some(HorizontalPodAutoscaler {
        metadata: meta::meta(service, service.name.clone()),
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: meta::deployment_name(service, &rollout.traffic),
            },
            min_replicas: Some(range.min_replicas),
            max_replicas: range.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(range.target.cpu_utilization),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: range.behavior.clone(),
        },
        status: None,
    })
}
