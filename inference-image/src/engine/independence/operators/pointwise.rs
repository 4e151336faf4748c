//! Operators that compute each element from the elements at the same position.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size, broadcast};
use crate::onnx::datatype;

/// Operators on one tensor; further inputs are settings.
pub(super) fn one(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    Ok(vec![Fact::shaped(operator.shape(0)?.to_vec())])
}

pub(super) fn identity(operator: &Operator<'_>) -> Facts {
    Ok(vec![operator.input(0)?.clone()])
}

/// Operators on several tensors, which are broadcast.
pub(super) fn several(operator: &Operator<'_>) -> Facts {
    let shapes: Result<Vec<_>, _> = (0..operator.inputs.len())
        .map(|index| operator.shape(index))
        .collect();
    Ok(vec![Fact::shaped(broadcast(&shapes?, operator.names)?)])
}

/// Arithmetic on two tensors, which may be lists of sizes.
pub(super) fn arithmetic(operator: &Operator<'_>) -> Facts {
    let mut facts = several(operator)?;
    let (a, b) = (operator.input(0)?, operator.input(1)?);
    let ints = match (&a.ints, &b.ints) {
        (Some(a), Some(b)) => Some(pairs(a, b, |a, b| computed(operator, a, b))?),
        _ if a.counts() || b.counts() => return Err(Problem::Counts),
        _ => None,
    };
    facts[0].ints = ints;
    Ok(facts)
}

/// Combines elements pairwise; a list of one element is combined with every element of the other list.
fn pairs<A: Copy, B: Copy, T>(
    a: &[A],
    b: &[B],
    result: impl Fn(A, B) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    match (a, b) {
        (&[a], b) => b.iter().map(|&b| result(a, b)).collect(),
        (a, &[b]) => a.iter().map(|&a| result(a, b)).collect(),
        (a, b) if a.len() == b.len() => a.iter().zip(b).map(|(&a, &b)| result(a, b)).collect(),
        _ => Err(Problem::Shape),
    }
}

/// The number of rows may only be passed on unchanged: computing with it gives other sizes for a batch than for a
/// single row.
fn computed(operator: &Operator<'_>, a: Size, b: Size) -> Result<Size, Problem> {
    use Size::{Fixed, Rows};
    let kind = operator.node.operator();
    // A number that is too large for 32 bits may have been truncated.
    let number =
        |number: Option<i64>| number.map_or_else(|| operator.fresh(), |number| short(operator, number));
    Ok(match (kind, a, b) {
        ("Equal", Rows, Fixed(..=0)) | ("Equal", Fixed(..=0), Rows) => Fixed(0),
        ("Equal", Fixed(a), Fixed(b)) => Fixed(i64::from(a == b)),
        ("Equal", Rows, _) | ("Equal", _, Rows) => return Err(Problem::Counts),
        ("Equal", ..) => operator.fresh(),
        ("Mul", Fixed(1), same) | ("Mul" | "Div", same, Fixed(1)) => same,
        ("Add", Fixed(0), same) | ("Add" | "Sub", same, Fixed(0)) => same,
        (_, Rows, _) | (_, _, Rows) => return Err(Problem::Counts),
        ("Add", Fixed(a), Fixed(b)) => number(a.checked_add(b)),
        ("Sub", Fixed(a), Fixed(b)) => number(a.checked_sub(b)),
        ("Mul", Fixed(a), Fixed(b)) => number(a.checked_mul(b)),
        ("Div", Fixed(a), Fixed(b)) => number(a.checked_div(b)),
        _ => operator.fresh(),
    })
}

fn short(operator: &Operator<'_>, number: i64) -> Size {
    i32::try_from(number).map_or_else(|_| operator.fresh(), |_| Size::Fixed(number))
}

/// Chooses between two tensors by a third.
pub(super) fn chosen(operator: &Operator<'_>) -> Facts {
    let mut facts = several(operator)?;
    let inputs = [operator.input(0)?, operator.input(1)?, operator.input(2)?];
    if let [Some(conditions), Some(a), Some(b)] = inputs.map(|input| input.ints.as_ref()) {
        let both = pairs(a, b, |a, b| Ok((a, b)))?;
        let choose = |condition, (a, b)| match condition {
            Size::Fixed(0) => Ok(b),
            Size::Fixed(_) => Ok(a),
            _ if a == b => Ok(a),
            _ if a == Size::Rows || b == Size::Rows => Err(Problem::Counts),
            _ => Ok(operator.fresh()),
        };
        facts[0].ints = Some(pairs(conditions, &both, choose)?);
    } else if inputs.iter().any(|input| input.counts()) {
        return Err(Problem::Counts);
    }
    Ok(facts)
}

pub(super) fn cast(operator: &Operator<'_>) -> Facts {
    let input = operator.input(0)?;
    let to = operator.int("to").and_then(|to| i32::try_from(to).ok());
    if let (Some(ints), Some(datatype::INT32 | datatype::INT64)) = (&input.ints, to) {
        let cut = |&int: &Size| match int {
            Size::Fixed(int) => short(operator, int),
            other => other,
        };
        return Ok(vec![Fact {
            ints: Some(ints.iter().map(cut).collect()),
            ..Fact::shaped(operator.shape(0)?.to_vec())
        }]);
    }
    // As a floating-point number, a truth value or a byte it would be a different number.
    if input.counts() {
        return Err(Problem::Counts);
    }
    one(operator)
}

/// Only the type of the second input matters.
pub(super) fn cast_like(operator: &Operator<'_>) -> Facts {
    Ok(vec![Fact::shaped(operator.shape(0)?.to_vec())])
}

/// Does something only in training.
pub(super) fn dropout(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    if let Some(training) = operator.given(2)
        && training.ints.as_deref() != Some(&[Size::Fixed(0)])
    {
        return Err(Problem::Random);
    }
    let same = Fact::shaped(operator.shape(0)?.to_vec());
    Ok(vec![same.clone(), same])
}

/// Has one scale and zero point for all elements, or one for each entry of a dimension other than the rows'.
pub(super) fn quantised(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let shape = operator.shape(0)?;
    let scale = operator.shape(1)?;
    let is_one = scale.iter().all(|&size| size == Size::Fixed(1));
    if let (Some(rows), false) = (size::rows(shape), is_one) {
        let axis = size::axis(operator.int("axis").unwrap_or(1), shape.len())?;
        if scale.len() != 1 || axis == rows || operator.flag("block_size") {
            return Err(Problem::Meets);
        }
    }
    Ok(vec![Fact::shaped(shape.to_vec())])
}
