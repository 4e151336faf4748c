//! The servers of one service: their connections, and what they reported about their load over the last minute.

use super::watched::{Watched, WatchedPod};
use crate::{
    cluster::inference_server::{RequestError, send},
    process::metrics::Metrics,
    scaling::{Server, Totals},
};
use futures::future::join_all;
use http_body_util::Full;
use hyper::Request;
use jiff::{SignedDuration, Timestamp};
use modelservice_contract::{LOAD_PATH, LoadReport, LoadTotals, MANAGEMENT_PORT};
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};
use tokio::net::TcpStream;

/// Time limit of one reading.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest report that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// How long samples are kept, in seconds: the longest window.
const KEPT: f64 = 61.0;
/// A gap between samples, in seconds, that a server's own history fills.
const GAP: f64 = 5.0;
/// How long a server may not be read until its service says so.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// The servers of one service, by UID of their pods.
#[derive(Default)]
pub(super) struct Servers(HashMap<String, Known>);

/// What is known of one server.
struct Known {
    /// Open from one reading to the next.
    connection: Option<TcpStream>,
    /// When it was first asked.
    since: Timestamp,
    read_at: Option<Timestamp>,
    started: f64,
    runners: u32,
    samples: VecDeque<Totals>,
    /// Why the last reading failed.
    error: Option<Failure>,
}

/// Why a server's load is not known.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it does not answer within {} ms", TIMEOUT.as_millis())]
    Timeout,
    #[error("it cannot be connected to: {0}")]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("its report cannot be read: {0}")]
    Report(#[from] serde_json::Error),
    #[error("its version does not report its load")]
    Old,
}

impl Servers {
    /// Asks every ready server once, all at the same time; forgets those that are gone.
    pub(super) async fn read(&mut self, pods: &[WatchedPod], metrics: &Metrics) {
        let ready = |uid: &str| pods.iter().find(|pod| pod.uid == uid && pod.ready);
        self.0.retain(|uid, _| ready(uid).is_some());
        for pod in pods.iter().filter(|pod| pod.ready && pod.address.is_some()) {
            self.0.entry(pod.uid.clone()).or_insert_with(Known::new);
        }
        let asked = self.0.iter_mut().filter_map(|(uid, known)| {
            let address = pods.iter().find(|pod| pod.uid == *uid)?.address?;
            Some(known.read(address))
        });
        join_all(asked).await;
        self.0
            .values()
            .for_each(|known| metrics.load_read(known.error.is_none()));
    }

    /// Every server as the decision sees it.
    pub(super) fn known(&self, pods: &[WatchedPod]) -> Vec<Server> {
        let known = |pod: &WatchedPod| {
            let known = self.0.get(&pod.uid);
            Server {
                ready: pod.ready,
                pending: pod.pending,
                runners: known.map_or(0, |known| known.runners),
                read_at: known.and_then(|known| known.read_at),
                samples: known.map(|known| known.samples.clone()).unwrap_or_default(),
            }
        };
        pods.iter().map(known).collect()
    }

    /// Whether a server has not been read, but not for long.
    pub(super) fn are_in_doubt(&self, now: Timestamp) -> bool {
        self.0
            .values()
            .any(|known| known.error.is_some() && !known.is_told(now))
    }

    /// Why the load of a server is not known, if that has been so for a while: the first one by name.
    pub(super) fn blind(&self, watched: &Watched, now: Timestamp) -> Option<String> {
        let unread = watched.pods.iter().filter_map(|pod| {
            let known = self.0.get(&pod.uid)?;
            let error = known.error.as_ref()?;
            known.is_told(now).then_some((pod, error))
        });
        let (pod, error) = unread.min_by(|(a, _), (b, _)| a.name.cmp(&b.name))?;
        Some(match error {
            Failure::Old => format!(
                "the servers of revision {} do not report their load, because their version is older than this: \
                 they keep their number; set spec.adoptRuntime to a new value to replace them",
                watched.revision
            ),
            error => format!(
                "the load of pod {} is not known: {error} (port {MANAGEMENT_PORT}; a NetworkPolicy?); meanwhile \
                 no server is removed",
                pod.name
            ),
        })
    }
}

impl Known {
    fn new() -> Self {
        Self {
            connection: None,
            since: Timestamp::now(),
            read_at: None,
            started: 0.0,
            runners: 0,
            samples: VecDeque::new(),
            error: None,
        }
    }

    /// Whether it is told that it cannot be read.
    fn is_told(&self, now: Timestamp) -> bool {
        let since = self.read_at.unwrap_or(self.since);
        matches!(self.error, Some(Failure::Old)) || now.duration_since(since) >= PATIENCE
    }

    async fn read(&mut self, address: IpAddr) {
        let answer = tokio::time::timeout(TIMEOUT, self.ask(address)).await;
        let taken = match answer {
            Ok(Ok(report)) => self.take(report),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Timeout),
        };
        match taken {
            Ok(()) => {
                self.error = None;
                self.read_at = Some(Timestamp::now());
            }
            Err(failure) => {
                tracing::debug!(%address, error = %failure, "no load report");
                self.connection = None;
                self.error = Some(failure);
            }
        }
    }

    /// Asks over the open connection, or over a new one if there is none or the server has just closed it.
    async fn ask(&mut self, address: IpAddr) -> Result<LoadReport, Failure> {
        let again = match self.connection.take() {
            Some(stream) => send(stream, self.request(), MAX_BYTES).await.ok(),
            None => None,
        };
        let (body, stream) = match again {
            Some(answer) => answer,
            None => {
                let stream = TcpStream::connect((address, MANAGEMENT_PORT)).await?;
                send(stream, self.request(), MAX_BYTES).await?
            }
        };
        self.connection = Some(stream);
        Ok(serde_json::from_slice(&body)?)
    }

    /// Asks for the history too where ours has a gap.
    fn request(&self) -> Request<Full<hyper::body::Bytes>> {
        let is_fresh = self.read_at.is_some_and(|at| {
            let age = Timestamp::now().duration_since(at);
            age.as_secs_f64() < GAP
        });
        let query = if is_fresh { "" } else { "?history=60" };
        Request::get(format!("{LOAD_PATH}{query}"))
            .body(Full::default())
            .unwrap_or_default()
    }

    /// Adds what a report says to what is known.
    fn take(&mut self, report: LoadReport) -> Result<(), Failure> {
        let model = report.models.into_iter().next().ok_or(Failure::Old)?;
        let totals = model.totals.ok_or(Failure::Old)?;
        if report.start_time_seconds != self.started {
            self.started = report.start_time_seconds;
            self.samples.clear();
        }
        self.runners = u32::try_from(model.runners).unwrap_or(u32::MAX);
        for sample in model.history.into_iter().chain([totals]) {
            if self.samples.back().is_none_or(|last| last.at < sample.at_seconds) {
                self.samples.push_back(of(sample));
            }
        }
        let newest = self.samples.back().map_or(0.0, |last| last.at);
        self.samples.retain(|sample| newest - sample.at <= KEPT);
        Ok(())
    }
}

fn of(totals: LoadTotals) -> Totals {
    Totals {
        at: totals.at_seconds,
        served: totals.served,
        refused: totals.refused,
        expired: totals.expired,
        offered_seconds: totals.offered_seconds,
        in_flight_seconds: totals.in_flight_seconds,
    }
}
