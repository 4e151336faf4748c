//! What is known about a tensor before a run.

use super::problem::Problem;
use super::size::{self, Names, Size};
use crate::onnx::Tensor;

/// What is known about a tensor that keeps rows independent. At most one dimension is [`Size::Rows`], with one entry
/// per row. Without such a dimension, the tensor does not depend on any row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fact {
    /// Its dimensions; `None` if not even their number is known, which happens only for tensors that do not depend on
    /// the rows.
    pub(super) shape: Option<Vec<Size>>,
    /// Its elements, if it is a number or a list of numbers. Only these elements may be the number of rows.
    pub(super) ints: Option<Vec<Size>>,
    /// Its elements, if they are a few floating-point numbers.
    pub(super) floats: Option<Vec<f32>>,
}

impl Fact {
    /// A tensor of this shape.
    pub(super) fn shaped(shape: Vec<Size>) -> Self {
        Self {
            shape: Some(shape),
            ..Self::default()
        }
    }

    /// A list of these numbers.
    pub(super) fn list(ints: Vec<Size>) -> Self {
        let count = i64::try_from(ints.len()).unwrap_or(i64::MAX);
        Self {
            ints: Some(ints),
            ..Self::shaped(vec![Size::Fixed(count)])
        }
    }

    /// A tensor whose elements are in the file.
    pub(super) fn constant(tensor: &Tensor) -> Self {
        let is_list = tensor.dims.len() < 2;
        let fixed = |numbers: &[i64]| numbers.iter().map(|&number| Size::Fixed(number)).collect();
        Self {
            shape: Some(fixed(&tensor.dims)),
            ints: tensor.ints().filter(|_| is_list).map(|ints| fixed(&ints)),
            floats: tensor.floats().filter(|_| is_list),
        }
    }

    /// The same elements in another shape.
    pub(super) fn reshaped(&self, shape: Vec<Size>) -> Self {
        let is_list = shape.len() < 2;
        Self {
            ints: self.ints.clone().filter(|_| is_list),
            floats: self.floats.clone().filter(|_| is_list),
            shape: Some(shape),
        }
    }

    /// The dimension of the rows.
    pub(super) fn rows(&self) -> Option<usize> {
        size::rows(self.shape.as_deref()?)
    }

    /// Whether one of its elements is the number of rows.
    pub(super) fn counts(&self) -> bool {
        let mut ints = self.ints.iter().flatten();
        ints.any(|&int| int == Size::Rows)
    }

    /// Whether it depends on the rows, or on how many there are.
    pub(super) fn depends(&self) -> bool {
        self.rows().is_some() || self.counts()
    }

    /// Its elements, of a number or a list of known length; unknown elements get names.
    pub(super) fn elements(&self, names: &Names) -> Result<Vec<Size>, Problem> {
        if let Some(ints) = &self.ints {
            return Ok(ints.clone());
        }
        let count = match self.shape.as_deref() {
            Some([]) => 1,
            Some([Size::Fixed(count @ 0..=64)]) => *count,
            Some([Size::Rows, ..]) => return Err(Problem::Depends),
            _ => return Err(Problem::Shape),
        };
        Ok((0..count).map(|_| names.fresh()).collect())
    }
}
