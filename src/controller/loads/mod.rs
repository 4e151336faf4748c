//! Loads: for each service whose size the load decides, a task reads what its servers report about their load, every
//! [`PERIOD`] over connections that stay open, and decides. When the decision changes it wakes the service's
//! reconcile, which writes the size: the task itself writes nothing. Its memory is lost with the leader, so a new one
//! begins the delay before servers are removed anew.

mod server;
mod watched;

use self::{server::Servers, watched::Watched};
use crate::{
    crd::ModelService,
    observe::{Observed, Scaling, is_limit},
    process::metrics::Metrics,
    scaling::{Because, Decision, Memory, Situation, decide},
    validate::Size,
};
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{MissedTickBehavior, interval},
};

/// How often each server is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long something other than the size must be so until the status says it: writes are for news.
const SETTLED: SignedDuration = SignedDuration::from_secs(30);

/// What the load of each service asks for.
pub struct Loads {
    period: Duration,
    metrics: Arc<Metrics>,
    /// By UID.
    services: Mutex<HashMap<String, Arc<Followed>>>,
    wake: UnboundedSender<ObjectRef<ModelService>>,
}

/// A service whose load decides its size. Its task ends when this is dropped.
struct Followed {
    reference: ObjectRef<ModelService>,
    watched: Mutex<Arc<Watched>>,
    decided: Mutex<Option<Scaling>>,
}

impl Loads {
    /// Sends to `wake` each service whose load asks for another size.
    #[must_use]
    pub fn new(wake: UnboundedSender<ObjectRef<ModelService>>, metrics: Arc<Metrics>) -> Self {
        Self {
            period: PERIOD,
            metrics,
            services: Mutex::default(),
            wake,
        }
    }

    /// What the load of a service asks for.
    #[must_use]
    pub fn of(&self, service: &ModelService) -> Option<Scaling> {
        let services = self.services.lock();
        let followed = services.get(service.metadata.uid.as_deref()?)?;
        followed.decided.lock().clone()
    }

    /// Forgets a service.
    pub fn forget(&self, uid: &str) {
        self.services.lock().remove(uid);
    }

    /// Reads the load of the servers of the revision that has the traffic, if it decides the size, and forgets the
    /// service otherwise.
    pub fn follow(&self, observed: &Observed, size: &Size, traffic: Option<&str>, present: i32) {
        let uid = observed.service.uid().unwrap_or_default();
        let (Size::Autoscaled(range), Some(traffic)) = (size, traffic) else {
            return self.forget(&uid);
        };
        let Some(policy) = size.policy().filter(|_| !observed.service.spec.suspend) else {
            return self.forget(&uid);
        };
        let watched = Arc::new(Watched::of(observed, range, policy, traffic, present));
        let mut services = self.services.lock();
        if let Some(followed) = services.get(&uid) {
            *followed.watched.lock() = watched;
            return;
        }
        let followed = Arc::new(Followed {
            reference: ObjectRef::from_obj(observed.service.as_ref()),
            watched: Mutex::new(watched),
            decided: Mutex::default(),
        });
        let follower = Follower {
            followed: Arc::downgrade(&followed),
            metrics: self.metrics.clone(),
            wake: self.wake.clone(),
        };
        tokio::spawn(follower.run(self.period));
        services.insert(uid, followed);
    }
}

/// The task of one service.
struct Follower {
    followed: Weak<Followed>,
    metrics: Arc<Metrics>,
    wake: UnboundedSender<ObjectRef<ModelService>>,
}

impl Follower {
    /// Reads and decides until the service is forgotten.
    async fn run(self, period: Duration) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut servers = Servers::default();
        let (mut memory, mut announcer) = (Memory::default(), Announcer::default());
        loop {
            ticks.tick().await;
            let Some(watched) = self
                .followed
                .upgrade()
                .map(|followed| followed.watched.lock().clone())
            else {
                return;
            };
            servers.read(&watched.pods, &self.metrics).await;
            let now = Timestamp::now();
            let known = servers.known(&watched.pods);
            let situation = Situation {
                policy: &watched.policy,
                servers: &known,
                size: watched.size,
                floor: watched.floor.clone(),
                now,
            };
            let decision = decide(&situation, &mut memory);
            let blind = servers.blind(&watched, now);
            let Some(followed) = self.followed.upgrade() else {
                return;
            };
            let mut decided = followed.decided.lock();
            // A new leader says nothing before it knows, or knows that it cannot.
            if decided.is_none() && decision.size == watched.size && servers.are_in_doubt(now) {
                continue;
            }
            let before = decided.as_ref().map_or(watched.size, |scaling| scaling.wanted);
            if announcer.announce(&mut decided, &decision, blind, now) {
                if decision.size != before {
                    self.metrics.resized(decision.size > before);
                }
                // Fails only when the operator is shutting down.
                let _ = self.wake.send(followed.reference.clone());
            }
        }
    }
}

/// Turns decisions into what a status says: each new size at once; what keeps the size as it is only once it has
/// lasted. While the size stays and nothing limits it, what is told stays too.
#[derive(Debug, Default)]
struct Announcer {
    next: Option<(Limits, Timestamp)>,
}

/// What keeps the size from following the load: in a word, and why the load is not known.
type Limits = (Option<&'static str>, Option<String>);

impl Announcer {
    /// Whether `told` has changed.
    fn announce(
        &mut self,
        told: &mut Option<Scaling>,
        decision: &Decision,
        blind: Option<String>,
        now: Timestamp,
    ) -> bool {
        let decided_by = word(&decision.because);
        let current = limits(decided_by, &blind);
        if let Some(told) = told.as_ref().filter(|told| told.wanted == decision.size) {
            if limits(told.decided_by, &told.blind) == current {
                self.next = None;
                return false;
            }
            if !self.lasts(current, now) {
                return false;
            }
        }
        self.next = None;
        *told = Some(Scaling {
            wanted: decision.size,
            decided_by,
            message: format!("{}: {}", servers(decision.size), decision.because),
            blind,
        });
        true
    }

    /// Whether this has been so for [`SETTLED`].
    fn lasts(&mut self, limits: Limits, now: Timestamp) -> bool {
        match &self.next {
            Some((next, since)) if *next == limits => now.duration_since(*since) >= SETTLED,
            _ => {
                self.next = Some((limits, now));
                false
            }
        }
    }
}

fn limits(decided_by: &'static str, blind: &Option<String>) -> Limits {
    (is_limit(decided_by).then_some(decided_by), blind.clone())
}

/// What decided, in a word.
const fn word(because: &Because) -> &'static str {
    match because {
        Because::Maximum(_) => "Maximum",
        Because::Missing { .. } | Because::Unready => "NoData",
        Because::Pending(_) => "NoRoom",
        Because::Minimum(_) => "Minimum",
        Because::Floor(_) => "Schedule",
        _ => "Load",
    }
}

fn servers(number: i32) -> String {
    match number {
        1 => "1 server".to_owned(),
        number => format!("{number} servers"),
    }
}

#[cfg(test)]
mod tests;
