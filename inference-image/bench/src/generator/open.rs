//! An open loop: requests are sent on schedule, whether or not earlier ones have been answered, each on a free
//! connection.

use super::Message;
use super::closed::{wait, watch};
use super::connection::{Connection, PATIENCE, Progress};
use super::record::Record;
use crate::spec::{Drive, Driven, Open};
use anyhow::Result;
use std::time::{Duration, Instant};

const SEED: u64 = 4;

pub(super) fn run(spec: &Drive, open: Open, messages: &[Message]) -> Result<Driven> {
    let mut pool = Pool::new(spec, messages)?;
    let mut record = Record::new(spec);
    let mut pauses = pauses(open.rate);
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        if record.is_over(now) {
            break;
        }
        while due <= now {
            pool.send(due, &mut record)?;
            due += pauses.next().unwrap_or_default();
        }
        pool.advance(due.saturating_duration_since(Instant::now()), &mut record)?;
    }
    let driven = record.finish();
    let (mut rest, deadline) = (Record::new(spec), Instant::now() + PATIENCE);
    while pool.free.len() < pool.connections.len() && Instant::now() < deadline {
        pool.advance(Duration::from_millis(100), &mut rest)?;
    }
    Ok(driven)
}

/// Intervals between requests: in a Poisson process they are exponentially distributed.
fn pauses(rate: f64) -> impl Iterator<Item = Duration> {
    let mut random = fastrand::Rng::with_seed(SEED);
    std::iter::repeat_with(move || Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate))
}

struct Pool<'a> {
    spec: &'a Drive,
    messages: &'a [Message],
    connections: Vec<Connection>,
    free: Vec<usize>,
    poll: rustix::fd::OwnedFd,
    next: usize,
}

impl<'a> Pool<'a> {
    fn new(spec: &'a Drive, messages: &'a [Message]) -> Result<Self> {
        let poll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let mut pool = Self {
            spec,
            messages,
            connections: Vec::new(),
            free: Vec::new(),
            poll,
            next: 0,
        };
        for place in 0..spec.connections {
            let connection = pool.open(place)?;
            pool.connections.push(connection);
            pool.free.push(place);
        }
        Ok(pool)
    }

    fn open(&self, place: usize) -> Result<Connection> {
        let connection = Connection::open(self.spec, false)?;
        watch(&self.poll, &connection, place)?;
        Ok(connection)
    }

    /// Sends the request that is due.
    fn send(&mut self, due: Instant, record: &mut Record) -> Result<()> {
        let Some(place) = self.free.pop() else {
            record.failed("no connection was free: all wait for answers".to_owned());
            return Ok(());
        };
        let index = self.next % self.messages.len();
        self.next += 1;
        let now = Instant::now();
        record.sent(now - due);
        if self.connections[place].start(index, self.messages, now).is_err() {
            // The server closed it while it was idle.
            self.connections[place] = self.open(place)?;
            self.connections[place].start(index, self.messages, now)?;
        }
        Ok(())
    }

    fn advance(&mut self, timeout: Duration, record: &mut Record) -> Result<()> {
        for place in wait(&self.poll, timeout)? {
            let connection = &mut self.connections[place];
            if connection.is_blocked && connection.flush(self.messages).is_err() {
                // A refusal may arrive before the whole request has been sent: read it now.
                connection.is_blocked = false;
            }
            let progress = connection.receive(self.messages)?;
            let Some(index) = connection.message else {
                if progress == Progress::Closed {
                    self.connections[place] = self.open(place)?;
                }
                continue;
            };
            match progress {
                Progress::Waiting => continue,
                Progress::Answered => {
                    record.reply(
                        &connection.reply(),
                        &self.messages[index],
                        connection.sent,
                        Instant::now(),
                    )?;
                }
                Progress::Closed => {
                    record.failed("the server closed the connection instead of an answer".to_owned());
                }
            }
            connection.message = None;
            if progress == Progress::Closed || connection.is_ending() {
                self.connections[place] = self.open(place)?;
            }
            self.free.push(place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another rate would be no overload, or a hopeless one.
    #[test]
    fn requests_are_due_at_the_rate_that_was_asked_for() {
        let time: Duration = pauses(500.0).take(10_000).sum();
        assert!((19.0..21.0).contains(&time.as_secs_f64()), "{time:?}");
    }
}
