//! One direction of resizing: columns or rows. Pure.

use crate::image::pixels::margin;
use fast_image_resize::FilterType;

/// Columns or rows: how many there are, how many there will be, and which of these are needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) start: u32,
    pub(super) length: u32,
}

impl Axis {
    /// The middle `wanted` ones.
    pub(super) fn new(from: u32, to: u32, wanted: Option<u32>) -> Self {
        let length = wanted.map_or(to, |wanted| wanted.min(to));
        let start = margin(to, length);
        Self {
            from,
            to,
            start,
            length,
        }
    }

    /// A part that stays as it is.
    pub(super) fn kept(from: u32, start: u32, length: u32) -> Self {
        Self {
            from,
            to: from,
            start,
            length,
        }
    }

    /// Where the needed part begins in the source, and its length there.
    pub(super) fn source(self) -> (f64, f64) {
        let at_source = |place: u32| f64::from(place) * f64::from(self.from) / f64::from(self.to);
        let start = at_source(self.start);
        (start, at_source(self.length).min(f64::from(self.from) - start))
    }

    /// The first column or row of the source that affects the needed part, and how many there are from there on. A
    /// few more do no harm.
    pub(super) fn counting(self, filter: FilterType) -> (u32, u32) {
        let lobes = match filter {
            FilterType::Lanczos3 => 3.0,
            FilterType::CatmullRom => 2.0,
            _ => 1.0,
        };
        let reach = lobes * (f64::from(self.from) / f64::from(self.to)).max(1.0) + 2.0;
        let (start, length) = self.source();
        // Both lie between 0 and `from`.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let (first, end) = (
            (start - reach).max(0.0) as u32,
            (start + length + reach).min(f64::from(self.from)) as u32,
        );
        (first, end - first)
    }
}
