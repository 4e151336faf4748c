//! Downloads all objects of a source into a folder: many parts at the same time, with little memory. A download that was
//! killed goes on. Every object is hashed on the way, and compared with what the source says of it.

mod journal;
mod pace;
mod part;
mod plan;
mod progress;
mod retry;
mod settings;
mod target;

pub use progress::{PROGRESS_FILE, Progress, Snapshot};
pub use retry::{Backoff, repeat};
pub use settings::{Retries, Settings, Slowest};

use crate::disk::{self, blocking};
use crate::error::FetchError;
use crate::source::{Found, Object, Source};
use futures::{StreamExt, TryStreamExt, stream};
use journal::{Complete, Journal};
use modelservice_contract::FetchReason;
use part::{Job, too_large};
use plan::{Division, Part};
use std::path::{Path, PathBuf};
use target::Target;

/// Folder of the objects, below the one that a fetch works in.
const OBJECTS: &str = "objects";

/// An object on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Where it is.
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub hash: [u8; 32],
}

/// Downloads what was found; the objects come in the same order. What an earlier call has left in the folder for the same
/// version is used.
///
/// # Errors
/// The source's, once it is given up; `Unavailable` if an object is twice not what the source says; `PackageInvalid` if it
/// is too large; `SystemError` if the disk is full.
pub async fn download(
    source: &dyn Source,
    found: &Found,
    work: &Path,
    settings: &Settings,
    progress: &Progress,
) -> Result<Vec<Downloaded>, FetchError> {
    let total = found.bytes()?;
    if total.is_some_and(|total| total > settings.maximum_bytes) {
        let message = too_large(settings.maximum_bytes);
        return Err(FetchError::new(FetchReason::PackageInvalid, message));
    }
    progress.begin(total);
    let division = Division {
        part_blocks: settings.part_blocks,
        block_bytes: settings.block_bytes,
        has_ranges: source.has_ranges(),
    };
    let folder = work.join(OBJECTS);
    let (journal, complete) = {
        let (folder, name) = (folder.clone(), division.name(found));
        blocking(move || {
            Journal::open(&folder, &name).map_err(|error| disk::error("cannot write", &folder, &error))
        })
    }
    .await?;
    let download = Download {
        source,
        found,
        settings,
        progress,
        division,
        journal,
        targets: (0..found.objects.len())
            .map(|object| Target::new(&folder, object))
            .collect(),
    };
    tokio::select! {
        result = download.run(complete, total, &folder) => result,
        () = progress.report(work, settings.tick) => unreachable_report(),
    }
}

/// The report has no end of its own.
fn unreachable_report() -> Result<Vec<Downloaded>, FetchError> {
    Err(FetchError::new(
        FetchReason::SystemError,
        "the report of progress ended",
    ))
}

struct Download<'a> {
    source: &'a dyn Source,
    found: &'a Found,
    settings: &'a Settings,
    progress: &'a Progress,
    division: Division,
    journal: Journal,
    targets: Vec<Target>,
}

impl Download<'_> {
    async fn run(
        &self,
        complete: Complete,
        total: Option<u64>,
        folder: &Path,
    ) -> Result<Vec<Downloaded>, FetchError> {
        let complete = self.keep(complete).await?;
        if let Some(total) = total {
            disk::check(folder, total.saturating_sub(self.progress.kept()))?;
        }
        let missing = (0..self.targets.len()).flat_map(|object| {
            let described = &self.found.objects[object];
            self.division
                .parts(object, described, |block| !complete.contains(&(object, block)))
        });
        self.fetch(missing.collect()).await?;
        let bad = self.differing().await?;
        if bad.is_empty() {
            return self.downloaded().await;
        }
        // Perhaps a broken proxy or disk on the way: once more, and if that is no better, the source lies.
        for &(object, ref message) in &bad {
            tracing::warn!("{message}; downloading it again");
            self.forget(object).await?;
        }
        let again = bad
            .iter()
            .flat_map(|&(object, _)| self.division.parts(object, &self.found.objects[object], |_| true));
        self.fetch(again.collect()).await?;
        match self.differing().await?.into_iter().next() {
            None => self.downloaded().await,
            Some((object, message)) => {
                self.forget(object).await?;
                Err(FetchError::new(
                    FetchReason::Unavailable,
                    format!("{message}, twice"),
                ))
            }
        }
    }

    /// Hashes the blocks that are on disk already. A file that is too short for its blocks was tampered with.
    async fn keep(&self, complete: Complete) -> Result<Complete, FetchError> {
        let mut kept = Complete::new();
        for (object, index) in complete {
            let Some((described, target)) = self.found.objects.get(object).zip(self.targets.get(object))
            else {
                continue;
            };
            let there = std::fs::metadata(&target.path).map_or(0, |metadata| metadata.len());
            let range = self.division.block(described, index);
            let end = if described.size.is_some() {
                range.end
            } else {
                there
            };
            if there < end || there == 0 {
                continue;
            }
            target.complete(self.division, described, index).await?;
            self.progress.keep(end - range.start);
            kept.insert((object, index));
        }
        if !kept.is_empty() {
            tracing::info!(bytes = self.progress.kept(), "an earlier download goes on");
        }
        Ok(kept)
    }

    async fn fetch(&self, parts: Vec<Part>) -> Result<(), FetchError> {
        let parts = stream::iter(parts).map(|part| self.fetch_one(part));
        parts.buffer_unordered(self.settings.parallel).try_collect().await
    }

    async fn fetch_one(&self, part: Part) -> Result<(), FetchError> {
        let (object, target) = (&self.found.objects[part.object], &self.targets[part.object]);
        let job = Job {
            source: self.source,
            settings: self.settings,
            progress: self.progress,
            object,
            division: self.division,
            journal: &self.journal,
            target,
            writer: target.open().await?,
        };
        job.fetch(&part).await
    }

    /// The objects that are not what the source says, and how.
    async fn differing(&self) -> Result<Vec<(usize, String)>, FetchError> {
        let mut differing = Vec::new();
        for (index, (object, target)) in self.found.objects.iter().zip(&self.targets).enumerate() {
            let (size, hash) = target.hash().await;
            if let Some(message) = difference(object, size, &hash) {
                differing.push((index, message));
            }
        }
        Ok(differing)
    }

    async fn forget(&self, object: usize) -> Result<(), FetchError> {
        let target = &self.targets[object];
        let (size, _) = target.hash().await;
        self.progress.discard(size);
        target.forget().await;
        let forgotten = self.journal.forget(object);
        forgotten.map_err(|error| disk::error("cannot write beside", &target.path, &error))
    }

    async fn downloaded(&self) -> Result<Vec<Downloaded>, FetchError> {
        let mut downloaded = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let (size, hash) = target.hash().await;
            if size == 0 {
                // It has no parts.
                target.open().await?.truncate(0).await?;
            }
            let path = target.path.clone();
            downloaded.push(Downloaded { path, size, hash });
        }
        Ok(downloaded)
    }
}

fn difference(object: &Object, size: u64, hash: &[u8; 32]) -> Option<String> {
    if let Some(stated) = object.size.filter(|&stated| stated != size) {
        return Some(format!(
            "{} has {size} bytes, but its source says {stated}",
            object.key
        ));
    }
    let stated = object.sha256.as_ref()?;
    let is = modelservice_package::text(hash);
    let is = is.trim_start_matches("sha256:");
    (stated != is).then(|| {
        let key = &object.key;
        format!("{key} has SHA-256 {is}, but its source says {stated}")
    })
}
