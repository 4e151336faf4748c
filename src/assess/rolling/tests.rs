#![allow(clippy::unwrap_used)]
use crate::{
    apply::Applied,
    assess::assess,
    crd::{ModelService, ModelServiceStatus},
    plan::simulator::Cluster,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What the status says now, which the service then has.
fn assessed(cluster: &mut Cluster) -> ModelServiceStatus {
    let plan = cluster.pass();
    let applied = Applied::as_observed(plan.rollout, None, &cluster.observed);
    let status = assess(&cluster.observed, &applied);
    let mut service: ModelService = cluster.observed.service.as_ref().clone();
    service.status = Some(status.clone());
    cluster.observed.service = Arc::new(service);
    cluster.go_on();
    status
}

/// Status, reason and message of a condition.
fn said(status: &ModelServiceStatus, type_: &str) -> Option<(String, String, String)> {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// A service on this many devices, one for each server, that is being updated.
fn updated(servers: usize) -> Cluster {
    let spec = json!({"replicas": servers, "accelerators": ["tpu"], "rollout": {"strategy": "Rolling"}});
    let mut cluster = Cluster::new(spec).has("tpu", servers);
    cluster.until("it serves", |cluster| cluster.answering() == servers);
    cluster.wait(20);
    cluster.model('b');
    cluster
}

/// A person sees how far it is, and a HorizontalPodAutoscaler of their own counts the servers of both.
#[test]
fn the_servers_of_both_revisions_count_and_the_progress_is_told() {
    let mut cluster = updated(2);
    let mut told = Vec::new();
    loop {
        let status = assessed(&mut cluster);
        let (ready, reason, message) = said(&status, "Ready").unwrap();
        let available = said(&status, "Available").unwrap();
        assert_eq!(available.0, "True", "{available:?} {message}");
        if ready == "True" {
            break;
        }
        assert_eq!(reason, "Progressing", "{message}");
        assert!(
            (1..=2).contains(&status.replicas) && status.ready_replicas >= 1,
            "{status:?}"
        );
        let selector = status.selector.unwrap();
        assert_eq!(
            selector,
            "serving.modelservice.dev/service=photos,app.kubernetes.io/component=server"
        );
        told.push(message.split(" servers").next().unwrap().to_owned());
        told.dedup();
    }
    assert_eq!(told, ["0 of 2", "1 of 2", "2 of 2"]);
}

/// Otherwise nobody knows why requests fail.
#[test]
fn the_gap_of_a_single_server_has_a_reason() {
    let mut cluster = updated(1);
    let status = assessed(&mut cluster);
    let (is_interrupted, reason, message) = said(&status, "Reconciling").unwrap();
    assert_eq!(
        (is_interrupted.as_str(), reason.as_str()),
        ("True", "ServiceInterrupted")
    );
    assert!(
        message.contains("requests are not answered in between"),
        "{message}"
    );
    let gap = assessed(&mut cluster);
    assert_eq!(said(&gap, "Available").unwrap().0, "False");
    cluster.wait(5);
    assert_eq!(said(&assessed(&mut cluster), "Ready").unwrap().0, "True");
}

/// The pod that says why is deleted with its failure.
#[test]
fn why_a_revision_gave_its_device_back_stays() {
    let mut cluster = updated(2);
    cluster.broken = Some("sha256:b");
    for _ in 0..20 {
        assessed(&mut cluster);
    }
    assert_eq!(cluster.answering(), 2);
    let status = assessed(&mut cluster);
    let (stalled, reason, message) = said(&status, "Stalled").unwrap();
    assert_eq!(
        (stalled.as_str(), reason.as_str()),
        ("True", "ModelInvalid"),
        "{message}"
    );
    assert!(
        message.contains("gave its device back") && message.contains("keeps serving"),
        "{message}"
    );
    assert_eq!(said(&status, "Available").unwrap().0, "True");
    assert_eq!(said(&status, "Ready").unwrap().0, "False");

    let mut service: ModelService = cluster.observed.service.as_ref().clone();
    service.status = None;
    cluster.observed.service = Arc::new(service);
    let (_, _, message) = said(&assessed(&mut cluster), "Stalled").unwrap();
    assert!(
        message.contains("to try it again"),
        "without what was said before: {message}"
    );
}

fn listed(replicas: i32, devices: usize) -> Cluster {
    let spec: Value = json!({"replicas": replicas, "accelerators": ["tpu", "cpu"]});
    Cluster::new(spec).has("tpu", devices)
}

/// `Ready` means: on the device that the spec names.
#[test]
fn a_list_whose_device_only_some_servers_got_is_not_ready() {
    let mut cluster = listed(3, 2);
    cluster.wait(10);
    let status = assessed(&mut cluster);
    let (ready, reason, message) = said(&status, "Ready").unwrap();
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "Unschedulable"));
    assert!(message.contains("2 of 3 servers"), "{message}");
    assert_eq!(said(&status, "Available").unwrap().0, "True");
    let selector = status.selector.unwrap();
    assert!(
        selector.ends_with(",serving.modelservice.dev/placement=tpu"),
        "{selector}"
    );
}

#[test]
fn the_class_that_is_tried_is_named() {
    let mut cluster = listed(1, 0);
    cluster.devices.insert("cpu".into(), 0);
    cluster.wait(5);
    let (_, reason, message) = said(&assessed(&mut cluster), "Ready").unwrap();
    assert_eq!(reason, "Unschedulable");
    assert!(!message.contains("is being tried"), "{message}");
    cluster.wait(610);
    let (_, _, message) = said(&assessed(&mut cluster), "Ready").unwrap();
    assert!(
        message.ends_with("; AcceleratorClass \"cpu\" is being tried"),
        "{message}"
    );
}
