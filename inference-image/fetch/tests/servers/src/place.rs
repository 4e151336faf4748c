//! Where servers listen: on this machine by itself, or in a network namespace that their clients reach.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

type Listen = Box<dyn Fn() -> io::Result<TcpListener> + Send + Sync>;

/// Where servers listen.
pub struct Place {
    listen: Listen,
    enter: Vec<String>,
}

impl Place {
    /// This machine, which nobody else reaches.
    pub fn loopback() -> Self {
        Self::new(|| TcpListener::bind("127.0.0.1:0"), Vec::new())
    }

    /// A place of which `listen` takes a free port, at an address by which clients and this process reach it. Programs
    /// are started there by the words of `enter`, which must become the program: it is ended by its process id.
    pub fn new(
        listen: impl Fn() -> io::Result<TcpListener> + Send + Sync + 'static,
        enter: Vec<String>,
    ) -> Self {
        Self {
            listen: Box::new(listen),
            enter,
        }
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some((first, rest)) = self.enter.split_first() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    /// An address that is free now. Nobody else takes it in the moment before the server does, or its start fails.
    pub(crate) fn free_address(&self) -> io::Result<SocketAddr> {
        (self.listen)()?.local_addr()
    }

    /// Listens, for this process's own servers.
    pub(crate) fn listen(&self) -> io::Result<tokio::net::TcpListener> {
        let listener = (self.listen)()?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    }
}
