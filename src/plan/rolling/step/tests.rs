#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use fastrand::Rng;

fn servers(wanted: i32, pods: i32, ready: i32) -> Servers {
    Servers { wanted, pods, ready }
}

fn state(total: i32, old: Servers, new: Servers) -> State {
    State {
        total,
        old,
        new,
        fails: false,
        gave_back: false,
    }
}

/// A wrong row asks for a device that no node has free, or stops a server for nothing.
#[test]
fn a_device_passes_from_the_old_revision_to_the_new_one_at_a_time() {
    let none = servers(0, 0, 0);
    let all = |wanted| servers(wanted, wanted, wanted);
    let table = [
        ("begins", state(2, all(2), none), Step::Free),
        ("the pod is ending", state(2, servers(1, 2, 2), none), Step::Wait),
        ("the pod is gone", state(2, all(1), none), Step::Take),
        (
            "the new pod is not there yet",
            state(2, all(1), servers(1, 0, 0)),
            Step::Wait,
        ),
        (
            "the new server starts",
            state(2, all(1), servers(1, 1, 0)),
            Step::Wait,
        ),
        ("the new server is ready", state(2, all(1), all(1)), Step::Free),
        (
            "the last one ends",
            state(2, servers(0, 1, 1), all(1)),
            Step::Wait,
        ),
        ("the last one is gone", state(2, none, all(1)), Step::Take),
        ("all are new", state(2, none, all(2)), Step::Done),
        ("one on one begins", state(1, all(1), none), Step::Free),
        ("one on one, gone", state(1, none, none), Step::Take),
        ("one on one, ready", state(1, none, all(1)), Step::Done),
        (
            "an old one is not ready",
            state(2, servers(2, 2, 1), none),
            Step::Free,
        ),
        (
            "another strategy began it",
            state(2, all(2), servers(2, 2, 0)),
            Step::Shrink(0),
        ),
        (
            "what shrank is ending",
            state(2, all(2), servers(0, 1, 0)),
            Step::Wait,
        ),
        (
            "a new one that was ready is not",
            state(3, all(1), servers(2, 2, 1)),
            Step::Wait,
        ),
    ];
    for (name, state, expected) in table {
        assert_eq!(step(&state), expected, "{name}");
    }
}

/// Otherwise a revision that does not work keeps a device that the old one could use, or takes it again and again.
#[test]
fn only_a_first_new_server_that_fails_gives_its_device_back_and_for_good() {
    let failing = |total, old, new| State {
        fails: true,
        ..state(total, old, new)
    };
    let given = |new| State {
        gave_back: true,
        ..state(2, servers(1, 1, 1), new)
    };
    let table = [
        (
            "the first one fails",
            failing(2, servers(1, 1, 1), servers(1, 1, 0)),
            Step::GiveBack,
        ),
        (
            "the only one fails",
            failing(1, servers(0, 0, 0), servers(1, 1, 0)),
            Step::GiveBack,
        ),
        (
            "a later one fails",
            failing(3, servers(1, 1, 1), servers(2, 2, 1)),
            Step::Wait,
        ),
        ("marked only", given(servers(1, 1, 0)), Step::GiveBack),
        ("its pod is ending", given(servers(0, 1, 0)), Step::GiveBack),
        ("its pod is gone", given(servers(0, 0, 0)), Step::Over),
    ];
    for (name, state, expected) in table {
        assert_eq!(step(&state), expected, "{name}");
    }
}

/// Pods as their controllers and nodes make and end them, at random speeds.
#[derive(Debug)]
struct Cluster {
    old: Vec<Pod>,
    new: Vec<Pod>,
    works: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pod {
    Starts,
    Ready,
    Fails,
    Ends,
}

impl Cluster {
    fn servers(pods: &[Pod], wanted: i32) -> Servers {
        let count =
            |fits: fn(&Pod) -> bool| i32::try_from(pods.iter().filter(|pod| fits(pod)).count()).unwrap_or(0);
        servers(wanted, count(|_| true), count(|pod| *pod == Pod::Ready))
    }

    /// One thing happens, or nothing.
    fn go_on(&mut self, wanted: (i32, i32), random: &mut Rng) {
        let works = self.works;
        let (pods, wanted, works) = if random.bool() {
            (&mut self.old, wanted.0, true)
        } else {
            (&mut self.new, wanted.1, works)
        };
        let live = pods.iter().filter(|pod| **pod != Pod::Ends).count();
        let wanted = usize::try_from(wanted).unwrap_or(0);
        if live > wanted {
            let victim = pods.iter_mut().find(|pod| **pod != Pod::Ends);
            *victim.unwrap() = Pod::Ends;
        } else if live < wanted {
            pods.push(Pod::Starts);
        } else if !pods.is_empty() {
            let index = random.usize(0..pods.len());
            match pods[index] {
                Pod::Ends => drop(pods.remove(index)),
                Pod::Starts if works => pods[index] = Pod::Ready,
                Pod::Starts => pods[index] = Pod::Fails,
                Pod::Ready | Pod::Fails => {}
            }
        }
    }
}

struct Sizes {
    old: i32,
    new: i32,
    gave_back: bool,
}

/// One pass over a service; whether the update has ended.
fn pass(sizes: &mut Sizes, total: i32, cluster: &Cluster) -> bool {
    let state = State {
        total,
        old: Cluster::servers(&cluster.old, sizes.old),
        new: Cluster::servers(&cluster.new, sizes.new),
        fails: cluster.new.contains(&Pod::Fails),
        gave_back: sizes.gave_back,
    };
    match step(&state) {
        Step::Wait => {}
        Step::Free => sizes.old -= 1,
        Step::Take => sizes.new += 1,
        Step::Shrink(size) => sizes.new = size,
        Step::GiveBack => (sizes.new, sizes.gave_back) = (0, true),
        Step::Over => {
            sizes.old = total;
            return true;
        }
        Step::Done => return true,
    }
    assert!(
        (total - 1..=total).contains(&(sizes.old + sizes.new)) || sizes.gave_back,
        "{state:?}"
    );
    false
}

/// Whatever happens when: never more pods than devices, at most one server less than before, and an end.
#[test]
fn no_order_of_events_needs_a_spare_device_or_costs_a_second_server() {
    for seed in 0..3000 {
        let mut random = Rng::with_seed(seed);
        let total = random.i32(1..6);
        let size = usize::try_from(total).unwrap();
        let works = random.u8(0..4) > 0;
        let mut cluster = Cluster {
            old: vec![Pod::Ready; size],
            new: Vec::new(),
            works,
        };
        let mut sizes = Sizes {
            old: total,
            new: 0,
            gave_back: false,
        };
        let has_ended = (0..10_000).any(|_| {
            if random.bool() && pass(&mut sizes, total, &cluster) {
                return true;
            }
            cluster.go_on((sizes.old, sizes.new), &mut random);
            let pods = cluster.old.len() + cluster.new.len();
            assert!(pods <= size, "seed {seed}: {cluster:?}");
            let all = cluster.old.iter().chain(&cluster.new);
            let ready = all.filter(|pod| **pod == Pod::Ready).count();
            assert!(ready + 1 >= size, "seed {seed}: {cluster:?}");
            false
        });
        assert!(has_ended, "seed {seed}: {cluster:?}");
        let (expected, end) = ((0, total), (sizes.old, sizes.new));
        assert_eq!(end, if works { expected } else { (total, 0) }, "seed {seed}");
    }
}

/// A leader that begins in the middle decides as the one before it would have: nothing but the state counts.
#[test]
fn every_state_within_the_total_leads_to_the_new_revision() {
    for total in 1..5 {
        for old in 0..=total {
            for new in 0..=total - old {
                let mut sizes = Sizes {
                    old,
                    new,
                    gave_back: false,
                };
                let end = (0..100).find_map(|_| {
                    let state = state(
                        total,
                        servers(sizes.old, sizes.old, sizes.old),
                        servers(sizes.new, sizes.new, sizes.new),
                    );
                    match step(&state) {
                        Step::Free => sizes.old -= 1,
                        Step::Take => sizes.new += 1,
                        Step::Done => return Some((sizes.old, sizes.new)),
                        other => panic!("{other:?} from {old} old and {new} new of {total}"),
                    }
                    None
                });
                assert_eq!(end, Some((0, total)), "from {old} old and {new} new");
            }
        }
    }
}
