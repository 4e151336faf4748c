//! The file that an object becomes, and the hash that follows its complete parts.

use super::plan::Division;
use crate::disk::{self, blocking};
use crate::error::FetchError;
use crate::source::Object;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of one object.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    /// Behind a lock because the object's blocks arrive at the same time.
    hashing: tokio::sync::Mutex<Hashing>,
}

/// Hashing follows the blocks in their order: one that is complete before the one in front of it is hashed later, from disk,
/// where it is still cached.
#[derive(Debug, Default)]
struct Hashing {
    hash: Sha256,
    bytes: u64,
    next: u64,
    waiting: BTreeSet<u64>,
}

impl Target {
    /// The file of this object in this folder; earlier parts of it stay.
    pub(super) fn new(folder: &Path, object: usize) -> Self {
        Self {
            path: folder.join(object.to_string()),
            hashing: tokio::sync::Mutex::default(),
        }
    }

    /// Opens the file for writing.
    pub(super) async fn open(&self) -> Result<Writer, FetchError> {
        let path = self.path.clone();
        let open = move || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let file = file.map_err(|error| disk::error("cannot create", &path, &error))?;
            Ok(Writer {
                file: Arc::new(file),
                path,
            })
        };
        blocking(open).await
    }

    /// Hashes this block, and those behind it that are complete.
    pub(super) async fn complete(
        &self,
        division: Division,
        object: &Object,
        block: u64,
    ) -> Result<(), FetchError> {
        let mut hashing = self.hashing.lock().await;
        hashing.waiting.insert(block);
        while let next = hashing.next
            && hashing.waiting.remove(&next)
        {
            let range = division.block(object, next);
            let (path, hash) = (self.path.clone(), hashing.hash.clone());
            let read = move || {
                let read = hash_range(&path, hash, range.start, range.end - range.start);
                read.map_err(|error| disk::error("cannot read", &path, &error))
            };
            let (hash, bytes) = blocking(read).await?;
            hashing.hash = hash;
            hashing.bytes += bytes;
            hashing.next += 1;
        }
        Ok(())
    }

    /// Size in bytes and SHA-256 of what has been hashed.
    pub(super) async fn hash(&self) -> (u64, [u8; 32]) {
        let hashing = self.hashing.lock().await;
        (hashing.bytes, hashing.hash.clone().finalize().into())
    }

    /// Starts anew.
    pub(super) async fn forget(&self) {
        *self.hashing.lock().await = Hashing::default();
    }
}

fn hash_range(path: &Path, mut hash: Sha256, start: u64, most: u64) -> io::Result<(Sha256, u64)> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let bytes = io::copy(&mut file.take(most), &mut hash)?;
    Ok((hash, bytes))
}

/// A file that is being written.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    file: Arc<File>,
    path: PathBuf,
}

impl Writer {
    /// Writes at a place in the file.
    pub(super) async fn write(&self, chunks: Vec<Bytes>, mut at: u64) -> Result<(), FetchError> {
        let writer = self.clone();
        let write = move || {
            for chunk in chunks {
                let written = writer.file.write_all_at(&chunk, at);
                written.map_err(|error| disk::error("cannot write", &writer.path, &error))?;
                at += chunk.len() as u64;
            }
            Ok(())
        };
        blocking(write).await
    }

    /// Waits until everything is on disk.
    pub(super) async fn sync(&self) -> Result<(), FetchError> {
        let writer = self.clone();
        let sync = move || {
            let synced = writer.file.sync_data();
            synced.map_err(|error| disk::error("cannot sync", &writer.path, &error))
        };
        blocking(sync).await
    }

    /// Cuts off what a broken attempt may have written behind the end.
    pub(super) async fn truncate(&self, size: u64) -> Result<(), FetchError> {
        let writer = self.clone();
        let truncate = move || {
            let done = writer.file.set_len(size);
            done.map_err(|error| disk::error("cannot truncate", &writer.path, &error))
        };
        blocking(truncate).await
    }
}
