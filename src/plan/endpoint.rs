//! The Service behind the URL: selects the one revision that has the traffic or, during a rolling update, every server.
//! Pure.

use super::{meta, rollout::Rollout};
use crate::{
    crd::{ROLLING_ANNOTATION, SWITCHED_ANNOTATION},
    validate::ValidatedService,
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::collections::BTreeMap;

/// Port of the URL.
const HTTP: i32 = 80;
/// Port for gRPC: the one that clients of Triton and KServe expect.
const GRPC: i32 = 8001;

pub(super) fn endpoint(service: &ValidatedService, rollout: &Rollout) -> Service {
    let mut metadata = meta::meta(service, service.name.clone());
    let switched = rollout
        .switched_at
        .map(|at| (SWITCHED_ANNOTATION, at.to_string()));
    let rolling = rollout.rolling.as_ref();
    let rolling = rolling.map(|rolling| (ROLLING_ANNOTATION, rolling.annotation()));
    let annotations: BTreeMap<String, String> = switched
        .into_iter()
        .chain(rolling)
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(rollout.selector(service)),
            ports: Some(ports().into()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Ports of every Service.
#[must_use]
pub fn ports() -> [ServicePort; 2] {
    [
        port("http", HTTP, "http"),
        port("grpc", GRPC, "kubernetes.io/h2c"),
    ]
}

/// The server tells the protocols apart on its single port. Here each has its own port, because a proxy or a mesh has
/// to know the protocol beforehand.
fn port(name: &str, port: i32, app_protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        app_protocol: Some(app_protocol.into()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String("http".into())),
        ..ServicePort::default()
    }
}
