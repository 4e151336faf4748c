//! An open-loop load generator: requests start at random times at a given mean rate (a Poisson process), whether or not
//! earlier ones were answered. Half of them use kept-alive connections, half open a new one. There are no retries: the
//! result is what a client without retries would see.
//!
//! It runs in a thread that has entered a node's network namespace, where Services have addresses.

use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

/// A request without an answer after this time has failed. Where there are too few servers for a while, requests wait.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Kept-alive connections that are opened before one is used again. Few enough that each is used every second:
/// a server that drains closes connections that stay idle, as every HTTP server may.
const POOL: usize = 4;

/// What is sent, where and how often.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Address of the Service.
    pub address: SocketAddr,
    /// Path of the request, a POST.
    pub path: String,
    /// `Content-Type` of the body.
    pub content_type: &'static str,
    /// The body of every request.
    pub body: Bytes,
    /// Requests per second.
    pub rate: f64,
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Requests that were answered with 2xx.
    pub answered: usize,
    /// Requests that were not, each with its time since the start.
    pub errors: Vec<String>,
    /// Body of the latest answer.
    pub latest: Bytes,
    /// How long each answer took.
    pub latencies: Vec<Duration>,
}

impl Report {
    /// Whether the latest answer is that of the model that adds `constant` to 1, 2, 3, 4.
    pub(crate) fn adds(&self, constant: f64) -> bool {
        let latest: serde_json::Value = serde_json::from_slice(&self.latest).unwrap_or_default();
        latest["outputs"][0]["data"] == serde_json::json!([1.0, 2.0, 3.0, 4.0].map(|x| x + constant))
    }

    /// The median latency.
    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

/// A running load. Dropping it stops it.
pub(crate) struct Load {
    state: Arc<Mutex<State>>,
    /// Dropped to stop.
    running: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct State {
    report: Report,
    rate: f64,
}

impl Load {
    /// Starts to send from inside the network namespace `netns`.
    pub(crate) fn start(netns: &Path, target: Target) -> Result<Self> {
        let state = Arc::new(Mutex::new(State {
            report: Report::default(),
            rate: target.rate,
        }));
        let (running, stopped) = mpsc::channel();
        let shared = Arc::clone(&state);
        let thread = inside(netns, async move || {
            until_reachable(target.address).await?;
            send(Arc::new(target), shared, &stopped).await;
            Ok(())
        })?;
        Ok(Self {
            state,
            running: Some(running),
            thread: Some(thread),
        })
    }

    /// What happened so far.
    pub(crate) fn report(&self) -> Report {
        self.state.lock().unwrap().report.clone()
    }

    /// Continues at another rate.
    pub(crate) fn set_rate(&self, rate: f64) {
        self.state.lock().unwrap().rate = rate;
    }

    /// Waits until `answers` more requests have been answered.
    pub(crate) fn wait_answers(&self, answers: usize) -> Result<()> {
        let before = self.report().answered;
        local_cluster::wait_until(
            &format!("{answers} more answers"),
            Duration::from_secs(60),
            || {
                ensure!(
                    self.thread.as_ref().is_some_and(|thread| !thread.is_finished()),
                    "the load has ended"
                );
                Ok(self.report().answered >= before + answers)
            },
        )
        .with_context(|| format!("{:?}", self.report()))
    }

    /// Stops after the current requests.
    pub(crate) fn stop(mut self) -> Result<Report> {
        drop(self.running.take());
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("the load's thread panicked"))??;
        }
        Ok(self.report())
    }

    /// Stops after the current requests, and fails if any request of the whole run has failed.
    pub(crate) fn finish(self, what: &str) -> Result<Report> {
        let report = self.stop()?;
        eprintln!(
            "load, {what}: {} answered, {} errors, median {:.1?}, slowest {:.1?}",
            report.answered,
            report.errors.len(),
            report.median(),
            report.latencies.iter().max().copied().unwrap_or_default()
        );
        ensure!(report.answered > 0, "{what}: no request was answered");
        ensure!(
            report.errors.is_empty(),
            "{what}: {} of {} requests failed:\n{}",
            report.errors.len(),
            report.errors.len() + report.answered,
            report
                .errors
                .iter()
                .take(20)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n")
        );
        Ok(report)
    }
}

/// Does `work` in a new thread, inside the network namespace `netns`.
pub(crate) fn inside(
    netns: &Path,
    work: impl AsyncFnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let namespace = File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
    Ok(std::thread::spawn(move || {
        // Only this thread enters it; the runtime below uses no other thread for its sockets.
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Network),
        )
        .context("cannot enter the node's network")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work())
    }))
}

pub(crate) type Connection = SendRequest<Full<Bytes>>;
type Pool = Arc<Mutex<VecDeque<Connection>>>;

/// Waits until the node knows where the Service is: kube-proxy learns of it up to a second after it was created.
pub(crate) async fn until_reachable(address: SocketAddr) -> Result<()> {
    for _ in 0..60 {
        if tokio::time::timeout(Duration::from_millis(500), connect(address))
            .await
            .is_ok_and(|made| made.is_ok())
        {
            return Ok(());
        }
    }
    anyhow::bail!("nobody accepts connections at {address}")
}

async fn send(target: Arc<Target>, state: Arc<Mutex<State>>, stopped: &mpsc::Receiver<()>) {
    let started = Instant::now();
    let pool = Pool::default();
    let mut tasks = tokio::task::JoinSet::new();
    let mut next = tokio::time::Instant::now();
    let mut number = 0_usize;
    let mut random = fastrand::Rng::with_seed(1);
    while !matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
        let kept = number.is_multiple_of(2).then(|| Arc::clone(&pool));
        number += 1;
        let (target, shared) = (Arc::clone(&target), Arc::clone(&state));
        tasks.spawn(async move {
            let (began, way) = (
                Instant::now(),
                if kept.is_some() {
                    "kept-alive"
                } else {
                    "new connection"
                },
            );
            let answer = tokio::time::timeout(TIMEOUT, request(&target, kept)).await;
            let report = &mut shared.lock().unwrap().report;
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", TIMEOUT.as_secs())))
            {
                Ok(body) => {
                    report.answered += 1;
                    report.latest = body;
                    report.latencies.push(began.elapsed());
                }
                Err(error) => {
                    let at = began.duration_since(started).as_secs_f32();
                    report.errors.push(format!("  at {at:.2} s, {way}: {error:#}"));
                }
            }
        });
        while tasks.try_join_next().is_some() {}
        // Follows the clock, not the answers: an open loop.
        let gap = -(1.0 - random.f64()).ln() / state.lock().unwrap().rate;
        next += Duration::from_secs_f64(gap);
        tokio::time::sleep_until(next).await;
    }
    tasks.join_all().await;
}

async fn request(target: &Target, pool: Option<Pool>) -> Result<Bytes> {
    let mut connection = match &pool {
        Some(pool) => match idle(pool).await {
            Some(connection) => connection,
            None => connect(target.address).await?,
        },
        None => connect(target.address).await?,
    };
    let (body, closes) = exchange(&mut connection, target, pool.is_some()).await?;
    if let Some(pool) = pool.filter(|_| !closes) {
        pool.lock().unwrap().push_back(connection);
    }
    Ok(body)
}

/// Sends one request. Returns the answer's body, and whether the server asks for another connection next time.
pub(crate) async fn exchange(
    connection: &mut Connection,
    target: &Target,
    keep: bool,
) -> Result<(Bytes, bool)> {
    let mut request = hyper::Request::post(&target.path)
        .header("Host", target.address.to_string())
        .header("Content-Type", target.content_type);
    if !keep {
        request = request.header("Connection", "close");
    }
    let answer = connection
        .send_request(request.body(Full::new(target.body.clone()))?)
        .await?;
    let (status, closes) = (
        answer.status(),
        answer
            .headers()
            .get("connection")
            .is_some_and(|value| value == "close"),
    );
    let body = answer
        .into_body()
        .collect()
        .await
        .context("the answer was incomplete")?
        .to_bytes();
    ensure!(
        status.is_success(),
        "{status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok((body, closes))
}

/// The connection that was idle longest, once there are enough. A connection that the server has closed is dropped:
/// nothing was sent over it.
async fn idle(pool: &Pool) -> Option<Connection> {
    loop {
        let mut connection = {
            let mut pool = pool.lock().unwrap();
            pool.retain(|connection| !connection.is_closed());
            if pool.len() < POOL {
                return None;
            }
            pool.pop_front()?
        };
        if connection.ready().await.is_ok() {
            return Some(connection);
        }
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Connection> {
    let stream = TcpStream::connect(address).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .context("handshake")?;
    // Its errors are those of the request, which reports them.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
