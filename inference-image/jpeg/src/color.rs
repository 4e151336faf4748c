//! The meaning of the components, and their conversion to grey or to red, green and blue.

use crate::frame::Frame;
use crate::segments::{Segment, marker};

/// The meaning of the components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    Grey,
    Rgb,
    YCbCr,
    /// With inverted values, as Adobe stores them and as Pillow assumes for all files.
    Cmyk,
    /// The same, with the first three as YCbCr.
    Ycck,
}

impl Color {
    /// libjpeg's rules: a JFIF marker means YCbCr, Adobe's marker gives the meaning, and without either the component
    /// IDs decide.
    pub(crate) fn of(frame: &Frame, application: &[Segment<'_>]) -> Self {
        let has_jfif = application.iter().any(|one| {
            one.marker == marker::APP0 && one.content.len() >= 14 && one.content.starts_with(b"JFIF\0")
        });
        let adobe = application.iter().rev().filter(|one| one.marker == marker::APP14);
        let adobe = adobe
            .filter(|one| one.content.starts_with(b"Adobe"))
            .find_map(|one| one.content.get(11));
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (ids.as_slice(), adobe) {
            ([_], _) => Self::Grey,
            ([_, _, _, _], None | Some(0)) => Self::Cmyk,
            ([_, _, _, _], Some(_)) => Self::Ycck,
            (_, Some(0)) | (b"RGB", None) if !has_jfif => Self::Rgb,
            _ => Self::YCbCr,
        }
    }

    pub(crate) const fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            _ => 3,
        }
    }

    /// Creates one row of the image from one row of each component.
    #[inline(always)]
    pub(crate) fn convert(self, lines: [&[u8]; 4], row: &mut [u8]) {
        let [a, b, c, d] = lines;
        match self {
            Self::Grey => row.copy_from_slice(&a[..row.len()]),
            Self::Rgb => each(a, b, c, row, |a, b, c| [a, b, c]),
            Self::YCbCr => each(a, b, c, row, rgb),
            Self::Cmyk => {
                each(a, b, c, row, |a, b, c| [a, b, c]);
                with_black(row, d);
            }
            Self::Ycck => {
                each(a, b, c, row, |y, cb, cr| rgb(y, cb, cr).map(|value| 255 - value));
                with_black(row, d);
            }
        }
    }
}

#[inline(always)]
fn each(a: &[u8], b: &[u8], c: &[u8], row: &mut [u8], pixel: impl Fn(u8, u8, u8) -> [u8; 3]) {
    let pixels = row.as_chunks_mut::<3>().0;
    for (((out, &a), &b), &c) in pixels.iter_mut().zip(a).zip(b).zip(c) {
        *out = pixel(a, b, c);
    }
}

/// JFIF's factors with 16 fractional bits.
#[inline(always)]
fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    [
        clamp(y + ((91_881 * cr + HALF) >> 16)),
        clamp(y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16)),
        clamp(y + ((116_130 * cb + HALF) >> 16)),
    ]
}

#[inline(always)]
fn clamp(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

/// Converts cyan, magenta, yellow and black to red, green and blue, as Pillow does; all are inverted.
#[inline(always)]
fn with_black(row: &mut [u8], black: &[u8]) {
    for (pixel, &black) in row.as_chunks_mut::<3>().0.iter_mut().zip(black) {
        for value in pixel {
            let product = (255 - u32::from(*value)) * u32::from(black) + 128;
            *value = black.saturating_sub((((product >> 8) + product) >> 8) as u8);
        }
    }
}
