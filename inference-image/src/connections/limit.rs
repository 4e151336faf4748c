//! The limit on connections, and which of them are closed when it is reached.

use super::lifetime::{Activity, Told};
use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// File descriptors for the process itself: models, libraries, the management port, event queues.
const RESERVE: usize = 256;
/// The default never exceeds this, however many file descriptors there are: each connection also takes memory.
const MOST: usize = 65_536;
/// A connection that has been idle for less is not closed to make room.
const SPARED: Duration = Duration::from_secs(1);
/// If no connection can be closed, how long until the next attempt.
const PATIENCE: Duration = Duration::from_secs(1);
/// One in this many connections is closed at once, so that not every new connection has to make room.
const PART: usize = 64;

/// Memory that an idle connection may take: hyper's buffers, 16 KiB, its task and its timer.
const MEMORY: f64 = 32.0 * 1024.0;
/// The share of all memory that connections may use.
const SHARE: f64 = 0.25;

/// The limit on connections, and which of them are closed when it is reached.
pub(super) fn by_memory(limit: Option<f64>) -> usize {
    limit.map_or(usize::MAX, |limit| ((limit * SHARE / MEMORY) as usize).max(1))
}

/// Raises the limit on open files as far as possible. Returns how many connections it allows.
pub(super) fn by_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    files.saturating_sub(RESERVE).clamp(1, MOST)
}

/// The connections that are open.
pub(super) struct ConnectionLimit {
    slots: Arc<Semaphore>,
    per_peer: Option<usize>,
    open: Mutex<Open>,
    left: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Connection>,
}

struct Connection {
    peer: IpAddr,
    activity: Arc<Activity>,
}

/// A permit for one connection.
pub(super) struct Permit(OwnedSemaphorePermit);

/// A connection's slot, until it is dropped.
pub(super) struct Slot {
    places: Arc<ConnectionLimit>,
    key: u64,
    _slot: OwnedSemaphorePermit,
}

impl ConnectionLimit {
    /// At most `max` connections, and `per_peer` of one address.
    pub(super) fn new(max: usize, per_peer: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))),
            per_peer,
            open: Mutex::default(),
            left: Notify::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    /// Whether this peer may have one more connection. At its limit the one that has been idle longest is told to
    /// close; until those connections have closed, it may have up to twice as many.
    pub(super) fn admits(&self, peer: IpAddr) -> bool {
        let Some(most) = self.per_peer else { return true };
        let open = self.open();
        let of_peer = || open.connections.values().filter(|other| other.peer == peer);
        if of_peer().count() >= 2 * most {
            return false;
        }
        let staying = || of_peer().filter(|other| other.activity.told().is_none());
        if staying().count() < most {
            return true;
        }
        let idle = staying().filter_map(|other| Some((other.activity.idle_since()?, &other.activity)));
        let oldest = idle.min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(_, activity)| activity.tell(Told::Room))
    }

    /// A permit, if there is one.
    pub(super) fn try_free(&self) -> Option<Permit> {
        Arc::clone(&self.slots).try_acquire_owned().ok().map(Permit)
    }

    /// Waits for a permit; meanwhile new connections wait in the listener's queue. Those that have been idle longest
    /// are closed to make room. `None` never happens: the semaphore is never closed.
    pub(super) async fn free(&self) -> Option<Permit> {
        loop {
            if let Some(free) = self.try_free() {
                return Some(free);
            }
            let closing = self.make_room(Instant::now());
            tracing::debug!(closing, "the limit on connections has been reached");
            if let Ok(slot) = timeout(PATIENCE, Arc::clone(&self.slots).acquire_owned()).await {
                return slot.ok().map(Permit);
            }
        }
    }

    /// Tells the connections that have been idle longest to close. Returns their number.
    fn make_room(&self, now: Instant) -> usize {
        let open = self.open();
        let mut idle: Vec<(Instant, &Arc<Activity>)> = open
            .connections
            .values()
            .map(|connection| &connection.activity)
            .filter(|activity| activity.told().is_none())
            .filter_map(|activity| Some((activity.idle_since()?, activity)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= SPARED)
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        let part = open.connections.len().div_ceil(PART);
        idle.iter()
            .take(part)
            .filter(|(_, activity)| activity.tell(Told::Room))
            .count()
    }

    pub(super) fn take(self: &Arc<Self>, free: Permit, peer: IpAddr, activity: &Arc<Activity>) -> Slot {
        let mut open = self.open();
        let key = open.next;
        open.next += 1;
        let activity = Arc::clone(activity);
        open.connections.insert(key, Connection { peer, activity });
        Slot {
            places: Arc::clone(self),
            key,
            _slot: free.0,
        }
    }

    /// Tells all connections that the server is shutting down, and waits until they are closed.
    pub(super) async fn close(&self) {
        loop {
            let left = self.left.notified();
            {
                let open = self.open();
                if open.connections.is_empty() {
                    return;
                }
                for connection in open.connections.values() {
                    connection.activity.tell(Told::Drain);
                }
            }
            left.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let empty = {
            let mut open = self.places.open();
            open.connections.remove(&self.key);
            open.connections.is_empty()
        };
        if empty {
            self.places.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn connection() -> Arc<Activity> {
        Arc::new(Activity::new(None, None))
    }

    /// Otherwise many idle connections keep all others out.
    #[tokio::test]
    async fn the_idle_make_room_and_the_busy_stay() {
        let places = ConnectionLimit::new(2, None);
        let (busy, idle) = (connection(), connection());
        let _busy_place = places.take(places.try_free().unwrap(), PEER, &busy);
        let idle_place = places.take(places.try_free().unwrap(), PEER, &idle);
        let _request = busy.begin();
        assert!(places.try_free().is_none());
        let now = Instant::now();
        assert_eq!(places.make_room(now), 0, "it has only just become idle");
        assert_eq!(places.make_room(now + SPARED), 1);
        assert!(idle.told().is_some() && busy.told().is_none());
        assert_eq!(places.make_room(now + SPARED), 0, "it has been told already");
        drop(idle_place);
        assert!(places.try_free().is_some());
    }

    /// Otherwise one pod's idle connections keep the kubelet's probes out.
    #[test]
    fn a_peer_with_its_share_closes_its_own_oldest_and_takes_no_place_of_others() {
        let places = ConnectionLimit::new(100, Some(2));
        let all: Vec<_> = (0..4).map(|_| connection()).collect();
        let mut taken = Vec::new();
        for activity in &all {
            assert!(places.admits(PEER));
            taken.push(places.take(places.try_free().unwrap(), PEER, activity));
        }
        let told = || all.iter().map(|one| one.told().is_some()).collect::<Vec<_>>();
        assert_eq!(told(), [true, true, false, false]);
        assert!(!places.admits(PEER), "those that were told have not closed yet");
        assert!(places.admits(OTHER));
        taken.drain(..2);
        let _requests = (all[2].begin(), all[3].begin());
        assert!(!places.admits(PEER), "none of its connections is idle");
        assert_eq!(told(), [true, true, false, false]);
        taken.pop();
        assert!(places.admits(PEER));
    }

    #[tokio::test]
    async fn all_are_told_at_the_end() {
        let places = ConnectionLimit::new(2, None);
        let one = connection();
        let place = places.take(places.try_free().unwrap(), PEER, &one);
        let closing = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.close().await }
        });
        one.woken().await;
        assert!(!closing.is_finished());
        drop(place);
        closing.await.unwrap();
    }

    #[test]
    fn a_small_container_has_fewer_connections() {
        assert_eq!(by_memory(Some(512.0 * 1024.0 * 1024.0)), 4096);
        assert_eq!((by_memory(None), by_memory(Some(1.0))), (usize::MAX, 1));
    }

    #[test]
    fn the_limit_follows_the_open_files() {
        let max = by_open_files();
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
        assert!(
            files
                .current
                .is_none_or(|files| max < usize::try_from(files).unwrap())
        );
    }
}
