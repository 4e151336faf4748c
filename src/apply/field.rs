//! Field: where in an object something is. Data only.

use std::fmt;

/// The way from the root of an object to one of its fields: keys, and items of lists by name or number.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Field(Vec<Step>);

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    /// A key of an object.
    Key(String),
    /// An item of a list.
    Item(String),
}

impl Field {
    /// The same field, seen from the value that holds this one.
    pub(super) fn below(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether it only describes the object: our own annotations change with everything else.
    pub(super) fn is_annotation(&self) -> bool {
        self.begins_with("metadata", "annotations")
    }

    /// Whether it is in the template of pods, which are replaced when it changes.
    pub(super) fn is_template(&self) -> bool {
        self.begins_with("spec", "template")
    }

    fn begins_with(&self, first: &str, second: &str) -> bool {
        let is = |at: usize, name: &str| matches!(self.0.get(at), Some(Step::Key(key)) if key == name);
        is(0, first) && is(1, second)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => write!(formatter, "{key}")?,
                Step::Key(key) => write!(formatter, ".{key}")?,
                Step::Item(item) => write!(formatter, "[{item}]")?,
            }
        }
        Ok(())
    }
}
