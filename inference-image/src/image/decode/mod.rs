//! Bytes to pixels: the first bytes say the format, the header says the size, and both are checked before memory is
//! taken. Each format is a module. Where decoders differ, this one does what Pillow does, since most models are
//! trained on its pixels: alpha is dropped without being multiplied, and colour profiles and gamma are ignored.

mod bmp;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod png_metadata;
mod run_lengths;
mod stored;
mod webp;
mod webp_chunks;

use super::pixels::Pixels;
use crate::package::manifest::{ColorOrder, Size};
use crate::tensor::InputError;
use image::DynamicImage;
use image::metadata::Orientation;
use stored::{Format, Limit, Problem};

/// Decodes to one or three channels, as `order` requires, and rotates as EXIF says.
pub(super) fn decode(bytes: &[u8], order: ColorOrder, max_pixels: u64) -> Result<Pixels, InputError> {
    let limit = Limit { max: max_pixels };
    let stored = match Format::of(bytes) {
        Some(Format::Jpeg) => jpeg::decode(bytes, limit)?,
        Some(Format::Png) => png::decode(bytes, limit)?,
        Some(Format::WebP) => webp::decode(bytes, limit)?,
        Some(Format::Gif) => gif::decode(bytes, limit)?,
        Some(Format::Bmp) => bmp::decode(bytes, limit)?,
        None if bytes.is_empty() => return Err(Problem::Empty.into()),
        None => return Err(Problem::Unknown.into()),
    };
    let orientation = stored.orientation;
    let samples = without_alpha(stored.samples, stored.channels);
    let grey = stored.channels <= 2;
    let pixels = match (order, grey) {
        (ColorOrder::Gray, true) => Pixels::new(stored.size, 1, samples),
        (ColorOrder::Gray, false) => Pixels::new(stored.size, 1, luma(&samples)),
        (ColorOrder::Rgb | ColorOrder::Bgr, true) => Pixels::new(stored.size, 3, tripled(&samples)),
        (ColorOrder::Rgb | ColorOrder::Bgr, false) => Pixels::new(stored.size, 3, samples),
    };
    Ok(turned(pixels, orientation))
}

/// Removes the alpha samples, in place.
fn without_alpha(mut samples: Vec<u8>, channels: usize) -> Vec<u8> {
    if !channels.is_multiple_of(2) {
        return samples;
    }
    let pixels = samples.len() / channels;
    for pixel in 1..pixels {
        let from = pixel * channels;
        samples.copy_within(from..from + channels - 1, pixel * (channels - 1));
    }
    samples.truncate(pixels * (channels - 1));
    samples
}

fn tripled(grey: &[u8]) -> Vec<u8> {
    let mut pixels = vec![0; grey.len() * 3];
    for (pixel, &value) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(grey) {
        *pixel = [value; 3];
    }
    pixels
}

/// ITU-R 601 luma in 16-bit fixed point, with Pillow's factors and rounding.
fn luma(rgb: &[u8]) -> Vec<u8> {
    let weighted = |&[red, green, blue]: &[u8; 3]| {
        (u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16
    };
    // The factors add up to 2^16, so the result fits into a byte.
    #[allow(clippy::cast_possible_truncation)]
    let byte = |pixel| weighted(pixel) as u8;
    rgb.as_chunks::<3>().0.iter().map(byte).collect()
}

fn turned(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let (Size { width, height }, channels) = (pixels.size(), pixels.channels());
    let bytes = pixels.into_bytes();
    let image = if channels == 1 {
        image::GrayImage::from_raw(width, height, bytes).map(DynamicImage::from)
    } else {
        image::RgbImage::from_raw(width, height, bytes).map(DynamicImage::from)
    };
    // This never fails: the buffer was made for this size.
    let mut image = image.unwrap_or_default();
    image.apply_orientation(orientation);
    let size = Size {
        width: image.width(),
        height: image.height(),
    };
    Pixels::new(size, channels, image.into_bytes())
}
