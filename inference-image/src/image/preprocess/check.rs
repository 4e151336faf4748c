//! Checks `model.yaml` for values that do not fit the model's input or are impossible in themselves. Pure.

use super::values::{Normalisation, Values};
use crate::engine::Port;
use crate::image::problems::Problems;
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
pub(super) fn values(steps: &Preprocessing, input: &Port) -> Result<Values, Problems> {
    // Channels of decoded images are in the order red, green, blue.
    let sources: &[usize] = match steps.color_order {
        ColorOrder::Gray => &[0],
        ColorOrder::Rgb => &[0, 1, 2],
        ColorOrder::Bgr => &[2, 1, 0],
    };
    let mut problems = Problems::default();
    let normalisation = problems.keep(normalisation(steps, sources.len()));
    let is_identity = |normalisation: &Vec<Normalisation>| normalisation.iter().all(|one| one.is_identity());
    if input.datatype == DataType::Uint8 && !normalisation.as_ref().is_none_or(is_identity) {
        problems.add(format!(
            "input {:?} is UINT8, so scale, mean and std must be left out",
            input.name
        ));
    }
    let plain = || {
        vec![
            Normalisation {
                scale: 1.0,
                mean: 0.0,
                std: 1.0
            };
            sources.len()
        ]
    };
    let values = Values::new(input.datatype, sources, &normalisation.unwrap_or_else(plain));
    if values.is_none() {
        problems.add(format!(
            "input {:?} is {}, but an image must be FP32, FP16 or UINT8",
            input.name,
            input.datatype.name()
        ));
    }
    problems.none_or(values)
}

/// One normalisation per channel.
fn normalisation(steps: &Preprocessing, channels: usize) -> Result<Vec<Normalisation>, Problems> {
    let per_channel = |name: &str, given: &[f32], default: f32| match given {
        [] => Ok(vec![default; channels]),
        [one] => Ok(vec![*one; channels]),
        all if all.len() == channels => Ok(all.to_vec()),
        all => Err(format!(
            "preprocessing.{name} has {} values, but the image has {channels} channels",
            all.len()
        )),
    };
    let mut problems = Problems::default();
    let mean = problems.keep(per_channel("mean", &steps.mean, 0.0));
    let std = problems.keep(per_channel("std", &steps.std, 1.0));
    if steps.std.contains(&0.0) {
        problems.add("preprocessing.std must not be 0");
    }
    let numbers = steps.mean.iter().chain(&steps.std).chain([&steps.scale]);
    if numbers.into_iter().any(|number| !number.is_finite()) {
        problems.add("preprocessing.scale, mean and std must be finite numbers");
    }
    let channel = |(mean, std)| Normalisation {
        scale: steps.scale,
        mean,
        std,
    };
    let (mean, std) = problems.none_or(mean.zip(std))?;
    Ok(mean.into_iter().zip(std).map(channel).collect())
}

/// The size that the steps produce must be the size that the model expects.
pub(super) fn check_size(steps: &Preprocessing, wanted: (Option<u32>, Option<u32>)) -> Result<(), Problems> {
    let problems = [
        (wanted.0 == Some(0) || wanted.1 == Some(0)).then(|| "the model's input has no pixels".to_owned()),
        unsupported_filter(steps),
        impossible_sizes(steps),
        other_size(steps, wanted),
    ];
    let problems: Problems = problems.into_iter().flatten().collect();
    problems.none_or(Some(()))
}

fn unsupported_filter(steps: &Preprocessing) -> Option<String> {
    let resize = steps.resize.as_ref()?;
    let is_supported = resize.antialias() || matches!(resize.filter(), Filter::Nearest | Filter::Bilinear);
    (!is_supported)
        .then(|| "preprocessing.resize.antialias can be false only if the filter is bilinear".to_owned())
}

/// The size that every image is stretched to.
const fn stretched(steps: &Preprocessing) -> Option<Size> {
    match steps.resize {
        Some(Resize::Stretch { width, height, .. }) => Some(Size { width, height }),
        _ => None,
    }
}

/// Sizes that no image can have.
fn impossible_sizes(steps: &Preprocessing) -> Option<String> {
    let is_zero = |size: &Size| size.width == 0 || size.height == 0;
    let is_larger = |crop: Size, than: Size| crop.width > than.width || crop.height > than.height;
    let (crop, stretched) = (steps.crop, stretched(steps));
    let problem = match steps.resize {
        Some(Resize::ShortestEdge { size, .. })
            if size == 0 || crop.is_some_and(|crop| crop.width > size || crop.height > size) =>
        {
            "preprocessing.resize.size must be at least the crop's width and height"
        }
        _ if stretched.iter().chain(&crop).any(is_zero) => "sizes in preprocessing must be at least 1",
        _ if crop
            .zip(stretched)
            .is_some_and(|(crop, than)| is_larger(crop, than)) =>
        {
            "preprocessing.crop is larger than the resized image"
        }
        _ => return None,
    };
    Some(problem.to_owned())
}

fn other_size(steps: &Preprocessing, wanted: (Option<u32>, Option<u32>)) -> Option<String> {
    let made = steps.crop.or(stretched(steps))?;
    let fits = |wanted: Option<u32>, made: u32| wanted.is_none_or(|wanted| wanted == made);
    let is_wanted = fits(wanted.0, made.width) && fits(wanted.1, made.height);
    let shown = |size: Option<u32>| size.map_or_else(|| "any".to_owned(), |size| size.to_string());
    (!is_wanted).then(|| {
        format!(
            "preprocessing produces images of {}×{}, but the model expects {}×{}",
            made.width,
            made.height,
            shown(wanted.0),
            shown(wanted.1)
        )
    })
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
