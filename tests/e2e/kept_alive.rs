//! Clients that keep their connections: each sends one request after the other over its own connection, and opens
//! another only when the server has asked for that or has closed the connection. They never retry.
//!
//! They run in a thread that has entered a node's network namespace, where Services have addresses.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;

use crate::load::{Connection, Target, connect, exchange, inside, until_reachable};

/// Pause between two requests of a client. All clients together send far less than one server can answer.
const PAUSE: Duration = Duration::from_millis(25);

/// What happened to one client so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// When each of its connections was opened.
    pub opened: Vec<Instant>,
    /// Requests that were answered with 2xx.
    pub answered: usize,
    /// The request that was not, after which the client has given up.
    pub error: Option<String>,
}

/// Running clients. Dropping it stops them.
pub(crate) struct KeptAlive {
    clients: Arc<Vec<Mutex<Client>>>,
    /// Dropped to stop.
    running: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl KeptAlive {
    /// Starts this many clients inside the network namespace `netns`.
    pub(crate) fn start(netns: &Path, target: Target, count: usize) -> Result<Self> {
        let clients: Arc<Vec<_>> = Arc::new((0..count).map(|_| Mutex::default()).collect());
        let (running, stopped) = mpsc::channel::<()>();
        let shared = Arc::clone(&clients);
        let thread = inside(netns, async move || {
            until_reachable(target.address).await?;
            let runs = || !matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Disconnected));
            join_all(shared.iter().map(|client| send(&target, client, &runs))).await;
            Ok(())
        })?;
        Ok(Self {
            clients,
            running: Some(running),
            thread: Some(thread),
        })
    }

    /// What happened so far.
    pub(crate) fn clients(&self) -> Vec<Client> {
        self.clients
            .iter()
            .map(|client| client.lock().unwrap().clone())
            .collect()
    }

    /// Stops after the current requests, and fails if any request of the whole run has failed.
    pub(crate) fn finish(mut self) -> Result<Vec<Client>> {
        drop(self.running.take());
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("the clients' thread panicked"))??;
        }
        let clients = self.clients();
        let errors: Vec<_> = clients
            .iter()
            .filter_map(|client| client.error.as_ref())
            .collect();
        ensure!(
            errors.is_empty(),
            "requests over kept-alive connections failed: {errors:?}"
        );
        Ok(clients)
    }
}

async fn send(target: &Target, client: &Mutex<Client>, runs: &impl Fn() -> bool) {
    let mut kept = None;
    while runs() {
        match request(target, client, kept.take()).await {
            Ok(connection) => kept = connection,
            Err(error) => {
                client.lock().unwrap().error = Some(format!("{error:#}"));
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The connection to continue with, if the server has not asked for another.
async fn request(
    target: &Target,
    client: &Mutex<Client>,
    kept: Option<Connection>,
) -> Result<Option<Connection>> {
    // A connection that the server has meanwhile closed is dropped: nothing was sent over it.
    let mut connection = match kept.filter(|connection| !connection.is_closed()) {
        Some(connection) => connection,
        None => {
            let connection = connect(target.address).await?;
            client.lock().unwrap().opened.push(Instant::now());
            connection
        }
    };
    let (_, closes) = exchange(&mut connection, target, true).await.context("request")?;
    client.lock().unwrap().answered += 1;
    Ok((!closes).then_some(connection))
}
