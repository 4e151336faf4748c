//! Eight-bit pixels, row by row, with one channel (grey) or three (red, green, blue).

use crate::package::manifest::Size;
use crate::tensor::{InputError, InputProblem};

/// A decoded image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pixels {
    size: Size,
    channels: usize,
    bytes: Vec<u8>,
}

impl Pixels {
    /// `bytes` must hold width × height × channels values; missing values become black, surplus values are dropped.
    pub(super) fn new(size: Size, channels: usize, mut bytes: Vec<u8>) -> Self {
        bytes.resize(size.width as usize * size.height as usize * channels, 0);
        Self {
            size,
            channels,
            bytes,
        }
    }

    pub(super) const fn size(&self) -> Size {
        self.size
    }

    pub(super) const fn channels(&self) -> usize {
        self.channels
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The whole image.
    pub(super) const fn whole(&self) -> View<'_> {
        View {
            pixels: self,
            left: 0,
            top: 0,
            size: self.size,
        }
    }

    /// Crops `size` from the centre. If the margin is odd, the half is rounded to even, as torchvision's `CenterCrop`
    /// does.
    pub(super) fn centre(&self, size: Size) -> Result<View<'_>, InputError> {
        if size.width > self.size.width || size.height > self.size.height {
            let message = format!(
                "the image has {}×{} pixels, but at least {}×{} are needed",
                self.size.width, self.size.height, size.width, size.height
            );
            return Err(InputError {
                problem: InputProblem::Malformed,
                message,
            });
        }
        Ok(View {
            pixels: self,
            left: margin(self.size.width, size.width) as usize,
            top: margin(self.size.height, size.height) as usize,
            size,
        })
    }
}

/// A rectangle of an image.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pixels: &'a Pixels,
    left: usize,
    top: usize,
    size: Size,
}

impl<'a> View<'a> {
    pub(super) const fn size(self) -> Size {
        self.size
    }

    /// The bytes of each row.
    pub(super) fn rows(self) -> impl Iterator<Item = &'a [u8]> {
        let channels = self.pixels.channels;
        let row = self.size.width as usize * channels;
        self.pixels
            .bytes
            .chunks_exact(self.pixels.size.width as usize * channels)
            .skip(self.top)
            .take(self.size.height as usize)
            .map(move |line| &line[self.left * channels..][..row])
    }
}

/// Half of the difference, rounded half to even.
pub(super) fn margin(outer: u32, inner: u32) -> u32 {
    let difference = outer - inner;
    difference / 2 + u32::from(difference % 4 == 3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_middle_is_cut_out() {
        let image = Pixels::new(Size { width: 4, height: 3 }, 1, (0..12).collect());
        let middle = image.centre(Size { width: 2, height: 2 }).unwrap();
        assert_eq!(middle.rows().collect::<Vec<_>>(), [[1, 2], [5, 6]]);
        assert!(image.centre(Size { width: 5, height: 1 }).is_err());
    }

    #[test]
    fn odd_margins_round_half_to_even() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 7].map(|difference| margin(10 + difference, 10)),
            [0, 0, 1, 2, 2, 2, 4]
        );
    }
}
