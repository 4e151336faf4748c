//! The lifetime of a connection: its socket and its requests report what it is doing, and its timer decides when it
//! ends. Pure, except that `begin` and its guard read the clock.

use crate::metrics::Closed;
use crate::process::lifecycle::Retirement;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Time limits of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    /// For sending the head of a request.
    pub(super) header: Duration,
    /// For being idle.
    pub(super) idle: Duration,
    /// For being idle once it has reached its maximum age.
    pub(super) quiet: Duration,
}

/// The state of a connection, shared by its requests, its socket and its timer.
#[derive(Debug)]
pub(super) struct Activity {
    accepted: Instant,
    retires: Option<Instant>,
    max_requests: Option<u32>,
    requests: AtomicU32,
    in_flight: AtomicU32,
    /// Milliseconds from `accepted` to the end of the last request, or to the last write of its response.
    idle_since: AtomicU64,
    /// Whether bytes of a request have arrived, but not its whole head.
    reading: AtomicBool,
    /// Whether it speaks HTTP/2.
    multiplexed: AtomicBool,
    told: AtomicU8,
    wake: Notify,
    retirement: Retirement,
}

/// Why something else wants the connection to end; later reasons outrank earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Others are waiting for its slot.
    Room = 1,
    /// The server is shutting down.
    Drain = 2,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this time.
    Wait(Instant),
    /// End it gracefully, in the way of its protocol.
    Retire(Closed),
    /// End it now.
    Cut(Closed),
}

impl Activity {
    /// A connection that has just been accepted, and retires after `age`.
    pub(super) fn new(age: Option<Duration>, max_requests: Option<u32>) -> Self {
        let accepted = Instant::now();
        Self {
            accepted,
            retires: age.map(|age| accepted + age),
            max_requests,
            requests: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            told: AtomicU8::new(0),
            wake: Notify::new(),
            retirement: Retirement::default(),
        }
    }

    /// A request has begun: its head has arrived. It lasts until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.reading.store(false, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.busy()
    }

    /// Something else keeps the connection from being idle, until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    /// Whether the current response should be the last on the connection.
    pub(super) fn is_last(&self, now: Instant) -> bool {
        self.has_served_enough() || self.retires.is_some_and(|at| now >= at)
    }

    pub(super) fn has_served_enough(&self) -> bool {
        self.max_requests
            .is_some_and(|max| self.requests.load(Relaxed) >= max)
    }

    /// Bytes have arrived that no request has asked for yet.
    pub(super) fn read(&self) {
        // Frames that HTTP/2 sends besides requests do not begin a head.
        if self.in_flight.load(Relaxed) == 0 && !self.is_multiplexed() {
            self.reading.store(true, Relaxed);
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.load(Relaxed)
    }

    /// Bytes have been sent: a connection is not idle while its client reads a response slowly. Over HTTP/2 a request
    /// is in flight until the end of its response, and other frames do not count.
    pub(super) fn wrote(&self) {
        if !self.is_multiplexed() {
            self.stamp();
        }
    }

    fn stamp(&self) {
        let since = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(since, Relaxed);
    }

    /// The connection speaks HTTP/2.
    pub(super) fn multiplex(&self) {
        self.multiplexed.store(true, Relaxed);
        self.reading.store(false, Relaxed);
    }

    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Relaxed)
    }

    /// When it became idle; `None` while it serves a request.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = self.in_flight.load(Relaxed) == 0;
        idle.then(|| self.accepted + Duration::from_millis(self.idle_since.load(Relaxed)))
    }

    /// Tells the connection to end; true the first time.
    pub(super) fn tell(&self, why: Told) -> bool {
        let first = self.told.fetch_max(why as u8, Relaxed) < why as u8;
        if first {
            self.wake.notify_one();
        }
        first
    }

    pub(super) fn told(&self) -> Option<Closed> {
        match self.told.load(Relaxed) {
            0 => None,
            1 => Some(Closed::Room),
            _ => Some(Closed::Drain),
        }
    }

    /// Waits until it is told to end.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Tells its requests that it accepts no more.
    pub(super) const fn retirement(&self) -> &Retirement {
        &self.retirement
    }

    /// What to do now. In `reading_since` the timer remembers when it first saw that a head had begun.
    ///
    /// HTTP/2 can end a connection without losing a request. Over HTTP/1.1 a request may be on its way to us while we
    /// close. So a connection that has reached its age announces this in its next response, and we close it only when
    /// it has been quiet for a while.
    pub(super) fn judge(&self, now: Instant, reading_since: &mut Option<Instant>, times: &Times) -> Verdict {
        if let Some(reason) = self.told() {
            return Verdict::Retire(reason);
        }
        let old = self.retires.is_some_and(|at| now >= at);
        if self.is_multiplexed() && (old || self.has_served_enough()) {
            return Verdict::Retire(Closed::Age);
        }
        let Some(idle_since) = self.idle_since() else {
            *reading_since = None;
            return Verdict::Wait(self.until_age(now, now + times.idle));
        };
        if self.is_reading() {
            let deadline = *reading_since.get_or_insert(now) + times.header;
            return if now >= deadline {
                Verdict::Cut(Closed::Slow)
            } else {
                Verdict::Wait(deadline)
            };
        }
        *reading_since = None;
        let (patience, reason) = if old {
            (times.quiet.min(times.idle), Closed::Age)
        } else {
            (times.idle, Closed::Idle)
        };
        match idle_since + patience {
            end if now >= end => Verdict::Retire(reason),
            end => Verdict::Wait(self.until_age(now, end)),
        }
    }

    fn until_age(&self, now: Instant, end: Instant) -> Instant {
        self.retires.filter(|at| *at > now).map_or(end, |at| end.min(at))
    }
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.stamp();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(600),
        quiet: Duration::from_secs(30),
    };

    struct Watch {
        activity: Arc<Activity>,
        reading_since: Option<Instant>,
    }

    fn watch(age: u64, max_requests: Option<u32>) -> Watch {
        Watch {
            activity: Arc::new(Activity::new(Some(Duration::from_secs(age)), max_requests)),
            reading_since: None,
        }
    }

    impl Watch {
        fn at(&mut self, seconds: u64) -> Verdict {
            let now = self.activity.accepted + Duration::from_secs(seconds);
            self.activity.judge(now, &mut self.reading_since, &TIMES)
        }

        fn wait(&self, seconds: u64) -> Verdict {
            Verdict::Wait(self.activity.accepted + Duration::from_secs(seconds))
        }
    }

    #[test]
    fn an_idle_connection_is_closed_after_its_time_and_an_old_one_when_it_is_quiet() {
        let mut young = watch(3600, None);
        assert_eq!(young.at(0), young.wait(600));
        assert_eq!(young.at(599), young.wait(600));
        assert_eq!(young.at(600), Verdict::Retire(Closed::Idle));
        let mut old = watch(300, None);
        assert_eq!(old.at(0), old.wait(300));
        old.activity.idle_since.store(290_000, Relaxed);
        assert_eq!(old.at(300), old.wait(320));
        assert_eq!(old.at(320), Verdict::Retire(Closed::Age));
    }

    /// A client in the middle of a request must not lose it.
    #[test]
    fn a_busy_connection_is_not_closed_over_http_1_and_told_to_leave_over_http_2() {
        let mut one = watch(300, None);
        let busy = one.activity.begin();
        assert_eq!(one.at(300), one.wait(900));
        assert!(
            one.activity
                .is_last(one.activity.accepted + Duration::from_secs(300))
        );
        let mut two = watch(300, None);
        two.activity.multiplex();
        let other = two.activity.begin();
        assert_eq!(two.at(299), two.wait(300));
        assert_eq!(two.at(300), Verdict::Retire(Closed::Age));
        drop((busy, other));
    }

    /// Otherwise a client could keep a connection open for ever with one byte per second.
    #[test]
    fn a_head_that_is_sent_slowly_is_cut_off() {
        let mut slow = watch(300, None);
        slow.activity.read();
        assert_eq!(slow.at(5), slow.wait(15));
        slow.activity.read();
        assert_eq!(slow.at(14), slow.wait(15));
        assert_eq!(slow.at(15), Verdict::Cut(Closed::Slow));
        // The head has arrived; what follows is a body.
        drop(slow.activity.begin());
        assert!(matches!(slow.at(15), Verdict::Wait(_)));
    }

    #[test]
    fn a_connection_may_be_limited_to_a_number_of_requests() {
        let mut counted = watch(300, Some(2));
        let now = Instant::now();
        drop(counted.activity.begin());
        assert!(!counted.activity.is_last(now));
        drop(counted.activity.begin());
        assert!(counted.activity.is_last(now));
        counted.activity.multiplex();
        assert_eq!(counted.at(1), Verdict::Retire(Closed::Age));
    }

    #[test]
    fn the_servers_end_outranks_all() {
        let mut told = watch(300, None);
        assert!(told.activity.tell(Told::Room) && !told.activity.tell(Told::Room));
        assert_eq!(told.at(0), Verdict::Retire(Closed::Room));
        assert!(told.activity.tell(Told::Drain));
        assert_eq!(told.at(0), Verdict::Retire(Closed::Drain));
    }
}
