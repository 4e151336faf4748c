//! Resizing: with antialiasing as Pillow does it; without, or to the nearest pixel, see `sample`. Only pixels that
//! remain after the crop are computed.

use super::axis::Axis;
use super::sample;
use crate::image::pixels::Pixels;
use crate::package::manifest::{Filter, Resize, Size};
use crate::tensor::{InputError, InputProblem};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Resizes and, where that saves work, crops too: `Pixels::centre` does the rest.
pub(super) fn resize(
    image: Pixels,
    how: &Resize,
    crop: Option<Size>,
    max_pixels: u64,
) -> Result<Pixels, InputError> {
    let size = match *how {
        Resize::Stretch { width, height, .. } => Size { width, height },
        Resize::ShortestEdge { size, .. } => shortest_edge(image.size(), size),
    };
    if size == image.size() {
        return Ok(image);
    }
    // A strip that is one pixel high would grow into a huge image.
    if u64::from(size.width) * u64::from(size.height) > max_pixels {
        let Size { width, height } = image.size();
        return Err(problem(
            InputProblem::TooLarge,
            format!("the image is too narrow to be resized: {width}×{height}"),
        ));
    }
    let (columns, rows) = (
        Axis::new(image.size().width, size.width, crop.map(|crop| crop.width)),
        Axis::new(image.size().height, size.height, crop.map(|crop| crop.height)),
    );
    let resized = match (how.filter(), how.antialias()) {
        (Filter::Bilinear, false) => return Ok(sample::bilinear(&image, columns, rows)),
        (Filter::Nearest, _) => return Ok(sample::nearest(&image, columns, rows)),
        (Filter::Bilinear, true) => filtered(&image, FilterType::Bilinear, columns, rows, max_pixels),
        (Filter::Bicubic, _) => filtered(&image, FilterType::CatmullRom, columns, rows, max_pixels),
        (Filter::Lanczos, _) => filtered(&image, FilterType::Lanczos3, columns, rows, max_pixels),
    };
    resized.map_err(|error| problem(InputProblem::Malformed, format!("cannot resize: {error}")))
}

/// The shorter edge becomes `edge`; the longer is cut to whole pixels, as torchvision does.
fn shortest_edge(Size { width, height }: Size, edge: u32) -> Size {
    let long = |long: u32, short: u32| {
        u32::try_from(u64::from(edge) * u64::from(long) / u64::from(short.max(1))).unwrap_or(u32::MAX)
    };
    if width <= height {
        Size {
            width: edge,
            height: long(height, width),
        }
    } else {
        Size {
            width: long(width, height),
            height: edge,
        }
    }
}

/// Horizontally first, then vertically, rounded to 8 bits in between: Pillow's order. In one step, the library uses
/// the other order, and some pixels differ.
fn filtered(
    image: &Pixels,
    filter: FilterType,
    columns: Axis,
    rows: Axis,
    max_pixels: u64,
) -> Result<Pixels, Box<dyn std::error::Error>> {
    let algorithm = ResizeAlg::Convolution(filter);
    let (first, count) = rows.counting(filter);
    // The intermediate image of a tall strip would be huge.
    if u64::from(columns.length) * u64::from(count) > max_pixels {
        return pass(image, algorithm, columns, rows);
    }
    let wide = pass(image, algorithm, columns, Axis::kept(rows.from, first, count))?;
    let (top, height) = rows.source();
    let (width, top) = (f64::from(columns.length), top - f64::from(first));
    let part = (0.0, top, width, height.min(f64::from(count) - top));
    convolve(
        &wide,
        algorithm,
        Size {
            width: columns.length,
            height: rows.length,
        },
        part,
    )
}

fn pass(
    image: &Pixels,
    algorithm: ResizeAlg,
    columns: Axis,
    rows: Axis,
) -> Result<Pixels, Box<dyn std::error::Error>> {
    let ((left, width), (top, height)) = (columns.source(), rows.source());
    let size = Size {
        width: columns.length,
        height: rows.length,
    };
    convolve(image, algorithm, size, (left, top, width, height))
}

/// Resizes a part of the image (left, top, width and height) to `size`.
fn convolve(
    image: &Pixels,
    algorithm: ResizeAlg,
    size: Size,
    (left, top, width, height): (f64, f64, f64, f64),
) -> Result<Pixels, Box<dyn std::error::Error>> {
    let pixel = if image.channels() == 1 {
        PixelType::U8
    } else {
        PixelType::U8x3
    };
    let source = ImageRef::new(image.size().width, image.size().height, image.bytes(), pixel)?;
    let mut target = Image::new(size.width, size.height, pixel);
    let options = ResizeOptions::new()
        .resize_alg(algorithm)
        .crop(left, top, width, height);
    Resizer::new().resize(&source, &mut target, &options)?;
    Ok(Pixels::new(size, image.channels(), target.into_vec()))
}

fn problem(problem: InputProblem, message: String) -> InputError {
    InputError { problem, message }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_shorter_edge_decides() {
        let size = |width, height| Size { width, height };
        assert_eq!(shortest_edge(size(640, 480), 256), size(341, 256));
        assert_eq!(shortest_edge(size(480, 641), 256), size(256, 341));
        assert_eq!(shortest_edge(size(1, u32::MAX), 256), size(256, u32::MAX));
    }

    /// Skipping pixels must not change the others, except for the last bits of a few: the precision of the library's
    /// weights depends on the largest of them.
    #[test]
    fn cutting_while_resizing_gives_the_pixels_of_cutting_afterwards() {
        for (width, height) in [(97, 61), (40, 90), (33, 33), (300, 7)] {
            let bytes = (0..width * height * 3).map(|index| (index * index / 7 % 251) as u8);
            let image = Pixels::new(Size { width, height }, 3, bytes.collect());
            for (filter, antialias) in [
                (Filter::Nearest, true),
                (Filter::Bilinear, false),
                (Filter::Bilinear, true),
                (Filter::Bicubic, true),
                (Filter::Lanczos, true),
            ] {
                for (size, crop) in [(32, 27), (61, 60), (12, 12), (50, 1)] {
                    let how = Resize::ShortestEdge {
                        size,
                        filter,
                        antialias,
                    };
                    let crop = Size {
                        width: crop,
                        height: crop,
                    };
                    let resized = |part: Option<Size>| {
                        let resized = resize(image.clone(), &how, part, 1 << 20).unwrap();
                        let rows = resized.centre(crop).unwrap().rows().collect::<Vec<_>>();
                        rows.concat()
                    };
                    let (cut, whole) = (resized(Some(crop)), resized(None));
                    let differences: Vec<u8> = cut.iter().zip(&whole).map(|(a, b)| a.abs_diff(*b)).collect();
                    let different = differences.iter().filter(|&&difference| difference != 0).count();
                    assert!(
                        differences.iter().all(|&difference| difference <= 2) && different * 20 <= cut.len(),
                        "{how:?} of {width}×{height}, {crop:?}: {different} of {} differ",
                        cut.len()
                    );
                    let exact = matches!((filter, antialias), (Filter::Nearest, _) | (_, false));
                    assert!(!exact || different == 0, "{how:?} of {width}×{height}, {crop:?}");
                }
            }
        }
    }
}
