//! JPEG: baseline and progressive, 8 bits; grey, YCbCr, RGB, and CMYK and YCCK with inverted values, as Adobe
//! stores them and Pillow takes all of them to be.

use super::{Format, Limit, Problem, Stored, orientation};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    if !ends(bytes) {
        return Err(Problem::Truncated(Format::Jpeg));
    }
    check_process(bytes)?;
    // The pixels are limited below, not the sides.
    let options = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(explain)?;
    let info = decoder
        .info()
        .ok_or_else(|| broken("it has no header".to_owned()))?;
    let size = limit.check(Format::Jpeg, info.width, info.height)?;
    let (space, channels) = match (decoder.input_colorspace(), info.components) {
        (Some(ColorSpace::Luma), 1) => (ColorSpace::Luma, 1),
        (Some(ColorSpace::YCbCr | ColorSpace::RGB | ColorSpace::YCCK), 3)
        | (Some(ColorSpace::CMYK | ColorSpace::YCCK), 4) => (ColorSpace::RGB, 3),
        (_, components) => return Err(unsupported(format!("{components} components of this kind"))),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut samples = vec![0; size.width as usize * size.height as usize * channels];
    decoder.decode_into(&mut samples).map_err(explain)?;
    Ok(Stored {
        size,
        channels,
        samples,
        orientation: orientation(decoder.exif().map(Vec::as_slice)),
    })
}

/// Whether an end-of-image marker follows the last scan: the decoder fills a truncated image with grey instead
/// of refusing it. The thumbnail in a file's head ends with the same marker, but is followed by scans; in a
/// scan's data 0xFF stands before no byte that could be mistaken for a marker's.
fn ends(bytes: &[u8]) -> bool {
    let end = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xD9]);
    end.is_some_and(|end| !bytes[end..].windows(2).any(|pair| pair == [0xFF, 0xDA]))
}

/// The marker that names the coding process, and the bits of a sample; `None` if there is none in the header.
fn process(bytes: &[u8]) -> Option<(u8, u8)> {
    let mut rest = bytes.get(2..)?;
    loop {
        let marker = match rest {
            [0xFF, 0xFF, ..] => {
                rest = &rest[1..];
                continue;
            }
            [0xFF, marker, ..] => *marker,
            _ => return None,
        };
        // Three numbers among those of the processes are for tables and an extension.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
            return Some((marker, *rest.get(4)?));
        }
        let length = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]);
        rest = rest.get(2 + usize::from(length)..)?;
    }
}

/// The decoder skips a frame of a process that it does not know, and then finds none.
fn check_process(bytes: &[u8]) -> Result<(), Problem> {
    match process(bytes) {
        Some((0xC0..=0xC2, 8)) | None => Ok(()),
        Some((0xC0..=0xC2, bits)) => Err(unsupported(format!("{bits} bits per sample"))),
        Some((0xC9 | 0xCA | 0xCB | 0xCD..=0xCF, _)) => Err(unsupported("arithmetic coding".to_owned())),
        Some(_) => Err(unsupported("lossless or hierarchical coding".to_owned())),
    }
}

fn explain(error: DecodeErrors) -> Problem {
    match error {
        DecodeErrors::Unsupported(scheme) => unsupported(format!("{scheme:?}")),
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => Problem::Truncated(Format::Jpeg),
        DecodeErrors::Format(what) => broken(what),
        DecodeErrors::FormatStatic(what) => broken(what.to_owned()),
        other => broken(other.to_string()),
    }
}

fn broken(what: String) -> Problem {
    Problem::Broken(Format::Jpeg, what)
}

fn unsupported(what: String) -> Problem {
    Problem::Unsupported(Format::Jpeg, what)
}

#[cfg(test)]
mod tests {
    use super::{ends, process};

    #[test]
    fn an_image_ends_after_its_last_scan() {
        let (scan, end) = ([0xFF, 0xDA, 1, 2], [0xFF, 0xD9]);
        assert!(ends(&[&scan[..], &end, &[0, 0]].concat()));
        assert!(
            !ends(&[&scan[..], &end, &scan].concat()),
            "only the thumbnail ends"
        );
        assert!(!ends(&scan) && !ends(&[]));
    }

    #[test]
    fn the_coding_process_stands_in_the_first_frame_header() {
        let comment = [0xFF, 0xFE, 0, 4, 0xFF, 0xC0];
        let frame = [0xFF, 0xFF, 0xC9, 0, 11, 12];
        let image = [&[0xFF, 0xD8][..], &comment, &frame].concat();
        assert_eq!(process(&image), Some((0xC9, 12)));
        assert_eq!(process(&image[..8]), None);
        assert_eq!(process(&[0xFF, 0xD8, 0xFF, 0xFE, 0, 0]), None);
    }
}
