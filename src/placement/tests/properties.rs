//! Properties of whole histories: a cluster whose devices come and go, a service that is suspended and resumed, and a
//! leader that knows nothing but the placements.

use crate::placement::{Placement, Situation, decide, in_use};
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

const HISTORIES: u64 = 2000;
/// Seconds of one history.
const LENGTH: i64 = 400;
const AFTER: i64 = 30;

/// One Deployment, and what the simulated cluster knows about its pods.
#[derive(Clone, Debug)]
struct Deployed {
    placement: Placement,
    starts_at: Option<i64>,
    /// Since when, without interruption, its pods have been waiting for its device.
    waiting: Option<i64>,
}

#[derive(Debug)]
struct Cluster {
    classes: usize,
    deployed: Vec<Deployed>,
    selected: Option<String>,
    suspended: bool,
    /// Why pods wait for something else than the device, or another revision holds it.
    held: bool,
    free: Vec<bool>,
    start_seconds: i64,
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn new(class: usize, classes: usize) -> Deployed {
    Deployed {
        placement: Placement {
            class: class.to_string(),
            placed: false,
            available: 0,
            waits_for_device: false,
            since: None,
            fallbacks: classes - class - 1,
        },
        starts_at: None,
        waiting: None,
    }
}

impl Cluster {
    fn new(random: &mut Rng) -> Self {
        let classes = random.usize(1..=4);
        Self {
            classes,
            deployed: vec![new(0, classes)],
            selected: None,
            suspended: false,
            held: false,
            free: (0..classes).map(|_| random.u8(0..4) == 0).collect(),
            start_seconds: random.i64(1..60),
        }
    }

    /// Devices come and go, and people change their minds.
    fn change(&mut self, random: &mut Rng) {
        for free in &mut self.free {
            *free ^= random.u8(0..100) == 0;
        }
        self.suspended ^= random.u8(0..120) == 0;
        self.held ^= random.u8(0..120) == 0;
    }

    /// A second passes.
    fn go_on(&mut self, second: i64, random: &mut Rng) {
        for deployed in &mut self.deployed {
            let class: usize = deployed.placement.class.parse().unwrap();
            let placement = &mut deployed.placement;
            if self.suspended {
                (
                    placement.available,
                    placement.waits_for_device,
                    deployed.starts_at,
                ) = (0, false, None);
            } else if deployed.starts_at.is_none() && self.free[class] && !self.held {
                placement.placed = true;
                placement.waits_for_device = false;
                deployed.starts_at = Some(second + self.start_seconds);
            } else if let Some(starts_at) = deployed.starts_at {
                let crashes = random.u8(0..100) == 0;
                placement.available = i32::from(starts_at <= second && !crashes);
            } else {
                placement.waits_for_device = !self.held;
            }
            deployed.waiting = match deployed.waiting {
                _ if !placement.waits_for_device => None,
                None => Some(second),
                since => since,
            };
        }
    }

    /// A pass of the operator. Panics if it starts what it must not.
    fn pass(&mut self, second: i64) -> usize {
        let placements: Vec<Placement> = self.deployed.iter().map(|d| d.placement.clone()).collect();
        let chosen = in_use(&placements, self.selected.as_deref());
        let situation = Situation {
            is_wanted: !self.suspended,
            fallback_after: SignedDuration::from_secs(AFTER),
            now: at(second),
        };
        let decision = decide(&placements, chosen, &situation);
        let class = |index: usize| -> usize { placements[index].class.parse().unwrap() };
        if let Some(last) = decision.start_after {
            assert!(
                !self.suspended && !self.held,
                "starts while it must not: {self:?}"
            );
            assert!(
                !placements[chosen].placed,
                "leaves a class that was placed: {self:?}"
            );
            let waiting = self.deployed[last].waiting.unwrap();
            assert!(second - waiting >= AFTER, "too early: {self:?}");
        }
        self.selected = Some(placements[chosen].class.clone());
        let started = decision
            .start_after
            .map(|last| new(class(last) + 1, self.classes));
        let mut index = 0;
        self.deployed.retain_mut(|deployed| {
            deployed.placement.since = decision.since.get(&index).copied();
            let stays = index == chosen || decision.trial == Some(index);
            index += 1;
            stays
        });
        self.deployed.extend(started);
        assert!(self.deployed.len() <= 2, "two fallbacks at once: {self:?}");
        class(chosen)
    }
}

/// Whatever devices do: at most one class on trial, none while it must not be, and never back to a better class.
#[test]
fn it_never_flaps_and_never_tries_two_classes_at_once() {
    let mut moved = 0;
    for seed in 0..HISTORIES {
        let mut random = Rng::with_seed(seed);
        let mut cluster = Cluster::new(&mut random);
        let mut history = vec![cluster.pass(0)];
        let mut kept = None;
        for second in 1..LENGTH {
            cluster.change(&mut random);
            cluster.go_on(second, &mut random);
            let class = cluster.pass(second);
            if class != history[history.len() - 1] {
                history.push(class);
            }
            if let Some(kept) = kept {
                assert_eq!(class, kept, "seed {seed} left a class that had been placed");
            }
            let is_alone = cluster.deployed.len() == 1 && cluster.deployed[0].placement.placed;
            kept = kept.or_else(|| is_alone.then_some(class));
        }
        assert!(history.is_sorted(), "seed {seed}: {history:?}");
        assert!(history.len() <= 2, "seed {seed}: {history:?}");
        moved += history.len() - 1;
    }
    assert!(moved > 100, "only {moved} histories fell back at all");
}

/// Otherwise a list that ends with the CPU does not help where there is no device.
#[test]
fn a_list_whose_last_class_is_free_serves_in_the_end() {
    for classes in 2..=4 {
        let mut random = Rng::with_seed(7);
        let mut cluster = Cluster {
            classes,
            deployed: vec![new(0, classes)],
            free: (0..classes).map(|class| class == classes - 1).collect(),
            start_seconds: 5,
            ..Cluster::new(&mut random)
        };
        let served_at = (1..LENGTH).find(|second| {
            cluster.go_on(*second, &mut random);
            cluster.pass(*second) == classes - 1
        });
        let steps = i64::try_from(classes - 1).unwrap();
        let expected = steps * (AFTER + 2) + 10;
        assert!(
            served_at.is_some_and(|at| at <= expected),
            "{classes} classes: {served_at:?}"
        );
    }
}
