#![allow(clippy::panic, clippy::unwrap_used)]
use crate::{
    crd::{FALLBACKS_ANNOTATION, PLACED_ANNOTATION, PLACEMENT_LABEL},
    plan::simulator::Cluster,
    revision::placement_of,
    validate::validate,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// Ten minutes, and a moment.
const DUE: usize = 605;

fn listed(spec: &Value) -> Cluster {
    let mut spec = spec.clone();
    spec["accelerators"] = json!(["tpu", "cpu"]);
    Cluster::new(spec).has("tpu", 0)
}

fn sizes(sizes: &[(&str, i32)]) -> Vec<(String, i32)> {
    sizes
        .iter()
        .map(|(class, size)| ((*class).to_owned(), *size))
        .collect()
}

/// The class that the Service selects.
fn selected(cluster: &Cluster) -> String {
    let selector = cluster
        .observed
        .endpoint
        .as_ref()
        .unwrap()
        .spec
        .clone()
        .unwrap()
        .selector;
    selector.unwrap()[PLACEMENT_LABEL].clone()
}

/// Names of Deployments, selectors and claims must be different for each class, and stay as they are for one.
#[test]
fn only_a_list_of_several_classes_has_its_class_in_names_and_selectors() {
    for (classes, suffix) in [(json!(["tpu"]), ""), (json!(["tpu", "cpu"]), "-tpu")] {
        let mut cluster = Cluster::new(json!({"accelerators": classes, "replicas": 2}));
        let plan = cluster.second();
        let deployment = &plan.revisions[0].deployment;
        let expected = format!("photos-{}{suffix}", plan.rollout.target);
        assert_eq!(deployment.name_any(), expected);
        let class = (!suffix.is_empty()).then_some("tpu");
        assert_eq!(placement_of(deployment), class);
        assert_eq!(
            deployment.annotations().contains_key(FALLBACKS_ANNOTATION),
            class.is_some()
        );
        let pods = deployment.spec.selector.match_labels.clone().unwrap();
        let budget = plan.disruption_budget.unwrap().spec.unwrap().selector.unwrap();
        for selector in [
            pods.clone(),
            plan.endpoint.spec.unwrap().selector.unwrap(),
            budget.match_labels.unwrap(),
            deployment.spec.template.metadata.clone().unwrap().labels.unwrap(),
        ] {
            assert_eq!(selector.get(PLACEMENT_LABEL).map(String::as_str), class);
            assert!(pods.iter().all(|(key, value)| selector.get(key) == Some(value)));
        }
    }
}

/// The whole point: a service without its device serves from the next one, at the same size, and stays there.
#[test]
fn the_next_class_serves_where_no_device_comes_and_the_first_one_goes() {
    let mut cluster = listed(&json!({"replicas": 2}));
    let plan = cluster.wait(595);
    assert_eq!(cluster.sizes(), sizes(&[("tpu", 2)]));
    assert!(
        plan.rollout.look_again.unwrap().as_secs() <= 10,
        "it looks again when it is due"
    );
    let edited = cluster
        .observed
        .clone()
        .class("cpu", json!({"nodeSelector": {"edited": "later"}}));
    cluster.observed = edited;
    cluster.until("a server on the CPU is available", |cluster| {
        cluster.answering() > 0
    });
    cluster.wait(3);
    assert_eq!(cluster.sizes(), sizes(&[("cpu", 2)]));
    assert_eq!(selected(&cluster), "cpu");
    let [cpu] = &cluster.observed.deployments[..] else {
        panic!("more than one revision");
    };
    let pod = cpu.spec.template.spec.clone().unwrap();
    assert_eq!(
        pod.node_selector, None,
        "the template was frozen with the revision"
    );
    assert!(cpu.annotations().contains_key(PLACED_ANNOTATION));
    assert_eq!(cluster.observed.disruption_budget.as_ref().unwrap().spec, {
        let planned = cluster.observed.planned();
        planned.disruption_budget.unwrap().spec
    });

    cluster.devices.insert("tpu".into(), 4);
    cluster.wait(2 * DUE);
    assert_eq!(
        cluster.sizes(),
        sizes(&[("cpu", 2)]),
        "it does not go back by itself"
    );
    cluster.model('b');
    cluster.until("the new revision serves", |cluster| {
        cluster.answering() == 2 && selected(cluster) == "tpu"
    });
    cluster.wait(20);
    assert_eq!(
        cluster.sizes(),
        sizes(&[("tpu", 2)]),
        "a new revision begins with the best class"
    );
}

/// Otherwise a service ends on the CPU although its device would have come, or could not help.
#[test]
fn no_class_is_tried_while_pods_wait_for_anything_but_the_device() {
    type Case = (&'static str, fn(&mut Cluster));
    let table: [Case; 4] = [
        ("another resource", |cluster| {
            cluster.otherwise =
                Some("0/4 nodes are available: 1 Insufficient cpu, 3 Insufficient example.com/tpu.");
        }),
        ("a claim", |cluster| {
            cluster.otherwise = Some("0/4 nodes are available: persistentvolumeclaim \"graphs\" not found.");
        }),
        ("suspended", |cluster| {
            cluster.edit(|spec| spec["suspend"] = true.into())
        }),
        ("at zero", |cluster| {
            cluster.edit(|spec| spec["replicas"] = 0.into())
        }),
    ];
    for (name, change) in table {
        let mut cluster = listed(&json!({}));
        cluster.wait(300);
        change(&mut cluster);
        cluster.wait(2 * DUE);
        assert!(cluster.observed.beside.is_empty(), "{name}");
        cluster.otherwise = None;
        cluster.edit(|spec| (spec["suspend"], spec["replicas"]) = (false.into(), 1.into()));
        cluster.wait(590);
        assert!(
            cluster.observed.beside.is_empty(),
            "{name}: the time begins again"
        );
        cluster.until("the next class is tried", |cluster| {
            !cluster.observed.beside.is_empty()
        });
    }
}

/// Otherwise each rollout on a full cluster ends on the CPU for good.
#[test]
fn no_class_is_tried_while_another_revision_holds_such_devices() {
    let mut cluster = listed(&json!({})).has("tpu", 1);
    cluster.until("it serves", |cluster| cluster.answering() == 1);
    cluster.model('b');
    cluster.wait(2 * DUE);
    assert_eq!(cluster.sizes(), sizes(&[("tpu", 1), ("tpu", 1)]));
    assert!(cluster.observed.beside.is_empty());
    cluster.edit(|spec| spec["rollout"] = json!({"strategy": "Recreate"}));
    cluster.wait(30);
    assert_eq!(cluster.sizes(), sizes(&[("tpu", 1)]));
    assert_eq!((cluster.answering(), selected(&cluster)), (1, "tpu".into()));
}

/// A class that got even one device is kept: a service on two kinds of devices would be two services.
#[test]
fn a_class_with_a_device_for_one_server_is_kept() {
    let mut cluster = listed(&json!({"replicas": 3})).has("tpu", 2);
    cluster.wait(2 * DUE);
    assert_eq!(cluster.sizes(), sizes(&[("tpu", 3)]));
    assert_eq!(cluster.answering(), 2);
}

/// A node autoscaler may be just slower than `fallbackAfter`.
#[test]
fn a_device_that_comes_before_the_next_class_serves_wins() {
    let mut cluster = listed(&json!({}));
    cluster.until("the CPU is tried", |cluster| !cluster.observed.beside.is_empty());
    cluster
        .devices
        .extend([("tpu".to_owned(), 1), ("cpu".to_owned(), 0)]);
    cluster.wait(10);
    assert_eq!(cluster.sizes(), sizes(&[("tpu", 1)]));
    assert!(cluster.observed.beside.is_empty());
}

/// Three classes without devices: one after the other, never two at once.
#[test]
fn classes_are_tried_one_after_the_other() {
    let mut cluster =
        Cluster::new(json!({"accelerators": ["tpu", "gpu", "npu", "cpu"], "fallbackAfter": "60s"}));
    for class in ["tpu", "gpu", "npu"] {
        cluster.devices.insert(class.into(), 0);
    }
    let mut seen = Vec::new();
    for _ in 0..300 {
        cluster.second();
        assert!(cluster.observed.beside.len() <= 1);
        let running = cluster.sizes().into_iter().map(|(class, _)| class);
        seen.extend(running.filter(|class| !seen.contains(class)).collect::<Vec<_>>());
    }
    assert_eq!(seen, ["tpu", "gpu", "npu", "cpu"]);
    assert_eq!(cluster.sizes(), sizes(&[("cpu", 1)]));
}

#[test]
fn a_spec_that_is_older_than_the_rules_is_refused_by_the_operator_too() {
    let refused = |spec: Value| {
        let cluster = Cluster::new(spec);
        validate(&cluster.observed).unwrap_err().to_string()
    };
    for list in [
        json!([]),
        json!(["cpu", "tpu", "cpu"]),
        json!(["a", "b", "c", "d", "e"]),
    ] {
        let message = refused(json!({"accelerators": list}));
        assert!(
            message.contains("one to 4 different AcceleratorClasses"),
            "{message}"
        );
    }
    for after in ["soon", "-1m", "0s", ""] {
        let message = refused(json!({"fallbackAfter": after}));
        assert!(message.contains("spec.fallbackAfter"), "{message}");
    }
    let missing = refused(json!({"accelerators": ["cpu", "quantum"]}));
    assert!(missing.contains("no AcceleratorClass \"quantum\""), "{missing}");
}
