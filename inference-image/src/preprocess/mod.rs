//! From the bytes of an image to the model's input tensor, as `model.yaml` says.

mod decode;
mod pixels;
mod resize;

use crate::engine::Port;
use crate::package::manifest::{ColorOrder, Layout, Preprocessing, Resize, Size};
use crate::scheduling::{InputError, InputProblem};
use crate::tensor::{DataType, Tensor};

/// A checked [`Preprocessing`] for one input of one model: building the tensor can only fail because of
/// the image.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    steps: Preprocessing,
    /// Multiplied with each channel's value, after which `offset` is added.
    factor: Vec<f32>,
    offset: Vec<f32>,
    /// Size that the model wants; `None` where it takes any.
    size: (Option<u32>, Option<u32>),
    datatype: DataType,
    max_pixels: u64,
}

impl Pipeline {
    /// Fits the steps to the model's input.
    ///
    /// # Errors
    /// A sentence that says what in `model.yaml` does not fit the model.
    pub fn new(steps: &Preprocessing, input: &Port, max_pixels: u64) -> Result<Self, String> {
        let [_, a, b, c] = input.shape[..] else {
            return Err(format!(
                "input {:?} has shape {:?}, an image needs four dimensions",
                input.name, input.shape
            ));
        };
        let (channels, height, width) = match steps.layout {
            Layout::Nchw => (a, b, c),
            Layout::Nhwc => (c, a, b),
        };
        let wanted = channel_count(steps.color_order);
        if channels != wanted as i64 && channels >= 0 {
            return Err(format!(
                "layout {:?} and colorOrder {:?} make {wanted} channels, input {:?} has shape {:?}",
                steps.layout, steps.color_order, input.name, input.shape
            ));
        }
        if !matches!(input.datatype, DataType::Fp32 | DataType::Uint8) {
            return Err(format!(
                "input {:?} is {}, an image can be FP32 or UINT8",
                input.name,
                input.datatype.name()
            ));
        }
        let (factor, offset) = normalisation(steps, wanted)?;
        if input.datatype == DataType::Uint8
            && (factor.iter().any(|&f| f != 1.0) || offset.iter().any(|&o| o != 0.0))
        {
            return Err(format!(
                "input {:?} is UINT8, so scale, mean and std must be left out",
                input.name
            ));
        }
        let dimension = |size: i64| u32::try_from(size).ok();
        let size = (dimension(width), dimension(height));
        check_size(steps, size)?;
        Ok(Self {
            steps: steps.clone(),
            factor,
            offset,
            size,
            datatype: input.datatype,
            max_pixels,
        })
    }

    /// Decodes an image and makes a batch of one of it.
    ///
    /// # Errors
    /// When the image is none, is broken or too large.
    pub fn tensor(&self, image: &[u8]) -> Result<Tensor, InputError> {
        let image = decode::decode(image, self.steps.color_order, self.max_pixels)?;
        let image = resize::resize(image, self.steps.resize.as_ref(), self.max_pixels)?;
        let image = match self.steps.crop {
            Some(size) => image.centre(size)?,
            None => image,
        };
        let Size { width, height } = image.size();
        let wanted = (self.size.0.unwrap_or(width), self.size.1.unwrap_or(height));
        if (width, height) != wanted {
            let message = format!(
                "the model takes images of {}×{}, this one has {width}×{height}",
                wanted.0, wanted.1
            );
            return Err(InputError {
                problem: InputProblem::Malformed,
                message,
            });
        }
        Ok(self.normalise(&image))
    }

    /// A black image of the size that the model takes; `None` where it takes any.
    #[must_use]
    pub fn blank(&self) -> Option<Tensor> {
        let made = self.steps.crop.or(match self.steps.resize {
            Some(Resize::Stretch { width, height, .. }) => Some(Size { width, height }),
            _ => None,
        });
        let width = self.size.0.or(made.map(|size| size.width))?;
        let height = self.size.1.or(made.map(|size| size.height))?;
        let black = pixels::Pixels::new(
            Size { width, height },
            channel_count(self.steps.color_order),
            Vec::new(),
        );
        Some(self.normalise(&black))
    }

    fn normalise(&self, image: &pixels::Pixels) -> Tensor {
        let channels = image.channels();
        let Size { width, height } = image.size();
        let shape = match self.steps.layout {
            Layout::Nchw => [1, channels as i64, i64::from(height), i64::from(width)],
            Layout::Nhwc => [1, i64::from(height), i64::from(width), channels as i64],
        };
        // Channels of decoded images are in the order red, green, blue.
        let order: Vec<usize> = match self.steps.color_order {
            ColorOrder::Bgr => (0..channels).rev().collect(),
            ColorOrder::Rgb | ColorOrder::Gray => (0..channels).collect(),
        };
        let shape = shape.to_vec();
        let tensor = match self.datatype {
            DataType::Uint8 => Tensor::from_vec(shape, self.arrange(image, &order, |value, _| value)),
            _ => Tensor::from_vec(
                shape,
                self.arrange(image, &order, |value, channel| {
                    f32::from(value).mul_add(self.factor[channel], self.offset[channel])
                }),
            ),
        };
        // The shape is that of the pixels just arranged.
        tensor.unwrap_or_else(|| unreachable!("the pixels fill their own shape"))
    }

    fn arrange<T>(&self, image: &pixels::Pixels, order: &[usize], value: impl Fn(u8, usize) -> T) -> Vec<T> {
        let channels = image.channels();
        match self.steps.layout {
            Layout::Nchw => {
                let mut arranged = Vec::with_capacity(image.bytes().len());
                for (to, &from) in order.iter().enumerate() {
                    arranged.extend(
                        image
                            .bytes()
                            .iter()
                            .skip(from)
                            .step_by(channels)
                            .map(|&byte| value(byte, to)),
                    );
                }
                arranged
            }
            Layout::Nhwc => image
                .bytes()
                .chunks_exact(channels)
                .flat_map(|pixel| order.iter().enumerate().map(|(to, &from)| value(pixel[from], to)))
                .collect(),
        }
    }
}

const fn channel_count(order: ColorOrder) -> usize {
    match order {
        ColorOrder::Gray => 1,
        ColorOrder::Rgb | ColorOrder::Bgr => 3,
    }
}

/// (value × scale − mean) / std as one multiplication and one addition per channel.
fn normalisation(steps: &Preprocessing, channels: usize) -> Result<(Vec<f32>, Vec<f32>), String> {
    let per_channel = |name: &str, given: &[f32], default: f32| match given {
        [] => Ok(vec![default; channels]),
        [one] => Ok(vec![*one; channels]),
        all if all.len() == channels => Ok(all.to_vec()),
        all => Err(format!(
            "preprocessing.{name} has {} values, the image has {channels} channels",
            all.len()
        )),
    };
    let (mean, std) = (
        per_channel("mean", &steps.mean, 0.0)?,
        per_channel("std", &steps.std, 1.0)?,
    );
    if std.contains(&0.0) {
        return Err("preprocessing.std must not be 0".to_owned());
    }
    let numbers = [steps.scale]
        .into_iter()
        .chain(mean.iter().copied())
        .chain(std.iter().copied());
    if numbers.into_iter().any(|number| !number.is_finite()) {
        return Err("preprocessing.scale, mean and std must be finite numbers".to_owned());
    }
    let factor = std.iter().map(|std| steps.scale / std).collect();
    let offset = mean.iter().zip(&std).map(|(mean, std)| -mean / std).collect();
    Ok((factor, offset))
}

/// The size that comes out of the steps must be the size that goes into the model.
fn check_size(steps: &Preprocessing, wanted: (Option<u32>, Option<u32>)) -> Result<(), String> {
    let zero = |size: &Size| size.width == 0 || size.height == 0;
    let resized = match steps.resize {
        Some(Resize::Stretch { width, height, .. }) => Some(Size { width, height }),
        Some(Resize::ShortestEdge { size, .. }) => {
            if size == 0
                || steps
                    .crop
                    .is_some_and(|crop| crop.width > size || crop.height > size)
            {
                return Err(
                    "preprocessing.resize.size must be at least the crop's width and height".to_owned(),
                );
            }
            None
        }
        None => None,
    };
    if resized.iter().chain(&steps.crop).any(zero) {
        return Err("sizes in preprocessing must be at least 1".to_owned());
    }
    if let (Some(resized), Some(crop)) = (resized, steps.crop)
        && (crop.width > resized.width || crop.height > resized.height)
    {
        return Err("preprocessing.crop is larger than the resized image".to_owned());
    }
    let Some(made) = steps.crop.or(resized) else {
        return Ok(());
    };
    let fits = |wanted: Option<u32>, made: u32| wanted.is_none_or(|wanted| wanted == made);
    if fits(wanted.0, made.width) && fits(wanted.1, made.height) {
        return Ok(());
    }
    Err(format!(
        "preprocessing makes images of {}×{}, the model takes {wanted:?}",
        made.width, made.height
    ))
}

#[cfg(test)]
mod tests;
