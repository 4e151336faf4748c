//! A closed loop: each connection sends its next request when it has the response to the last one.

use super::Message;
use super::connection::{Connection, PATIENCE, Progress};
use super::record::Record;
use crate::spec::{Drive, Driven};
use anyhow::{Result, bail};
use rustix::event::epoll;
use std::time::{Duration, Instant};

/// A single connection needs no polling of several.
pub(super) fn run(spec: &Drive, messages: &[Message]) -> Result<Driven> {
    if spec.connections == 1 {
        one(spec, messages)
    } else {
        many(spec, messages)
    }
}

fn one(spec: &Drive, messages: &[Message]) -> Result<Driven> {
    let mut record = Record::new(spec);
    let mut connection = Connection::open(spec, true)?;
    let mut index = 0;
    while !record.is_over(Instant::now()) {
        connection.start(index % messages.len(), messages, Instant::now())?;
        loop {
            match connection.receive(messages)? {
                Progress::Answered => {
                    finish(&mut connection, messages, &mut record)?;
                    break;
                }
                Progress::Waiting if connection.sent.elapsed() < PATIENCE => {}
                Progress::Waiting => bail!("no answer within {PATIENCE:?}"),
                Progress::Closed => {
                    record.failed("the server closed the connection instead of an answer".to_owned());
                    connection = Connection::open(spec, true)?;
                    break;
                }
            }
        }
        if connection.is_ending() {
            connection = Connection::open(spec, true)?;
        }
        index += 1;
    }
    Ok(record.finish())
}

/// Records the response that a connection has received.
fn finish(connection: &mut Connection, messages: &[Message], record: &mut Record) -> Result<()> {
    let now = Instant::now();
    if let Some(index) = connection.message.take() {
        record.reply(&connection.reply(), &messages[index], connection.sent, now)?;
    }
    Ok(())
}

fn many(spec: &Drive, messages: &[Message]) -> Result<Driven> {
    let mut crowd = Crowd::new(spec, messages)?;
    let mut record = Record::new(spec);
    for place in 0..spec.connections {
        crowd.start(place)?;
    }
    while !record.is_over(Instant::now()) {
        for place in crowd.wait()? {
            crowd.advance(place, &mut record, true)?;
        }
    }
    let driven = record.finish();
    // Requests in flight are answered before the next load begins, but no longer count.
    let (mut rest, deadline) = (Record::new(spec), Instant::now() + PATIENCE);
    while crowd.is_busy() && Instant::now() < deadline {
        for place in crowd.wait()? {
            crowd.advance(place, &mut rest, false)?;
        }
    }
    Ok(driven)
}

/// Several connections.
struct Crowd<'a> {
    spec: &'a Drive,
    messages: &'a [Message],
    connections: Vec<Connection>,
    poll: rustix::fd::OwnedFd,
    next: usize,
    last_event: Instant,
}

impl<'a> Crowd<'a> {
    fn new(spec: &'a Drive, messages: &'a [Message]) -> Result<Self> {
        let mut crowd = Self {
            spec,
            messages,
            connections: Vec::new(),
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            next: 0,
            last_event: Instant::now(),
        };
        for place in 0..spec.connections {
            let connection = crowd.open(place)?;
            crowd.connections.push(connection);
        }
        Ok(crowd)
    }

    fn open(&self, place: usize) -> Result<Connection> {
        let connection = Connection::open(self.spec, false)?;
        watch(&self.poll, &connection, place)?;
        Ok(connection)
    }

    fn is_busy(&self) -> bool {
        self.connections
            .iter()
            .any(|connection| connection.message.is_some())
    }

    fn start(&mut self, place: usize) -> Result<()> {
        let index = self.next % self.messages.len();
        self.next += 1;
        Ok(self.connections[place].start(index, self.messages, Instant::now())?)
    }

    /// Indices of connections that are ready.
    fn wait(&mut self) -> Result<Vec<usize>> {
        let places = wait(&self.poll, Duration::from_millis(100))?;
        if !places.is_empty() {
            self.last_event = Instant::now();
        } else if self.last_event.elapsed() > PATIENCE {
            bail!("no answer within {PATIENCE:?}");
        }
        Ok(places)
    }

    fn advance(&mut self, place: usize, record: &mut Record, go_on: bool) -> Result<()> {
        let connection = &mut self.connections[place];
        if connection.is_blocked {
            connection.flush(self.messages)?;
        }
        let progress = connection.receive(self.messages)?;
        match progress {
            Progress::Waiting => return Ok(()),
            Progress::Answered if connection.message.is_some() => finish(connection, self.messages, record)?,
            Progress::Answered => return Ok(()),
            Progress::Closed => {
                if connection.message.take().is_some() {
                    record.failed("the server closed the connection instead of an answer".to_owned());
                }
            }
        }
        if progress == Progress::Closed || connection.is_ending() {
            self.connections[place] = self.open(place)?;
        }
        if go_on { self.start(place) } else { Ok(()) }
    }
}

/// Reports a connection whenever more can be read, or when writing becomes possible again.
pub(super) fn watch(poll: &rustix::fd::OwnedFd, connection: &Connection, place: usize) -> Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    Ok(epoll::add(
        poll,
        &connection.stream,
        epoll::EventData::new_u64(place as u64),
        flags,
    )?)
}

/// Waits for at most `timeout`.
pub(super) fn wait(poll: &rustix::fd::OwnedFd, timeout: Duration) -> Result<Vec<usize>> {
    let mut events = Vec::with_capacity(64);
    let timeout = rustix::event::Timespec {
        tv_sec: timeout.as_secs().try_into()?,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
        Ok(_) => Ok(events.iter().map(|event| event.data.u64() as usize).collect()),
        Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
