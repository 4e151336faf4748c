//! Bytes to pixels: JPEG and PNG, told apart by their first bytes. Limits hold before memory is taken.

use super::pixels::Pixels;
use crate::package::manifest::{ColorOrder, Size};
use crate::scheduling::{InputError, InputProblem};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// Decodes to one or three channels; alpha is dropped, EXIF orientation applied.
pub(super) fn decode(bytes: &[u8], order: ColorOrder, max_pixels: u64) -> Result<Pixels, InputError> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => format,
        _ => {
            return Err(error(
                InputProblem::Unsupported,
                "the body is neither a JPEG nor a PNG image".to_owned(),
            ));
        }
    };
    if format == ImageFormat::Jpeg && !ends(bytes) {
        return Err(error(
            InputProblem::Malformed,
            "the JPEG image is truncated".to_owned(),
        ));
    }
    let image = read(bytes, format, max_pixels)?;
    let size = Size {
        width: image.width(),
        height: image.height(),
    };
    Ok(match order {
        ColorOrder::Gray => Pixels::new(size, 1, image.into_luma8().into_raw()),
        ColorOrder::Rgb | ColorOrder::Bgr => Pixels::new(size, 3, image.into_rgb8().into_raw()),
    })
}

fn read(bytes: &[u8], format: ImageFormat, max_pixels: u64) -> Result<DynamicImage, InputError> {
    let broken = |problem: ImageError| explain(&problem);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    // Eight bytes are the largest pixel that is decoded (16-bit RGBA); the rest is for the decoder itself.
    limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(16 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        let message =
            format!("the image has {width}×{height} pixels, this server takes at most {max_pixels} pixels");
        return Err(error(InputProblem::TooLarge, message));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether the last scan of a JPEG is followed by the end-of-image marker: the decoder fills a truncated
/// image with grey instead of refusing it. In a scan's data, 0xFF is never followed by 0xD9.
fn ends(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    match (last([0xFF, 0xDA]), last([0xFF, 0xD9])) {
        (Some(scan), Some(end)) => end > scan,
        _ => false,
    }
}

fn explain(problem: &ImageError) -> InputError {
    match problem {
        ImageError::Limits(_) => error(
            InputProblem::TooLarge,
            format!("the image is too large: {problem}"),
        ),
        ImageError::Unsupported(_) => error(
            InputProblem::Unsupported,
            format!("the image cannot be decoded: {problem}"),
        ),
        _ => error(InputProblem::Malformed, format!("the image is broken: {problem}")),
    }
}

fn error(problem: InputProblem, message: String) -> InputError {
    InputError { problem, message }
}
