//! Eight-bit pixels, row by row, with one channel (grey) or three (red, green, blue).

use crate::package::manifest::Size;
use crate::scheduling::{InputError, InputProblem};

/// A decoded image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pixels {
    size: Size,
    channels: usize,
    bytes: Vec<u8>,
}

impl Pixels {
    /// `bytes` must hold width × height × channels values; what is missing is black, what is too much goes.
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

    /// Cuts `size` out of the middle; where the margin is odd, the smaller half is at the top and left when
    /// it rounds so to even, as torchvision's `CenterCrop` does.
    pub(super) fn centre(&self, size: Size) -> Result<Self, InputError> {
        if size.width > self.size.width || size.height > self.size.height {
            let message = format!(
                "the image has {}×{} pixels, at least {}×{} are needed",
                self.size.width, self.size.height, size.width, size.height
            );
            return Err(InputError {
                problem: InputProblem::Malformed,
                message,
            });
        }
        let (left, top) = (
            margin(self.size.width, size.width),
            margin(self.size.height, size.height),
        );
        let (stride, row) = (
            self.size.width as usize * self.channels,
            size.width as usize * self.channels,
        );
        let mut bytes = Vec::with_capacity(row * size.height as usize);
        for line in self
            .bytes
            .chunks_exact(stride)
            .skip(top)
            .take(size.height as usize)
        {
            bytes.extend_from_slice(&line[left * self.channels..][..row]);
        }
        Ok(Self {
            size,
            channels: self.channels,
            bytes,
        })
    }
}

/// Half the difference, a half rounded to even.
fn margin(outer: u32, inner: u32) -> usize {
    let difference = (outer - inner) as usize;
    difference / 2 + usize::from(difference % 4 == 3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_middle_is_cut_out() {
        let image = Pixels::new(Size { width: 4, height: 3 }, 1, (0..12).collect());
        let middle = image.centre(Size { width: 2, height: 1 }).unwrap();
        assert_eq!(middle.bytes(), [5, 6]);
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
