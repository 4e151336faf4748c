//! Operators on images of channels and pixels: the first dimension counts the images.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size};

/// Settings of a window: per dimension of an example's pixels.
struct Window {
    kernel: Vec<Size>,
}

/// The shape of examples, whose rows come first.
pub(super) fn examples<'a>(operator: &Operator<'a>) -> Result<&'a [Size], Problem> {
    let shape = operator.shape(0)?;
    match size::rows(shape) {
        None | Some(0) => Ok(shape),
        Some(_) => Err(Problem::Along),
    }
}

pub(super) fn convolution(operator: &Operator<'_>) -> Facts {
    convolved(operator, 1, &[0])
}

/// Inputs are followed by their scales and zero points.
pub(super) fn quantised_convolution(operator: &Operator<'_>) -> Facts {
    convolved(operator, 3, &[0])
}

/// A convolution with the weights of that input, which are the same for all examples.
pub(super) fn convolved(operator: &Operator<'_>, weights: usize, examples_in: &[usize]) -> Facts {
    operator.only(examples_in)?;
    let (shape, weights) = (examples(operator)?, operator.shape(weights)?);
    let (Some((&count, [_, pixels @ ..])), Some((&channels, [_, kernel @ ..]))) =
        (shape.split_first(), weights.split_first())
    else {
        return Err(Problem::Shape);
    };
    let window = Window {
        kernel: kernel.to_vec(),
    };
    let pixels = window.sizes(operator, pixels)?;
    Ok(vec![Fact::shaped([&[count, channels], &pixels[..]].concat())])
}

pub(super) fn transposed_convolution(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let (shape, weights) = (examples(operator)?, operator.shape(1)?);
    let (Some((&count, [_, pixels @ ..])), Some(&Size::Fixed(channels))) =
        (shape.split_first(), weights.get(1))
    else {
        return Err(Problem::Shape);
    };
    let groups = operator.int("group").unwrap_or(1);
    let channels = channels.checked_mul(groups).ok_or(Problem::Shape)?;
    let pixels = pixels.iter().map(|_| operator.fresh());
    let shape = [count, Size::Fixed(channels)].into_iter().chain(pixels);
    Ok(vec![Fact::shaped(shape.collect())])
}

pub(super) fn pool(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let Some((count, [channels, pixels @ ..])) = examples(operator)?.split_first() else {
        return Err(Problem::Shape);
    };
    let kernel = operator.ints("kernel_shape").ok_or(Problem::Shape)?;
    let window = Window {
        kernel: kernel.iter().map(|&size| Size::Fixed(size)).collect(),
    };
    let pixels = window.sizes(operator, pixels)?;
    // The second output of MaxPool is left unknown: its indices count from the first row.
    Ok(vec![Fact::shaped([&[*count, *channels], &pixels[..]].concat())])
}

pub(super) fn global_pool(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let Some((count, [channels, pixels @ ..])) = examples(operator)?.split_first() else {
        return Err(Problem::Shape);
    };
    let pixels = pixels.iter().map(|_| Size::Fixed(1));
    let shape = [*count, *channels].into_iter().chain(pixels);
    Ok(vec![Fact::shaped(shape.collect())])
}

/// In training, mean and variance are computed from the batch.
pub(super) fn batch_normalization(operator: &Operator<'_>) -> Facts {
    let is_training = operator.flag("training_mode") || (1..5).any(|output| operator.makes(output));
    if is_training {
        return Err(Problem::Along);
    }
    each_example(operator)
}

/// The same shape, computed from an example alone.
pub(super) fn each_example(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    Ok(vec![Fact::shaped(examples(operator)?.to_vec())])
}

impl Window {
    /// How many positions the window has in each dimension.
    fn sizes(&self, operator: &Operator<'_>, pixels: &[Size]) -> Result<Vec<Size>, Problem> {
        if self.kernel.len() != pixels.len() || pixels.contains(&Size::Rows) {
            return Err(Problem::Shape);
        }
        let size = |place: usize| {
            let (Size::Fixed(size), Size::Fixed(kernel)) = (pixels[place], self.kernel[place]) else {
                return operator.fresh();
            };
            let places = places(operator, place, pixels.len(), size, kernel);
            places.map_or_else(|| operator.fresh(), Size::Fixed)
        };
        Ok((0..pixels.len()).map(size).collect())
    }
}

/// How many positions a window has along a dimension of that size; `None` if the attributes are invalid.
fn places(operator: &Operator<'_>, place: usize, rank: usize, size: i64, kernel: i64) -> Option<i64> {
    let setting = |name: &str, place: usize, default: i64| {
        let ints = operator.ints(name).filter(|ints| !ints.is_empty());
        ints.map_or(Some(default), |ints| ints.get(place).copied())
    };
    let stride = setting("strides", place, 1).filter(|&stride| stride > 0)?;
    let reach = (kernel - 1)
        .checked_mul(setting("dilations", place, 1)?)?
        .checked_add(1)?;
    let (before, after) = match operator.text("auto_pad") {
        "SAME_UPPER" | "SAME_LOWER" => return Some((size + stride - 1) / stride),
        "VALID" => (0, 0),
        _ => (setting("pads", place, 0)?, setting("pads", place + rank, 0)?),
    };
    let room = size.checked_add(before)?.checked_add(after)?.checked_sub(reach)?;
    if room < 0 {
        return None;
    }
    let is_rounded_up = operator.flag("ceil_mode");
    if !is_rounded_up || room % stride == 0 {
        return Some(room / stride + 1);
    }
    // Versions differ in whether a window may begin in the padding at the end.
    None
}
