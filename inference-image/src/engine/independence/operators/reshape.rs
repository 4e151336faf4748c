//! Operators that arrange the same elements in other dimensions.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Product, Size};

/// The same elements, in their order, in another shape. Rows stay independent if the stride along the rows stays the
/// same: then the dimensions after it still belong to one row.
fn arranged(operator: &Operator<'_>, shape: Vec<Size>) -> Facts {
    let input = operator.input(0)?;
    let before = operator.shape(0)?;
    match (size::rows(before), size::rows(&shape)) {
        (None, None) => {}
        (Some(from), Some(to)) => {
            let outer = |shape: &[Size], rows: usize| Product::of(&shape[..rows]).ok_or(Problem::Shape);
            if outer(before, from)? != outer(&shape, to)? {
                return Err(Problem::Mixes);
            }
        }
        _ => return Err(Problem::Mixes),
    }
    Ok(vec![input.reshaped(shape)])
}

pub(super) fn reshape(operator: &Operator<'_>) -> Facts {
    let before = operator.shape(0)?;
    let mut shape = operator.elements(1)?;
    let mut rest = None;
    for (place, size) in shape.iter_mut().enumerate() {
        match size {
            Size::Fixed(0) if !operator.flag("allowzero") => {
                *size = *before.get(place).ok_or(Problem::Shape)?;
            }
            Size::Fixed(-1) if rest.is_none() => rest = Some(place),
            Size::Fixed(..0) => return Err(Problem::Shape),
            _ => {}
        }
    }
    if let Some(place) = rest {
        shape[place] = Size::Fixed(1);
        let known = Product::of(&shape).ok_or(Problem::Shape)?;
        let all = Product::of(before).ok_or(Problem::Shape)?;
        shape[place] = all.divided(&known, operator.names)?;
    }
    arranged(operator, shape)
}

/// Two dimensions: all those before an axis, and the others.
pub(super) fn flatten(operator: &Operator<'_>) -> Facts {
    let shape = operator.shape(0)?;
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let axis = operator.int("axis").unwrap_or(1);
    let axis = if axis < 0 { axis + rank } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&axis| axis <= shape.len());
    let (first, second) = shape.split_at(axis.ok_or(Problem::Shape)?);
    let size = |sizes: &[Size]| Product::of(sizes).ok_or(Problem::Shape)?.size(operator.names);
    arranged(operator, vec![size(first)?, size(second)?])
}

pub(super) fn squeeze(operator: &Operator<'_>) -> Facts {
    let shape = operator.shape(0)?;
    // Without axes, all dimensions of size 1 are removed, and for a single row the rows' dimension too.
    let axes = operator.axes(1)?.filter(|axes| !axes.is_empty());
    let axes = axes.ok_or(Problem::Mixes)?;
    let mut gone = vec![false; shape.len()];
    for named in axes {
        gone[size::axis(named, shape.len())?] = true;
    }
    let kept = shape.iter().zip(gone).filter(|(_, gone)| !gone);
    arranged(operator, kept.map(|(&size, _)| size).collect())
}

pub(super) fn unsqueeze(operator: &Operator<'_>) -> Facts {
    let shape = operator.shape(0)?;
    let axes = operator.axes(1)?.ok_or(Problem::Shape)?;
    let mut result = vec![None; shape.len() + axes.len()];
    for named in axes {
        let place = size::axis(named, result.len())?;
        if result[place].replace(Size::Fixed(1)).is_some() {
            return Err(Problem::Shape);
        }
    }
    let mut sizes = shape.iter().copied();
    let filled = result.into_iter().map(|size| size.or_else(|| sizes.next()));
    arranged(operator, filled.collect::<Option<_>>().ok_or(Problem::Shape)?)
}

/// From channels to pixels.
pub(super) fn depth_to_space(operator: &Operator<'_>) -> Facts {
    let block = operator.int("blocksize").ok_or(Problem::Shape)?;
    let depth = move |depth: i64| depth.checked_div(block.checked_mul(block)?);
    each_example(operator, depth, move |side| side.checked_mul(block))
}

/// From pixels to channels.
pub(super) fn space_to_depth(operator: &Operator<'_>) -> Facts {
    let block = operator.int("blocksize").ok_or(Problem::Shape)?;
    let depth = move |depth: i64| depth.checked_mul(block.checked_mul(block)?);
    each_example(operator, depth, move |side| side.checked_div(block))
}

/// Moves elements within an example of channels, height and width.
fn each_example(
    operator: &Operator<'_>,
    depth: impl Fn(i64) -> Option<i64>,
    side: impl Fn(i64) -> Option<i64>,
) -> Facts {
    let &[examples, channels, height, width] = operator.shape(0)? else {
        return Err(Problem::Shape);
    };
    let changed = |size: Size, change: &dyn Fn(i64) -> Option<i64>| match size {
        Size::Fixed(size) => change(size).map(Size::Fixed).ok_or(Problem::Shape),
        Size::Rows => Err(Problem::Along),
        Size::Other(_) => Ok(operator.fresh()),
    };
    let (channels, height, width) = (
        changed(channels, &depth)?,
        changed(height, &side)?,
        changed(width, &side)?,
    );
    Ok(vec![Fact::shaped(vec![examples, channels, height, width])])
}
