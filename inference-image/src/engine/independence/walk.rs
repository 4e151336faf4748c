//! Walks through a graph, from its inputs to its outputs.

use super::fact::Fact;
use super::operators::{Operator, outputs};
use super::problem::Problem;
use super::size::{Names, Size};
use crate::onnx::{Graph, Model, Node, Port, text};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Operator sets whose operators the table knows.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=26;

/// Since this version of the format, an input that is also an initialiser has a default.
const DEFAULTS: i64 = 4;

/// Whether rows are independent; if not, the reason, which ends a sentence: "the model is not run in batches: …".
pub(crate) type Verdict = Result<(), String>;

/// What is known about a tensor, or why nothing is.
type Known = Result<Fact, Rc<str>>;

/// Follows the rows through a model.
pub(crate) fn rows_stay_apart(model: &Model) -> Verdict {
    let opset = model.opset();
    if !OPSETS.contains(&opset) {
        return Err(format!(
            "operator set {opset} is not supported here ({} to {} are)",
            OPSETS.start(),
            OPSETS.end()
        ));
    }
    let graph = model.graph.as_ref().ok_or("it has no graph")?;
    let functions = model.functions.iter();
    let mut walk = Walk {
        opset,
        functions: functions
            .map(|function| (&function.domain[..], &function.name[..]))
            .collect(),
        names: Names::default(),
        known: HashMap::new(),
    };
    walk.begin(graph, model.ir_version)?;
    graph.nodes.iter().for_each(|node| walk.pass(node));
    graph.outputs.iter().try_for_each(|output| walk.check(output))
}

/// A walk through a graph, starting at its inputs.
struct Walk<'a> {
    opset: i64,
    /// Operators that the file itself defines, which override others of the same name.
    functions: HashSet<(&'a [u8], &'a [u8])>,
    names: Names,
    known: HashMap<&'a [u8], Known>,
}

impl<'a> Walk<'a> {
    /// Records what is known about initialisers and inputs.
    fn begin(&mut self, graph: &'a Graph, ir_version: i64) -> Verdict {
        for tensor in &graph.initializers {
            self.known.insert(&tensor.name, Ok(Fact::constant(tensor)));
        }
        for input in &graph.inputs {
            match self.known.get_mut(&input.name[..]) {
                // Old files list all initialisers as inputs.
                Some(_) if ir_version < DEFAULTS => {}
                // A default, which a client can override with other values of the same shape.
                Some(Ok(default)) => *default = Fact::shaped(default.shape.clone().unwrap_or_default()),
                _ => _ = self.known.insert(&input.name, Ok(self.input(input)?)),
            }
        }
        Ok(())
    }

    fn input(&self, port: &Port) -> Result<Fact, String> {
        let name = text(&port.name);
        let dims = port
            .dims()
            .ok_or_else(|| format!("the shape of its input {name:?} is unknown"))?;
        let Some((None, others)) = dims.split_first() else {
            return Err(format!("its input {name:?} has no dynamic first dimension"));
        };
        let others = others
            .iter()
            .map(|size| size.map_or_else(|| self.names.fresh(), Size::Fixed));
        Ok(Fact::shaped(std::iter::once(Size::Rows).chain(others).collect()))
    }

    /// Derives what is known about a node's outputs from what is known about its inputs.
    fn pass(&mut self, node: &'a Node) {
        let results = self.outputs(node);
        let mut facts = match results {
            Ok(facts) => facts.into_iter().map(Ok).collect(),
            Err(reason) => vec![Err(reason); node.outputs.len()],
        };
        let unknown = || Err(Rc::from(told(node, Problem::Unknown)));
        facts.resize_with(node.outputs.len().max(facts.len()), unknown);
        let outputs = node.outputs.iter().filter(|name| !name.is_empty());
        self.known.extend(outputs.map(|name| &name[..]).zip(facts));
    }

    fn outputs(&self, node: &Node) -> Result<Vec<Fact>, Rc<str>> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(match self.known.get(&name[..]) {
                Some(known) => Some(known.as_ref().map_err(Rc::clone)?),
                None if name.is_empty() => None,
                None => return Err(format!("nothing is known about its tensor {:?}", text(name)).into()),
            });
        }
        let operator = Operator::new(node, inputs, self.opset, &self.names);
        let result = if self.functions.contains(&(&node.domain[..], &node.operator[..])) {
            Err(Problem::Nested)
        } else {
            outputs(&operator)
        };
        result.map_err(|problem| told(node, problem).into())
    }

    /// An output must have the rows first.
    fn check(&self, output: &Port) -> Verdict {
        let name = text(&output.name);
        let fact = match self.known.get(&output.name[..]) {
            Some(Ok(fact)) => fact,
            Some(Err(reason)) => return Err(reason.to_string()),
            None => return Err(format!("nothing makes its output {name:?}")),
        };
        match fact.shape.as_deref().and_then(<[Size]>::first) {
            Some(Size::Rows) => Ok(()),
            _ => Err(format!(
                "the first dimension of its output {name:?} is not the batch"
            )),
        }
    }
}

/// Names a node and its problem.
fn told(node: &Node, problem: Problem) -> String {
    let (operator, domain) = (text(&node.operator), text(&node.domain));
    let dot = if domain.is_empty() { "" } else { "." };
    match (
        &text(&node.name)[..],
        node.outputs.first().map(|output| text(output)),
    ) {
        ("", Some(output)) => format!("{domain}{dot}{operator}, which makes {output:?}, {problem}"),
        (name, _) => format!("{domain}{dot}{operator} {name:?} {problem}"),
    }
}
