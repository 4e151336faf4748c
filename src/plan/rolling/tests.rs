#![allow(clippy::unwrap_used)]
use super::failing;
use crate::{
    crd::{GAVE_BACK_ANNOTATION, REVISION_LABEL, ROLLING_ANNOTATION},
    fixtures::observed,
    plan::{rollout::Scale, simulator::Cluster},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// A service on two devices, of which it has both.
fn serving(spec: &Value) -> Cluster {
    let mut spec = spec.clone();
    spec["accelerators"] = json!(["tpu"]);
    spec["rollout"] = json!({"strategy": "Rolling"});
    let mut cluster = Cluster::new(spec).has("tpu", 2);
    cluster.until("it serves", |cluster| cluster.answering() == 2);
    cluster.wait(20);
    cluster
}

/// Servers of the newest revision and of the others that are to be, each time that they change.
fn history(cluster: &mut Cluster, seconds: usize) -> Vec<(i32, i32)> {
    let mut history = vec![cluster.new_and_old()];
    for _ in 0..seconds {
        cluster.second();
        assert!(cluster.observed.pods.len() <= 2, "a third pod: {history:?}");
        assert!(cluster.answering() >= 1, "nobody answers: {history:?}");
        history.push(cluster.new_and_old());
        history.dedup();
    }
    history
}

/// Whether the Service selects servers of every revision.
fn selects_all(cluster: &Cluster) -> bool {
    let endpoint = cluster.observed.endpoint.as_ref().unwrap();
    let is_rolling = endpoint.annotations().contains_key(ROLLING_ANNOTATION);
    let selector = endpoint.spec.clone().unwrap().selector.unwrap();
    assert_ne!(is_rolling, selector.contains_key(REVISION_LABEL));
    is_rolling
}

#[test]
fn servers_are_replaced_one_by_one_on_the_devices_that_there_are() {
    let mut cluster = serving(&json!({"replicas": 2}));
    cluster.model('b');
    let history = history(&mut cluster, 40);
    assert_eq!(history, [(2, 0), (0, 1), (1, 1), (1, 0), (2, 0)]);
    assert!(!selects_all(&cluster));
    assert_eq!(cluster.answering(), 2);
}

/// An autoscaler would take the device that is free for a moment.
#[test]
fn nobody_scales_while_servers_are_replaced() {
    for target in [json!({"cpuUtilization": 70}), json!({"utilization": 70})] {
        let mut cluster = serving(
            &json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 4, "target": target},
            "resources": {"requests": {"cpu": "1"}}}),
        );
        assert_eq!(
            cluster.observed.planned().autoscaler.is_some(),
            target.get("cpuUtilization").is_some()
        );
        cluster.model('b');
        let mut passes = 0;
        loop {
            let plan = cluster.second();
            if plan.rollout.rolling.is_none() {
                assert!(passes > 5, "it was over after {passes} passes");
                break;
            }
            passes += 1;
            assert_eq!(plan.autoscaler, None);
            assert!(
                plan.rollout
                    .scales
                    .values()
                    .all(|scale| matches!(scale, Scale::Fixed(_)))
            );
            assert!(selects_all(&cluster));
            let budget = plan.disruption_budget.unwrap().spec.unwrap().selector.unwrap();
            assert_eq!(
                budget.match_labels,
                plan.endpoint.spec.unwrap().selector,
                "evictions count both"
            );
        }
        assert_eq!(cluster.answering(), 2);
    }
}

/// A revision that does not work costs one server for a moment, and is not tried again and again.
#[test]
fn a_first_new_server_that_fails_gives_its_device_back() {
    let mut cluster = serving(&json!({"replicas": 2}));
    cluster.broken = Some("sha256:b");
    cluster.model('b');
    let history = history(&mut cluster, 200);
    assert_eq!(history, [(2, 0), (0, 1), (1, 1), (0, 1), (0, 2)]);
    assert!(!selects_all(&cluster));
    assert_eq!(cluster.answering(), 2);
    let failed = cluster.observed.deployments[0].clone();
    assert!(failed.annotations().contains_key(GAVE_BACK_ANNOTATION));

    cluster.edit(|spec| spec["replicas"] = 1.into());
    cluster.wait(5);
    assert_eq!(
        cluster.new_and_old(),
        (0, 1),
        "the old one is sized as the spec says"
    );
    cluster.edit(|spec| spec["replicas"] = 2.into());
    cluster.wait(5);
    cluster.model('c');
    cluster.until("another one takes over", |cluster| {
        cluster.new_and_old() == (2, 0)
    });
    cluster.wait(5);
    assert_eq!(cluster.answering(), 2);
}

/// The revision that was begun has half of the devices: a third one takes them over, too.
#[test]
fn a_change_of_mind_in_the_middle_costs_no_second_server() {
    for third in ['a', 'c'] {
        let mut cluster = serving(&json!({"replicas": 2}));
        cluster.edit(|spec| spec["model"]["image"] = "models.example/net@sha256:aa".into());
        cluster.model('b');
        cluster.until("one is new", |cluster| cluster.new_and_old() == (1, 1));
        cluster.wait(3);
        match third {
            'a' => cluster.edit(|spec| spec["model"]["image"] = "models.example/net@sha256:aa".into()),
            other => cluster.model(other),
        }
        history(&mut cluster, 60);
        let asked = cluster.observed.planned().rollout;
        assert!(asked.is_settled(), "{third}: {asked:?}");
        let sizes: Vec<i32> = asked
            .scales
            .values()
            .filter_map(|scale| match scale {
                Scale::Fixed(size) if *size > 0 => Some(*size),
                _ => None,
            })
            .collect();
        assert_eq!(sizes, [2], "{third}");
        assert_eq!(
            (cluster.answering(), cluster.observed.pods.len()),
            (2, 2),
            "{third}"
        );
    }
}

/// A store that is down must not end servers that work, whatever was under way, nor have the Service written again and
/// again.
#[test]
fn an_update_rests_while_the_next_model_is_not_found() {
    let mut cluster = serving(&json!({"replicas": 2}));
    cluster.model('b');
    cluster.until("one is new", |cluster| cluster.new_and_old() == (1, 1));
    let before = cluster.observed.endpoint.clone();
    cluster.is_store_up = false;
    cluster.edit(|spec| spec["model"] = json!({"uri": "s3://models/net.onnx"}));
    for _ in 0..60 {
        let plan = cluster.second();
        assert!(
            plan.rollout
                .scales
                .values()
                .all(|scale| *scale == Scale::Unchanged)
        );
        assert_eq!((plan.autoscaler, plan.retired.len()), (None, 0));
        assert_eq!(cluster.new_and_old(), (1, 1));
        assert_eq!(cluster.observed.endpoint, before);
    }
    assert_eq!(cluster.answering(), 2);

    cluster.is_store_up = true;
    cluster.until("the third one takes over", |cluster| {
        assert!(cluster.answering() >= 1, "{:?}", cluster.sizes());
        cluster.new_and_old() == (2, 0)
    });
    cluster.wait(5);
    assert!(!selects_all(&cluster));
    assert_eq!((cluster.answering(), cluster.observed.pods.len()), (2, 2));
}

/// Who asks for no server, or to suspend the service, is not kept waiting by a store that is down.
#[test]
fn an_update_that_rests_still_frees_every_device_when_it_is_asked_to() {
    for (field, value) in [("replicas", json!(0)), ("suspend", json!(true))] {
        let mut cluster = serving(&json!({"replicas": 2}));
        cluster.model('b');
        cluster.until("one is new", |cluster| cluster.new_and_old() == (1, 1));
        cluster.is_store_up = false;
        cluster.edit(|spec| spec["model"] = json!({"uri": "s3://models/net.onnx"}));
        cluster.wait(5);
        cluster.edit(|spec| spec[field] = value);
        cluster.wait(30);
        assert_eq!(cluster.observed.pods.len(), 0, "{field}");
    }
}

/// With one device there is a gap, and the service comes back by itself, from either revision.
#[test]
fn with_a_single_device_the_old_server_ends_first() {
    for broken in [None, Some("sha256:b")] {
        let mut cluster =
            Cluster::new(json!({"accelerators": ["tpu"], "rollout": {"strategy": "Rolling"}})).has("tpu", 1);
        cluster.until("it serves", |cluster| cluster.answering() == 1);
        cluster.broken = broken;
        cluster.model('b');
        cluster.until("the gap", |cluster| cluster.answering() == 0);
        cluster.until("it serves again", |cluster| cluster.answering() == 1);
        cluster.wait(100);
        assert_eq!(
            cluster.new_and_old(),
            if broken.is_none() { (1, 0) } else { (0, 1) }
        );
        assert_eq!((cluster.answering(), cluster.observed.pods.len()), (1, 1));
    }
}

/// Suspending a service in the middle frees every device, and what runs afterwards is what the spec asks for.
#[test]
fn a_service_that_is_suspended_in_the_middle_has_no_servers_and_then_the_new_ones() {
    let mut cluster = serving(&json!({"replicas": 2}));
    cluster.model('b');
    cluster.until("one is new", |cluster| cluster.new_and_old() == (1, 1));
    cluster.edit(|spec| spec["suspend"] = true.into());
    cluster.wait(5);
    assert_eq!((cluster.new_and_old(), cluster.observed.pods.len()), ((0, 0), 0));
    cluster.edit(|spec| spec["suspend"] = false.into());
    cluster.wait(20);
    assert_eq!((cluster.new_and_old(), cluster.answering()), ((2, 0), 2));
}

/// Any class may be replaced this way: it never needs more than the service has.
#[test]
fn a_class_that_is_not_exclusive_is_replaced_in_the_same_way() {
    let mut cluster = Cluster::new(json!({"replicas": 2, "rollout": {"strategy": "Rolling"}}));
    cluster.until("it serves", |cluster| cluster.answering() == 2);
    cluster.model('b');
    let history = history(&mut cluster, 40);
    assert_eq!(history.last(), Some(&(2, 0)));
    assert!(history.contains(&(1, 1)), "{history:?}");
}

/// Otherwise a large model's first server gives its device back while the model still arrives.
#[test]
fn a_server_that_fetches_its_model_has_the_time_for_it() {
    let uri = format!("oci://r.example/net@sha256:{}", "a".repeat(64));
    let spec = json!({"model": {"uri": uri}, "rollout": {"strategy": "Rolling"}});
    let plan = observed(spec.clone()).planned();
    let fails_after = |status: Value| {
        let observed = observed(spec.clone())
            .running(&plan, 1, 0)
            .pod_made(&plan, 0, status);
        let at = failing(&observed, &observed.service.spec, &plan.rollout.target);
        at[0].duration_since(observed.now).as_secs()
    };
    let fetch =
        |state: Value| json!({"initContainerStatuses": [{"name": "fetch", "ready": false, "state": state}]});
    assert_eq!(fails_after(fetch(json!({"running": {}}))), 600 + 3600);
    assert_eq!(fails_after(json!({})), 600, "it has its model");
    let repeated = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    assert_eq!(fails_after(fetch(repeated)), 0);
}
