//! Properties that hold in every situation, tried with random ones.

use super::super::{
    Decision, Floor, Memory, Policy, Server, Situation, Target, decide,
    fixtures::{NOW, busy, policy},
};
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

const TRIES: usize = 3000;

fn random_policy(random: &mut Rng) -> Policy {
    let min = random.i32(0..5);
    let mut policy = policy(
        min,
        min + random.i32(0..20),
        Target::Utilization(0.05 + random.f64()),
    );
    policy.up.tolerance = random.f64() / 2.0;
    policy.down.tolerance = random.f64() / 2.0;
    policy.up.max_percent = random.i32(0..1000);
    policy.down.max_percent = random.i32(0..=100);
    policy.down.delay = SignedDuration::from_secs(random.i64(0..120));
    policy
}

/// Servers in every state, each with this share of the load that it would have otherwise.
fn random_servers(random: &mut Rng) -> Vec<Server> {
    let server = |random: &mut Rng| {
        let begin = random.u32(0..100);
        let length = random.u32(0..61);
        let stale = random.u8(0..10) == 0;
        let ready = random.u8(0..5) > 0;
        Server {
            ready,
            pending: !ready && random.u8(0..4) == 0,
            runners: random.u32(0..5),
            read_at: Some(if stale {
                NOW - SignedDuration::from_mins(1)
            } else {
                NOW
            }),
            ..busy(begin, begin + length, random.f64() * 2.0)
        }
    };
    (0..random.usize(0..12)).map(|_| server(random)).collect()
}

fn with_load(servers: &[Server], factor: f64) -> Vec<Server> {
    let mut servers = servers.to_vec();
    for sample in servers.iter_mut().flat_map(|server| &mut server.samples) {
        sample.offered_seconds *= factor;
    }
    servers
}

/// A leader that has known for a while that no server is needed, so that nothing but the rules holds the size.
fn settled() -> Memory {
    let (policy, mut memory) = (policy(0, 1, Target::Utilization(0.7)), Memory::default());
    for second in 0..30 {
        let now = NOW - SignedDuration::from_secs(300 - second * 10);
        let nothing = Situation {
            policy: &policy,
            servers: &[],
            size: 0,
            floor: None,
            now,
        };
        let _ = decide(&nothing, &mut memory);
    }
    memory
}

fn decided(policy: &Policy, servers: &[Server], size: i32, now: Timestamp) -> Decision {
    let situation = Situation {
        policy,
        servers,
        size,
        floor: None,
        now,
    };
    decide(&situation, &mut settled())
}

#[test]
fn more_load_never_asks_for_fewer_servers() {
    let mut random = Rng::with_seed(1);
    for _ in 0..TRIES {
        let (policy, servers) = (random_policy(&mut random), random_servers(&mut random));
        let size = random.i32(0..25);
        let sizes: Vec<i32> = (0..20)
            .map(|step| decided(&policy, &with_load(&servers, f64::from(step) / 4.0), size, NOW).size)
            .collect();
        assert!(sizes.is_sorted(), "{sizes:?}: {policy:?}, {size} servers");
    }
}

#[test]
fn the_size_is_always_within_the_range() {
    let mut random = Rng::with_seed(2);
    for _ in 0..TRIES {
        let policy = random_policy(&mut random);
        let mut memory = Memory::default();
        let mut size = random.i32(0..30);
        for _ in 0..10 {
            let replicas = random.i32(0..30);
            let floor = random.bool().then(|| Floor {
                replicas,
                schedule: String::new(),
            });
            let servers = random_servers(&mut random);
            let now = NOW + SignedDuration::from_secs(random.i64(-20..20));
            let situation = Situation {
                policy: &policy,
                servers: &servers,
                size,
                floor: floor.clone(),
                now,
            };
            size = decide(&situation, &mut memory).size;
            let least = floor.map_or(policy.min, |floor| floor.replicas.max(policy.min));
            assert!(
                size >= least.min(policy.max) && size <= policy.max,
                "{size}: {policy:?}"
            );
        }
    }
}

#[test]
fn missing_reports_never_remove_servers() {
    let mut random = Rng::with_seed(3);
    for _ in 0..TRIES {
        let policy = random_policy(&mut random);
        let mut servers = random_servers(&mut random);
        let size = random.i32(policy.min.max(1)..=policy.max.max(1)).min(policy.max);
        let Some(lost) = servers.iter_mut().find(|server| server.ready) else {
            continue;
        };
        lost.read_at = None;
        let decision = decided(&policy, &servers, size, NOW);
        assert!(decision.size >= size, "{decision:?} of {size}");
    }
}

#[test]
fn a_size_that_was_decided_is_decided_again() {
    let mut random = Rng::with_seed(4);
    for _ in 0..TRIES {
        let policy = random_policy(&mut random);
        let servers: Vec<Server> = (0..random.i32(1..10))
            .map(|_| busy(0, 60, random.f64()))
            .collect();
        let mut sizes = vec![random.i32(1..25)];
        for _ in 0..20 {
            sizes.push(decided(&policy, &servers, sizes[sizes.len() - 1], NOW).size);
        }
        assert_eq!(sizes[19], sizes[20], "{sizes:?}: {policy:?}");
    }
}

/// What servers report, and what a clock shows, comes from outside.
#[test]
fn nonsense_is_survived() {
    let mut random = Rng::with_seed(5);
    let strange = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        -1.0,
        0.0,
        f64::MIN_POSITIVE,
    ];
    for _ in 0..TRIES {
        let mut policy = random_policy(&mut random);
        let mut servers = random_servers(&mut random);
        for server in &mut servers {
            for sample in &mut server.samples {
                let strange = strange[random.usize(..strange.len())];
                match random.u8(0..40) {
                    0 => sample.at = strange,
                    1 => sample.offered_seconds = strange,
                    2 => sample.in_flight_seconds = strange,
                    3 => sample.served = random.u64(..),
                    4 => sample.refused = u64::MAX,
                    _ => {}
                }
            }
        }
        let value = strange[random.usize(..strange.len())];
        match random.u8(0..6) {
            0 => policy.target = Target::Utilization(value),
            1 => policy.target = Target::Concurrency(value),
            2 => policy.up.tolerance = value,
            3 => (policy.min, policy.max) = (random.i32(..), random.i32(..)),
            4 => (policy.up.max_percent, policy.down.max_percent) = (random.i32(..), random.i32(..)),
            _ => policy.down.delay = [SignedDuration::MIN, SignedDuration::MAX][random.usize(..2)],
        }
        let mut memory = Memory::default();
        for now in [NOW, Timestamp::MIN, Timestamp::MAX, NOW] {
            let size = random.i32(..);
            let situation = Situation {
                policy: &policy,
                servers: &servers,
                size,
                floor: None,
                now,
            };
            let decision = decide(&situation, &mut memory);
            let _ = decision.because.to_string();
            assert!(decision.size <= policy.max);
        }
    }
}
