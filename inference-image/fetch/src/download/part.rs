//! Fetches one part: from where it broke off, where the source has ranges, until it is complete or given up.

use super::pace::Pace;
use super::plan::Part;
use super::progress::Progress;
use super::retry::Backoff;
use super::settings::Settings;
use super::target::Writer;
use crate::error::FetchError;
use crate::source::{Object, Source};
use bytes::Bytes;
use modelservice_contract::FetchReason;
use std::ops::Range;
use tokio::time::Instant;

/// Bytes are collected up to this size before they are written: a body comes in pieces of some kilobytes.
const BUFFER: u64 = 512 << 10;

/// What a part needs.
pub(super) struct Job<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) settings: &'a Settings,
    pub(super) progress: &'a Progress,
    pub(super) object: &'a Object,
    pub(super) writer: Writer,
}

impl Job<'_> {
    /// Fetches the part; returns where it ends.
    pub(super) async fn fetch(&self, part: &Part) -> Result<u64, FetchError> {
        let Range { start, end } = part.range;
        let mut backoff = Backoff::new(&self.settings.retries);
        let mut at = start;
        loop {
            let before = at;
            let Err(error) = self.attempt(&mut at, end).await else {
                return Ok(at);
            };
            if self.source.has_ranges() && self.object.size.is_some() {
                if at - before >= self.settings.retries.progress_bytes {
                    backoff.reset();
                }
            } else {
                self.progress.discard(at - start);
                at = start;
            }
            backoff.wait(self.named(error)).await?;
        }
    }

    /// Reads and writes from `at` on, which moves along with what is written.
    async fn attempt(&self, at: &mut u64, end: u64) -> Result<(), FetchError> {
        let mut pace = Pace::new(&self.settings.slowest);
        let mut body = pace.answer(self.source.read(self.object, *at..end)).await?;
        let mut buffer = Buffer::default();
        let ended = loop {
            match pace.next(&mut body).await {
                Ok(Some(bytes)) => {
                    if bytes.len() as u64 > end - *at - buffer.bytes {
                        break Err(FetchError::unavailable(format!(
                            "the source sent more than the {} bytes that it was asked for",
                            end - *at
                        )));
                    }
                    buffer.push(bytes);
                    if buffer.bytes >= BUFFER {
                        let begun = Instant::now();
                        self.write(&mut buffer, at).await?;
                        pace.resume(begun);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.write(&mut buffer, at).await?;
        ended?;
        match self.object.size {
            Some(_) if *at < end => Err(FetchError::unavailable(format!(
                "the source ended its answer {} bytes too early",
                end - *at
            ))),
            Some(_) => Ok(()),
            None => self.writer.truncate(*at).await,
        }
    }

    async fn write(&self, buffer: &mut Buffer, at: &mut u64) -> Result<(), FetchError> {
        let Buffer { chunks, bytes } = std::mem::take(buffer);
        self.writer.write(chunks, *at).await?;
        *at += bytes;
        self.progress.receive(bytes);
        let most = self.settings.maximum_bytes;
        if self.progress.bytes() > most {
            return Err(FetchError::new(FetchReason::PackageInvalid, too_large(most)));
        }
        Ok(())
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
