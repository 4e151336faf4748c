//! Checks `model.yaml` for values that do not fit the model's input or are impossible in themselves. Pure.

use super::values::{Normalisation, Values};
use crate::engine::Port;
use crate::package::manifest::{ColorOrder, Filter, Preprocessing, Resize, Size};
use crate::tensor::DataType;

/// The number of channels that the model gets.
pub(super) const fn channel_count(order: ColorOrder) -> usize {
    match order {
        ColorOrder::Gray => 1,
        ColorOrder::Rgb | ColorOrder::Bgr => 3,
    }
}

/// What the 256 values of each channel become in the model's input.
pub(super) fn values(steps: &Preprocessing, input: &Port) -> Result<Values, String> {
    // Channels of decoded images are in the order red, green, blue.
    let sources: &[usize] = match steps.color_order {
        ColorOrder::Gray => &[0],
        ColorOrder::Rgb => &[0, 1, 2],
        ColorOrder::Bgr => &[2, 1, 0],
    };
    let normalisation = normalisation(steps, sources.len())?;
    let changes = !normalisation.iter().all(|channel| channel.is_identity());
    if input.datatype == DataType::Uint8 && changes {
        return Err(format!(
            "input {:?} is UINT8, so scale, mean and std must be left out",
            input.name
        ));
    }
    Values::new(input.datatype, sources, &normalisation).ok_or_else(|| {
        format!(
            "input {:?} is {}, but an image must be FP32, FP16 or UINT8",
            input.name,
            input.datatype.name()
        )
    })
}

/// One normalisation per channel.
fn normalisation(steps: &Preprocessing, channels: usize) -> Result<Vec<Normalisation>, String> {
    let per_channel = |name: &str, given: &[f32], default: f32| match given {
        [] => Ok(vec![default; channels]),
        [one] => Ok(vec![*one; channels]),
        all if all.len() == channels => Ok(all.to_vec()),
        all => Err(format!(
            "preprocessing.{name} has {} values, but the image has {channels} channels",
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
    let channel = |(mean, std)| Normalisation {
        scale: steps.scale,
        mean,
        std,
    };
    Ok(mean.into_iter().zip(std).map(channel).collect())
}

/// The size that the steps produce must be the size that the model expects.
pub(super) fn check_size(steps: &Preprocessing, wanted: (Option<u32>, Option<u32>)) -> Result<(), String> {
    let zero = |size: &Size| size.width == 0 || size.height == 0;
    if wanted.0 == Some(0) || wanted.1 == Some(0) {
        return Err("the model's input has no pixels".to_owned());
    }
    if let Some(resize) = &steps.resize
        && !resize.antialias()
        && !matches!(resize.filter(), Filter::Nearest | Filter::Bilinear)
    {
        return Err("preprocessing.resize.antialias can be false only if the filter is bilinear".to_owned());
    }
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
        "preprocessing produces images of {}×{}, but the model expects {wanted:?}",
        made.width, made.height
    ))
}

/// The images that pre-processing produces must not be larger than those that it accepts.
pub(super) fn check_memory(steps: &Preprocessing, made: Option<Size>, max_pixels: u64) -> Result<(), String> {
    let square = |size: u32| Size {
        width: size,
        height: size,
    };
    let shortest = match steps.resize {
        Some(Resize::ShortestEdge { size, .. }) => Some(square(size)),
        _ => None,
    };
    let pixels = |size: &Size| u64::from(size.width) * u64::from(size.height);
    match made
        .iter()
        .chain(&shortest)
        .find(|size| pixels(size) > max_pixels)
    {
        Some(Size { width, height }) => Err(format!(
            "preprocessing produces images of {width}×{height}, but limits.maxImagePixels is {max_pixels}"
        )),
        None => Ok(()),
    }
}
