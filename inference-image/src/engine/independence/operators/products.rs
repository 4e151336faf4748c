//! Matrix products: the sum must not run over the rows.

use super::operator::{Facts, Operator};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size, broadcast};

pub(super) fn matrices(operator: &Operator<'_>) -> Facts {
    operator.only(&[0, 1])?;
    // The first zero point of MatMulInteger could have an element per row.
    one_each(operator, &[2])?;
    Ok(vec![multiplied(operator, 0, 1)?])
}

/// Inputs are followed by their scales and zero points.
pub(super) fn quantised_matrices(operator: &Operator<'_>) -> Facts {
    operator.only(&[0, 3])?;
    one_each(operator, &[1, 2, 6, 7])?;
    Ok(vec![multiplied(operator, 0, 3)?])
}

/// Requires that these inputs are single numbers, if they are given.
fn one_each(operator: &Operator<'_>, inputs: &[usize]) -> Result<(), Problem> {
    for &input in inputs {
        let is_given = operator.given(input).is_some();
        if is_given && operator.shape(input)?.iter().any(|&size| size != Size::Fixed(1)) {
            return Err(Problem::Meets);
        }
    }
    Ok(())
}

/// The same rules as numpy's `matmul`.
fn multiplied(operator: &Operator<'_>, first: usize, second: usize) -> Result<Fact, Problem> {
    let (a, b) = (operator.shape(first)?, operator.shape(second)?);
    let (Some((&a_sum, a_outer)), Some(_)) = (a.split_last(), b.first()) else {
        return Err(Problem::Shape);
    };
    // The sum runs over the only dimension of a vector.
    let (b_sum, b_outer, column) = match b {
        [sum] => (*sum, &[][..], None),
        [outer @ .., sum, column] => (*sum, outer, Some(*column)),
        [] => return Err(Problem::Shape),
    };
    if a_sum == Size::Rows || b_sum == Size::Rows {
        return Err(Problem::Along);
    }
    let (row, a_outer) = a_outer
        .split_last()
        .map_or((None, a_outer), |(row, outer)| (Some(*row), outer));
    let mut shape = broadcast(&[a_outer, b_outer], operator.names)?;
    shape.extend(row);
    shape.extend(column);
    Ok(Fact::shaped(shape))
}

/// `A · B + C`, each of the first two transposed or not.
pub(super) fn gemm(operator: &Operator<'_>) -> Facts {
    dense(operator, [0, 1, 2])
}

/// The same for these inputs.
pub(super) fn dense(operator: &Operator<'_>, [first, second, bias]: [usize; 3]) -> Facts {
    operator.only(&[first, second, bias])?;
    let matrix = |input: usize, is_transposed: bool| match (operator.shape(input)?, is_transposed) {
        (&[row, column], false) | (&[column, row], true) => Ok((row, column)),
        _ => Err(Problem::Shape),
    };
    let (row, a_sum) = matrix(first, operator.flag("transA"))?;
    let (b_sum, column) = matrix(second, operator.flag("transB"))?;
    if a_sum == Size::Rows || b_sum == Size::Rows {
        return Err(Problem::Along);
    }
    let product = [row, column];
    let shape = match operator.given(bias) {
        None => product.to_vec(),
        Some(_) => broadcast(&[&product, operator.shape(bias)?], operator.names)?,
    };
    // A bias must not add rows to a product that has none: only the bias is repeated, never the product.
    if shape.len() != 2 || size::rows(&shape) != size::rows(&product) {
        return Err(Problem::Meets);
    }
    Ok(vec![Fact::shaped(shape)])
}

/// Dimensions are letters: the rows must have their own letter, which must be in the result.
pub(super) fn einsum(operator: &Operator<'_>) -> Facts {
    let equation: String = operator
        .text("equation")
        .chars()
        .filter(|letter| *letter != ' ')
        .collect();
    let (terms, result) = equation.split_once("->").ok_or(Problem::Shape)?;
    let terms: Vec<&str> = terms.split(',').collect();
    let is_plain = |term: &str| term.chars().all(|letter| letter.is_ascii_alphabetic());
    if terms.len() != operator.inputs.len() || !terms.iter().all(|term| is_plain(term)) || !is_plain(result) {
        return Err(Problem::Shape);
    }
    let mut sizes: Vec<(char, Size)> = Vec::new();
    for (input, term) in terms.iter().enumerate() {
        let shape = operator.shape(input)?;
        if shape.len() != term.len() {
            return Err(Problem::Shape);
        }
        for (letter, &size) in term.chars().zip(shape) {
            meet(&mut sizes, letter, size)?;
        }
    }
    let is_summed = |&(letter, size): &(char, Size)| size == Size::Rows && !result.contains(letter);
    if sizes.iter().any(is_summed) {
        return Err(Problem::Along);
    }
    let size = |letter| {
        sizes
            .iter()
            .find(|(known, _)| *known == letter)
            .map(|(_, size)| *size)
    };
    let shape: Option<Vec<Size>> = result.chars().map(size).collect();
    Ok(vec![Fact::shaped(shape.ok_or(Problem::Shape)?)])
}

/// A letter stands for one size, so rows are combined only with rows.
fn meet(sizes: &mut Vec<(char, Size)>, letter: char, size: Size) -> Result<(), Problem> {
    match sizes.iter_mut().find(|(known, _)| *known == letter) {
        None => sizes.push((letter, size)),
        Some((_, known)) if (*known == Size::Rows) != (size == Size::Rows) => return Err(Problem::Meets),
        Some((_, known @ Size::Other(_))) => *known = size,
        Some(_) => {}
    }
    Ok(())
}
