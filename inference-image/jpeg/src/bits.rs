//! The bits of a scan's data.

use crate::Error;
use crate::segments::{Segments, marker};

/// Reads bits up to the next marker. After it come zeros, which `overrun` detects.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    place: usize,
    /// The next bits, starting with the highest; those after `count` bits are zero.
    reservoir: u64,
    count: u32,
    /// How many of them are not from the file.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(segments: &Segments<'a>) -> Self {
        Self {
            bytes: segments.bytes,
            place: segments.place,
            reservoir: 0,
            count: 0,
            padding: 0,
        }
    }

    /// Makes sure that 32 bits are there: a code of at most 16 bits and the number after it.
    #[inline(always)]
    pub(crate) fn fill(&mut self) {
        if self.count < 32 {
            self.refill();
        }
    }

    #[inline(always)]
    fn refill(&mut self) {
        if let Some(next) = self.bytes[self.place..].first_chunk::<8>() {
            let word = u64::from_be_bytes(*next);
            if !has_marker(word) {
                let bytes = (64 - self.count) / 8;
                self.reservoir |= word >> (64 - 8 * bytes) << (64 - 8 * bytes - self.count);
                self.count += 8 * bytes;
                self.place += bytes as usize;
                return;
            }
        }
        self.refill_bytewise();
    }

    #[cold]
    fn refill_bytewise(&mut self) {
        while self.count <= 56 {
            let byte = self.byte();
            self.padding += if byte.is_none() { 8 } else { 0 };
            self.reservoir |= u64::from(byte.unwrap_or(0)) << (56 - self.count);
            self.count += 8;
        }
    }

    /// `None` at a marker, which is not consumed. A zero after 0xFF means that it is not a marker.
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.place)?;
        if byte == 0xFF {
            let rest = &self.bytes[self.place..];
            let code = rest.iter().position(|&byte| byte != 0xFF)?;
            if rest[code] != 0 {
                return None;
            }
            self.place += code;
        }
        self.place += 1;
        Some(byte)
    }

    /// The next `count` bits, at most 32, without consuming them.
    #[inline(always)]
    pub(crate) fn peek(&self, count: u32) -> usize {
        (self.reservoir >> 1 >> (63 - count)) as usize
    }

    #[inline(always)]
    pub(crate) fn skip(&mut self, count: u32) {
        self.reservoir <<= count;
        self.count -= count;
    }

    /// At most 16 bits, which `fill` must have provided.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: u32) -> i32 {
        let bits = self.peek(count);
        self.skip(count);
        bits as i32
    }

    #[inline(always)]
    pub(crate) fn bit(&mut self) -> bool {
        self.fill();
        self.take(1) == 1
    }

    /// A number of `size` bits, whose first bit gives the sign (F.2.2.1 of the specification).
    #[inline(always)]
    pub(crate) fn number(&mut self, size: u32) -> i32 {
        let bits = self.take(size);
        let negative = (bits < (1 << size >> 1)) as i32;
        bits - negative * ((1 << size) - 1)
    }

    /// Whether bits were consumed that are not in the file.
    #[inline(always)]
    pub(crate) fn overrun(&self) -> bool {
        self.count < self.padding
    }

    /// The error for such bits: the file or the scan is truncated.
    pub(crate) fn missing(&self) -> Error {
        match self.bytes.get(self.place..) {
            Some([] | [0xFF]) | None => Error::Truncated,
            Some(_) => Error::Broken("a scan ends before its last block"),
        }
    }

    /// Consumes the restart marker with this number, 0 to 7, and starts over after it.
    pub(crate) fn restart(&mut self, number: u8) -> Result<(), Error> {
        let mut segments = self.rest();
        if segments.marker()? != marker::RST0 + number {
            return Err(Error::Broken("a restart marker is missing"));
        }
        *self = Self::new(&segments);
        Ok(())
    }

    /// What follows; bits are never read ahead beyond a marker.
    pub(crate) fn rest(&self) -> Segments<'a> {
        Segments {
            bytes: self.bytes,
            place: self.place,
        }
    }
}

/// Whether one of the eight bytes is 0xFF.
#[inline(always)]
fn has_marker(word: u64) -> bool {
    let zeros = !word;
    zeros.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 != 0
}
