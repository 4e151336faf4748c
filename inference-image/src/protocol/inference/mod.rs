//! An inference, independent of the protocol: tensors by name, checked once against the model's signature, and the
//! outputs. Does not know any protocol's form.

mod classification;
pub(super) mod request;

use crate::engine::{Port, Signature};
use crate::models::Model;
use crate::protocol::body::Reservation;
use crate::protocol::error::ApiError;
use crate::protocol::error::Quoted;
use crate::protocol::json;
use crate::scheduling::{Priority, RunError, RunOptions, Timing};
use crate::tensor::{DataType, InputError, InputProblem, Tensor, element_count};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A larger request may hold many rows, or one row of many elements, for which even a small model takes long.
const SMALL: usize = 128 << 10;

/// A request whose names, types and shapes fit the model.
pub(super) struct Request {
    /// One per input of the model, in its order.
    pub(super) inputs: Vec<Input>,
    /// Outputs to return, in the request's order.
    pub(super) outputs: Vec<Output>,
    /// How urgent it is.
    pub(super) urgency: Urgency,
}

/// The tensor of one input.
pub(super) enum Input {
    /// In the form that the model accepts.
    Ready(Tensor),
    /// Elements that have not been parsed yet.
    Json {
        /// The input's name.
        name: String,
        /// Type of the elements.
        datatype: DataType,
        /// Shape of the tensor.
        shape: Vec<i64>,
        /// The list.
        json: Bytes,
    },
    /// Nested lists of elements that have not been parsed yet, which also define the shape.
    Nested {
        /// The input.
        port: Port,
        /// The lists.
        json: Bytes,
    },
}

/// An output and its form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Output {
    /// Index in the signature.
    pub(super) index: usize,
    /// Whether its elements are sent as bytes, if the protocol also has another form.
    pub(super) binary: bool,
    /// Send this many of the largest values as text instead of the elements; see `classification`.
    pub(super) classes: Option<usize>,
}

/// The urgency that a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Urgency {
    /// How long its client waits, from the arrival of the request.
    pub(super) timeout: Option<Duration>,
    /// Which requests go first.
    pub(super) priority: Priority,
}

impl Urgency {
    /// tritonclient's `timeout`, in microseconds; 0 is none.
    pub(super) fn set_timeout(&mut self, microseconds: u64) {
        self.timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
    }

    /// tritonclient's `priority`: 1 is the highest, 0 the default.
    pub(super) fn set_priority(&mut self, level: u64) {
        self.priority = if level == 1 {
            Priority::High
        } else {
            Priority::Normal
        };
    }

    /// The options of a run for a request that arrived at `arrived` and whose transport has a deadline of its own:
    /// the earlier one counts.
    pub(super) fn options(self, arrived: Instant, deadline: Option<Instant>) -> RunOptions {
        let wished = self.timeout.and_then(|timeout| arrived.checked_add(timeout));
        RunOptions {
            priority: self.priority,
            deadline: deadline.into_iter().chain(wished).min(),
            ..RunOptions::default()
        }
    }
}

/// A request that is being read.
pub(super) struct RequestBuilder<'a> {
    signature: &'a Signature,
    inputs: Vec<Option<Input>>,
    outputs: Vec<Output>,
}

impl<'a> RequestBuilder<'a> {
    pub(super) fn new(signature: &'a Signature) -> Self {
        Self {
            signature,
            inputs: signature.inputs.iter().map(|_| None).collect(),
            outputs: Vec::new(),
        }
    }

    /// The index of the input of this name and the type, if it accepts a tensor of this type and shape.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn input(
        &self,
        name: &str,
        datatype: &str,
        shape: &[i64],
    ) -> Result<(usize, DataType), String> {
        let (index, port) = self.port(name)?;
        let datatype = DataType::parse(datatype)
            .ok_or_else(|| format!("input {name:?} has the unknown datatype {}", Quoted(datatype)))?;
        port.check(datatype, shape)?;
        if datatype == DataType::Bytes && element_count(shape).is_none_or(|count| count > json::MAX_TEXTS) {
            let most = json::MAX_TEXTS;
            return Err(format!("input {name:?} has more than {most} elements of BYTES"));
        }
        Ok((index, datatype))
    }

    /// The input of this name, if it has not been given yet.
    ///
    /// # Errors
    /// If it has, or there is no input of this name.
    pub(super) fn port(&self, name: &str) -> Result<(usize, &'a Port), String> {
        let index = position("input", name, &self.signature.inputs)?;
        if self.inputs[index].is_some() {
            return Err(format!("input {name:?} is given twice"));
        }
        Ok((index, &self.signature.inputs[index]))
    }

    /// Sets the tensor of an input.
    pub(super) fn give(&mut self, index: usize, input: Input) {
        self.inputs[index] = Some(input);
    }

    /// Requests an output.
    ///
    /// # Errors
    /// If there is no output of this name, it is requested already, or it does not have this form.
    pub(super) fn want(&mut self, name: &str, binary: bool, classes: Option<usize>) -> Result<(), String> {
        let index = position("output", name, &self.signature.outputs)?;
        if self.outputs.iter().any(|other| other.index == index) {
            return Err(format!("output {name:?} is requested twice"));
        }
        let output = Output {
            index,
            binary,
            classes,
        };
        self.push(output)
    }

    fn push(&mut self, output: Output) -> Result<(), String> {
        let port = &self.signature.outputs[output.index];
        if output.classes == Some(0) || (output.classes.is_some() && port.datatype == DataType::Bytes) {
            return Err(format!(
                "output {:?}: classification needs numbers, and a count of at least 1",
                port.name
            ));
        }
        if !output.binary && output.classes.is_none() && !json::has_json(port.datatype) {
            return Err(format!(
                "output {:?} is {}, which has no JSON form: request it with binary_data",
                port.name,
                port.datatype.name()
            ));
        }
        self.outputs.push(output);
        Ok(())
    }

    /// The request. If it requests no output, it gets all of them, in the form given by `binary`.
    ///
    /// # Errors
    /// If an input is missing.
    pub(super) fn finish(mut self, binary: bool, urgency: Urgency) -> Result<Request, String> {
        if self.outputs.is_empty() {
            for index in 0..self.signature.outputs.len() {
                self.push(Output {
                    index,
                    binary,
                    classes: None,
                })?;
            }
        }
        let given = self.inputs.into_iter().zip(&self.signature.inputs);
        let inputs =
            given.map(|(input, port)| input.ok_or_else(|| format!("input {:?} is missing", port.name)));
        Ok(Request {
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: self.outputs,
            urgency,
        })
    }
}

/// The index of the input or output of this name.
///
/// # Errors
/// If there is none.
pub(super) fn position(kind: &str, name: &str, ports: &[Port]) -> Result<usize, String> {
    ports.iter().position(|port| port.name == name).ok_or_else(|| {
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        let (name, names) = (Quoted(name), names.join(", "));
        format!("the model has no {kind} {name}, only: {names}")
    })
}

/// Why a tensor in shared memory is refused.
pub(super) fn no_shared_memory(kind: &str, name: &str) -> String {
    let name = Quoted(name);
    format!("{kind} {name} is in shared memory, which is not implemented: send it in the request")
}

/// Whether the first dimension of every tensor is a batch of any size.
pub(super) fn takes_batches(signature: &Signature) -> bool {
    let is_batch = |port: &Port| port.shape.first().is_some_and(|&size| size < 0);
    signature.inputs.iter().chain(&signature.outputs).all(is_batch)
}

impl Input {
    /// A tensor from bytes in the form of the binary tensor extension or of gRPC's raw contents.
    ///
    /// # Errors
    /// If they do not fill the shape.
    pub(super) fn wire(
        name: &str,
        datatype: DataType,
        shape: Vec<i64>,
        bytes: Bytes,
    ) -> Result<Self, String> {
        let tensor = Tensor::from_wire(datatype, shape, bytes);
        tensor
            .map(Self::Ready)
            .map_err(|problem| format!("input {name:?}: {problem}"))
    }

    /// Parses what has not been parsed yet, which is expensive for JSON.
    pub(super) fn tensor(self) -> Result<Tensor, InputError> {
        let (name, tensor) = match self {
            Self::Ready(tensor) => return Ok(tensor),
            Self::Json {
                name,
                datatype,
                shape,
                json: list,
            } => (name, json::read(&list, datatype, &shape)),
            Self::Nested { port, json: list } => {
                let tensor = json::read_nested(&list, port.datatype);
                let fits = |tensor: Tensor| {
                    let tensor = single(tensor, &port);
                    port.check(tensor.datatype(), tensor.shape())?;
                    Ok(tensor)
                };
                (port.name.clone(), tensor.and_then(fits))
            }
        };
        tensor.map_err(|problem| InputError {
            problem: InputProblem::Malformed,
            message: format!("input {name:?}: {problem}"),
        })
    }
}

/// One value, alone or in a list, in the shape that one value has in the input: the lists of version 1 say nothing
/// about shapes, and a client may send a threshold as `0.5`, or by row as `[0.5]`.
fn single(tensor: Tensor, port: &Port) -> Tensor {
    let is_single = tensor.shape().iter().all(|&size| size == 1) && tensor.shape().len() < 2;
    if is_single && !port.any_rank && port.shape.len() < 2 {
        let shape = vec![1; port.shape.len()];
        return tensor.reshaped(shape);
    }
    tensor
}

/// The outputs of a request, in its order.
pub(super) struct Answer {
    /// What was requested, and the tensor.
    pub(super) outputs: Vec<(Output, Tensor)>,
    /// Where the time went.
    pub(super) timing: Timing,
}

impl Answer {
    /// Checks that the outputs that are not sent as bytes have a JSON form.
    ///
    /// # Errors
    /// 400: which has none, and what to do.
    pub(super) fn check_json(&self, signature: &Signature, advice: &str) -> Result<(), ApiError> {
        let written = self.outputs.iter().filter(|(output, _)| !output.binary);
        for (output, tensor) in written {
            let name = &signature.outputs[output.index].name;
            json::check(tensor)
                .map_err(|problem| ApiError::bad_request(format!("output {name:?}: {problem}: {advice}")))?;
        }
        Ok(())
    }
}

/// Refuses a request before its body is read, if that can be decided already.
///
/// # Errors
/// When its deadline has passed or cannot be met, or the queue is full.
pub(super) fn admit(model: &Model, options: &RunOptions) -> Result<(), ApiError> {
    in_time(options.deadline)?;
    let admitted = model.admission(options);
    admitted.map_err(|rejected| RunError::Rejected(rejected).into())
}

/// Refuses a request whose client has given up.
///
/// # Errors
/// When the deadline has passed.
pub(super) fn in_time(deadline: Option<Instant>) -> Result<(), ApiError> {
    match deadline {
        Some(deadline) if deadline <= Instant::now() => Err(ApiError::expired()),
        _ => Ok(()),
    }
}

/// Whether the tensors are parsed and hold one row of a fixed size.
fn is_one_row(inputs: &[Input], signature: &Signature) -> bool {
    inputs.iter().zip(&signature.inputs).all(|(input, port)| {
        let inner = port.shape.get(1..).unwrap_or_default();
        let is_one = |tensor: &Tensor| tensor.shape().first().is_none_or(|&rows| rows == 1);
        matches!(input, Input::Ready(tensor) if is_one(tensor))
            && !port.any_rank
            && inner.iter().all(|&size| size >= 0)
    })
}

/// Runs the model. The body's memory reservation `room` is held at least until no part of the request is waiting any
/// more.
///
/// # Errors
/// When the request is rejected or fails.
pub(super) async fn run(
    model: &Model,
    request: Request,
    room: Arc<Reservation>,
    options: RunOptions,
) -> Result<Answer, ApiError> {
    let Request { inputs, outputs, .. } = request;
    let options = RunOptions {
        typical_cost: room.bytes() <= SMALL || is_one_row(&inputs, model.signature()),
        ..options
    };
    let signature = model.signature();
    let (shared, divisions) = (Arc::clone(&signature.shared), Arc::clone(&signature.divisions));
    let prepare = Box::new(move || {
        let tensors: Result<Vec<Tensor>, InputError> = inputs.into_iter().map(Input::tensor).collect();
        drop(room);
        let tensors = tensors?;
        let same = shared.iter().try_for_each(|size| size.check(&tensors));
        let divisible = || divisions.iter().try_for_each(|division| division.check(&tensors));
        same.and_then(|()| divisible()).map_err(|message| InputError {
            problem: InputProblem::Malformed,
            message,
        })?;
        Ok(tensors)
    });
    let indices = outputs.iter().map(|output| output.index).collect();
    let mut completed = model.run(prepare, indices, options).await?;
    let started = Instant::now();
    let mut outputs: Vec<_> = outputs.into_iter().zip(completed.outputs).collect();
    for (output, tensor) in &mut outputs {
        if let Some(count) = output.classes {
            *tensor = top(model, output.index, count, tensor).map_err(ApiError::internal)?;
        }
    }
    completed.timing.output = started.elapsed();
    Ok(Answer {
        outputs,
        timing: completed.timing,
    })
}

/// The largest values of an output, with labels if the package has any for it.
fn top(model: &Model, output: usize, count: usize, tensor: &Tensor) -> Result<Tensor, String> {
    let classifier = model
        .classifier()
        .filter(|classifier| classifier.output() == output);
    let label = |class| classifier.and_then(|classifier| classifier.label(class));
    classification::top(tensor, count, takes_batches(model.signature()), label)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A signature of ports: name, type, shape.
    pub(crate) fn signature(
        inputs: &[(&str, DataType, &[i64])],
        outputs: &[(&str, DataType, &[i64])],
    ) -> Signature {
        let port = |&(name, datatype, shape): &(&str, DataType, &[i64])| Port::new(name, datatype, shape);
        Signature::new(
            inputs.iter().map(port).collect(),
            outputs.iter().map(port).collect(),
            17,
        )
    }

    /// Two rows, or one of dynamic size, may take much longer than a typical run of the model.
    #[test]
    fn one_row_of_a_fixed_size_is_told_from_what_may_take_longer() {
        let fixed = signature(&[("x", DataType::Fp32, &[-1, 2])], &[]);
        let any = signature(&[("x", DataType::Fp32, &[-1, -1])], &[]);
        let rows = |count: i64| {
            [Input::Ready(
                Tensor::zeros(DataType::Fp32, vec![count, 2]).unwrap(),
            )]
        };
        assert!(is_one_row(&rows(1), &fixed));
        assert!(!is_one_row(&rows(2), &fixed));
        assert!(!is_one_row(&rows(1), &any));
        let unread = [Input::Json {
            name: "x".to_owned(),
            datatype: DataType::Fp32,
            shape: vec![1, 2],
            json: Bytes::new(),
        }];
        assert!(!is_one_row(&unread, &fixed));
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let arrived = Instant::now();
        let mut urgency = Urgency::default();
        assert_eq!(urgency.options(arrived, None), RunOptions::default());
        urgency.set_timeout(5_000);
        urgency.set_priority(1);
        let (five, two, nine) = (5, 2, 9);
        let at = |milliseconds| Some(arrived + Duration::from_millis(milliseconds));
        let options = urgency.options(arrived, at(nine));
        assert_eq!((options.deadline, options.priority), (at(five), Priority::High));
        assert_eq!(urgency.options(arrived, at(two)).deadline, at(two));
        urgency.set_timeout(u64::MAX);
        urgency.set_priority(2);
        let options = urgency.options(arrived, None);
        assert!(options.deadline.is_none_or(|deadline| deadline > arrived));
        assert_eq!(options.priority, Priority::Normal);
    }

    /// An empty text takes far more bytes in memory than in the request.
    #[test]
    fn a_tensor_has_no_more_texts_than_memory_for_them() {
        let signature = signature(&[("x", DataType::Bytes, &[-1])], &[("y", DataType::Bytes, &[-1])]);
        let builder = RequestBuilder::new(&signature);
        assert!(builder.input("x", "BYTES", &[1 << 20]).is_ok());
        let problem = builder.input("x", "BYTES", &[(1 << 20) + 1]).unwrap_err();
        assert!(problem.contains("more than 1048576"), "{problem}");
        let list = format!("[{}\"\"]", "\"\",".repeat(1 << 20));
        let problem = json::read_nested(list.as_bytes(), DataType::Bytes).unwrap_err();
        assert!(problem.contains("too many elements"), "{problem}");
    }

    #[test]
    fn only_models_whose_every_tensor_has_one_take_batches() {
        fn port(shape: &[i64]) -> (&str, DataType, &[i64]) {
            ("x", DataType::Fp32, shape)
        }
        assert!(takes_batches(&signature(&[port(&[-1, 3])], &[port(&[-1])])));
        assert!(!takes_batches(&signature(&[port(&[-1, 3])], &[port(&[3])])));
        assert!(!takes_batches(&signature(
            &[port(&[1, 3]), port(&[-1])],
            &[port(&[-1])]
        )));
        assert!(!takes_batches(&signature(&[port(&[])], &[port(&[-1])])));
    }
}
