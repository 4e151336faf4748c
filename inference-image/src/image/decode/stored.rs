//! What the formats share: their names, possible problems, the limit on image sizes, and an image as it is stored.

use crate::package::manifest::Size;
use crate::tensor::{InputError, InputProblem};
use image::metadata::Orientation;
use std::fmt;

/// The supported formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
}

impl Format {
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
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
pub(super) enum Problem {
    #[error("the image is empty")]
    Empty,
    #[error("this is not a JPEG, PNG, WebP, GIF or BMP image")]
    Unknown,
    #[error("the image has {width}×{height} pixels, but this server accepts at most {max} pixels")]
    TooLarge { width: u64, height: u64, max: u64 },
    #[error("the {0} image needs more memory than its size allows")]
    TooMuchMemory(Format),
    #[error("the {0} image is truncated: send the whole file")]
    Truncated(Format),
    #[error("the {0} image is broken: {1}")]
    Broken(Format, String),
    #[error("this kind of {0} image is not supported: {1}")]
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

/// The largest number of pixels that an image may have.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) max: u64,
}

impl Limit {
    /// The size, if it is within the limit; an image without pixels is broken.
    pub(super) fn check(
        self,
        format: Format,
        width: impl Into<u64>,
        height: impl Into<u64>,
    ) -> Result<Size, Problem> {
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
pub(super) struct Stored {
    pub(super) size: Size,
    /// 1 is grey, 2 is grey and alpha, 3 is red, green and blue, 4 is red, green, blue and alpha.
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
    pub(super) orientation: Orientation,
}
