//! BMP: all kinds that contain pixels (some contain a JPEG or PNG instead).

use super::run_lengths;
use super::stored::{Format, Limit, Problem, Stored};
use image::codecs::bmp::BmpDecoder;
use image::metadata::Orientation;
use image::{ImageDecoder, ImageError};
use std::io::{Cursor, ErrorKind};

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let size = limit.check(Format::Bmp, width, height)?;
    let (channels, samples) = match run_lengths::Coding::of(bytes) {
        // The library makes pixels that a run-length code skips black.
        Some(coding) => (
            3,
            run_lengths::decode(bytes, coding, size, decoder.get_palette())?,
        ),
        None => {
            let channels = usize::from(decoder.color_type().channel_count());
            let mut samples = vec![0; size.width as usize * size.height as usize * channels];
            decoder.read_image(&mut samples).map_err(explain)?;
            (channels, samples)
        }
    };
    Ok(Stored {
        size,
        channels,
        samples,
        orientation: Orientation::NoTransforms,
    })
}

fn explain(error: ImageError) -> Problem {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Problem::Truncated(Format::Bmp)
        }
        ImageError::Unsupported(error) => Problem::Unsupported(Format::Bmp, error.to_string()),
        ImageError::Limits(_) => Problem::TooMuchMemory(Format::Bmp),
        other => Problem::Broken(Format::Bmp, other.to_string()),
    }
}
