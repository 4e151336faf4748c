//! Where the bytes of a body are collected: one buffer whose tensors are aligned, within its limit and its
//! reservation of memory.

use super::zero_copy::ZeroCopyBody;
use crate::tensor::aligned;
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reservations are counted in blocks of this size, since a semaphore counts in 32 bits.
const BLOCK: usize = 4096;

/// Blocks for this many bytes.
pub(super) fn blocks(length: usize) -> u32 {
    u32::try_from(length / BLOCK + 1).unwrap_or(u32::MAX)
}

/// A part of the memory for bodies; released when this is dropped.
pub(crate) struct Reservation {
    blocks: Arc<Semaphore>,
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    pub(super) const fn new(blocks: Arc<Semaphore>, permit: OwnedSemaphorePermit) -> Self {
        Self { blocks, permit }
    }

    /// Reserved bytes, at least as many as the body has.
    pub(crate) fn bytes(&self) -> usize {
        self.permit.num_permits() * BLOCK
    }

    /// Additional blocks that a body of this length needs.
    fn missing(&self, length: usize) -> u32 {
        let missing = (blocks(length) as usize).saturating_sub(self.permit.num_permits());
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Reserves the additional memory for a body of this length, if it is available.
    fn grow(&mut self, length: usize) -> Result<(), Full> {
        let more = Arc::clone(&self.blocks).try_acquire_many_owned(self.missing(length));
        self.permit.merge(more.map_err(|_| Full::Memory)?);
        Ok(())
    }

    /// The same, once it is available.
    async fn grown(&mut self, length: usize) -> Result<(), Full> {
        let more = Arc::clone(&self.blocks).acquire_many_owned(self.missing(length));
        self.permit.merge(more.await.map_err(|_| Full::Memory)?);
        Ok(())
    }
}

/// Why no more bytes are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The body has its maximum size.
    Limit,
    /// Other bodies take up all memory for bodies.
    Memory,
}

/// The buffer; its byte at `aligned_at` is [`aligned`].
pub(crate) struct Sink {
    buffer: BytesMut,
    aligned_at: usize,
    limit: usize,
    room: Reservation,
}

impl Sink {
    /// A buffer for `expected` bytes that may grow up to `limit`. It is contiguous from the start, but reserves and
    /// uses memory only as bytes arrive: a client that announces a large body and sends nothing does not block
    /// others.
    pub(super) fn new(expected: usize, aligned_at: usize, limit: usize, room: Reservation) -> Self {
        let buffer = aligned(expected, aligned_at);
        Self {
            buffer,
            aligned_at,
            limit,
            room,
        }
    }

    /// Waits until there is memory for `more` bytes.
    pub(super) async fn reserve(&mut self, more: usize) -> Result<(), Full> {
        let length = (self.buffer.len() + more).min(self.limit);
        if self.room.missing(length) > 0 {
            // Doubling the reservation needs few steps.
            let step = (self.buffer.len() * 2).min(self.buffer.capacity());
            self.room.grown(length.max(step)).await?;
        }
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Appends what can be read of a body of the expected length, up to the reserved memory; 0 at its end.
    pub(super) async fn append(&mut self, body: &ZeroCopyBody) -> io::Result<usize> {
        let room = self.room.bytes() - self.buffer.len();
        body.append(&mut self.buffer, room).await
    }

    /// Appends; without a copy as long as no more than expected arrives.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Full> {
        let length = self.buffer.len() + data.len();
        if length > self.limit {
            return Err(Full::Limit);
        }
        self.room.grow(length)?;
        if length > self.buffer.capacity() {
            let capacity = (self.buffer.capacity() * 2).clamp(length, self.limit);
            let mut larger = aligned(capacity, self.aligned_at);
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// The bytes and their reservation, which lasts as long as any part of them, or the reservation itself, exists.
    pub(crate) fn finish(self) -> (Bytes, Arc<Reservation>) {
        let room = Arc::new(self.room);
        let accounted = Accounted {
            buffer: self.buffer,
            _room: Arc::clone(&room),
        };
        (Bytes::from_owner(accounted), room)
    }
}

/// Bytes with their reservation: a queued job may outlive its request.
struct Accounted {
    buffer: BytesMut,
    _room: Arc<Reservation>,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tensor::ALIGNMENT;

    fn sink(expected: usize, aligned_at: usize, limit: usize, memory: usize) -> Sink {
        let all = Arc::new(Semaphore::new(blocks(memory) as usize));
        let permit = Arc::clone(&all).try_acquire_many_owned(blocks(expected)).unwrap();
        Sink::new(expected, aligned_at, limit, Reservation::new(all, permit))
    }

    /// ONNX Runtime's kernels need aligned tensors; one that is not would be copied for each request.
    #[test]
    fn the_wanted_byte_is_aligned_also_after_the_buffer_has_grown() {
        for aligned_at in [0, 1, 63, 64, 187] {
            let mut sink = sink(200, aligned_at, 100_000, 1 << 20);
            let mut expected = Vec::new();
            for part in 0..100_u8 {
                sink.push(&[part; 97]).unwrap();
                expected.extend_from_slice(&[part; 97]);
            }
            let (bytes, _room) = sink.finish();
            assert_eq!(bytes, expected);
            assert_eq!((bytes[aligned_at..].as_ptr() as usize) % ALIGNMENT, 0);
        }
    }

    #[test]
    fn it_takes_no_more_than_the_limit_and_the_memory_allow() {
        let mut small = sink(10, 0, 20, 1 << 20);
        assert_eq!(small.push(&[0; 20]), Ok(()));
        assert_eq!(small.push(&[0]), Err(Full::Limit));
        let mut crowded = sink(10, 0, 1 << 20, 3 * BLOCK);
        assert_eq!(crowded.push(&[0; 2 * BLOCK]), Ok(()));
        assert_eq!(crowded.push(&[0; 4 * BLOCK]), Err(Full::Memory));
    }
}
