//! The server as a user starts it: its release build with its defaults, on free ports.

use crate::bench::Bench;
use crate::process::Process;
use crate::usage::Family;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Interval between readiness checks; each takes about 50 µs of the cores on which the server is loading.
const PAUSE: Duration = Duration::from_millis(2);

/// A server that is ready.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    management: SocketAddr,
    /// From its start until it was ready.
    pub(crate) start: Duration,
    log: PathBuf,
}

impl Server {
    /// Starts it with this configuration and waits until it is ready.
    pub(crate) fn start(bench: &Bench, name: &str, config: &str) -> Result<Self> {
        let [address, management] = [free_port()?, free_port()?];
        let log = bench.work.join(format!("server-{name}.log"));
        let output = File::create(&log)?;
        let mut command = Command::new(&bench.server);
        command
            .env("MODELSERVICE_CONFIG", config)
            .env("ORT_DYLIB_PATH", &bench.library)
            .arg(format!("--http-port={}", address.port()))
            .arg(format!("--management-port={}", management.port()))
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output);
        bench.find_libraries(&mut command)?;
        let started = Instant::now();
        let process = Process::start(&mut command)?;
        let mut server = Self {
            process,
            address,
            management,
            start: Duration::ZERO,
            log,
        };
        server.wait_ready(started)?;
        Ok(server)
    }

    fn wait_ready(&mut self, started: Instant) -> Result<()> {
        loop {
            if matches!(self.management("/readyz"), Ok((200, _))) {
                self.start = started.elapsed();
                return Ok(());
            }
            if let Some(status) = self.process.ended() {
                bail!("the server ended with {status}: {}", self.last_words());
            }
            if started.elapsed() > PATIENCE {
                bail!(
                    "the server is not ready after {PATIENCE:?}: {}",
                    self.last_words()
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// The ID of its first process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its processes.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.id())
    }

    /// Status and body of a path of the management port.
    pub(crate) fn management(&self, path: &str) -> Result<(u16, String)> {
        get(self.management, path)
    }

    /// Waits until it is idle, because its own measurements after it has become ready would be counted too.
    pub(crate) fn settle(&self) {
        settle(&self.family());
    }
}

/// Waits, 30 s at most, until the processes take less than 2 % of a core.
pub(crate) fn settle(family: &Family) {
    let pause = Duration::from_millis(500);
    for _ in 0..60 {
        let before = family.cpu();
        std::thread::sleep(pause);
        if (family.cpu() - before) / pause.as_secs_f64() < 0.02 {
            return;
        }
    }
    println!("  the server is not idle after 30 s without requests");
}

/// A port that was free a moment ago; nothing else on this machine claims ports that quickly.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?)
}

/// A GET request on a new connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no HTTP status")?;
    Ok((status, body.to_owned()))
}
