//! The table in the head of the room, row by row.

use crate::placement::{Decision, Placement, Situation, decide, in_use};
use jiff::{SignedDuration, Timestamp};

const AFTER: SignedDuration = SignedDuration::from_mins(10);

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn situation(seconds: i64) -> Situation {
    Situation {
        is_wanted: true,
        fallback_after: AFTER,
        now: at(seconds),
    }
}

fn placement(class: &str, fallbacks: usize) -> Placement {
    Placement {
        class: class.into(),
        placed: false,
        available: 0,
        waits_for_device: false,
        since: None,
        fallbacks,
    }
}

fn waiting(class: &str, fallbacks: usize, since: i64) -> Placement {
    Placement {
        waits_for_device: true,
        since: Some(at(since)),
        ..placement(class, fallbacks)
    }
}

fn placed(class: &str, fallbacks: usize, available: i32) -> Placement {
    Placement {
        placed: true,
        available,
        ..placement(class, fallbacks)
    }
}

/// In use, on trial, to be tried after.
fn decided(placements: &[Placement], situation: Situation) -> (usize, Option<usize>, Option<usize>) {
    let in_use = in_use(placements, None);
    let decision = decide(placements, in_use, &situation);
    (in_use, decision.trial, decision.start_after)
}

#[test]
fn every_row_of_the_table_holds() {
    let a = || waiting("a", 2, 0);
    let suspended = Situation {
        is_wanted: false,
        ..situation(600)
    };
    let table = [
        ("too early", vec![a()], situation(599), (0, None, None)),
        ("due", vec![a()], situation(600), (0, None, Some(0))),
        ("suspended", vec![a()], suspended, (0, None, None)),
        (
            "the last class",
            vec![waiting("c", 0, 0)],
            situation(9000),
            (0, None, None),
        ),
        (
            "waits for something else",
            vec![placement("a", 2)],
            situation(9000),
            (0, None, None),
        ),
        (
            "b starts",
            vec![a(), placed("b", 1, 0)],
            situation(9000),
            (0, Some(1), None),
        ),
        (
            "b serves",
            vec![a(), placed("b", 1, 1)],
            situation(9000),
            (1, None, None),
        ),
        (
            "a is scheduled meanwhile",
            vec![placed("a", 2, 0), placed("b", 1, 0)],
            situation(9000),
            (0, None, None),
        ),
        (
            "b waits too, but not long enough",
            vec![a(), waiting("b", 1, 600)],
            situation(1199),
            (0, Some(1), None),
        ),
        (
            "then c",
            vec![a(), waiting("b", 1, 600)],
            situation(1200),
            (0, None, Some(1)),
        ),
        (
            "a leader that ended after c was made",
            vec![a(), waiting("b", 1, 600), placement("c", 0)],
            situation(1201),
            (0, Some(2), None),
        ),
        (
            "suspended on trial",
            vec![a(), placed("b", 1, 0)],
            suspended,
            (0, None, None),
        ),
        (
            "partly placed",
            vec![placed("a", 2, 0)],
            situation(9000),
            (0, None, None),
        ),
        (
            "lost all servers",
            vec![placed("b", 1, 0)],
            situation(9000),
            (0, None, None),
        ),
    ];
    for (name, placements, situation, expected) in table {
        assert_eq!(decided(&placements, situation), expected, "{name}");
    }
}

/// Otherwise a service moves to another device whenever a server restarts.
#[test]
fn what_the_service_selects_stays_in_use_once_it_was_placed() {
    let both = [placed("a", 1, 1), placed("b", 0, 0)];
    assert_eq!(in_use(&both, Some("b")), 1);
    assert_eq!(in_use(&both, Some("gone")), 0);
    let unplaced = [placement("a", 1), placed("b", 0, 1)];
    assert_eq!(in_use(&unplaced, Some("a")), 1);
    assert_eq!(in_use(&[placement("a", 1), placement("b", 0)], Some("b")), 1);
}

/// The time that pods waited for a quota, or for a rollout to end, says nothing about the device.
#[test]
fn the_time_begins_when_pods_wait_for_the_device_and_again_after_each_interruption() {
    let fresh = Placement {
        waits_for_device: true,
        ..placement("a", 1)
    };
    let decision = decide(&[fresh], 0, &situation(50));
    assert_eq!(decision.since[&0], at(50));
    assert_eq!(decision.due, Some(at(650)));
    let interrupted = Placement {
        since: Some(at(50)),
        ..placement("a", 1)
    };
    assert_eq!(decide(&[interrupted], 0, &situation(60)), Decision::default());
}
