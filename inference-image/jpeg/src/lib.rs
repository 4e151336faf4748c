//! A JPEG decoder that gives libjpeg-turbo's pixels, bit by bit, for every sampling, order of scans and kind of
//! colour that a header can carry, or refuses: models are trained with these pixels, and other ones give wrong
//! answers without an error. No decoder in safe Rust does; the one in C is not wanted where strangers' files come in.
//!
//! Baseline, extended sequential and progressive files of 8 bits are understood (ITU-T T.81). Where the
//! specification leaves a choice, the choices are libjpeg's: the accurate integer transform (`JDCT_ISLOW`),
//! triangle filters between the samples of subsampled components ("fancy upsampling"), and how the markers say
//! what the components are. Where libjpeg goes on with a damaged file, this decoder does not.

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
    /// It may be right, and is of a kind that this decoder leaves out.
    #[error("{0}")]
    Unsupported(&'static str),
}

/// A file whose header was read.
#[derive(Debug)]
pub struct Decoder<'a> {
    header: Header<'a>,
}

impl<'a> Decoder<'a> {
    /// Reads up to the first scan.
    ///
    /// # Errors
    /// When the header is broken, cut off, or of an image that is not understood.
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

    /// The segments before the first scan that are the application's: EXIF, XMP and so on.
    pub fn application_segments(&self) -> impl Iterator<Item = Segment<'a>> + '_ {
        self.header.application.iter().copied()
    }

    /// Decodes into a buffer of width × height × channels bytes, row by row. Beside it, a progressive file, or one of
    /// several scans, takes two bytes for each sample.
    ///
    /// # Errors
    /// When what follows the header is broken, cut off, or incomplete.
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
