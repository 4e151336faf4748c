//! Where a model keeps weights: in the file itself, or in files beside it (ONNX external data).

use super::messages::{Attribute, Graph, Model, SparseTensor, Tensor, text};
use std::collections::BTreeSet;

/// Key of the file name in a tensor's external data.
const LOCATION: &str = "location";

impl Model {
    /// Files with weights, relative to the model's file; each once.
    pub(crate) fn external_files(&self) -> BTreeSet<String> {
        let mut files = self.inner_files();
        let graph = self.graph.iter();
        files.extend(graph.flat_map(|graph| graph.initializers.iter().flat_map(Tensor::files)));
        files
    }

    /// Those that are not named by an initialiser of the main graph, but by constants, in the bodies of conditions
    /// and loops, or in functions.
    pub(crate) fn inner_files(&self) -> BTreeSet<String> {
        let mut tensors = Vec::new();
        if let Some(graph) = &self.graph {
            graph.inner(&mut tensors);
        }
        for function in &self.functions {
            let attributes = function.nodes.iter().flat_map(|node| &node.attributes);
            attributes
                .chain(&function.attributes)
                .for_each(|attribute| attribute.all_tensors(&mut tensors));
        }
        tensors.into_iter().flat_map(Tensor::files).collect()
    }
}

impl Graph {
    /// Its tensors, except its initialisers.
    fn inner<'a>(&'a self, tensors: &mut Vec<&'a Tensor>) {
        self.sparse.iter().for_each(|sparse| sparse.tensors(tensors));
        let attributes = self.nodes.iter().flat_map(|node| &node.attributes);
        attributes.for_each(|attribute| attribute.all_tensors(tensors));
    }
}

impl Attribute {
    fn all_tensors<'a>(&'a self, tensors: &mut Vec<&'a Tensor>) {
        tensors.extend(self.tensor.iter().chain(&self.tensors));
        let sparses = self.sparse.iter().chain(&self.sparses);
        sparses.for_each(|sparse| sparse.tensors(tensors));
        for graph in self.graph.iter().chain(&self.graphs) {
            tensors.extend(&graph.initializers);
            graph.inner(tensors);
        }
    }
}

impl SparseTensor {
    fn tensors<'a>(&'a self, tensors: &mut Vec<&'a Tensor>) {
        tensors.extend(self.values.iter().chain(&self.indices));
    }
}

impl Tensor {
    /// Whether a file other than the model's own holds its elements.
    pub(crate) fn is_external(&self) -> bool {
        self.external(LOCATION).is_some()
    }

    /// All files that it names; if there are several, ONNX Runtime decides which one it reads.
    fn files(&self) -> impl Iterator<Item = String> {
        let locations = self.external.iter().filter(|entry| entry.key == LOCATION);
        locations.map(|entry| text(&entry.value))
    }

    /// Where its elements are in the file.
    pub(crate) fn range(&self) -> Option<std::ops::Range<usize>> {
        let number = |key| text(self.external(key)?).parse::<usize>().ok();
        let start = number("offset").unwrap_or(0);
        Some(start..start.checked_add(number("length")?)?)
    }

    fn external(&self, key: &str) -> Option<&[u8]> {
        let entry = self.external.iter().find(|entry| entry.key == *key)?;
        Some(&entry.value)
    }
}
