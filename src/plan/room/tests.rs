#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    fixtures::observed,
    plan::{
        Plan,
        rollout::{Rollout, Scale},
    },
};
use serde_json::{Value, json};

const QUOTA: &str =
    "pods \"x\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=8, limited: pods=8";
const POLICY: &str = "pods \"x\" is forbidden: denied by policy";

/// Servers that a revision is to have, pods that it has, and how many of these are available.
type Servers = (i32, i32, i32);

/// A service whose old revision serves and whose new one starts.
struct Two {
    old: Plan,
    new: Plan,
    observed: Observed,
}

fn two(size: Value) -> Two {
    let old = observed(size.clone()).planned();
    let mut spec = size;
    spec["model"] = json!({"image": "models.example/net@sha256:bb"});
    let new = observed(spec.clone()).running(&old, 6, 6).routed(&old).planned();
    let observed = observed(spec)
        .running(&old, 6, 6)
        .running(&new, 6, 0)
        .routed(&old);
    Two { old, new, observed }
}

impl Two {
    /// With these servers; where pods are missing, they were refused with these words.
    fn with(mut self, old: Servers, new: Servers, refusal: &str) -> Self {
        for (deployment, (wants, has, available)) in self.observed.deployments.iter_mut().zip([new, old]) {
            let deployment = Arc::make_mut(deployment);
            deployment.spec.replicas = Some(wants);
            let mut status = json!({"observedGeneration": 1, "replicas": has, "updatedReplicas": has,
                "readyReplicas": available, "availableReplicas": available});
            if has < wants {
                status["conditions"] =
                    json!([{"type": "ReplicaFailure", "status": "True", "message": refusal}]);
            }
            deployment.status = serde_json::from_value(status).unwrap();
        }
        self.observed.pods.clear();
        let pod = |ready: bool| {
            let ready = if ready { "True" } else { "False" };
            json!({"conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}]})
        };
        (0..new.1).fold(self, |two, number| two.pod(true, 30, pod(number < new.2)))
    }

    /// With a pod of the new or of the old revision, made this many seconds ago.
    fn pod(mut self, is_new: bool, age: i64, status: Value) -> Self {
        let plan = if is_new { &self.new } else { &self.old };
        self.observed = self.observed.pod_made(plan, age, status);
        self
    }

    fn aged(mut self, seconds: i64) -> Self {
        self.observed.now += SignedDuration::from_secs(seconds);
        self
    }

    /// Giving way since this many seconds ago, or tried.
    fn gives_way(mut self, since: Option<i64>) -> Self {
        let now = self.observed.now;
        let value = since.map(|seconds| now - SignedDuration::from_secs(seconds));
        let value = value.map_or("tried".to_owned(), |since| since.to_string());
        let annotations = Arc::make_mut(&mut self.observed.deployments[0]).annotations_mut();
        annotations.insert(GIVES_WAY_ANNOTATION.to_owned(), value);
        self
    }

    fn rollout(&self) -> Rollout {
        self.observed.planned().rollout
    }

    /// The size of the new revision, if it gives way.
    fn reduced_to(&self) -> Option<i32> {
        let rollout = self.rollout();
        let reduced = rollout.gives_way.map(|gives_way| gives_way.size);
        if let Some(size) = reduced {
            assert_eq!(rollout.scales[&rollout.target], Scale::Fixed(size));
        }
        reduced
    }
}

fn autoscaled() -> Value {
    json!({"autoscaling": {"minReplicas": 6, "maxReplicas": 8, "target": {"cpuUtilization": 70}}})
}

/// Otherwise servers that are of no use keep those from starting that the load needs.
#[test]
fn a_revision_that_cannot_take_over_gives_way_to_the_one_that_serves() {
    type Row = (&'static str, Servers, Servers, &'static str, i64, Option<i32>);
    let table: [Row; 12] = [
        ("a server is missing", (7, 6, 6), (6, 2, 0), QUOTA, 0, Some(1)),
        ("two are missing", (8, 6, 6), (6, 2, 0), QUOTA, 0, Some(0)),
        (
            "the only one is in the way",
            (7, 6, 6),
            (6, 1, 0),
            QUOTA,
            0,
            Some(0),
        ),
        (
            "healthy, but never complete",
            (7, 6, 6),
            (6, 2, 2),
            QUOTA,
            0,
            Some(1),
        ),
        ("nothing is missing", (6, 6, 6), (6, 2, 0), QUOTA, 60, None),
        (
            "a server that is there is not ready",
            (6, 6, 5),
            (6, 2, 0),
            QUOTA,
            60,
            None,
        ),
        ("the new one takes nothing", (7, 6, 6), (6, 0, 0), QUOTA, 60, None),
        (
            "the old one does not serve",
            (7, 6, 0),
            (6, 2, 0),
            QUOTA,
            60,
            None,
        ),
        (
            "it is not for want of room",
            (7, 6, 6),
            (6, 2, 0),
            POLICY,
            60,
            None,
        ),
        ("the new one starts", (7, 6, 6), (6, 6, 0), QUOTA, 29, None),
        (
            "the new one starts in vain",
            (7, 6, 6),
            (6, 6, 0),
            QUOTA,
            30,
            Some(1),
        ),
        ("all but one are ready", (7, 6, 6), (6, 6, 5), QUOTA, 29, None),
    ];
    for size in [autoscaled(), json!({"replicas": 7})] {
        for (case, old, new, refusal, age, expected) in table {
            let two = two(size.clone()).with(old, new, refusal).aged(age);
            assert_eq!(two.reduced_to(), expected, "{case}: {size}");
        }
    }
}

/// The same for nodes that are full. Pods that wait for a node take nothing from others.
#[test]
fn on_full_nodes_only_servers_that_are_on_one_give_way() {
    let waits = |message: &str| json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]});
    let full = "0/3 nodes are available: 3 Insufficient cpu.";
    let foreign = "0/3 nodes are available: 3 node(s) had untolerated taint(s).";
    let two = |message: &str, on_nodes: i32| {
        let two = two(autoscaled())
            .with((7, 7, 6), (6, on_nodes, 0), QUOTA)
            .aged(30);
        (on_nodes..6)
            .fold(two, |two, _| two.pod(true, 60, waits(full)))
            .pod(false, 1, waits(message))
    };
    assert_eq!(two(full, 2).reduced_to(), Some(1));
    assert_eq!(
        two("0/3 nodes are available: 3 Too many pods.", 1).reduced_to(),
        Some(0)
    );
    assert_eq!(two(full, 0).reduced_to(), None);
    assert_eq!(two(foreign, 2).reduced_to(), None);
}

#[test]
fn giving_way_goes_on_until_it_has_helped_or_is_in_vain() {
    let (lacks, has) = ((7, 6, 6), (7, 7, 7));
    let gone = (0, 0, 0);
    /// A case; since when, if not tried; old and new servers; what is then.
    type Row = (&'static str, Option<i64>, Servers, Servers, Option<i32>);
    let table: [Row; 11] = [
        (
            "there is time for pods to end",
            Some(59),
            lacks,
            (1, 1, 0),
            Some(1),
        ),
        ("the last one is in the way", Some(60), lacks, (1, 1, 0), Some(0)),
        ("none is left", Some(599), lacks, gone, Some(0)),
        ("in vain: tried", Some(600), lacks, gone, Some(1)),
        ("in vain: still tried", Some(700), lacks, (1, 1, 0), Some(1)),
        ("in vain: it works", Some(700), lacks, (1, 1, 1), Some(7)),
        ("it helped: tried", Some(20), has, gone, Some(1)),
        ("still tried", None, has, (1, 1, 0), Some(1)),
        ("it works: all of it", None, has, (1, 1, 1), None),
        ("tried, and in the way again", None, lacks, (1, 1, 0), Some(0)),
        ("tried, and has nothing", None, lacks, (1, 0, 0), Some(1)),
    ];
    for (case, since, old, new, expected) in table {
        let two = two(autoscaled()).with(old, new, QUOTA).gives_way(since);
        assert_eq!(two.reduced_to(), expected, "{case}");
        assert!(
            !two.rollout().is_settled(),
            "{case}: not with less than its full size"
        );
    }
    let works = two(autoscaled())
        .with(has, (1, 1, 1), QUOTA)
        .gives_way(None)
        .rollout();
    assert_eq!(works.scales[&works.target], Scale::Autoscaled { start: 7 });
    let complete = two(autoscaled())
        .with(lacks, (7, 7, 7), QUOTA)
        .gives_way(Some(700));
    assert!(complete.rollout().is_settled());
}

/// Pods of minutes of grace would end for nothing if the next one were ended before they have.
#[test]
fn while_a_server_ends_the_last_one_stays() {
    let mut two = two(autoscaled())
        .with((7, 6, 6), (1, 2, 0), QUOTA)
        .gives_way(Some(90));
    let pod = Arc::make_mut(&mut two.observed.pods[0]);
    pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
    assert_eq!(two.reduced_to(), Some(1));
}

/// Otherwise nothing happens at the time when it should.
#[test]
fn it_is_looked_at_again_in_time() {
    let look_again = |two: Two| two.rollout().look_again.map(|after| after.as_secs());
    let lacks = (7, 6, 6);
    assert_eq!(
        look_again(two(autoscaled()).with(lacks, (6, 6, 0), QUOTA)),
        Some(30)
    );
    let gives_way = |since| {
        two(autoscaled())
            .with(lacks, (1, 1, 0), QUOTA)
            .gives_way(Some(since))
    };
    assert_eq!(look_again(gives_way(20)), Some(40));
    assert_eq!(look_again(gives_way(90)), Some(510));
    assert_eq!(look_again(gives_way(601)), None);
    assert_eq!(
        look_again(two(autoscaled()).with((6, 6, 6), (6, 2, 0), QUOTA)),
        None
    );
}

/// What the API server, the controllers and a quota make of the plans, one after the other.
struct Cluster {
    two: Two,
    quota: i32,
    is_broken: bool,
    /// Every size that the new revision was to have.
    sizes: Vec<i32>,
}

impl Cluster {
    fn new(quota: i32, is_broken: bool) -> Self {
        let two = two(json!({"replicas": 6})).with((6, 6, 6), (6, 0, 0), QUOTA);
        let sizes = vec![6];
        Self {
            two,
            quota,
            is_broken,
            sizes,
        }
    }

    fn pods(&self) -> (i32, i32) {
        let pods = |index: usize| {
            let status = self.two.observed.deployments[index].status.as_ref();
            status.unwrap().replicas.unwrap()
        };
        (pods(1), pods(0))
    }

    /// Asks for this many servers. The pods of both revisions once nothing changes any more.
    fn ask(&mut self, servers: i32) -> (i32, i32) {
        Arc::make_mut(&mut self.two.observed.service).spec.replicas = Some(servers);
        for _ in 0..20 {
            self.step();
        }
        self.pods()
    }

    fn step(&mut self) {
        let plan = self.two.observed.planned();
        if plan.rollout.is_settled() {
            return;
        }
        let size = |of: &Plan| match plan.rollout.scales[&of.rollout.target] {
            Scale::Fixed(size) => size,
            other => unreachable!("{other:?}"),
        };
        let (wants_old, wants_new) = (size(&self.two.old), size(&self.two.new));
        if self.sizes.last() != Some(&wants_new) {
            self.sizes.push(wants_new);
        }
        // Room that is free goes to the new revision: it may be the quicker one.
        let new = wants_new.min(self.quota - self.pods().0.min(wants_old));
        let old = wants_old.min(self.quota - new);
        let ready = if self.is_broken { 0 } else { new };
        let next = two(json!({"replicas": wants_old}));
        let mut next = next.with((wants_old, old, old), (wants_new, new, ready), QUOTA);
        let annotation = plan.revisions[0]
            .deployment
            .annotations()
            .get(GIVES_WAY_ANNOTATION);
        if let Some(value) = annotation {
            let annotations = Arc::make_mut(&mut next.observed.deployments[0]).annotations_mut();
            annotations.insert(GIVES_WAY_ANNOTATION.to_owned(), value.clone());
        }
        self.two = next;
    }
}

/// Flapping would start and end servers without end.
#[test]
fn a_broken_revision_leaves_room_and_is_tried_with_one_server() {
    let mut cluster = Cluster::new(8, true);
    assert_eq!(cluster.ask(6), (6, 2));
    assert_eq!(cluster.ask(7), (7, 1));
    assert_eq!(cluster.ask(8), (8, 0));
    assert_eq!(cluster.ask(6), (6, 1), "tried again, with one");
    assert_eq!(cluster.ask(8), (8, 0));
    assert_eq!(cluster.sizes, [6, 7, 1, 0, 1, 0, 1]);
}

#[test]
fn a_healthy_revision_takes_over_as_soon_as_there_is_room_for_both() {
    let takes_over = |cluster: &Cluster| cluster.two.rollout().is_settled();
    let mut roomy = Cluster::new(12, false);
    assert_eq!(roomy.ask(6), (6, 6));
    assert!(takes_over(&roomy));

    let mut tight = Cluster::new(8, false);
    assert_eq!(tight.ask(7), (7, 1));
    assert!(!takes_over(&tight));
    tight.quota = 14;
    assert_eq!(tight.ask(7), (7, 7));
    assert!(takes_over(&tight));
    assert_eq!(tight.sizes, [6, 7, 1, 7]);
}
