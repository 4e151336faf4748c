//! A node with what is known about its inputs, as rules see it.

use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{Names, Size};
use crate::onnx::Node;

/// What is known about outputs.
pub(super) type Facts = Result<Vec<Fact>, Problem>;
/// From inputs to outputs.
pub(super) type Rule = fn(&Operator<'_>) -> Facts;

/// A node with what is known about its inputs; an omitted input is `None`.
pub(crate) struct Operator<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: Vec<Option<&'a Fact>>,
    pub(super) opset: i64,
    pub(super) names: &'a Names,
}

impl<'a> Operator<'a> {
    pub(crate) const fn new(
        node: &'a Node,
        inputs: Vec<Option<&'a Fact>>,
        opset: i64,
        names: &'a Names,
    ) -> Self {
        Self {
            node,
            inputs,
            opset,
            names,
        }
    }

    /// A required input.
    pub(super) fn input(&self, index: usize) -> Result<&'a Fact, Problem> {
        self.given(index).ok_or(Problem::Shape)
    }

    /// An optional input.
    pub(super) fn given(&self, index: usize) -> Option<&'a Fact> {
        self.inputs.get(index).copied().flatten()
    }

    /// An input's shape.
    pub(super) fn shape(&self, index: usize) -> Result<&'a [Size], Problem> {
        self.input(index)?.shape.as_deref().ok_or(Problem::Shape)
    }

    /// The elements of an input that holds sizes, axes or the like.
    pub(super) fn elements(&self, index: usize) -> Result<Vec<Size>, Problem> {
        self.input(index)?.elements(self.names)
    }

    /// The elements of an input, if all are known; `None` if it is omitted.
    pub(super) fn fixed(&self, index: usize) -> Result<Option<Vec<i64>>, Problem> {
        let Some(input) = self.given(index) else {
            return Ok(None);
        };
        let ints = input.ints.as_ref().ok_or(Problem::Shape)?;
        let fixed = ints.iter().map(|&int| match int {
            Size::Fixed(int) => Ok(int),
            Size::Rows => Err(Problem::Counts),
            Size::Other(_) => Err(Problem::Shape),
        });
        fixed.collect::<Result<_, _>>().map(Some)
    }

    /// Whether all given inputs except these are the same for all rows.
    pub(super) fn only(&self, inputs: &[usize]) -> Result<(), Problem> {
        let mut others = self
            .inputs
            .iter()
            .enumerate()
            .filter(|(index, _)| !inputs.contains(index));
        if others.any(|(_, input)| input.is_some_and(Fact::depends)) {
            return Err(Problem::Depends);
        }
        Ok(())
    }

    /// An integer attribute.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.node.attribute(name).map(|attribute| attribute.int)
    }

    /// Whether an integer attribute is given and not 0.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.int(name).unwrap_or(0) != 0
    }

    /// An attribute of several integers.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.node.attribute(name).map(|attribute| &attribute.ints[..])
    }

    /// An attribute that is a word.
    pub(super) fn text(&self, name: &str) -> &str {
        let text = self.node.attribute(name).map(|attribute| &attribute.text[..]);
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }

    /// Axes, which newer operator sets take as an input and older ones as an attribute; `None` if there are none.
    pub(super) fn axes(&self, input: usize) -> Result<Option<Vec<i64>>, Problem> {
        let attribute = self.ints("axes").map(<[i64]>::to_vec);
        attribute.map_or_else(|| self.fixed(input), |axes| Ok(Some(axes)))
    }

    /// An unknown size.
    pub(super) fn fresh(&self) -> Size {
        self.names.fresh()
    }

    /// Whether the output is used.
    pub(super) fn makes(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(|name| !name.is_empty())
    }
}
