//! GIF: the first frame, on its screen. As in Pillow, transparent pixels get their palette colour. Pixels outside the
//! frame get the transparent colour too, or colour 0 if no colour is transparent. A frame that is larger than its
//! screen enlarges it.

use super::stored::{Format, Limit, Problem, Stored};
use crate::package::manifest::Size;
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::metadata::Orientation;
use std::num::NonZeroU64;

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(NonZeroU64::new(limit.max).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    let mut decoder = options.read_info(bytes).map_err(explain)?;
    limit.check(Format::Gif, decoder.width(), decoder.height())?;
    let frame = decoder
        .next_frame_info()
        .map_err(explain)?
        .ok_or_else(|| Problem::Broken(Format::Gif, "it has no frame".to_owned()))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    let background = frame.transparent.unwrap_or(0);
    limit.check(Format::Gif, frame.width, frame.height)?;
    let size = limit.check(
        Format::Gif,
        usize::from(decoder.width()).max(left + width) as u64,
        usize::from(decoder.height()).max(top + height) as u64,
    )?;

    let mut indices = vec![0; width * height];
    decoder.read_into_buffer(&mut indices).map_err(explain)?;
    let palette = colors(decoder.palette().map_err(explain)?);
    let Size {
        width: row,
        height: rows,
    } = size;
    let mut pixels = vec![palette[usize::from(background)]; row as usize * rows as usize];
    for (line, indices) in pixels
        .chunks_exact_mut(row as usize)
        .skip(top)
        .zip(indices.chunks_exact(width))
    {
        for (pixel, &index) in line[left..].iter_mut().zip(indices) {
            *pixel = palette[usize::from(index)];
        }
    }
    Ok(Stored {
        size,
        channels: 3,
        samples: pixels.into_flattened(),
        orientation: Orientation::NoTransforms,
    })
}

/// The palette with 256 colours; an index beyond it is black.
fn colors(palette: &[u8]) -> [[u8; 3]; 256] {
    let mut colors = [[0; 3]; 256];
    for (color, &given) in colors.iter_mut().zip(palette.as_chunks::<3>().0) {
        *color = given;
    }
    colors
}

fn explain(error: DecodingError) -> Problem {
    match error {
        DecodingError::UnexpectedEof => Problem::Truncated(Format::Gif),
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Problem::Truncated(Format::Gif)
        }
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => Problem::TooMuchMemory(Format::Gif),
        other => Problem::Broken(Format::Gif, other.to_string()),
    }
}
