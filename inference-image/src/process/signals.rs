//! SIGTERM and SIGINT. The first process of a container ignores them unless it handles them.

use super::exit::Fatal;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who asked the server to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// SIGTERM: sent by what runs the server, such as the kubelet.
    Terminate,
    /// SIGINT: a person who presses Ctrl-C.
    Interrupt,
}

pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Fatal> {
        let handler = |kind| signal(kind).map_err(|error| Fatal::system("cannot handle signals", &error));
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Terminate,
            _ = self.interrupt.recv() => Told::Interrupt,
        }
    }
}
