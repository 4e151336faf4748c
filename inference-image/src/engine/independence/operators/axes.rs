//! Operators that compute along some dimensions, which must not be the rows'.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size, broadcast};

/// The dimension that an attribute names, which must not be the rows'.
fn apart(operator: &Operator<'_>, default: i64) -> Result<usize, Problem> {
    let shape = operator.shape(0)?;
    let axis = size::axis(operator.int("axis").unwrap_or(default), shape.len())?;
    if shape[axis] == Size::Rows {
        return Err(Problem::Along);
    }
    Ok(axis)
}

/// All dimensions from this one on are computed together, so the rows must come before it.
fn behind_rows(operator: &Operator<'_>, default: i64) -> Result<usize, Problem> {
    let shape = operator.shape(0)?;
    let axis = size::axis(operator.int("axis").unwrap_or(default), shape.len())?;
    if size::rows(shape).is_some_and(|rows| rows >= axis) {
        return Err(Problem::Along);
    }
    Ok(axis)
}

fn same(operator: &Operator<'_>) -> Facts {
    Ok(vec![Fact::shaped(operator.shape(0)?.to_vec())])
}

pub(super) fn softmax(operator: &Operator<'_>) -> Facts {
    if operator.opset < 13 {
        behind_rows(operator, 1)?;
    } else {
        apart(operator, -1)?;
    }
    same(operator)
}

/// Softmax differs between operator sets, but not if the rows come before everything that is normalised.
pub(super) fn quantised_softmax(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    behind_rows(operator, -1)?;
    same(operator)
}

pub(super) fn normalization(operator: &Operator<'_>) -> Facts {
    apart(operator, -1)?;
    same(operator)
}

pub(super) fn layer_normalization(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let axis = behind_rows(operator, -1)?;
    let shape = operator.shape(0)?;
    // Scales and zero points must not depend on the rows.
    for input in 1..operator.inputs.len() {
        if operator.given(input).is_some()
            && broadcast(&[shape, operator.shape(input)?], operator.names)?.len() != shape.len()
        {
            return Err(Problem::Meets);
        }
    }
    let mut statistics = shape.to_vec();
    statistics[axis..].fill(Size::Fixed(1));
    let (statistics, mut facts) = (Fact::shaped(statistics), same(operator)?);
    facts.extend([statistics.clone(), statistics]);
    Ok(facts)
}

pub(super) fn cumulative(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let shape = operator.shape(0)?;
    let axis = operator.fixed(1)?.ok_or(Problem::Shape)?;
    let &[axis] = &axis[..] else {
        return Err(Problem::Shape);
    };
    if shape[size::axis(axis, shape.len())?] == Size::Rows {
        return Err(Problem::Along);
    }
    same(operator)
}

/// The largest or smallest along a dimension.
pub(super) fn index(operator: &Operator<'_>) -> Facts {
    let axis = apart(operator, 0)?;
    let keeps = operator.int("keepdims").unwrap_or(1) != 0;
    Ok(vec![reduced(operator.shape(0)?, &[axis], keeps)])
}

pub(super) fn top(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let axis = apart(operator, -1)?;
    let mut shape = operator.shape(0)?.to_vec();
    shape[axis] = match (operator.int("k"), operator.given(1)) {
        (Some(count), _) => Size::Fixed(count),
        (None, Some(_)) => operator.elements(1)?.first().copied().ok_or(Problem::Shape)?,
        (None, None) => return Err(Problem::Shape),
    };
    let fact = Fact::shaped(shape);
    Ok(vec![fact.clone(), fact])
}

pub(super) fn reduce(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let shape = operator.shape(0)?;
    let axes = operator.axes(1)?.unwrap_or_default();
    if axes.is_empty() && operator.flag("noop_with_empty_axes") {
        return same(operator);
    }
    let named = axes.iter().map(|&axis| size::axis(axis, shape.len()));
    let mut axes = named.collect::<Result<Vec<usize>, _>>()?;
    if axes.is_empty() {
        axes = (0..shape.len()).collect();
    }
    if axes.iter().any(|&axis| shape[axis] == Size::Rows) {
        return Err(Problem::Along);
    }
    let keeps = operator.int("keepdims").unwrap_or(1) != 0;
    Ok(vec![reduced(shape, &axes, keeps)])
}

/// A shape in which these dimensions have one entry, or are gone.
fn reduced(shape: &[Size], axes: &[usize], keeps: bool) -> Fact {
    let size = |(place, &size): (usize, &Size)| match axes.contains(&place) {
        true => keeps.then_some(Size::Fixed(1)),
        false => Some(size),
    };
    Fact::shaped(shape.iter().enumerate().filter_map(size).collect())
}
