//! Reads request bodies within limits: on the size of one body, on the memory for all bodies, and on time.

mod budget;
pub(super) mod compression;
mod discard;
mod encoding;
pub(super) mod frames;
mod read;
mod sink;
#[cfg(test)]
mod tests;
pub(super) mod zero_copy;

pub(super) use budget::Budget;
pub(crate) use discard::{DISCARD_TIME, discard};
pub(super) use encoding::{Decoder, Encoding};
pub(super) use read::{ReadOptions, Received, next};
pub(super) use sink::Reservation;
pub(crate) use zero_copy::{ZeroCopyBody, ZeroCopySource};
