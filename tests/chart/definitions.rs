//! CRDs of other projects, from pinned Go modules, so that manifests are validated against the real ones.

use crate::repository;
use serde_json::Value;
use std::{path::Path, process::Command};

const FILES: &[(&str, &str)] = &[
    (
        "sigs.k8s.io/gateway-api",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    (
        "sigs.k8s.io/gateway-api",
        "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ),
    (
        "github.com/kedacore/keda/v2",
        "config/crd/bases/keda.sh_scaledobjects.yaml",
    ),
    (
        "github.com/fluxcd/kustomize-controller",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    (
        "github.com/fluxcd/helm-controller",
        "config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml",
    ),
];

/// The CRDs as YAML.
pub(crate) fn foreign() -> Vec<String> {
    FILES
        .iter()
        .map(|(module, file)| {
            let path = Path::new(&folder(module)).join(file);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

/// Where Go keeps a module; it is downloaded once and compared with go.sum.
fn folder(module: &str) -> String {
    let output = Command::new("go")
        .args(["mod", "download", "-json", module])
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .current_dir(repository("tests/chart/definitions"))
        .output()
        .expect("Go is needed to fetch the definitions of other projects");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let errors = String::from_utf8_lossy(&output.stderr);
    answer["Dir"]
        .as_str()
        .unwrap_or_else(|| panic!("{module}: {text}{errors}"))
        .to_owned()
}
