//! The Service that carries the URL: selects the one revision that has the traffic. Pure.

use super::{meta, rollout::Rollout};
use crate::{crd::SWITCHED_ANNOTATION, validate::ValidatedService};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

pub(super) fn endpoint(service: &ValidatedService, rollout: &Rollout) -> Service {
    let mut metadata = meta::meta(service, service.name.clone());
    metadata.annotations = rollout
        .switched_at
        .map(|at| [(SWITCHED_ANNOTATION.to_owned(), at.to_string())].into());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(meta::revision_selector(service, &rollout.traffic)),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                app_protocol: Some("http".into()),
                port: 80,
                protocol: Some("TCP".into()),
                target_port: Some(IntOrString::String("http".into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
