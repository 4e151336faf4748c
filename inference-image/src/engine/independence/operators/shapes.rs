//! Operators that produce shapes, use them, or reorder dimensions.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{Product, Size, broadcast};

pub(super) fn constant(operator: &Operator<'_>) -> Facts {
    let attribute = operator.node.attributes.first().ok_or(Problem::Shape)?;
    let count = |count: usize| vec![Size::Fixed(i64::try_from(count).unwrap_or(i64::MAX))];
    Ok(vec![match (&attribute.name[..], &attribute.tensor) {
        (b"value", Some(tensor)) => Fact::constant(tensor),
        (b"value_int", _) => Fact {
            ints: Some(vec![Size::Fixed(attribute.int)]),
            ..Fact::shaped(Vec::new())
        },
        (b"value_ints", _) => Fact::list(attribute.ints.iter().map(|&int| Size::Fixed(int)).collect()),
        (b"value_float", _) => Fact {
            floats: Some(vec![attribute.float]),
            ..Fact::shaped(Vec::new())
        },
        (b"value_floats", _) => Fact {
            floats: Some(attribute.floats.clone()),
            ..Fact::shaped(count(attribute.floats.len()))
        },
        _ => Fact::default(),
    }])
}

pub(super) fn constant_of_shape(operator: &Operator<'_>) -> Facts {
    let shape = sizes(operator, 0)?;
    let value = operator
        .node
        .attribute("value")
        .and_then(|value| value.tensor.as_ref());
    let ints = match (value.and_then(|value| value.ints()).as_deref(), &shape[..]) {
        (Some(&[value]), &[Size::Fixed(count @ 0..=64)]) => {
            Some((0..count).map(|_| Size::Fixed(value)).collect())
        }
        _ => None,
    };
    Ok(vec![Fact {
        ints,
        ..Fact::shaped(shape)
    }])
}

/// Sizes from an input, none of them negative.
fn sizes(operator: &Operator<'_>, input: usize) -> Result<Vec<Size>, Problem> {
    let sizes = operator.elements(input)?;
    let is_size = |size: &Size| !matches!(size, Size::Fixed(..0));
    sizes.iter().all(is_size).then_some(sizes).ok_or(Problem::Shape)
}

pub(super) fn shape(operator: &Operator<'_>) -> Facts {
    let shape = operator.shape(0)?;
    let count = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let place = |name: &str, default: i64| {
        let named = operator.int(name).unwrap_or(default);
        let place = if named < 0 { named + count } else { named };
        usize::try_from(place.clamp(0, count)).unwrap_or(0)
    };
    let (start, end) = (place("start", 0), place("end", count));
    Ok(vec![Fact::list(
        shape.get(start..end).unwrap_or_default().to_vec(),
    )])
}

pub(super) fn transpose(operator: &Operator<'_>) -> Facts {
    let shape = operator.shape(0)?;
    let reversed = || (0..shape.len()).rev().collect();
    let order: Vec<usize> = match operator.ints("perm") {
        None => reversed(),
        Some(order) => order
            .iter()
            .map(|&axis| usize::try_from(axis).map_err(|_| Problem::Shape))
            .collect::<Result<_, _>>()?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..shape.len()) {
        return Err(Problem::Shape);
    }
    let transposed = order.into_iter().map(|axis| shape[axis]).collect();
    Ok(vec![operator.input(0)?.reshaped(transposed)])
}

/// The shape of an input is broadcast with the requested one.
pub(super) fn expand(operator: &Operator<'_>) -> Facts {
    let (input, wanted) = (operator.input(0)?, sizes(operator, 1)?);
    if input.counts() {
        return Err(Problem::Counts);
    }
    let shape = broadcast(&[operator.shape(0)?, &wanted], operator.names)?;
    Ok(vec![Fact::shaped(shape)])
}

pub(super) fn tile(operator: &Operator<'_>) -> Facts {
    let (shape, repeats) = (operator.shape(0)?, sizes(operator, 1)?);
    if operator.input(0)?.counts() {
        return Err(Problem::Counts);
    }
    if shape.len() != repeats.len() {
        return Err(Problem::Shape);
    }
    let sizes = shape.iter().zip(&repeats).map(|(&size, &repeats)| {
        let product = Product::of(&[size, repeats]).ok_or(Problem::Shape)?;
        match (size, repeats) {
            // Only a single entry that is repeated for each row is the same for all rows.
            (Size::Rows, Size::Fixed(1)) | (Size::Fixed(1), Size::Rows) => Ok(Size::Rows),
            (Size::Rows, _) | (_, Size::Rows) => Err(Problem::Mixes),
            _ => product.size(operator.names),
        }
    });
    Ok(vec![Fact::shaped(sizes.collect::<Result<_, _>>()?)])
}
