//! Sizes of dimensions, as far as they are known before a run, and the result of combining shapes.

use super::problem::Problem;
use std::cell::Cell;

/// The size of a dimension, or another number that a graph computes from sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Always the same.
    Fixed(i64),
    /// The number of rows in the batch, and a dimension that has one entry for each.
    Rows,
    /// Some number that does not depend on the number of rows or on their contents. Equal names mean equal numbers.
    Other(u32),
}

/// Gives names to unknown sizes.
#[derive(Default)]
pub(super) struct Names(Cell<u32>);

impl Names {
    /// A size about which nothing is known except that it does not depend on the rows.
    pub(super) fn fresh(&self) -> Size {
        self.0.set(self.0.get() + 1);
        Size::Other(self.0.get())
    }
}

/// Where the rows are in a shape.
pub(super) fn rows(shape: &[Size]) -> Option<usize> {
    shape.iter().position(|&size| size == Size::Rows)
}

/// A dimension counted from the front, as attributes name it.
pub(super) fn axis(named: i64, rank: usize) -> Result<usize, Problem> {
    let count = i64::try_from(rank).unwrap_or(i64::MAX);
    let named = if named < 0 { named + count } else { named };
    usize::try_from(named)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or(Problem::Shape)
}

/// The shape of what is computed element by element from tensors of these shapes, aligned at their ends.
pub(super) fn broadcast(shapes: &[&[Size]], names: &Names) -> Result<Vec<Size>, Problem> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![Size::Fixed(1); rank];
    for shape in shapes {
        let places = result[rank - shape.len()..].iter_mut();
        for (place, &size) in places.zip(shape.iter()) {
            *place = together(*place, size, names)?;
        }
    }
    Ok(result)
}

/// The size of the result where two dimensions are combined. A dimension of one entry is repeated, so combining the
/// rows with any other size would mean something else for a single row: it would be repeated along that dimension.
fn together(a: Size, b: Size, names: &Names) -> Result<Size, Problem> {
    match (a, b) {
        (Size::Fixed(1), other) | (other, Size::Fixed(1)) => Ok(other),
        (a, b) if a == b => Ok(a),
        (Size::Rows, _) | (_, Size::Rows) => Err(Problem::Meets),
        (Size::Fixed(_), Size::Fixed(_)) => Err(Problem::Shape),
        (fixed @ Size::Fixed(_), Size::Other(_)) | (Size::Other(_), fixed @ Size::Fixed(_)) => Ok(fixed),
        (Size::Other(_), Size::Other(_)) => Ok(names.fresh()),
    }
}

/// A product of sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Product {
    fixed: i64,
    /// How often the number of rows is a factor.
    rows: usize,
    /// Names, sorted.
    others: Vec<u32>,
}

impl Product {
    /// `None` if the number is too large.
    pub(super) fn of(sizes: &[Size]) -> Option<Self> {
        let mut product = Self {
            fixed: 1,
            rows: 0,
            others: Vec::new(),
        };
        for size in sizes {
            match size {
                Size::Fixed(size) => product.fixed = product.fixed.checked_mul(*size)?,
                Size::Rows => product.rows += 1,
                Size::Other(name) => product.others.push(*name),
            }
        }
        product.others.sort_unstable();
        Some(product)
    }

    /// The size that is this product; a new name where there is no better one.
    pub(super) fn size(&self, names: &Names) -> Result<Size, Problem> {
        match (self.rows, self.fixed, &self.others[..]) {
            (1, 1, []) => Ok(Size::Rows),
            (0, fixed, []) => Ok(Size::Fixed(fixed)),
            (0, 1, [name]) => Ok(Size::Other(*name)),
            (0, ..) => Ok(names.fresh()),
            _ => Err(Problem::Mixes),
        }
    }

    /// What is left when this is divided by another product.
    pub(super) fn divided(&self, by: &Self, names: &Names) -> Result<Size, Problem> {
        let mut others = self.others.clone();
        let is_whole = by.others.iter().all(|name| {
            let place = others.iter().position(|other| other == name);
            place.map(|place| others.remove(place)).is_some()
        });
        let divides = is_whole && by.fixed != 0 && self.fixed % by.fixed == 0 && by.rows <= self.rows;
        if divides {
            let quotient = Self {
                fixed: self.fixed / by.fixed,
                rows: self.rows - by.rows,
                others,
            };
            return quotient.size(names);
        }
        // The rows cancel out, whatever the rest is.
        if by.rows == self.rows {
            return Ok(names.fresh());
        }
        Err(Problem::Mixes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Size::{Fixed, Other, Rows};
    use super::*;

    #[test]
    fn rows_meet_their_own_and_what_is_the_same_for_all_of_them() {
        let names = Names::default();
        let meet = |a: &[Size], b: &[Size]| broadcast(&[a, b], &names);
        for (a, b, expected) in [
            (&[Rows, Fixed(3)][..], &[Fixed(3)][..], &[Rows, Fixed(3)][..]),
            (&[Rows, Fixed(3)], &[], &[Rows, Fixed(3)]),
            (&[Rows, Fixed(3)], &[Fixed(1), Fixed(3)], &[Rows, Fixed(3)]),
            (&[Rows, Fixed(3)], &[Rows, Fixed(1)], &[Rows, Fixed(3)]),
            (&[Rows, Other(7)], &[Rows, Other(7)], &[Rows, Other(7)]),
            (&[Rows, Other(7)], &[Fixed(4)], &[Rows, Fixed(4)]),
            (&[Rows], &[Fixed(5), Fixed(1)], &[Fixed(5), Rows]),
        ] {
            assert_eq!(meet(a, b).unwrap(), expected, "{a:?} {b:?}");
            assert_eq!(meet(b, a).unwrap(), expected, "{b:?} {a:?}");
        }
    }

    // Alone, a row is combined with all entries of the other dimension; in a batch each row is combined with its own.
    #[test]
    fn rows_do_not_meet_a_dimension_of_another_meaning() {
        let names = Names::default();
        for (a, b) in [
            (&[Rows, Fixed(3)][..], &[Fixed(2), Fixed(3)][..]),
            (&[Rows, Fixed(3)], &[Other(7), Fixed(3)]),
            (&[Rows, Fixed(3)], &[Rows]),
            (&[Fixed(3), Rows], &[Rows, Fixed(3)]),
        ] {
            assert!(broadcast(&[a, b], &names).is_err(), "{a:?} {b:?}");
            assert!(broadcast(&[b, a], &names).is_err(), "{b:?} {a:?}");
        }
        let spread = broadcast(&[&[Rows, Fixed(1)], &[Fixed(1), Rows]], &names).unwrap();
        assert_eq!(spread, [Rows, Rows], "which no tensor may have");
    }

    #[test]
    fn what_a_product_leaves_is_known_where_it_can_be() {
        let names = Names::default();
        let divide = |whole: &[Size], by: &[Size]| {
            Product::of(whole)
                .unwrap()
                .divided(&Product::of(by).unwrap(), &names)
        };
        assert_eq!(
            divide(&[Rows, Fixed(1280), Fixed(1)], &[Fixed(1280)]).unwrap(),
            Rows
        );
        assert_eq!(divide(&[Rows, Fixed(12)], &[Rows, Fixed(3)]).unwrap(), Fixed(4));
        assert_eq!(
            divide(&[Rows, Other(7), Fixed(4)], &[Rows, Fixed(4)]).unwrap(),
            Other(7)
        );
        assert_eq!(divide(&[Rows, Other(7)], &[Other(7)]).unwrap(), Rows);
        let unknown = divide(&[Rows, Other(7)], &[Rows, Other(8)]).unwrap();
        assert!(matches!(unknown, Other(name) if name != 7 && name != 8));
        for (whole, by) in [
            (&[Rows, Fixed(4)][..], &[Fixed(2)][..]),
            (&[Rows, Fixed(4)], &[Fixed(8)]),
            (&[Rows, Other(7)], &[Fixed(4)]),
            (&[Rows, Fixed(0)], &[Fixed(0)]),
            (&[Fixed(4)], &[Rows]),
        ] {
            assert!(divide(whole, by).is_err(), "{whole:?} {by:?}");
        }
        assert!(Product::of(&[Fixed(i64::MAX), Fixed(2)]).is_none());
    }
}
