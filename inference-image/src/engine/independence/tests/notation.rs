//! Models in a line of text: `y = Gather<axis=1>(x, [0])`.
//!
//! Inputs are `x[N,3,?]`: any number of rows, three columns, any third dimension. Among an operator's inputs, `[0,1]`
//! is a list of integers, `#0` one integer, `~[1,2]` a list of floating-point numbers and `:[3,4]` weights of that
//! shape; an empty text is an omitted input.

use super::super::rows_stay_apart;
use super::super::walk::Verdict;
use crate::onnx::{
    Attribute, Dimension, Graph, Model, Node, Opset, Port, Shape, Tensor, TensorType, Type, datatype,
};
use bytes::Bytes;

/// The verdict on a model with these inputs and nodes, whose output is `y`.
pub(super) fn judge(inputs: &str, nodes: &str) -> Verdict {
    judge_at(17, inputs, nodes)
}

/// The same for another operator set.
pub(super) fn judge_at(opset: i64, inputs: &str, nodes: &str) -> Verdict {
    rows_stay_apart(&model(opset, inputs, nodes))
}

pub(super) fn model(opset: i64, inputs: &str, nodes: &str) -> Model {
    let mut graph = Graph {
        inputs: inputs.split_whitespace().map(port).collect(),
        outputs: vec![Port {
            name: "y".into(),
            r#type: None,
        }],
        ..Graph::default()
    };
    for text in nodes.split(';') {
        let node = node(text, &mut graph.initializers);
        graph.nodes.push(node);
    }
    Model {
        ir_version: 8,
        graph: Some(graph),
        opsets: vec![Opset {
            version: opset,
            ..Opset::default()
        }],
        ..Model::default()
    }
}

fn port(text: &str) -> Port {
    let (name, sizes) = text.trim_end_matches(']').split_once('[').unwrap();
    let dims = list(sizes).map(|size| Dimension {
        value: size.parse().ok(),
    });
    let shape = Shape { dims: dims.collect() };
    Port {
        name: bytes(name),
        r#type: Some(Type {
            tensor: Some(TensorType { shape: Some(shape) }),
        }),
    }
}

fn node(text: &str, initializers: &mut Vec<Tensor>) -> Node {
    let (outputs, call) = text.split_once('=').unwrap();
    let (operator, inputs) = call.trim().trim_end_matches(')').split_once('(').unwrap();
    let (operator, attributes) = operator.split_once('<').unwrap_or((operator, ""));
    let (domain, operator) = operator.rsplit_once('.').unwrap_or(("", operator));
    let input = |text: &str| {
        let Some(tensor) = constant(text) else {
            return bytes(text);
        };
        let name = Bytes::from(format!("constant {}", initializers.len()));
        initializers.push(Tensor {
            name: name.clone(),
            ..tensor
        });
        name
    };
    let inputs = parts(inputs).into_iter().map(input).collect();
    let attributes = parts(attributes.trim_end_matches('>'));
    let attributes = attributes.into_iter().filter(|text| !text.is_empty());
    Node {
        inputs,
        outputs: outputs.split(',').map(|name| bytes(name.trim())).collect(),
        operator: bytes(operator),
        domain: bytes(domain),
        attributes: attributes.map(attribute).collect(),
        ..Node::default()
    }
}

/// Splits at commas that are not in brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let split = text.split(move |letter| {
        depth += i32::from(letter == '[') - i32::from(letter == ']');
        letter == ',' && depth == 0
    });
    split.map(str::trim).collect()
}

fn constant(text: &str) -> Option<Tensor> {
    let kind = text.chars().next()?;
    let items: Vec<&str> = list(text.trim_start_matches(['#', '~', ':', '['])).collect();
    let ints = || items.iter().map(|item| item.parse::<i64>().unwrap());
    let count = vec![i64::try_from(items.len()).unwrap()];
    Some(match kind {
        '[' | '#' => Tensor {
            dims: if kind == '#' { Vec::new() } else { count },
            data_type: datatype::INT64,
            raw: Some(ints().flat_map(i64::to_le_bytes).collect()),
            ..Tensor::default()
        },
        '~' => {
            let floats = items.iter().map(|item| item.parse::<f32>().unwrap());
            Tensor {
                dims: count,
                data_type: datatype::FLOAT,
                raw: Some(floats.flat_map(f32::to_le_bytes).collect()),
                ..Tensor::default()
            }
        }
        // Their values do not matter here.
        ':' => Tensor {
            dims: ints().collect(),
            data_type: datatype::FLOAT,
            location: 1,
            ..Tensor::default()
        },
        _ => return None,
    })
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    let items = text.trim_end_matches(']').split(',').map(str::trim);
    items.filter(|item| !item.is_empty())
}

fn attribute(text: &str) -> Attribute {
    let (name, value) = text.split_once('=').unwrap();
    let mut attribute = Attribute {
        name: bytes(name),
        ..Attribute::default()
    };
    match (value.strip_prefix('['), value.strip_prefix('~')) {
        (Some(ints), _) => attribute.ints = list(ints).map(|int| int.parse().unwrap()).collect(),
        (_, Some(floats)) => {
            let floats = list(floats.trim_start_matches('['));
            attribute.floats = floats.map(|float| float.parse().unwrap()).collect();
        }
        _ => match (value.parse(), constant(value)) {
            (Ok(int), _) => attribute.int = int,
            (_, Some(tensor)) => attribute.tensor = Some(tensor),
            // A comma would start another attribute.
            _ => attribute.text = value.replace('|', ",").into(),
        },
    }
    attribute
}
