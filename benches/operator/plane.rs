//! The control plane for the benchmark, with an audit log, and its clients.

use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use local_cluster::{ControlPlane, ControlPlaneOptions, FakeNodes};
use modelservice_operator::crd::definitions;
use std::{fs, path::Path};

/// A control plane with room for so many servers.
pub(crate) fn start(servers: usize) -> ControlPlane {
    let folder = tempfile::tempdir().unwrap().keep();
    let policy = folder.join("audit-policy.yaml");
    fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules: [{level: Metadata}]\n",
    )
    .unwrap();
    let options = ControlPlaneOptions {
        // Each requests half a CPU, and a node has 32.
        fake_nodes: Some(FakeNodes::new(servers / 50 + 4)),
        ..ControlPlaneOptions::named("bench")
    };
    let log = folder.join("audit.log");
    let options = options
        .flag(
            "kube-apiserver",
            format!("--audit-policy-file={}", policy.display()),
        )
        .flag("kube-apiserver", format!("--audit-log-path={}", log.display()))
        .flag("kube-controller-manager", "--kube-api-qps=500")
        .flag("kube-controller-manager", "--kube-api-burst=1000")
        .flag("kube-scheduler", "--kube-api-qps=500")
        .flag("kube-scheduler", "--kube-api-burst=1000");
    println!("starting a control plane ...");
    let plane = ControlPlane::start(options).unwrap();
    std::os::unix::fs::symlink(&log, plane.folder().join("audit.log")).unwrap();
    for definition in definitions() {
        plane.apply(&serde_json::to_string(&definition).unwrap()).unwrap();
    }
    plane.wait_established().unwrap();
    plane
}

/// A client that the audit log identifies by `agent`.
pub(crate) async fn client(plane: &ControlPlane, agent: &'static str) -> Client {
    client_of(&plane.kubeconfig_path(), agent).await
}

/// The same, where there is only the control plane's kubeconfig.
pub(crate) async fn client_of(kubeconfig: &Path, agent: &'static str) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.headers.push((
        hyper::header::USER_AGENT,
        hyper::header::HeaderValue::from_static(agent),
    ));
    ClientBuilder::try_from(config).unwrap().build()
}
