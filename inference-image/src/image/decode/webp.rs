//! WebP, lossy and lossless; for an animated WebP, the first frame. The library gets only the chunk with the pixels:
//! otherwise it would allocate memory for whatever the headers of other chunks promise, and blend the frame with the
//! background, which Pillow does not do for the first frame. Pixels outside the frame are black, and alpha is
//! ignored.

use super::orientation::orientation;
use super::stored::{Format, Limit, Problem, Stored};
use super::webp_chunks::{Chunk, FRAME_HEAD, HEAD, next, number, whole};
use crate::package::manifest::Size;
use image_webp::{DecodingError, WebPDecoder};
use std::io::{Cursor, ErrorKind};

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    let file = whole(bytes)?;
    let parts = Parts::of(&file[HEAD..], limit)?;
    let orientation = orientation(parts.exif, parts.xmp);
    let (size, channels, samples) = pixels(parts.bitstream, limit)?;
    if let Some(said) = parts.frame.or(parts.canvas).filter(|&said| said != size) {
        let (width, height) = (said.width, said.height);
        return Err(broken(&format!(
            "its pixels are not {width}×{height}, as its header says"
        )));
    }
    let stored = Stored {
        size,
        channels,
        samples,
        orientation,
    };
    match parts.canvas {
        Some(canvas) if canvas != size => on_canvas(stored, canvas, parts.place),
        _ => Ok(stored),
    }
}

/// What is known before the pixels are decoded.
#[derive(Default)]
struct Parts<'a> {
    canvas: Option<Size>,
    /// Size of an animation's first frame, and its position: column and row.
    frame: Option<Size>,
    place: (usize, usize),
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
    bitstream: Option<Chunk<'a>>,
}

const ANIMATED: u8 = 0x02;
const WITH_XMP: u8 = 0x04;
const WITH_EXIF: u8 = 0x08;

impl<'a> Parts<'a> {
    fn of(mut chunks: &'a [u8], limit: Limit) -> Result<Self, Problem> {
        let mut parts = Self::default();
        // A file without the extended header has neither metadata nor frames.
        let mut flags = 0;
        while !chunks.is_empty() {
            let (chunk, rest) = next(chunks)?;
            let Chunk { name, content } = chunk;
            match name {
                b"VP8X" if parts.canvas.is_none() => {
                    flags = content.first().copied().unwrap_or(0);
                    parts.canvas = Some(size(content, 4, limit)?);
                }
                b"EXIF" if flags & WITH_EXIF != 0 => parts.exif = parts.exif.or(Some(content)),
                b"XMP " if flags & WITH_XMP != 0 => parts.xmp = parts.xmp.or(Some(content)),
                b"ANMF" if flags & ANIMATED != 0 && parts.frame.is_none() => {
                    parts.read_frame(content, limit)?
                }
                b"VP8 " | b"VP8L" if flags & ANIMATED == 0 => {
                    parts.bitstream = parts.bitstream.or(Some(chunk))
                }
                _ => {}
            }
            chunks = rest;
        }
        Ok(parts)
    }

    fn read_frame(&mut self, content: &'a [u8], limit: Limit) -> Result<(), Problem> {
        self.frame = Some(size(content, 6, limit)?);
        // In units of two.
        let place = |start| number(content, start, 3).map(|half| half as usize * 2);
        self.place = (place(0)?, place(3)?);
        let mut chunks = content.get(FRAME_HEAD..).unwrap_or_default();
        while self.bitstream.is_none() && !chunks.is_empty() {
            let (chunk, rest) = next(chunks)?;
            self.bitstream = matches!(chunk.name, b"VP8 " | b"VP8L").then_some(chunk);
            chunks = rest;
        }
        Ok(())
    }
}

/// Width and height, each stored in three bytes as one less.
fn size(content: &[u8], start: usize, limit: Limit) -> Result<Size, Problem> {
    let (width, height) = (number(content, start, 3)? + 1, number(content, start + 3, 3)? + 1);
    limit.check(Format::WebP, width, height)
}

/// Decodes the chunk as a file of its own; its size is checked first.
fn pixels(bitstream: Option<Chunk<'_>>, limit: Limit) -> Result<(Size, usize, Vec<u8>), Problem> {
    let Chunk { name, content } = bitstream.ok_or_else(|| broken("it has no pixels"))?;
    match name {
        b"VP8L" => {
            let sizes = number(content, 1, 4)?;
            check(limit, (sizes & 0x3FFF) + 1, ((sizes >> 14) & 0x3FFF) + 1)?;
        }
        _ => check(
            limit,
            number(content, 6, 2)? & 0x3FFF,
            number(content, 8, 2)? & 0x3FFF,
        )?,
    }
    // The chunk was in a file whose length has four bytes.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let padding = content.len() % 2;
    let head = [
        b"RIFF",
        &length(12 + content.len() + padding)[..],
        b"WEBP",
        name,
        &length(content.len()),
    ]
    .concat();
    let file = [&head, content, &[0][..padding]].concat();
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let size = limit.check(Format::WebP, width, height)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut samples = vec![0; size.width as usize * size.height as usize * channels];
    decoder.read_image(&mut samples).map_err(explain)?;
    Ok((size, channels, samples))
}

/// Places a frame on its canvas.
fn on_canvas(frame: Stored, canvas: Size, (left, top): (usize, usize)) -> Result<Stored, Problem> {
    let (width, height) = (canvas.width as usize, canvas.height as usize);
    let (columns, rows) = (frame.size.width as usize, frame.size.height as usize);
    if left + columns > width || top + rows > height {
        return Err(broken("a frame reaches beyond the canvas"));
    }
    let mut samples = vec![0; width * height * frame.channels];
    let lines = samples.chunks_exact_mut(width * frame.channels).skip(top);
    for (line, row) in lines.zip(frame.samples.chunks_exact(columns * frame.channels)) {
        line[left * frame.channels..][..row.len()].copy_from_slice(row);
    }
    Ok(Stored {
        size: canvas,
        samples,
        ..frame
    })
}

fn broken(what: &str) -> Problem {
    Problem::Broken(Format::WebP, what.to_owned())
}

fn check(limit: Limit, width: u64, height: u64) -> Result<(), Problem> {
    limit.check(Format::WebP, width, height).map(drop)
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

    // It is not enough to check the canvas: the decoder allocates memory for the frame.
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
