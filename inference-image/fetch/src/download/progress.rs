//! How far a fetch is: in the log, and in a small file beside the download that others read (those who wait for it, and the
//! answer on the progress port).

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Name of the file, in the folder in which a fetch works.
pub const PROGRESS_FILE: &str = "progress.json";
/// Every how many ticks progress is logged.
const TICKS_PER_LINE: u64 = 5;

/// Bytes of one download, counted while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    received: AtomicU64,
    kept: AtomicU64,
    discarded: AtomicU64,
    /// 0 if it is not known.
    total: AtomicU64,
}

/// What [`PROGRESS_FILE`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Bytes that are there, from this run and from earlier ones.
    pub bytes: u64,
    /// All bytes, if the source says how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Received per second since the last snapshot.
    pub bytes_per_second: u64,
}

impl Progress {
    /// Bytes that came from the source in this run, also those that came twice.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Bytes that an earlier run had left.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    pub(super) fn begin(&self, total: Option<u64>) {
        self.total.store(total.unwrap_or(0), Relaxed);
    }

    pub(super) fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    pub(super) fn keep(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Relaxed);
    }

    /// These have to come again.
    pub(super) fn discard(&self, bytes: u64) {
        self.discarded.fetch_add(bytes, Relaxed);
    }

    /// Bytes that are there.
    pub(super) fn bytes(&self) -> u64 {
        (self.received() + self.kept()).saturating_sub(self.discarded.load(Relaxed))
    }

    /// Reports until it is dropped.
    pub(super) async fn report(&self, folder: &Path, tick: Duration) {
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut before, mut since) = (self.received(), Instant::now());
        for count in 1.. {
            ticks.tick().await;
            let now = self.received();
            let seconds = since.elapsed().as_secs_f64().max(0.001);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss
            )]
            let snapshot = Snapshot {
                bytes: self.bytes(),
                total: Some(self.total.load(Relaxed)).filter(|&total| total > 0),
                bytes_per_second: ((now - before) as f64 / seconds) as u64,
            };
            (before, since) = (now, Instant::now());
            snapshot.write(folder);
            if count % TICKS_PER_LINE == 0 {
                snapshot.log("fetching");
            }
        }
    }
}

impl Snapshot {
    /// The last one that was written in a folder.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read(folder.join(PROGRESS_FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes it for others. Nothing depends on it, so that an error is not one of the fetch.
    fn write(&self, folder: &Path) {
        let (file, new) = (folder.join(PROGRESS_FILE), folder.join(".progress.new"));
        let Ok(text) = serde_json::to_vec(self) else {
            return;
        };
        if std::fs::write(&new, text).is_ok() {
            let _ = std::fs::rename(new, file);
        }
    }

    /// A line in the log.
    pub fn log(&self, what: &str) {
        let percent = self
            .total
            .map(|total| self.bytes.saturating_mul(100) / total.max(1));
        tracing::info!(
            bytes = self.bytes,
            total = self.total,
            percent,
            bytes_per_second = self.bytes_per_second,
            "{what}"
        );
    }
}
