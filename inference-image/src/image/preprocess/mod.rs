//! From the bytes of an image to the model's input tensor, as `model.yaml` says.

mod axis;
mod check;
mod resize;
mod sample;
mod values;

use crate::engine::Port;
use crate::image::decode;
use crate::image::pixels::{Pixels, View};
use crate::image::problems::Problems;
use crate::package::manifest::{ColorOrder, Filter, Layout, Preprocessing, Resize, Size};
use crate::tensor::{InputError, InputProblem, Tensor};
use check::{channel_count, check_memory, check_size, values};
use values::{Elements, Values};

/// A checked [`Preprocessing`] for one input of one model: after that, only images can be invalid.
#[derive(Clone, Debug)]
pub struct Pipeline {
    steps: Preprocessing,
    values: Values,
    /// The size that the model expects; `None` if it accepts any.
    size: (Option<u32>, Option<u32>),
    max_pixels: u64,
}

impl Pipeline {
    /// Checks the steps against the model's input.
    ///
    /// # Errors
    /// Everything in `model.yaml` that does not fit the model.
    pub fn new(steps: &Preprocessing, input: &Port, max_pixels: u64) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let [_, a, b, c] = input.shape[..] else {
            return Err(Problems::from(format!(
                "input {:?} has shape {:?}, but an image needs four dimensions",
                input.name, input.shape
            )));
        };
        let (channels, height, width) = match steps.layout {
            Layout::Nchw => (a, b, c),
            Layout::Nhwc => (c, a, b),
        };
        let wanted = channel_count(steps.color_order);
        if channels != wanted as i64 && channels >= 0 {
            problems.add(format!(
                "layout {:?} and colorOrder {:?} make {wanted} channels, but input {:?} has shape {:?}",
                steps.layout, steps.color_order, input.name, input.shape
            ));
        }
        let dimension = |size: i64| u32::try_from(size).ok();
        let size = (dimension(width), dimension(height));
        problems.keep(check_size(steps, size));
        problems.keep(check_memory(steps, fixed_size(steps, size), max_pixels));
        let values = problems.keep(values(steps, input));
        Ok(Self {
            values: problems.none_or(values)?,
            steps: steps.clone(),
            size,
            max_pixels,
        })
    }

    /// Decodes images and builds a batch of them.
    ///
    /// # Errors
    /// When an image is unsupported, broken or too large, or its size differs from that of the model or of the images
    /// before it; its index comes with the error.
    pub fn batch(&self, images: &[impl AsRef<[u8]>]) -> Result<Tensor, (usize, InputError)> {
        let mut batch = None;
        for (index, image) in images.iter().enumerate() {
            self.decode(image.as_ref())
                .and_then(|image| self.append(self.cut(&image)?, images.len(), &mut batch))
                .map_err(|error| (index, error))?;
        }
        let (size, elements) = batch.unwrap_or((Size::default(), self.values.with_capacity(0)));
        Ok(self.finish(images.len(), size, elements))
    }

    /// Decodes an image and builds a batch of one.
    ///
    /// # Errors
    /// When the image is unsupported, broken or too large.
    pub fn tensor(&self, image: &[u8]) -> Result<Tensor, InputError> {
        self.batch(&[image]).map_err(|(_, error)| error)
    }

    /// A black image of the size that the model expects; `None` if it accepts any.
    #[must_use]
    pub fn blank(&self) -> Option<Tensor> {
        let size = self.fixed_size()?;
        let black = Pixels::new(size, channel_count(self.steps.color_order), Vec::new());
        let mut elements = self.values.with_capacity(black.bytes().len());
        self.values
            .append(black.whole(), self.steps.layout, &mut elements);
        Some(self.finish(1, size, elements))
    }

    /// The size of every image after pre-processing; `None` if it depends on the image, so that two images may not
    /// fit into one batch.
    #[must_use]
    pub fn fixed_size(&self) -> Option<Size> {
        fixed_size(&self.steps, self.size)
    }

    fn decode(&self, image: &[u8]) -> Result<Pixels, InputError> {
        let image = decode::decode(image, self.steps.color_order, self.max_pixels)?;
        match &self.steps.resize {
            Some(how) => resize::resize(image, how, self.steps.crop, self.max_pixels),
            None => Ok(image),
        }
    }

    fn cut<'a>(&self, image: &'a Pixels) -> Result<View<'a>, InputError> {
        let view = match self.steps.crop {
            Some(size) => image.centre(size)?,
            None => image.whole(),
        };
        let Size { width, height } = view.size();
        expect_size(
            view,
            Size {
                width: self.size.0.unwrap_or(width),
                height: self.size.1.unwrap_or(height),
            },
        )
    }

    /// Appends to a batch of `count` images; the first one creates it.
    fn append(
        &self,
        image: View<'_>,
        count: usize,
        batch: &mut Option<(Size, Elements)>,
    ) -> Result<(), InputError> {
        let size = image.size();
        let (first, elements) = batch.get_or_insert_with(|| {
            let pixels = size.width as usize * size.height as usize;
            let channels = channel_count(self.steps.color_order);
            (size, self.values.with_capacity(pixels * channels * count))
        });
        let image = expect_size(image, *first)?;
        self.values.append(image, self.steps.layout, elements);
        Ok(())
    }

    fn finish(&self, count: usize, size: Size, elements: Elements) -> Tensor {
        let channels = channel_count(self.steps.color_order) as i64;
        let (width, height) = (i64::from(size.width), i64::from(size.height));
        let shape = match self.steps.layout {
            Layout::Nchw => [count as i64, channels, height, width],
            Layout::Nhwc => [count as i64, height, width, channels],
        };
        // The shape is that of the pixels just appended.
        elements
            .into_tensor(shape.to_vec())
            .unwrap_or_else(|| unreachable!("the pixels fill their own shape"))
    }
}

fn fixed_size(steps: &Preprocessing, wanted: (Option<u32>, Option<u32>)) -> Option<Size> {
    let made = steps.crop.or(match steps.resize {
        Some(Resize::Stretch { width, height, .. }) => Some(Size { width, height }),
        _ => None,
    });
    Some(Size {
        width: wanted.0.or(made.map(|size| size.width))?,
        height: wanted.1.or(made.map(|size| size.height))?,
    })
}

/// For fuzzers, which pass arbitrary bytes: decodes them and resizes the result. Returns whether they were an image.
///
/// # Panics
/// Only for bugs: pixels that do not fill their image, more pixels than allowed, or an image that cannot be resized.
#[must_use]
pub fn fuzz(bytes: &[u8]) -> bool {
    const MAX_PIXELS: u64 = 1 << 20;
    let Ok(image) = decode::decode(bytes, ColorOrder::Rgb, MAX_PIXELS) else {
        return false;
    };
    let pixels = u64::from(image.size().width) * u64::from(image.size().height);
    assert!(pixels <= MAX_PIXELS && image.bytes().len() as u64 == pixels * 3);
    for antialias in [true, false] {
        let how = Resize::Stretch {
            width: 7,
            height: 5,
            filter: Filter::Bilinear,
            antialias,
        };
        let resized = resize::resize(image.clone(), &how, None, MAX_PIXELS);
        assert!(resized.is_ok_and(|resized| resized.bytes().len() == 7 * 5 * 3));
    }
    true
}

fn expect_size(image: View<'_>, wanted: Size) -> Result<View<'_>, InputError> {
    let Size { width, height } = image.size();
    if image.size() == wanted {
        return Ok(image);
    }
    let message = format!(
        "the model accepts images of {}×{}, but this one has {width}×{height}",
        wanted.width, wanted.height
    );
    Err(InputError {
        problem: InputProblem::Malformed,
        message,
    })
}

#[cfg(test)]
mod tests;
