//! Attempts as pods tell of them, and what comes next.
#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

const FOUND: &str =
    r#"{"identity": {"kind": "ETag", "value": "\"a\"", "isRetained": false}, "objects": 1, "bytes": 5}"#;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn pod(number: u32, seconds_ago: i64, state: Value) -> Arc<Pod> {
    let at = now() - SignedDuration::from_secs(seconds_ago);
    let mut state = state;
    if let Some(terminated) = state.get_mut("terminated") {
        terminated["finishedAt"] = json!(at);
    }
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "istio-proxy", "ready": true, "state": {"running": {}}},
        {"name": "resolve", "ready": false, "state": state}]});
    pod_with(number, seconds_ago, status)
}

fn pod_with(number: u32, seconds_ago: i64, status: Value) -> Arc<Pod> {
    let pod = json!({"status": status, "metadata": {"name": format!("photos-aa-resolve-{number}"),
        "labels": {RESOLVES_LABEL: "aa", ATTEMPT_LABEL: number.to_string()},
        "creationTimestamp": now() - SignedDuration::from_secs(seconds_ago)}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn failed(number: u32, seconds_ago: i64) -> Arc<Pod> {
    pod(
        number,
        seconds_ago,
        json!({"terminated": {"exitCode": 31, "message": "{}"}}),
    )
}

fn running(number: u32) -> Arc<Pod> {
    pod(number, 1, json!({"running": {}}))
}

fn then(pods: &[Arc<Pod>]) -> Next {
    next(&attempts(pods, "aa"), now())
}

/// The state machine, row by row. A pod that is never waited for is started again and again; one that is waited for
/// although it has ended is never followed by another.
#[test]
fn what_comes_next_is_read_from_the_pods() {
    let ended = |message: &str| pod(1, 0, json!({"terminated": {"exitCode": 0, "message": message}}));
    let until = |seconds| Next::WaitUntil(now() + SignedDuration::from_secs(seconds));
    let table = [
        ("nothing yet", vec![], Next::Begin(1)),
        (
            "of another revision",
            vec![{
                let mut other = running(1).as_ref().clone();
                other
                    .metadata
                    .labels
                    .as_mut()
                    .unwrap()
                    .insert(RESOLVES_LABEL.into(), "bb".into());
                Arc::new(other)
            }],
            Next::Begin(1),
        ),
        (
            "on its way",
            vec![pod_with(1, 9, json!({"phase": "Pending"}))],
            Next::Wait,
        ),
        ("running", vec![running(1)], Next::Wait),
        (
            "found",
            vec![ended(FOUND)],
            Next::Known(serde_json::from_str(FOUND).unwrap()),
        ),
        ("ended without words", vec![ended("")], until(10)),
        ("failed just now", vec![failed(1, 0)], until(10)),
        ("failed a while ago", vec![failed(1, 10)], Next::Begin(2)),
        ("failed the third time", vec![failed(3, 0)], until(40)),
        ("failed the hundredth time", vec![failed(100, 0)], until(300)),
        ("tried again", vec![failed(1, 60), running(2)], Next::Wait),
        (
            "evicted",
            vec![pod_with(1, 10, json!({"phase": "Failed", "reason": "Evicted"}))],
            Next::Begin(2),
        ),
    ];
    for (what, pods, expected) in table {
        assert_eq!(then(&pods), expected, "{what}");
    }
}

/// Otherwise the name of the next pod is still taken.
#[test]
fn a_pod_that_somebody_deletes_is_followed_by_another_with_its_own_name() {
    let mut deleted = running(4).as_ref().clone();
    deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
    assert_eq!(then(&[Arc::new(deleted)]), Next::Begin(5));
}

/// What was said last stays until something else is said: otherwise the status changes with each attempt.
#[test]
fn a_failed_pod_stays_until_the_next_one_has_ended() {
    let outdated = |pods: &[Arc<Pod>]| -> Vec<String> {
        let attempts = attempts(pods, "aa");
        outdated(&attempts).map(|pod| pod.name_any()).collect()
    };
    assert!(outdated(&[failed(1, 60), running(2)]).is_empty());
    assert_eq!(outdated(&[failed(1, 60), failed(2, 1)]), ["photos-aa-resolve-1"]);
    assert_eq!(
        outdated(&[running(3), failed(1, 60), failed(2, 1)]),
        ["photos-aa-resolve-1"]
    );
}
