#![allow(clippy::unwrap_used)]
use super::super::difference::differences;
use super::*;
use crate::{crd::ModelServiceStatus, fixtures::observed};
use serde_json::{Value, json};
use std::sync::Arc;

/// A service that was told to be as its spec says, and a clock.
struct Pass {
    overrides: Overrides,
    service: Arc<ModelService>,
    now: Timestamp,
    writes: usize,
}

impl Pass {
    fn new() -> Self {
        let mut observed = observed(json!({}));
        let generation = observed.service.metadata.generation;
        Arc::make_mut(&mut observed.service).status = Some(ModelServiceStatus {
            observed_generation: generation,
            ..Default::default()
        });
        Self {
            overrides: Overrides::default(),
            service: observed.service,
            now: observed.now,
            writes: 0,
        }
    }

    fn subject<'a>(&self, service: &'a ModelService) -> Subject<'a> {
        Subject {
            service,
            kind: "Deployment",
            name: "photos-ab",
            now: self.now,
        }
    }

    /// Looks at the child, and corrects it unless that has to wait; whether it was corrected.
    fn correct(&mut self, wanted: Value, live: Value) -> bool {
        let differing = differences(&wanted, &live);
        let service = self.service.clone();
        let subject = self.subject(&service);
        if self.overrides.holds(&subject, &differing) || differing.is_empty() {
            return false;
        }
        self.overrides.corrected(&subject, &differing);
        self.writes += 1;
        true
    }

    /// What the API server makes of the last write.
    fn answered(&self, wanted: Value, live: Value) {
        let service = self.service.clone();
        self.overrides
            .answered(&self.subject(&service), &differences(&wanted, &live));
    }

    fn told(&self) -> Vec<String> {
        let told = self.overrides.of(&self.service, self.now);
        told.iter().map(ToString::to_string).collect()
    }

    fn after(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

fn size(replicas: i32) -> Value {
    json!({"spec": {"replicas": replicas}})
}

/// Otherwise two controllers write for ever, as fast as the API server can.
#[test]
fn a_field_that_somebody_sets_again_each_time_is_corrected_ever_more_slowly() {
    let mut pass = Pass::new();
    assert!(pass.correct(size(2), size(1)) && pass.correct(size(2), size(1)));
    assert!(pass.told().is_empty(), "not yet known to go on");
    for _ in 0..60 {
        pass.correct(size(2), size(1));
        assert_eq!(
            pass.told(),
            ["Deployment photos-ab: somebody changes spec.replicas each time that the operator corrects it"]
        );
        pass.after(1);
    }
    assert!((5..=8).contains(&pass.writes), "{}", pass.writes);
    for _ in 0..3540 {
        pass.correct(size(2), size(1));
        pass.after(1);
    }
    assert!((15..=24).contains(&pass.writes), "{} in an hour", pass.writes);
}

/// Otherwise the status says for ever what is over, or changes with each try.
#[test]
fn what_stays_corrected_is_told_no_longer_and_then_forgotten() {
    let mut pass = Pass::new();
    while pass.writes < 8 {
        pass.correct(size(2), size(1));
        pass.after(1);
    }
    pass.correct(size(2), size(2));
    assert_eq!(pass.told().len(), 1, "somebody may set it again in a moment");
    let next = pass.overrides.look_again(&pass.service, pass.now).unwrap();
    pass.now += next;
    pass.correct(size(2), size(2));
    assert!(pass.told().is_empty());
    assert_eq!(pass.overrides.look_again(&pass.service, pass.now), None);

    assert!(!pass.correct(size(2), size(1)), "the same again, soon after");
    let next = pass.overrides.look_again(&pass.service, pass.now).unwrap();
    pass.now += next;
    assert!(pass.correct(size(2), size(1)));
    pass.after(601);
    assert!(
        pass.correct(size(2), size(1)) && pass.correct(size(2), size(1)),
        "long after"
    );
    assert!(pass.told().is_empty());
}

/// A person must not wait because of a machine.
#[test]
fn a_changed_spec_and_another_field_do_not_wait() {
    let mut pass = Pass::new();
    let both =
        |replicas, deadline| json!({"spec": {"replicas": replicas, "progressDeadlineSeconds": deadline}});
    while pass.correct(both(2, 600), both(1, 600)) {}
    assert!(pass.correct(both(2, 600), both(1, 60)), "another field");
    assert!(!pass.correct(both(2, 600), both(1, 600)));
    assert!(pass.correct(both(3, 600), both(1, 600)), "another value");
    while pass.correct(both(3, 600), both(1, 600)) {}
    Arc::make_mut(&mut pass.service).metadata.generation = Some(5);
    assert!(pass.correct(both(3, 600), both(1, 600)), "another spec");
}

/// The Service of a rollout says when the traffic moved: with somebody who moves it back, at a new time each time.
#[test]
fn annotations_that_change_with_each_pass_do_not_hide_a_dispute() {
    let mut pass = Pass::new();
    for second in 0..60 {
        let endpoint = |revision: &str, at: i64| {
            json!({"metadata": {"annotations": {"switched-at": at}},
            "spec": {"selector": {"revision": revision}}})
        };
        pass.correct(endpoint("b", second), endpoint("a", -1));
        pass.after(1);
    }
    assert!(pass.writes <= 8, "{}", pass.writes);
    assert!(pass.told()[0].contains("changes spec.selector each time"));
}

/// An admission policy does it in the write itself: to write again at once is of no use, and it is told at once.
#[test]
fn what_admission_changes_is_told_and_tried_again_every_five_minutes() {
    let mut pass = Pass::new();
    pass.answered(size(2), size(1));
    let told = ["Deployment photos-ab: an admission policy or webhook changes spec.replicas"];
    for _ in 0..299 {
        assert!(!pass.correct(size(2), size(1)));
        assert_eq!(pass.told(), told);
        pass.after(1);
    }
    let next = pass.overrides.look_again(&pass.service, pass.now).unwrap();
    assert!(next < SignedDuration::from_secs(2), "{next:?}");
    pass.now += next;
    assert!(pass.correct(size(2), size(1)));
    pass.answered(size(2), size(1));
    assert_eq!(pass.told(), told);
    assert!(!pass.correct(size(2), size(1)));

    assert!(pass.correct(size(3), size(1)), "another spec");
    pass.answered(size(3), size(3));
    assert!(pass.told().is_empty());
}

/// A webhook may write something else each time, such as when: pods must not be replaced every five minutes.
#[test]
fn a_pod_template_that_admission_changes_is_left_as_it_is() {
    let mut pass = Pass::new();
    let template = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "server", "image": image}]}}}});
    pass.answered(template("a"), template("mirror/a"));
    for _ in 0..100 {
        assert!(!pass.correct(template("a"), template("mirror/a")));
        pass.after(60);
    }
    assert_eq!(pass.overrides.look_again(&pass.service, pass.now), None);
    assert_eq!(pass.told().len(), 1);
    assert!(pass.correct(template("b"), template("mirror/a")));
}

/// Otherwise what deletes a child, and what asks for it, go on for ever.
#[test]
fn a_child_that_somebody_deletes_each_time_is_made_ever_more_slowly() {
    let mut pass = Pass::new();
    let service = pass.service.clone();
    let mut made = 0;
    for _ in 0..60 {
        let (subject, missing) = (pass.subject(&service), [Difference::missing()]);
        if !pass.overrides.holds(&subject, &missing) {
            pass.overrides.corrected(&subject, &missing);
            made += 1;
        }
        pass.after(1);
    }
    assert!((5..=8).contains(&made), "{made}");
    assert!(pass.told()[0].contains("somebody deletes it"));
    pass.overrides.forget_child(&pass.subject(&service));
    assert!(pass.told().is_empty());
}

/// Otherwise every change of a spec is remembered, of every service.
#[test]
fn what_carries_out_a_new_spec_is_not_counted() {
    let mut pass = Pass::new();
    Arc::make_mut(&mut pass.service).metadata.generation = Some(5);
    for _ in 0..9 {
        assert!(pass.correct(size(2), size(1)));
    }
    assert!(pass.overrides.0.lock().is_empty());
}
