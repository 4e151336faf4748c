//! Resizing: with antialiasing in the same way as Pillow, without it as in `sample`.

use super::pixels::Pixels;
use super::sample;
use crate::package::manifest::{Filter, Resize, Size};
use crate::scheduling::{InputError, InputProblem};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

pub(super) fn resize(image: Pixels, how: Option<&Resize>, max_pixels: u64) -> Result<Pixels, InputError> {
    let Some(how) = how else { return Ok(image) };
    let size = match *how {
        Resize::Stretch { width, height, .. } => Size { width, height },
        Resize::ShortestEdge { size, .. } => shortest_edge(image.size(), size),
    };
    if size == image.size() {
        return Ok(image);
    }
    // A strip of one pixel's height would grow to a huge picture.
    if u64::from(size.width) * u64::from(size.height) > max_pixels {
        let Size { width, height } = image.size();
        return Err(problem(
            InputProblem::TooLarge,
            format!("the image is too narrow to be resized: {width}×{height}"),
        ));
    }
    if how.filter() == Filter::Bilinear && !how.antialias() {
        return Ok(sample::bilinear(&image, size));
    }
    scale(&image, size, how.filter(), max_pixels)
        .map_err(|error| problem(InputProblem::Malformed, format!("cannot resize: {error}")))
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

/// Horizontally first, then vertically, rounded to 8 bits in between: Pillow's order. In one step the
/// library takes the other order, and some pixels come out different.
fn scale(
    image: &Pixels,
    size: Size,
    filter: Filter,
    max_pixels: u64,
) -> Result<Pixels, Box<dyn std::error::Error>> {
    let wide = Size {
        width: size.width,
        height: image.size().height,
    };
    // A tall strip would become huge in between.
    if u64::from(wide.width) * u64::from(wide.height) > max_pixels {
        return in_one_step(image, size, filter);
    }
    in_one_step(&in_one_step(image, wide, filter)?, size, filter)
}

fn in_one_step(image: &Pixels, size: Size, filter: Filter) -> Result<Pixels, Box<dyn std::error::Error>> {
    let pixel = if image.channels() == 1 {
        PixelType::U8
    } else {
        PixelType::U8x3
    };
    let source = ImageRef::new(image.size().width, image.size().height, image.bytes(), pixel)?;
    let mut target = Image::new(size.width, size.height, pixel);
    let algorithm = match filter {
        Filter::Nearest => ResizeAlg::Nearest,
        Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    Resizer::new().resize(&source, &mut target, &ResizeOptions::new().resize_alg(algorithm))?;
    Ok(Pixels::new(size, image.channels(), target.into_vec()))
}

fn problem(problem: InputProblem, message: String) -> InputError {
    InputError { problem, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_edge_decides() {
        let size = |width, height| Size { width, height };
        assert_eq!(shortest_edge(size(640, 480), 256), size(341, 256));
        assert_eq!(shortest_edge(size(480, 641), 256), size(256, 341));
        assert_eq!(shortest_edge(size(1, u32::MAX), 256), size(256, u32::MAX));
    }
}
