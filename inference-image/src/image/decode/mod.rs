//! Bytes to pixels: the first bytes say the format, the header says the size, and both are checked before
//! memory is taken. Each format is a module. Where decoders differ, Pillow is followed, with whose pixels most
//! models are trained: alpha is dropped and not multiplied with, colour profiles and gamma are ignored.

mod bmp;
mod gif;
mod jpeg;
mod png;
mod webp;

use super::pixels::Pixels;
use crate::package::manifest::{ColorOrder, Size};
use crate::tensor::{InputError, InputProblem};
use image::DynamicImage;
use image::metadata::Orientation;
use std::fmt;

/// The formats that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', ..] => Some(Self::Bmp),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
        })
    }
}

/// Why there are no pixels.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the image is empty")]
    Empty,
    #[error("this is neither a JPEG nor a PNG, WebP, GIF or BMP image")]
    Unknown,
    #[error("the image has {width}×{height} pixels, this server takes at most {max} pixels")]
    TooLarge { width: u64, height: u64, max: u64 },
    #[error("the {0} image needs more memory than its size allows")]
    TooMuchMemory(Format),
    #[error("the {0} image is truncated: send the whole file")]
    Truncated(Format),
    #[error("the {0} image is broken: {1}")]
    Broken(Format, String),
    #[error("this kind of {0} image is not understood: {1}")]
    Unsupported(Format, String),
}

impl From<Problem> for InputError {
    fn from(problem: Problem) -> Self {
        let kind = match problem {
            Problem::Empty | Problem::Truncated(_) | Problem::Broken(..) => InputProblem::Malformed,
            Problem::TooLarge { .. } | Problem::TooMuchMemory(_) => InputProblem::TooLarge,
            Problem::Unknown | Problem::Unsupported(..) => InputProblem::Unsupported,
        };
        Self {
            problem: kind,
            message: problem.to_string(),
        }
    }
}

/// The most pixels that an image may have.
#[derive(Clone, Copy)]
struct Limit {
    max: u64,
}

impl Limit {
    /// The size as it is used from here on; an image without pixels is one that is broken.
    fn check(self, format: Format, width: impl Into<u64>, height: impl Into<u64>) -> Result<Size, Problem> {
        let (width, height) = (width.into(), height.into());
        if width == 0 || height == 0 {
            return Err(Problem::Broken(format, "it has no pixels".to_owned()));
        }
        let too_large = Problem::TooLarge {
            width,
            height,
            max: self.max,
        };
        match (u32::try_from(width), u32::try_from(height)) {
            (Ok(w), Ok(h)) if width.saturating_mul(height) <= self.max => Ok(Size { width: w, height: h }),
            _ => Err(too_large),
        }
    }
}

/// An image as it is stored: 8 bits per sample, row by row.
struct Stored {
    size: Size,
    /// 1 is grey, 2 grey and alpha, 3 red, green and blue, 4 these and alpha.
    channels: usize,
    samples: Vec<u8>,
    orientation: Orientation,
}

/// Decodes to one or three channels, as `order` wants; turned as EXIF says.
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

/// The orientation in a block of EXIF data; `None` of it changes nothing.
fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
        .and_then(Orientation::from_exif_chunk)
        .unwrap_or(Orientation::NoTransforms)
}

/// Moves the samples together, in place.
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
    // The factors add up to 2^16, so that the result fits a byte.
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
    // There is one: the buffer was made for this size.
    let mut image = image.unwrap_or_default();
    image.apply_orientation(orientation);
    let size = Size {
        width: image.width(),
        height: image.height(),
    };
    Pixels::new(size, channels, image.into_bytes())
}
