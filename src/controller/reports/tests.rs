#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    controller::asking::{
        self,
        fixtures::{address, served_at},
    },
    plan::Plan,
};
use serde_json::json;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
};

/// A service with ready pods at these addresses, and its status, which does not say what it serves.
fn served(addresses: &[&str]) -> (Observed, ModelServiceStatus, Plan) {
    let (served, plan) = served_at(addresses);
    let status = ModelServiceStatus {
        current_revision: Some(plan.rollout.target.clone()),
        ..Default::default()
    };
    (served, status, plan)
}

/// Asks without waiting between attempts.
fn reports() -> (Reports, UnboundedReceiver<ObjectRef<ModelService>>) {
    let (wake, woken) = unbounded_channel();
    let waits = Waits {
        attempts: [Duration::ZERO; 5],
        again: Duration::from_millis(10),
    };
    let reports = Reports {
        waits,
        ..Reports::new(wake)
    };
    (reports, woken)
}

async fn woken(woken: &mut UnboundedReceiver<ObjectRef<ModelService>>) {
    let service = tokio::time::timeout(Duration::from_secs(20), woken.recv()).await;
    assert_eq!(service.unwrap().unwrap().name, "photos");
}

/// A server's management port at this address, that reports one model.
async fn server(address: &str) -> JoinHandle<()> {
    let report = json!({"serverVersion": "1", "onnxRuntimeVersion": "2", "executionProvider": "CPUExecutionProvider",
        "models": [{"name": "photos", "digest": "sha256:ee", "opset": 17, "inputs": [], "outputs": []}]});
    asking::fixtures::server(address, &report).await
}

/// Otherwise nobody knows why `status.model` does not come, and it does not come once a policy that was in the way is
/// mended.
#[tokio::test]
async fn a_server_that_cannot_be_asked_is_told_and_asked_again() {
    let address = address(1);
    let (observed, status, plan) = served(&[&address]);
    let (reports, mut wakes) = reports();
    reports.ask(&observed, &status);
    woken(&mut wakes).await;
    let unreachable = reports.of(&observed.service).unreachable.unwrap();
    assert_eq!(
        (unreachable.revision.as_str(), unreachable.pod.as_str()),
        (plan.rollout.target.as_str(), "photos-0")
    );
    assert!(unreachable.error.contains("refused"), "{}", unreachable.error);
    // The same again is no news.
    reports.ask(&observed, &status);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), wakes.recv())
            .await
            .is_err()
    );

    let server = server(&address).await;
    woken(&mut wakes).await;
    let reported = reports.of(&observed.service);
    assert_eq!((reported.models.len(), reported.unreachable), (1, None));
    server.abort();
}

/// Otherwise what was once asked is remembered for ever, and asked for ever.
#[tokio::test]
async fn nothing_is_remembered_of_what_is_known_or_gone() {
    let (first, second) = (address(2), address(3));
    let (reports, mut wakes) = reports();
    let (observed, mut status, plan) = served(&[&first]);
    reports.ask(&observed, &status);
    woken(&mut wakes).await;
    let told = || {
        reports
            .of(&observed.service)
            .unreachable
            .map(|unreachable| unreachable.pod)
    };
    assert_eq!(told().as_deref(), Some("photos-0"));

    // Another pod is there, then the first is gone.
    let (both, ..) = served(&[&first, &second]);
    reports.ask(&both, &status);
    let mut other = both.clone();
    other.pods.remove(0);
    reports.ask(&other, &status);
    woken(&mut wakes).await;
    assert_eq!(told().as_deref(), Some("photos-1"));

    let (none, ..) = served(&[]);
    reports.ask(&none, &status);
    assert!(reports.services.lock().is_empty(), "no server is ready");
    reports.ask(&observed, &status);
    status.model = Some(crate::crd::ModelStatus {
        revision: plan.rollout.target.clone(),
        ..Default::default()
    });
    reports.ask(&observed, &status);
    assert!(reports.services.lock().is_empty(), "the status says it");
    status.model = None;
    reports.ask(&observed, &status);
    reports.forget(observed.service.metadata.uid.as_deref().unwrap());
    assert!(reports.services.lock().is_empty(), "the service was deleted");
}
