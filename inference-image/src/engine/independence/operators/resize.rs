//! Resizing, which does not change dimensions whose factor is 1.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size};

pub(super) fn resize(operator: &Operator<'_>) -> Facts {
    operator.only(&[0, 3])?;
    if operator.input(0)?.counts() {
        return Err(Problem::Counts);
    }
    if !leaves_others(operator) {
        return Err(Problem::Along);
    }
    let shape = operator.shape(0)?;
    let all = || (0..i64::try_from(shape.len()).unwrap_or(0)).collect();
    let axes: Vec<i64> = operator.ints("axes").map_or_else(all, <[i64]>::to_vec);
    let axes: Vec<usize> = axes
        .into_iter()
        .map(|named| size::axis(named, shape.len()))
        .collect::<Result<_, _>>()?;
    let sizes = wanted(operator, &axes, shape)?;
    let mut resized = shape.to_vec();
    for (axis, size) in axes.into_iter().zip(sizes) {
        if (resized[axis] == Size::Rows) != (size == Size::Rows) {
            return Err(Problem::Along);
        }
        resized[axis] = size;
    }
    Ok(vec![Fact::shaped(resized)])
}

/// Whether a dimension that keeps its size also keeps its entries in place: some coordinate transformations crop it
/// or round to a neighbour.
fn leaves_others(operator: &Operator<'_>) -> bool {
    let is_nearest = matches!(operator.text("mode"), "" | "nearest");
    match operator.text("coordinate_transformation_mode") {
        "" | "asymmetric" | "half_pixel" | "half_pixel_symmetric" | "pytorch_half_pixel" => true,
        "align_corners" => !is_nearest,
        _ => false,
    }
}

/// The sizes of these axes.
fn wanted(operator: &Operator<'_>, axes: &[usize], shape: &[Size]) -> Result<Vec<Size>, Problem> {
    let is_upsample = operator.node.operator() == "Upsample" || operator.opset < 11;
    let scales = operator.given(if is_upsample { 1 } else { 2 });
    let scales = scales
        .and_then(|scales| scales.floats.as_deref())
        .filter(|scales| !scales.is_empty());
    let attribute = operator.node.attribute("scales").map(|scales| &scales.floats[..]);
    if let Some(scales) = scales.or(attribute) {
        let scaled = |(&axis, &scale): (&usize, &f32)| match shape[axis] {
            same if scale.to_bits() == 1_f32.to_bits() => Ok(same),
            Size::Rows => Err(Problem::Along),
            _ => Ok(operator.fresh()),
        };
        if scales.len() != axes.len() {
            return Err(Problem::Shape);
        }
        return axes.iter().zip(scales).map(scaled).collect();
    }
    // The result has the requested sizes only if the aspect ratio may change.
    if is_upsample || !matches!(operator.text("keep_aspect_ratio_policy"), "" | "stretch") {
        return Err(Problem::Shape);
    }
    let sizes = operator.elements(3)?;
    (sizes.len() == axes.len()).then_some(sizes).ok_or(Problem::Shape)
}
