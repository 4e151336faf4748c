//! PNG of every kind; for an animated PNG, the still image. Of 16 bits, the higher eight are used. Pillow does this
//! for colours, but clips 16-bit grey at 255, which makes nearly every image white.

use super::orientation::orientation;
use super::png_metadata;
use super::stored::{Format, Limit, Problem, Stored};
use png::{DecodingError, Transformations};
use std::io::{Cursor, ErrorKind};

/// Memory for everything except pixels: rows that are being decoded, metadata.
const WORKING_MEMORY: usize = 64 << 20;

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    let limits = png::Limits {
        bytes: WORKING_MEMORY,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(explain)?;
    let size = limit.check(Format::Png, header.width, header.height)?;
    let mut reader = decoder.read_info().map_err(explain)?;
    let channels = reader.output_color_type().0.samples();
    let length = reader
        .output_buffer_size()
        .ok_or(Problem::TooMuchMemory(Format::Png))?;
    let mut samples = vec![0; length];
    reader.next_frame(&mut samples).map_err(explain)?;
    // The chunks after the pixels show whether the file is complete, and may contain the orientation.
    reader.finish().map_err(explain)?;
    let metadata = png_metadata::read(bytes);
    let orientation = orientation(metadata.exif.as_deref(), metadata.xmp.as_deref());
    Ok(Stored {
        size,
        channels,
        samples,
        orientation,
    })
}

fn explain(error: DecodingError) -> Problem {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Problem::Truncated(Format::Png)
        }
        DecodingError::LimitsExceeded => Problem::TooMuchMemory(Format::Png),
        other => Problem::Broken(Format::Png, other.to_string()),
    }
}
