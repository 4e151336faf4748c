#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    controller::asking::{
        self,
        fixtures::{address, served_at},
    },
    crd::AcceleratorStatus,
};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A service with ready pods at these addresses, of which a server has reported this execution provider.
fn served(addresses: &[&str], provider: &str) -> (Observed, ModelServiceStatus) {
    let (served, plan) = served_at(addresses);
    let status = ModelServiceStatus {
        current_revision: Some(plan.rollout.target),
        accelerator: Some(AcceleratorStatus {
            execution_provider: Some(provider.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    (served, status)
}

fn devices() -> (Devices, UnboundedReceiver<ObjectRef<ModelService>>) {
    let (wake, woken) = unbounded_channel();
    // Nothing is read from the cluster: no pod has a claim.
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    (Devices::new(Client::try_from(config).unwrap(), wake), woken)
}

/// A server that reports this device.
async fn server(address: &str, device: &str) {
    let assignment = json!({"provider": "GpuExecutionProvider", "nodes": 9, "device": {"name": device}});
    let report = json!({"serverVersion": "1", "onnxRuntimeVersion": "2", "executionProvider": "GpuExecutionProvider",
        "models": [{"name": "photos", "digest": "sha256:ee", "opset": 17, "inputs": [], "outputs": [],
            "assignment": assignment}]});
    asking::fixtures::server(address, &report).await;
}

/// One server says nothing about the others: each may have another device.
#[tokio::test]
async fn every_server_on_an_accelerator_is_asked_and_the_service_is_woken_once() {
    let (one, two) = (address(101), address(102));
    server(&one, "GPU one").await;
    server(&two, "GPU two").await;
    let (devices, mut woken) = devices();
    let (served, status) = served(&[&one, &two], "GpuExecutionProvider");
    devices.ask(&served, &status);
    let service = tokio::time::timeout(Duration::from_secs(20), woken.recv()).await;
    assert_eq!(service.unwrap().unwrap().name, "photos");
    devices.ask(&served, &status);
    assert!(woken.is_empty(), "nobody is asked again");
    let known = devices.of(&served.service);
    let device = |uid: &str| {
        known[uid]
            .as_ref()
            .unwrap()
            .assignment
            .device
            .clone()
            .unwrap()
            .name
    };
    assert_eq!(
        (device(&one), device(&two)),
        ("GPU one".to_owned(), "GPU two".to_owned())
    );
    devices.forget("service-uid");
    assert!(devices.of(&served.service).is_empty());
}

/// Otherwise a thousand replicas on CPUs are asked for nothing.
#[tokio::test]
async fn servers_on_the_cpu_are_not_asked() {
    let (devices, _woken) = devices();
    let (served, status) = served(&[&address(103)], CPU_PROVIDER);
    devices.ask(&served, &status);
    assert!(devices.services.lock().is_empty());
}

#[test]
fn a_claim_says_which_alternative_was_taken() {
    let claim = |request: &str| {
        let results = json!([{"request": request, "driver": "gpu.example.com", "pool": "p", "device": "d"}]);
        let claim = json!({"metadata": {"name": "c"}, "spec": {}, "status": {"allocation": {"devices": {"results": results}}}});
        serde_json::from_value(claim).unwrap()
    };
    assert_eq!(taken(&claim("device/large")).as_deref(), Some("large"));
    assert_eq!(taken(&claim("device")), None);
}
