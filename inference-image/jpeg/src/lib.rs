//! A JPEG decoder that produces exactly libjpeg-turbo's pixels, for every sampling, order of scans and kind of colour
//! that a header can describe, or refuses the file. Models are trained with these pixels, and with others they
//! silently give wrong answers. No decoder in safe Rust does this, and a decoder in C should not read untrusted
//! files.
//!
//! It supports baseline, extended sequential and progressive files of 8 bits (ITU-T T.81). Where the specification
//! leaves a choice, the choices are libjpeg's: the accurate integer transform (`JDCT_ISLOW`), triangle filters
//! between the samples of subsampled components ("fancy upsampling"), and how markers determine the meaning of the
//! components. Where libjpeg continues with a damaged file, this decoder does not.

mod bits;
mod blocks;
mod color;
mod frame;
mod header;
mod huffman;
mod idct;
mod image;
mod rows;
mod scan;
mod segments;
mod upsample;

use header::Header;
pub use segments::Segment;

/// Why there are no pixels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file ends before the image does.
    #[error("it ends before the image does")]
    Truncated,
    /// It breaks the rules of the format.
    #[error("{0}")]
    Broken(&'static str),
    /// It may be valid, but this decoder does not support its kind.
    #[error("{0}")]
    Unsupported(&'static str),
}

/// A file whose header was read.
#[derive(Debug)]
pub struct Decoder<'a> {
    header: Header<'a>,
}

impl<'a> Decoder<'a> {
    /// Reads the file up to its first scan.
    ///
    /// # Errors
    /// When the header is broken, truncated, or of an unsupported image.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        Ok(Self {
            header: Header::read(bytes)?,
        })
    }

    /// Width and height in pixels; neither is 0.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        (self.header.frame.width, self.header.frame.height)
    }

    /// 1 for grey, 3 for red, green and blue.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.header.color.channels()
    }

    /// The application segments before the first scan: EXIF, XMP and so on.
    pub fn application_segments(&self) -> impl Iterator<Item = Segment<'a>> + '_ {
        self.header.application.iter().copied()
    }

    /// Decodes into a buffer of width × height × channels bytes, row by row. A progressive file, or one with several
    /// scans, takes another two bytes per sample.
    ///
    /// # Errors
    /// When the data after the header is broken, truncated or incomplete.
    ///
    /// # Panics
    /// When the buffer has another size.
    pub fn decode(self, pixels: &mut [u8]) -> Result<(), Error> {
        let (width, height) = self.size();
        let expected = usize::from(width) * usize::from(height) * self.channels();
        assert_eq!(pixels.len(), expected, "the buffer has the image's size");
        image::decode(self.header, pixels)
    }
}
