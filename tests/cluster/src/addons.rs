//! DNS and metrics. They run beside the control plane, not as pods: they are available at once, need no image, and
//! survive the draining of a node. Services without a selector lead to them.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::control_plane::ControlPlane;

/// Starts CoreDNS for the cluster's names. Every other name is NXDOMAIN: the cluster has no access to the outside.
pub(crate) fn start_dns(plane: &ControlPlane) -> Result<()> {
    let addresses = plane.instance.addresses();
    let corefile = plane.folder().join("Corefile");
    let config = include_str!("../manifests/Corefile");
    fs::write(
        &corefile,
        fill(config, plane, &[("KUBECONFIG", &shown(&plane.kubeconfig_path()))]),
    )?;
    plane.start_part("coredns", vec!["-conf".to_owned(), shown(&corefile)])?;
    plane.instance.wait_port("coredns", 53)?;
    let manifest = include_str!("../manifests/dns.yaml");
    plane
        .apply(&fill(
            manifest,
            plane,
            &[("SERVICE", &addresses.dns_service().to_string())],
        ))
        .map(drop)
}

/// Starts metrics-server. Its first numbers come after about 15 s.
pub(crate) fn start_metrics(plane: &ControlPlane) -> Result<()> {
    let kubeconfig = shown(&plane.kubeconfig_path());
    let flags = vec![
        "--secure-port=4443".to_owned(),
        format!("--bind-address={}", plane.instance.addresses().hub()),
        format!("--cert-dir={}", shown(&plane.folder().join("metrics"))),
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!(
            "--kubelet-certificate-authority={}",
            shown(&plane.folder().join("pki/ca.crt"))
        ),
        "--metric-resolution=10s".to_owned(),
        // It panics if this is not below the resolution.
        "--kubelet-request-timeout=5s".to_owned(),
    ];
    plane.start_part("metrics-server", flags)?;
    plane
        .apply(&fill(include_str!("../manifests/metrics.yaml"), plane, &[]))
        .map(drop)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn fill(template: &str, plane: &ControlPlane, values: &[(&str, &str)]) -> String {
    let hub = plane.instance.addresses().hub().to_string();
    let filled = template.replace("{{HUB}}", &hub);
    values.iter().fold(filled, |text, (key, value)| {
        text.replace(&format!("{{{{{key}}}}}"), value)
    })
}
