//! The HorizontalPodAutoscaler of a service that scales by CPU: targets the Deployment of the revision that has the
//! traffic. Pure.

use super::{meta, rollout::Rollout};
use crate::{
    crd::SERVER_CONTAINER,
    validate::{By, Size, ValidatedService},
};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
};

/// `None` unless the CPU decides, and while suspended: an autoscaler would only complain about a Deployment of size
/// zero. Neither during a rolling update: it would take the device that is free for a moment.
pub(super) fn autoscaler(service: &ValidatedService, rollout: &Rollout) -> Option<HorizontalPodAutoscaler> {
    let Size::Autoscaled(range) = &service.size else {
        return None;
    };
    let By::Cpu {
        utilization,
        behavior,
    } = &range.by
    else {
        return None;
    };
    if service.spec().suspend || rollout.rolling.is_some() {
        return None;
    }
    Some(HorizontalPodAutoscaler {
        metadata: meta::meta(service, service.name.clone()),
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: rollout.serving().name(service),
            },
            min_replicas: Some(range.min),
            max_replicas: range.max,
            // Of the server's container alone: an injected one may have no request, or dilute the average.
            metrics: Some(vec![MetricSpec {
                type_: "ContainerResource".into(),
                container_resource: Some(ContainerResourceMetricSource {
                    container: SERVER_CONTAINER.into(),
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(*utilization),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: behavior.clone(),
        },
        status: None,
    })
}
