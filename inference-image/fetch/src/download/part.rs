//! Fetches one part: from where it broke off, where the source has ranges, until it is complete or given up.

use super::journal::Journal;
use super::pace::Pace;
use super::plan::{Division, Part};
use super::progress::Progress;
use super::retry::Backoff;
use super::settings::Settings;
use super::target::{Target, Writer};
use crate::disk;
use crate::error::FetchError;
use crate::source::{Object, Source};
use bytes::Bytes;
use modelservice_contract::FetchReason;
use std::ops::Range;
use tokio::time::Instant;

/// Bytes are collected up to this size before they are written: a body comes in pieces of some kilobytes.
const BUFFER: u64 = 1 << 20;

/// What a part needs.
pub(super) struct Job<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) settings: &'a Settings,
    pub(super) progress: &'a Progress,
    pub(super) division: Division,
    pub(super) journal: &'a Journal,
    pub(super) object: &'a Object,
    pub(super) target: &'a Target,
    pub(super) writer: Writer,
}

/// How far a part is.
struct Position {
    /// Index of the object.
    object: usize,
    /// The next byte.
    at: u64,
    /// The block that is complete next.
    block: u64,
    /// Behind its last block.
    blocks_end: u64,
    /// Behind its last byte.
    end: u64,
}

impl Job<'_> {
    /// Fetches the part.
    pub(super) async fn fetch(&self, part: &Part) -> Result<(), FetchError> {
        let Range { start, end } = part.blocks;
        let mut backoff = Backoff::new(&self.settings.retries);
        let mut position = Position {
            object: part.object,
            at: self.division.block(self.object, start).start,
            block: start,
            blocks_end: end,
            end: self.division.block(self.object, end - 1).end,
        };
        loop {
            let before = position.at;
            let Err(error) = self.attempt(&mut position).await else {
                return Ok(());
            };
            if self.division.is_divided(self.object) {
                if position.at - before >= self.settings.retries.progress_bytes {
                    backoff.reset();
                }
            } else {
                self.progress.discard(position.at);
                position.at = 0;
            }
            backoff.wait(self.named(error)).await?;
        }
    }

    /// Reads and writes from the position on, which moves along with what is written.
    async fn attempt(&self, position: &mut Position) -> Result<(), FetchError> {
        let mut pace = Pace::new(&self.settings.slowest);
        let request = self.source.read(self.object, position.at..position.end);
        let mut body = pace.answer(request).await?;
        let mut buffer = Buffer::default();
        let ended = loop {
            match pace.next(&mut body).await {
                Ok(Some(bytes)) => {
                    if bytes.len() as u64 > position.end - position.at - buffer.bytes {
                        return Err(self.rewind(position, &buffer));
                    }
                    buffer.push(bytes);
                    if buffer.bytes >= BUFFER || position.at + buffer.bytes >= self.block_end(position) {
                        let begun = Instant::now();
                        self.write(&mut buffer, position).await?;
                        pace.resume(begun);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.write(&mut buffer, position).await?;
        match self.object.size {
            Some(_) if position.at == position.end => {}
            Some(_) => {
                let missing = position.end - position.at;
                let early = format!("the source ended its answer {missing} bytes too early");
                return Err(ended.err().unwrap_or_else(|| FetchError::unavailable(early)));
            }
            None => {
                ended?;
                self.writer.truncate(position.at).await?;
            }
        }
        // Only now is it known that nothing follows.
        self.complete(position).await
    }

    /// The source sent more than it was asked for: nothing of the last block can be trusted.
    fn rewind(&self, position: &mut Position, buffer: &Buffer) -> FetchError {
        self.progress.receive(buffer.bytes);
        let start = self.division.block(self.object, position.block).start;
        self.progress.discard(buffer.bytes + position.at - start);
        position.at = start;
        let asked = position.end - start;
        FetchError::unavailable(format!(
            "the source sent more than the {asked} bytes that it was asked for"
        ))
    }

    async fn write(&self, buffer: &mut Buffer, position: &mut Position) -> Result<(), FetchError> {
        let Buffer { chunks, bytes } = std::mem::take(buffer);
        if bytes == 0 {
            return Ok(());
        }
        self.writer.write(chunks, position.at).await?;
        position.at += bytes;
        self.progress.receive(bytes);
        while position.block + 1 < position.blocks_end && self.block_end(position) <= position.at {
            self.complete(position).await?;
        }
        let most = self.settings.maximum_bytes;
        if self.progress.bytes() > most {
            return Err(FetchError::new(FetchReason::PackageInvalid, too_large(most)));
        }
        Ok(())
    }

    fn block_end(&self, position: &Position) -> u64 {
        self.division.block(self.object, position.block).end
    }

    /// The next block is complete.
    async fn complete(&self, position: &mut Position) -> Result<(), FetchError> {
        self.writer.sync().await?;
        let written = self.journal.complete(position.object, position.block);
        written.map_err(|error| disk::error("cannot write beside", &self.target.path, &error))?;
        let completed = self.target.complete(self.division, self.object, position.block);
        position.block += 1;
        completed.await
    }

    fn named(&self, error: FetchError) -> FetchError {
        FetchError {
            message: format!("{}: {}", self.object.key, error.message),
            ..error
        }
    }
}

/// Bytes that wait to be written.
#[derive(Default)]
struct Buffer {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl Buffer {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len() as u64;
        self.chunks.push(bytes);
    }
}

/// Of a model that has more than the allowed bytes.
pub(super) fn too_large(most: u64) -> String {
    format!(
        "the model has more than {most} bytes: raise the limit on its size, or find out why it is so large"
    )
}
