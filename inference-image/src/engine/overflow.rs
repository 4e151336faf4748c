//! Finds the divisions of a model that could end the process: those of integers whose operands are inputs or constants,
//! directly or in another shape or order. Functions that the file defines are followed, too. The bodies of conditions and
//! loops are not: whether they run may depend on the values. Pure.

use super::division::{Division, Marks, Operand, marked};
use crate::onnx::{Function, Graph, Model, Node, Tensor, datatype, text};
use std::collections::HashMap;

/// So many nodes are looked at, and functions in functions: a file may be built to be endless.
const MOST_NODES: usize = 1 << 20;
const DEEPEST: usize = 32;

/// Operators whose output has the same elements as their first input.
const REARRANGING: [&str; 7] = [
    "Expand",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Divisions whose operands are known before a run.
pub(super) fn divisions(model: &Model) -> Vec<Division> {
    let functions = model.functions.iter();
    let mut search = Search {
        functions: functions
            .map(|function| ((&function.domain[..], &function.name[..]), function))
            .collect(),
        left: MOST_NODES,
        depth: 0,
        found: Vec::new(),
    };
    if let Some(graph) = &model.graph {
        search.pass(&graph.nodes, &mut known(graph));
    }
    search.found
}

/// Where the elements of a tensor come from.
#[derive(Clone)]
enum Origin<'a> {
    Input { name: &'a [u8], is_rearranged: bool },
    Constant { value: Value<'a>, is_rearranged: bool },
}

#[derive(Clone)]
enum Value<'a> {
    Tensor(&'a Tensor),
    Int(i64),
    Ints(&'a [i64]),
}

type Known<'a> = HashMap<&'a [u8], Origin<'a>>;

fn known(graph: &Graph) -> Known<'_> {
    let input = |name| Origin::Input {
        name,
        is_rearranged: false,
    };
    let inputs = graph.inputs.iter().map(|port| &port.name[..]);
    let constants = graph.initializers.iter();
    // An input with a default cannot be given: it is always the constant.
    inputs
        .map(|name| (name, input(name)))
        .chain(constants.map(|tensor| (&tensor.name[..], constant(Value::Tensor(tensor)))))
        .collect()
}

const fn constant(value: Value<'_>) -> Origin<'_> {
    Origin::Constant {
        value,
        is_rearranged: false,
    }
}

struct Search<'a> {
    functions: HashMap<(&'a [u8], &'a [u8]), &'a Function>,
    left: usize,
    depth: usize,
    found: Vec<Division>,
}

impl<'a> Search<'a> {
    fn pass(&mut self, nodes: &'a [Node], known: &mut Known<'a>) {
        for node in nodes {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            if let Some(function) = self
                .functions
                .get(&(&node.domain[..], &node.operator[..]))
                .copied()
            {
                self.call(function, node, known);
            } else if matches!(&node.domain[..], b"" | b"ai.onnx") {
                self.operator(node, known);
            }
        }
    }

    fn call(&mut self, function: &'a Function, node: &'a Node, known: &mut Known<'a>) {
        let given = function.inputs.iter().zip(&node.inputs);
        let mut inner: Known<'a> = given
            .filter_map(|(inside, outside)| Some((&inside[..], known.get(&outside[..])?.clone())))
            .collect();
        if self.depth < DEEPEST {
            self.depth += 1;
            self.pass(&function.nodes, &mut inner);
            self.depth -= 1;
        }
        let made = function.outputs.iter().zip(&node.outputs);
        known.extend(made.filter_map(|(inside, outside)| Some((&outside[..], inner.remove(&inside[..])?))));
    }

    fn operator(&mut self, node: &'a Node, known: &mut Known<'a>) {
        let input = |index: usize| known.get(&node.inputs.get(index)?[..]);
        let origin = match node.operator() {
            "Constant" => value(node).map(constant),
            "Identity" => input(0).cloned(),
            kind if REARRANGING.contains(&kind) => input(0).cloned().map(Origin::rearranged),
            "Div" | "Mod" => {
                let is_integer = node.attribute("fmod").is_none_or(|fmod| fmod.int == 0);
                if let (Some(dividend), Some(divisor), true) = (input(0), input(1), is_integer) {
                    self.found.extend(division(node, dividend, divisor));
                }
                None
            }
            _ => None,
        };
        if let (Some(origin), Some(output)) = (origin, node.outputs.first()) {
            known.insert(&output[..], origin);
        }
    }
}

impl Origin<'_> {
    fn rearranged(mut self) -> Self {
        match &mut self {
            Self::Input { is_rearranged, .. } | Self::Constant { is_rearranged, .. } => *is_rearranged = true,
        }
        self
    }

    /// As an operand, if it can be a dangerous one; the argument says which value of a type is.
    fn operand(&self, dangerous: fn(i32) -> Option<i64>) -> Option<Operand> {
        match self {
            Self::Input { name, is_rearranged } => Some(Operand::Input {
                name: text(name),
                index: 0,
                is_rearranged: *is_rearranged,
            }),
            Self::Constant { value, is_rearranged } => {
                let (kind, shape, elements) = value.read()?;
                let is_marked = marked(&elements, dangerous(kind)?)?;
                let shape = (!is_rearranged).then_some(shape);
                Some(Operand::Constant(Marks { shape, is_marked }))
            }
        }
    }
}

impl Value<'_> {
    /// Type, shape and elements of integers.
    fn read(&self) -> Option<(i32, Vec<i64>, Vec<i64>)> {
        Some(match self {
            Self::Tensor(tensor) => (tensor.data_type, tensor.dims.clone(), tensor.integers()?),
            Self::Int(int) => (datatype::INT64, Vec::new(), vec![*int]),
            Self::Ints(ints) => (
                datatype::INT64,
                vec![i64::try_from(ints.len()).ok()?],
                ints.to_vec(),
            ),
        })
    }
}

fn value(node: &Node) -> Option<Value<'_>> {
    let attribute = node.attributes.first()?;
    match (&attribute.name[..], &attribute.tensor) {
        (b"value", Some(tensor)) => Some(Value::Tensor(tensor)),
        (b"value_int", _) => Some(Value::Int(attribute.int)),
        (b"value_ints", _) => Some(Value::Ints(&attribute.ints)),
        _ => None,
    }
}

/// None of two constants: ONNX Runtime divides those when it loads the model.
fn division(node: &Node, dividend: &Origin<'_>, divisor: &Origin<'_>) -> Option<Division> {
    if let (Origin::Constant { .. }, Origin::Constant { .. }) = (dividend, divisor) {
        return None;
    }
    let least = |kind| match kind {
        datatype::INT32 => Some(i64::from(i32::MIN)),
        datatype::INT64 => Some(i64::MIN),
        _ => None,
    };
    let minus_one = |kind| matches!(kind, datatype::INT32 | datatype::INT64).then_some(-1);
    let operator = match &node.name[..] {
        b"" => node.operator().to_owned(),
        name => format!("{} {:?}", node.operator(), text(name)),
    };
    Some(Division {
        operator,
        dividend: dividend.operand(least)?,
        divisor: divisor.operand(minus_one)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::onnx::{Attribute, Port};
    use bytes::Bytes;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn node(text: &str) -> Node {
        let (output, call) = text.split_once(" = ").unwrap();
        let (operator, inputs) = call.trim_end_matches(')').split_once('(').unwrap();
        Node {
            inputs: inputs.split(", ").map(bytes).collect(),
            outputs: vec![bytes(output)],
            operator: bytes(operator),
            ..Node::default()
        }
    }

    fn nodes(text: &str) -> Vec<Node> {
        text.split("; ").map(node).collect()
    }

    fn tensor(name: &str, data_type: i32, elements: &[i64]) -> Tensor {
        let raw = match data_type {
            datatype::INT32 => elements
                .iter()
                .flat_map(|&element| i32::try_from(element).unwrap().to_le_bytes())
                .collect::<Vec<u8>>(),
            _ => elements
                .iter()
                .flat_map(|element| element.to_le_bytes())
                .collect(),
        };
        Tensor {
            dims: vec![i64::try_from(elements.len()).unwrap()],
            data_type,
            name: bytes(name),
            raw: Some(raw.into()),
            ..Tensor::default()
        }
    }

    fn model(nodes: Vec<Node>) -> Model {
        let port = |name: &str| Port {
            name: bytes(name),
            r#type: None,
        };
        let graph = Graph {
            nodes,
            initializers: vec![
                tensor("minus", datatype::INT64, &[3, -1]),
                tensor("plus", datatype::INT64, &[3, 1]),
                tensor("least", datatype::INT32, &[i64::from(i32::MIN)]),
            ],
            inputs: ["x", "z", "minus"].map(port).to_vec(),
            outputs: vec![port("y")],
            ..Graph::default()
        };
        Model {
            graph: Some(graph),
            ..Model::default()
        }
    }

    fn found(text: &str) -> Vec<Division> {
        divisions(&model(nodes(text)))
    }

    fn input(name: &str, is_rearranged: bool) -> Operand {
        Operand::Input {
            name: name.to_owned(),
            index: 0,
            is_rearranged,
        }
    }

    #[test]
    fn divisions_of_inputs_are_found_directly_and_in_another_shape() {
        for (text, dividend, divisor) in [
            ("y = Div(x, z)", input("x", false), input("z", false)),
            ("y = Mod(x, x)", input("x", false), input("x", false)),
            (
                "a = Identity(z); y = Div(x, a)",
                input("x", false),
                input("z", false),
            ),
            (
                "a = Reshape(x, s); b = Transpose(a); y = Div(b, z)",
                input("x", true),
                input("z", false),
            ),
            (
                "a = Expand(z, s); y = Mod(x, a)",
                input("x", false),
                input("z", true),
            ),
        ] {
            let found = found(text);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(
                (&found[0].dividend, &found[0].divisor),
                (&dividend, &divisor),
                "{text}"
            );
        }
        assert_eq!(found("a = Div(x, z); y = Div(z, x)").len(), 2);
    }

    #[test]
    fn constants_count_if_they_hold_the_value() {
        let constant = |is_marked: &[bool], shape: Option<Vec<i64>>| {
            let is_marked = is_marked.to_vec();
            Operand::Constant(Marks { shape, is_marked })
        };
        let found_one = |text: &str| found(text).pop().unwrap();
        assert_eq!(
            found_one("y = Div(x, minus)").divisor,
            constant(&[false, true], Some(vec![2]))
        );
        assert_eq!(
            found_one("a = Tile(minus, x); y = Div(x, a)").divisor,
            constant(&[false, true], None)
        );
        assert_eq!(
            found_one("y = Mod(least, x)").dividend,
            constant(&[true], Some(vec![1]))
        );
        for harmless in [
            "y = Div(x, plus)",
            "y = Div(plus, x)",
            "y = Div(minus, x)",
            "y = Div(least, minus)",
        ] {
            assert!(found(harmless).is_empty(), "{harmless}");
        }
        let mut made = node("c = Constant()");
        made.attributes = vec![Attribute {
            name: bytes("value_int"),
            int: -1,
            ..Attribute::default()
        }];
        let found = divisions(&model(vec![made, node("y = Div(x, c)")]));
        assert_eq!(found[0].divisor, constant(&[true], Some(vec![])));
    }

    #[test]
    fn computed_values_and_remainders_of_fractions_are_not_looked_at() {
        for text in [
            "a = Abs(z); y = Div(x, a)",
            "a = Where(c, z, x); y = Div(x, a)",
            "y = Add(x, z)",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
        let mut fractions = node("y = Mod(x, z)");
        fractions.attributes = vec![Attribute {
            name: bytes("fmod"),
            int: 1,
            ..Attribute::default()
        }];
        assert!(divisions(&model(vec![fractions])).is_empty());
        let mut foreign = node("y = Div(x, z)");
        foreign.domain = bytes("own");
        assert!(divisions(&model(vec![foreign])).is_empty());
    }

    #[test]
    fn functions_of_the_file_are_followed_and_end() {
        let function = |name: &str, text: &str| Function {
            name: bytes(name),
            domain: bytes("own"),
            inputs: vec![bytes("p"), bytes("q")],
            outputs: vec![bytes("r")],
            nodes: nodes(text)
                .into_iter()
                .map(|node| Node {
                    domain: bytes(if node.operator.starts_with(b"F") {
                        "own"
                    } else {
                        ""
                    }),
                    ..node
                })
                .collect(),
            attributes: Vec::new(),
        };
        let call = |text: &str| Node {
            domain: bytes("own"),
            ..node(text)
        };
        let mut own = model(vec![call("y = Fratio(z, x)")]);
        own.functions = vec![function("Fratio", "a = Identity(p); r = Div(a, q)")];
        assert_eq!(divisions(&own)[0].dividend, input("z", false));
        own.functions = vec![
            function("Fratio", "a = Fsame(p, q); r = Div(a, q)"),
            function("Fsame", "r = Identity(p)"),
        ];
        assert_eq!(divisions(&own)[0].dividend, input("z", false));
        own.functions = vec![function("Fratio", "a = Fratio(p, q); r = Fratio(p, q)")];
        assert!(divisions(&own).is_empty());
    }
}
