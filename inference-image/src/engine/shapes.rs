//! Which nodes of a model only compute shapes: all their inputs and outputs are integers or booleans of at most one
//! dimension. ONNX Runtime infers the types, in a session on the CPU of which these values are outputs.

use super::assignment::{Alike, Nodes};
use super::c_api::{self, AssignedNode};
use super::graphs::source::Source;
use super::runtime::Runtime;
use crate::onnx::{self, text};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, ValueType};
use std::collections::{BTreeMap, BTreeSet};

/// Names of values, and whether they may belong to a shape.
type Values = BTreeMap<String, bool>;

/// The nodes of the model that are like these. If their types cannot be inferred, none of them computes shapes.
pub(super) fn nodes_like(runtime: &Runtime, source: &Source, assigned: &[&AssignedNode]) -> Nodes {
    let keys: BTreeSet<(&str, &str)> = assigned
        .iter()
        .map(|node| (node.operator.as_str(), node.name.as_str()))
        .collect();
    let graph = source.original_graph().unwrap_or_default();
    let mut like: Vec<((String, String), &onnx::Node)> = Vec::new();
    for node in &graph.nodes {
        let key = (node.operator().to_owned(), text(&node.name));
        if keys.contains(&(key.0.as_str(), key.1.as_str())) {
            like.push((key, node));
        }
    }
    let values = infer(runtime, source, &graph, like.iter().map(|(_, node)| *node)).unwrap_or_else(|error| {
        tracing::debug!("which nodes compute shapes is not known: {error}");
        Values::new()
    });
    let mut nodes = Nodes::new();
    for (key, node) in like {
        let Alike { all, of_shapes } = nodes.entry(key).or_default();
        *all += 1;
        *of_shapes += u64::from(names(node).all(|name| values.get(&name) == Some(&true)));
    }
    nodes
}

/// Inputs and outputs of a node, without omitted ones.
fn names(node: &onnx::Node) -> impl Iterator<Item = String> {
    let names = node.inputs.iter().chain(&node.outputs);
    names.filter(|name| !name.is_empty()).map(|name| text(name))
}

fn infer<'a>(
    runtime: &Runtime,
    source: &Source,
    graph: &onnx::Graph,
    nodes: impl Iterator<Item = &'a onnx::Node>,
) -> Result<Values, String> {
    let mut values: Values = graph.initializers.iter().map(constant).collect();
    let ports = graph.inputs.iter().chain(&graph.outputs);
    let known: BTreeSet<String> = ports
        .map(|port| text(&port.name))
        .chain(values.keys().cloned())
        .collect();
    let wanted: BTreeSet<String> = nodes
        .flat_map(names)
        .filter(|name| !known.contains(name))
        .collect();
    let source = source
        .with_outputs(wanted.into_iter())
        .ok_or("its graph is optimised")?;
    let builder = runtime.cpu_builder(1).map_err(|fatal| fatal.message)?;
    let session = builder
        .with_optimization_level(GraphOptimizationLevel::Disable)
        .map_err(ort::Error::from)
        .and_then(|builder| source.session(builder))
        .map_err(|error| error.to_string())?;
    values.extend(inputs(graph, &session));
    for (index, output) in session.outputs().iter().enumerate() {
        let has_shape = c_api::has_shape(&session, index).map_err(|error| error.to_string())?;
        values.insert(output.name().to_owned(), has_shape && is_of_shape(output.dtype()));
    }
    Ok(values)
}

fn inputs(graph: &onnx::Graph, session: &Session) -> Values {
    let shaped: BTreeSet<String> = graph
        .inputs
        .iter()
        .filter(|port| port.shape().is_some())
        .map(|port| text(&port.name))
        .collect();
    let input = |input: &ort::value::Outlet| {
        let is_of_shape = shaped.contains(input.name()) && is_of_shape(input.dtype());
        (input.name().to_owned(), is_of_shape)
    };
    session.inputs().iter().map(input).collect()
}

fn constant(tensor: &onnx::Tensor) -> (String, bool) {
    // `TensorProto.DataType`: integers and booleans.
    let is_integer = matches!(tensor.data_type, 2..=7 | 9 | 12 | 13);
    (text(&tensor.name), is_integer && tensor.dims.len() <= 1)
}

fn is_of_shape(value: &ValueType) -> bool {
    let ValueType::Tensor { ty, shape, .. } = value else {
        return false;
    };
    let is_integer = matches!(
        ty,
        TensorElementType::Bool
            | TensorElementType::Int8
            | TensorElementType::Int16
            | TensorElementType::Int32
            | TensorElementType::Int64
            | TensorElementType::Uint8
            | TensorElementType::Uint16
            | TensorElementType::Uint32
            | TensorElementType::Uint64
    );
    is_integer && shape.len() <= 1
}
