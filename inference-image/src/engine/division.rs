//! Divisions that would end the process. Of INT32 and INT64, the smallest value divided by −1 has no result: processors stop
//! the program there (SIGFPE), and ONNX Runtime does not look. Pure; [`super::overflow`] finds them in a model.

use crate::tensor::{DataType, Tensor};
use std::borrow::Cow;

/// A division whose operands are known before the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// What messages call the operator.
    pub(super) operator: String,
    pub(super) dividend: Operand,
    pub(super) divisor: Operand,
}

/// What is divided, or what it is divided by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// An input of the model.
    Input {
        name: String,
        index: usize,
        /// It comes in another shape, or its elements in another order.
        is_rearranged: bool,
    },
    /// A constant of the model with such elements.
    Constant(Marks),
}

/// Which elements of an operand are dangerous: −1 in a divisor, the smallest value in a dividend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Marks {
    /// `None` if the operator has it in another one.
    pub(super) shape: Option<Vec<i64>>,
    pub(super) is_marked: Vec<bool>,
}

impl Division {
    /// For a model with these inputs, unless it has none of that name and of a type of which this is known.
    pub(super) fn of(&self, inputs: &[(&str, DataType)]) -> Option<Self> {
        Some(Self {
            operator: self.operator.clone(),
            dividend: self.dividend.of(inputs)?,
            divisor: self.divisor.of(inputs)?,
        })
    }

    /// Refuses inputs that cannot be divided. Shapes that differ, and of which neither is of one element, are not
    /// compared element by element: the dangerous values must then not meet anywhere.
    ///
    /// # Errors
    /// A sentence that says so.
    pub fn check(&self, inputs: &[Tensor]) -> Result<(), String> {
        let divisor = self.divisor.marks(inputs, |input| {
            let int32 = || marked(input.elements::<i32>()?, -1);
            int32().or_else(|| marked(input.elements::<i64>()?, -1))
        });
        let Some(divisor) = divisor else { return Ok(()) };
        let dividend = self.dividend.marks(inputs, |input| {
            let int32 = || marked(input.elements::<i32>()?, i32::MIN);
            int32().or_else(|| marked(input.elements::<i64>()?, i64::MIN))
        });
        match dividend {
            Some(dividend) if dividend.meets(&divisor) => Err(format!(
                "the model rejects these inputs: {}: the smallest value of a type cannot be divided by -1",
                self.operator
            )),
            _ => Ok(()),
        }
    }
}

impl Operand {
    fn of(&self, inputs: &[(&str, DataType)]) -> Option<Self> {
        let Self::Input {
            name, is_rearranged, ..
        } = self
        else {
            return Some(self.clone());
        };
        let index = inputs.iter().position(|&(other, _)| other == *name)?;
        let is_known = matches!(inputs[index].1, DataType::Int32 | DataType::Int64);
        is_known.then(|| Self::Input {
            name: name.clone(),
            index,
            is_rearranged: *is_rearranged,
        })
    }

    /// The dangerous elements, if there are any; `find` looks for them in an input.
    fn marks(
        &self,
        inputs: &[Tensor],
        find: impl Fn(&Tensor) -> Option<Vec<bool>>,
    ) -> Option<Cow<'_, Marks>> {
        let (index, is_rearranged) = match self {
            Self::Constant(marks) => return Some(Cow::Borrowed(marks)),
            Self::Input {
                index, is_rearranged, ..
            } => (*index, *is_rearranged),
        };
        let input = inputs.get(index)?;
        let is_marked = find(input)?;
        let shape = (!is_rearranged).then(|| input.shape().to_vec());
        Some(Cow::Owned(Marks { shape, is_marked }))
    }
}

impl Marks {
    fn meets(&self, other: &Self) -> bool {
        let is_same_shape = self.shape.is_some() && self.shape == other.shape;
        let mut pairs = self.is_marked.iter().zip(&other.is_marked);
        !is_same_shape || pairs.any(|(one, other)| *one && *other)
    }
}

/// Which elements are this one; `None` if none is.
pub(super) fn marked<T: PartialEq>(elements: &[T], dangerous: T) -> Option<Vec<bool>> {
    let is_marked = |element: &T| *element == dangerous;
    elements
        .iter()
        .any(is_marked)
        .then(|| elements.iter().map(is_marked).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LEAST: i64 = i64::MIN;

    fn input(index: usize, is_rearranged: bool) -> Operand {
        Operand::Input {
            name: ["x", "z"][index].to_owned(),
            index,
            is_rearranged,
        }
    }

    fn tensor(shape: &[i64], elements: &[i64]) -> Tensor {
        Tensor::from_vec(shape.to_vec(), elements.to_vec()).unwrap()
    }

    fn check(is_rearranged: bool, x: Tensor, z: Tensor) -> Result<(), String> {
        let division = Division {
            operator: "Div".into(),
            dividend: input(0, is_rearranged),
            divisor: input(1, false),
        };
        division.check(&[x, z])
    }

    #[test]
    fn only_elements_that_meet_are_refused_where_shapes_are_equal_or_one_is_a_single_number() {
        let (x, z) = (
            |elements: &[i64]| tensor(&[2], elements),
            |elements: &[i64]| tensor(&[2], elements),
        );
        assert!(check(false, x(&[LEAST, 1]), z(&[-1, 2])).is_err());
        assert!(check(false, x(&[LEAST, 1]), z(&[2, -1])).is_ok());
        assert!(check(false, x(&[LEAST, LEAST]), z(&[1, 0])).is_ok());
        assert!(check(false, x(&[LEAST + 1, 0]), z(&[-1, -1])).is_ok());
        assert!(check(false, x(&[1, LEAST]), tensor(&[], &[-1])).is_err());
        assert!(check(false, x(&[1, LEAST]), tensor(&[1], &[2])).is_ok());
        assert!(check(false, tensor(&[], &[LEAST]), z(&[3, -1])).is_err());
        let problem = check(false, x(&[LEAST, 1]), z(&[-1, 2])).unwrap_err();
        assert!(
            problem.starts_with("the model rejects these inputs: Div"),
            "{problem}"
        );
    }

    #[test]
    fn other_shapes_are_refused_if_the_values_are_there() {
        let x = || tensor(&[2, 1], &[LEAST, 1]);
        assert!(check(false, x(), tensor(&[1, 2], &[5, -1])).is_err());
        assert!(check(false, x(), tensor(&[1, 2], &[5, 1])).is_ok());
        let x = || tensor(&[2], &[LEAST, 1]);
        assert!(check(true, x(), tensor(&[2], &[2, -1])).is_err());
    }

    #[test]
    fn a_constant_is_looked_at_once() {
        let constant = |is_marked: &[bool]| {
            Operand::Constant(Marks {
                shape: Some(vec![2]),
                is_marked: is_marked.to_vec(),
            })
        };
        let by = |divisor| Division {
            operator: "Mod".into(),
            dividend: input(0, false),
            divisor,
        };
        let x = [Tensor::from_vec(vec![2], vec![i32::MIN, 1]).unwrap()];
        assert!(by(constant(&[true, false])).check(&x).is_err());
        assert!(by(constant(&[false, true])).check(&x).is_ok());
    }

    #[test]
    fn types_that_processors_divide_are_left_alone() {
        let division = Division {
            operator: "Div".into(),
            dividend: input(0, false),
            divisor: input(0, false),
        };
        for (datatype, is_known) in [
            (DataType::Int64, true),
            (DataType::Int32, true),
            (DataType::Int16, false),
            (DataType::Uint64, false),
            (DataType::Fp32, false),
        ] {
            assert_eq!(
                division.of(&[("x", datatype)]).is_some(),
                is_known,
                "{datatype:?}"
            );
        }
        assert!(division.of(&[]).is_none());
    }
}
