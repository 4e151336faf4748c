//! The structure of a WebP file: a list of chunks, some of which hold chunks.

use super::stored::{Format, Problem};

/// `RIFF`, the size of what follows, `WEBP`.
pub(super) const HEAD: usize = 12;
/// Bytes before the chunks of an animation's frame.
pub(super) const FRAME_HEAD: usize = 16;

/// The file without any bytes that follow it.
pub(super) fn whole(bytes: &[u8]) -> Result<&[u8], Problem> {
    let size = number(bytes, 4, 4)?;
    let file = usize::try_from(size + 8).ok().and_then(|end| bytes.get(..end));
    file.filter(|file| file.len() >= HEAD)
        .ok_or(Problem::Truncated(Format::WebP))
}

#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) name: &'a [u8],
    pub(super) content: &'a [u8],
}

/// The first chunk, and what follows it; the padding byte may be missing at the end.
pub(super) fn next(chunks: &[u8]) -> Result<(Chunk<'_>, &[u8]), Problem> {
    let length = usize::try_from(number(chunks, 4, 4)?).unwrap_or(usize::MAX);
    let (head, rest) = chunks.split_at(8);
    let content = rest.get(..length).ok_or(Problem::Truncated(Format::WebP))?;
    let chunk = Chunk {
        name: &head[..4],
        content,
    };
    Ok((chunk, rest.get(length + length % 2..).unwrap_or_default()))
}

/// A little-endian number of this many bytes.
pub(super) fn number(bytes: &[u8], start: usize, length: usize) -> Result<u64, Problem> {
    let bytes = bytes
        .get(start..start + length)
        .ok_or(Problem::Truncated(Format::WebP))?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte)))
}
