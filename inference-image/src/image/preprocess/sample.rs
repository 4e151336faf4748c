//! Resizing that reads few pixels: the nearest one, chosen as Pillow does, or the four pixels around each sampling
//! point, interpolated bilinearly at half-pixel centres like OpenCV's INTER_LINEAR and torch's interpolate(…,
//! align_corners=False, antialias=False). When an image gets smaller, most of its pixels are not read.

use super::axis::Axis;
use crate::image::pixels::Pixels;
use crate::package::manifest::Size;

/// Where a row or column of the result is sampled: between two of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    first: usize,
    second: usize,
    /// Weight of the second one, from 0 to 1.
    weight: f32,
}

pub(super) fn bilinear(image: &Pixels, columns: Axis, rows: Axis) -> Pixels {
    let size = Size {
        width: columns.length,
        height: rows.length,
    };
    let (columns, rows) = (taps(columns), taps(rows));
    let channels = image.channels();
    let line = image.size().width as usize * channels;
    let mut bytes = Vec::with_capacity(rows.len() * columns.len() * channels);
    for row in rows {
        let (above, below) = (
            &image.bytes()[row.first * line..][..line],
            &image.bytes()[row.second * line..][..line],
        );
        for column in &columns {
            for channel in 0..channels {
                let (left, right) = (
                    column.first * channels + channel,
                    column.second * channels + channel,
                );
                let upper = between(f32::from(above[left]), f32::from(above[right]), column.weight);
                let lower = between(f32::from(below[left]), f32::from(below[right]), column.weight);
                bytes.push(rounded(between(upper, lower, row.weight)));
            }
        }
    }
    Pixels::new(size, channels, bytes)
}

/// The nearest pixels, as Pillow chooses them.
pub(super) fn nearest(image: &Pixels, columns: Axis, rows: Axis) -> Pixels {
    let size = Size {
        width: columns.length,
        height: rows.length,
    };
    let (columns, rows) = (places(columns), places(rows));
    let channels = image.channels();
    let line = image.size().width as usize * channels;
    let mut bytes = Vec::with_capacity(rows.len() * columns.len() * channels);
    for row in rows {
        let line = &image.bytes()[row * line..][..line];
        for &column in &columns {
            bytes.extend_from_slice(&line[column * channels..][..channels]);
        }
    }
    Pixels::new(size, channels, bytes)
}

/// The positions of the needed part in the source. Pillow adds up the step, so the rounding of the sum decides which
/// pixel a position on the border of two pixels falls into. It must be the same here.
fn places(axis: Axis) -> Vec<usize> {
    let step = f64::from(axis.from) / f64::from(axis.to);
    let last = axis.from as usize - 1;
    let sums = std::iter::successors(Some(step * 0.5), |place| Some(place + step));
    // Not negative, and at most 2^32.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    sums.skip(axis.start as usize)
        .take(axis.length as usize)
        .map(|place| (place as usize).min(last))
        .collect()
}

fn between(first: f32, second: f32, weight: f32) -> f32 {
    first + (second - first) * weight
}

/// Rounds a number from 0 to 255.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rounded(value: f32) -> u8 {
    (value + 0.5) as u8
}

/// The sampling points of the needed part; beyond the outermost centres, the edge is repeated.
fn taps(axis: Axis) -> Vec<Tap> {
    let scale = f64::from(axis.from) / f64::from(axis.to);
    let last = axis.from - 1;
    let tap = |index: u32| {
        let place = ((f64::from(index) + 0.5) * scale - 0.5).clamp(0.0, f64::from(last));
        // Not negative, and less than 2^32.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let first = place as usize;
        #[allow(clippy::cast_possible_truncation)]
        let weight = place.fract() as f32;
        Tap {
            first,
            second: (first + 1).min(last as usize),
            weight,
        }
    };
    (axis.start..axis.start + axis.length).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is how Pillow resizes 500 columns to 30; a product instead of a sum would choose the right-hand pixel in
    /// some places.
    #[test]
    fn a_place_on_the_border_of_two_pixels_is_pillows() {
        let axis = Axis {
            from: 500,
            to: 30,
            start: 0,
            length: 30,
        };
        const NEAREST: [usize; 30] = [
            8, 25, 41, 58, 75, 91, 108, 125, 141, 158, 175, 191, 208, 224, 241, 258, 275, 291, 308, 325, 341,
            358, 375, 391, 408, 425, 441, 458, 475, 491,
        ];
        assert_eq!(places(axis), NEAREST);
        let part = Axis {
            start: 7,
            length: 3,
            ..axis
        };
        assert_eq!(places(part), NEAREST[7..10]);
    }

    #[test]
    fn points_lie_at_the_centres_of_pixels_and_the_edge_is_repeated() {
        let tap = |first, second, weight| Tap {
            first,
            second,
            weight,
        };
        let taps = |from, to| {
            taps(Axis {
                from,
                to,
                start: 0,
                length: to,
            })
        };
        assert_eq!(taps(4, 2), [tap(0, 1, 0.5), tap(2, 3, 0.5)]);
        assert_eq!(
            taps(2, 4),
            [tap(0, 1, 0.0), tap(0, 1, 0.25), tap(0, 1, 0.75), tap(1, 1, 0.0)]
        );
        assert_eq!(taps(1, 2), [tap(0, 0, 0.0); 2]);
    }
}
