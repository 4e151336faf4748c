//! WebP, lossy and lossless; of an animated one the first frame. Chunks are walked through first: the decoder
//! takes memory for what a chunk's header promises, without asking whether it is there or fits the canvas.

use super::{Format, Limit, Problem, Stored, orientation};
use image_webp::{DecodingError, WebPDecoder};
use std::io::{Cursor, ErrorKind};

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    let file = whole(bytes)?;
    check_sizes(&file[HEAD..], limit)?;
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let size = limit.check(Format::WebP, width, height)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut samples = vec![0; size.width as usize * size.height as usize * channels];
    decoder.read_image(&mut samples).map_err(explain)?;
    let exif = decoder.exif_metadata().map_err(explain)?;
    Ok(Stored {
        size,
        channels,
        samples,
        orientation: orientation(exif.as_deref()),
    })
}

/// `RIFF`, the size of what follows, `WEBP`.
const HEAD: usize = 12;
/// What stands before the chunks of an animation's frame.
const FRAME_HEAD: usize = 16;

/// The file without what may follow it.
fn whole(bytes: &[u8]) -> Result<&[u8], Problem> {
    let size = number(bytes, 4, 4)?;
    let file = usize::try_from(size + 8).ok().and_then(|end| bytes.get(..end));
    file.filter(|file| file.len() >= HEAD)
        .ok_or(Problem::Truncated(Format::WebP))
}

/// The sizes in the headers of the canvas, the image, and the first frame of an animation.
fn check_sizes(mut chunks: &[u8], limit: Limit) -> Result<(), Problem> {
    let mut frame_seen = false;
    while !chunks.is_empty() {
        let (Chunk { name, content }, rest) = next(chunks)?;
        match name {
            b"VP8X" => check(limit, number(content, 4, 3)? + 1, number(content, 7, 3)? + 1)?,
            b"VP8 " => check(
                limit,
                number(content, 6, 2)? & 0x3FFF,
                number(content, 8, 2)? & 0x3FFF,
            )?,
            b"VP8L" => {
                let sizes = number(content, 1, 4)?;
                check(limit, (sizes & 0x3FFF) + 1, ((sizes >> 14) & 0x3FFF) + 1)?;
            }
            b"ANMF" if !frame_seen => {
                frame_seen = true;
                check(limit, number(content, 6, 3)? + 1, number(content, 9, 3)? + 1)?;
                check_sizes(content.get(FRAME_HEAD..).unwrap_or_default(), limit)?;
            }
            _ => {}
        }
        chunks = rest;
    }
    Ok(())
}

fn check(limit: Limit, width: u64, height: u64) -> Result<(), Problem> {
    limit.check(Format::WebP, width, height).map(drop)
}

struct Chunk<'a> {
    name: &'a [u8],
    content: &'a [u8],
}

/// The first chunk, and what follows it; the byte that makes its length even may be missing at the end.
fn next(chunks: &[u8]) -> Result<(Chunk<'_>, &[u8]), Problem> {
    let length = usize::try_from(number(chunks, 4, 4)?).unwrap_or(usize::MAX);
    let (head, rest) = chunks.split_at(8);
    let content = rest.get(..length).ok_or(Problem::Truncated(Format::WebP))?;
    let chunk = Chunk {
        name: &head[..4],
        content,
    };
    Ok((chunk, rest.get(length + length % 2..).unwrap_or_default()))
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], start: usize, length: usize) -> Result<u64, Problem> {
    let bytes = bytes
        .get(start..start + length)
        .ok_or(Problem::Truncated(Format::WebP))?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte)))
}

fn explain(error: DecodingError) -> Problem {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Problem::Truncated(Format::WebP)
        }
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => {
            Problem::TooMuchMemory(Format::WebP)
        }
        DecodingError::UnsupportedFeature(what) => Problem::Unsupported(Format::WebP, what),
        other => Problem::Broken(Format::WebP, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [name, &length[..], content, &vec![0; content.len() % 2]].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
    }

    fn problem(chunks: &[Vec<u8>]) -> String {
        let Err(problem) = decode(&file(chunks), Limit { max: 1000 }) else {
            unreachable!()
        };
        problem.to_string()
    }

    /// 16383×16383 pixels of a key frame.
    const LARGE: [u8; 10] = [0x10, 0, 0, 0x9D, 0x01, 0x2A, 0xFF, 0x3F, 0xFF, 0x3F];

    // The canvas is what a careful server looks at; the decoder takes memory for the frame.
    #[test]
    fn a_frame_larger_than_its_canvas_is_refused_by_its_header() {
        let canvas = |flags: u8| chunk(b"VP8X", &[flags, 0, 0, 0, 9, 0, 0, 9, 0, 0]);
        let frame = chunk(b"VP8 ", &LARGE);
        let animation = [&[0; FRAME_HEAD][..], &frame].concat();
        for chunks in [
            vec![frame.clone()],
            vec![canvas(0), frame],
            vec![canvas(2), chunk(b"ANIM", &[0; 6]), chunk(b"ANMF", &animation)],
        ] {
            let problem = problem(&chunks);
            assert!(problem.contains("16383×16383"), "{problem}");
        }
    }

    #[test]
    fn metadata_that_is_not_there_is_not_waited_for() {
        let mut exif = chunk(b"EXIF", b"II");
        exif[4..8].copy_from_slice(&0xFFFF_FFF0_u32.to_le_bytes());
        let canvas = chunk(b"VP8X", &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(problem(&[canvas, exif]).contains("truncated"));
    }
}
