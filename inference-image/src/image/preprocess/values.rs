//! From pixels to the elements of a tensor: order of channels and dimensions, normalisation.
//!
//! A pixel has 256 possible values, so the result for each is computed once per channel. A look-up needs no
//! arithmetic, conversions or vector instructions: it takes only as long as reading and writing.

use crate::image::pixels::View;
use crate::package::manifest::Layout;
use crate::tensor::{DataType, Tensor};
use half::f16;
use std::fmt;

/// The result for each value in one channel of the tensor.
#[derive(Clone)]
pub(super) struct Channel<T> {
    /// Its position in a pixel.
    source: usize,
    values: [T; 256],
}

/// The results for each channel of the tensor.
#[derive(Clone)]
pub(super) enum Values {
    Uint8(Vec<Channel<u8>>),
    Fp16(Vec<Channel<f16>>),
    Fp32(Vec<Channel<f32>>),
}

/// (value × `scale` − `mean`) / `std`, for each channel of the tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normalisation {
    pub(super) scale: f32,
    pub(super) mean: f32,
    pub(super) std: f32,
}

impl Normalisation {
    fn of(self, value: u8) -> f64 {
        (f64::from(value) * f64::from(self.scale) - f64::from(self.mean)) / f64::from(self.std)
    }

    /// Whether it does not change anything.
    pub(super) fn is_identity(self) -> bool {
        self.scale == 1.0 && self.mean == 0.0 && self.std == 1.0
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Values")
    }
}

impl Values {
    /// One normalisation per channel; `sources` are the positions of these channels in a pixel. `None` for another
    /// datatype. Integers are not normalised.
    pub(super) fn new(
        datatype: DataType,
        sources: &[usize],
        normalisation: &[Normalisation],
    ) -> Option<Self> {
        fn channels<T>(
            sources: &[usize],
            normalisation: &[Normalisation],
            value: impl Fn(u8, Normalisation) -> T,
        ) -> Vec<Channel<T>> {
            let table = |normalisation: Normalisation| {
                #[allow(clippy::cast_possible_truncation)]
                std::array::from_fn(|index| value(index as u8, normalisation))
            };
            let channels = sources.iter().zip(normalisation);
            channels
                .map(|(&source, &normalisation)| Channel {
                    source,
                    values: table(normalisation),
                })
                .collect()
        }
        // Rounded once, from a value that is practically exact.
        #[allow(clippy::cast_possible_truncation)]
        let float = |value, normalisation: Normalisation| normalisation.of(value) as f32;
        let half = |value, normalisation: Normalisation| f16::from_f64(normalisation.of(value));
        match datatype {
            DataType::Uint8 => Some(Self::Uint8(channels(sources, normalisation, |value, _| value))),
            DataType::Fp16 => Some(Self::Fp16(channels(sources, normalisation, half))),
            DataType::Fp32 => Some(Self::Fp32(channels(sources, normalisation, float))),
            _ => None,
        }
    }

    /// No elements yet, with room for `count` of them.
    pub(super) fn with_capacity(&self, count: usize) -> Elements {
        match self {
            Self::Uint8(_) => Elements::Uint8(Vec::with_capacity(count)),
            Self::Fp16(_) => Elements::Fp16(Vec::with_capacity(count)),
            Self::Fp32(_) => Elements::Fp32(Vec::with_capacity(count)),
        }
    }

    /// Appends an image's elements.
    pub(super) fn append(&self, image: View<'_>, layout: Layout, elements: &mut Elements) {
        match (self, elements) {
            (Self::Uint8(channels), Elements::Uint8(elements)) => arrange(channels, image, layout, elements),
            (Self::Fp16(channels), Elements::Fp16(elements)) => arrange(channels, image, layout, elements),
            (Self::Fp32(channels), Elements::Fp32(elements)) => arrange(channels, image, layout, elements),
            // `with_capacity` has created the elements.
            _ => {}
        }
    }
}

/// The elements of a tensor that is being built.
pub(super) enum Elements {
    Uint8(Vec<u8>),
    Fp16(Vec<f16>),
    Fp32(Vec<f32>),
}

impl Elements {
    /// `None` if they do not fill the shape.
    pub(super) fn into_tensor(self, shape: Vec<i64>) -> Option<Tensor> {
        match self {
            Self::Uint8(elements) => Tensor::from_vec(shape, elements),
            Self::Fp16(elements) => Tensor::from_vec(shape, elements),
            Self::Fp32(elements) => Tensor::from_vec(shape, elements),
        }
    }
}

fn arrange<T: Copy>(channels: &[Channel<T>], image: View<'_>, layout: Layout, elements: &mut Vec<T>) {
    // The number of channels is a constant in each of these, which makes the loops tight.
    match channels {
        [one] => planes::<T, 1>([one], image, elements),
        [a, b, c] if layout == Layout::Nchw => planes([a, b, c], image, elements),
        [a, b, c] => pixels([a, b, c], image, elements),
        // There is no other number of channels.
        _ => {}
    }
}

/// NCHW: one channel after the other. A single channel is the same in both layouts.
fn planes<T: Copy, const C: usize>(channels: [&Channel<T>; C], image: View<'_>, elements: &mut Vec<T>) {
    for channel in channels {
        for row in image.rows() {
            let pixels = row.as_chunks::<C>().0;
            elements.extend(
                pixels
                    .iter()
                    .map(|pixel| channel.values[usize::from(pixel[channel.source])]),
            );
        }
    }
}

/// NHWC: one pixel after the other.
fn pixels<T: Copy, const C: usize>(channels: [&Channel<T>; C], image: View<'_>, elements: &mut Vec<T>) {
    let mut line = Vec::with_capacity(image.size().width as usize);
    for row in image.rows() {
        let pixels = row.as_chunks::<C>().0.iter();
        line.clear();
        line.extend(
            pixels.map(|pixel| channels.map(|channel| channel.values[usize::from(pixel[channel.source])])),
        );
        elements.extend_from_slice(line.as_flattened());
    }
}
