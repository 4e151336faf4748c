//! The warm-up: a first run of each session before a model serves, with one row of made-up inputs.

use crate::engine::{Engine, Port, Signature};
use crate::image::classifier::ImageClassifier;
use crate::tensor::{DataType, Tensor, element_count};
use bytes::Bytes;
use half::{bf16, f16};

/// Rows to try one after the other until the model accepts one: zeros, then ones, since a model may divide by its
/// input or parse numbers from its texts. A valid model may accept neither, for example if an input is a size. `None`
/// if a dimension other than the batch is dynamic, or nothing is known about a shape.
pub(super) fn rows(signature: &Signature) -> Option<Vec<Vec<Tensor>>> {
    if signature.inputs.iter().any(|port| port.any_rank) {
        return None;
    }
    let row = |fill: fn(DataType, Vec<i64>) -> Option<Tensor>| {
        let filled = |port: &Port| fill(port.datatype, shape(port));
        signature.inputs.iter().map(filled).collect::<Option<Vec<_>>>()
    };
    Some(vec![row(Tensor::zeros)?, row(ones)?])
}

/// Rows for a model that accepts inputs of any size: one or the other may suit it.
pub(super) fn rows_of_some_size(signature: &Signature) -> Vec<Vec<Tensor>> {
    let row = |fill: fn(DataType, Vec<i64>) -> Option<Tensor>, size: i64| {
        let sized = |port: &Port| {
            let shape = shape(port).into_iter();
            fill(
                port.datatype,
                shape.map(|dim| if dim < 0 { size } else { dim }).collect(),
            )
        };
        signature.inputs.iter().map(sized).collect::<Option<Vec<_>>>()
    };
    let sizes = [1, 64, 224].into_iter();
    sizes
        .flat_map(|size| [row(Tensor::zeros, size), row(ones, size)])
        .flatten()
        .collect()
}

/// Zeros, then ones, of the same sizes.
pub(super) fn rows_like(row: &[Tensor]) -> Vec<Vec<Tensor>> {
    let fill = |fill: fn(DataType, Vec<i64>) -> Option<Tensor>| {
        let filled = |tensor: &Tensor| fill(tensor.datatype(), tensor.shape().to_vec());
        row.iter().map(filled).collect::<Option<Vec<_>>>()
    };
    [fill(Tensor::zeros), fill(ones)].into_iter().flatten().collect()
}

fn shape(port: &Port) -> Vec<i64> {
    let mut shape = port.shape.clone();
    if let Some(batch) = shape.first_mut().filter(|batch| **batch < 0) {
        *batch = 1;
    }
    shape
}

fn ones(datatype: DataType, shape: Vec<i64>) -> Option<Tensor> {
    let one: &[u8] = match datatype {
        DataType::Fp16 => &f16::ONE.to_le_bytes(),
        DataType::Bf16 => &bf16::ONE.to_le_bytes(),
        DataType::Fp32 => &1_f32.to_le_bytes(),
        DataType::Fp64 => &1_f64.to_le_bytes(),
        DataType::Bytes => b"\x01\0\0\x001",
        integer => &1_u64.to_le_bytes()[..integer.size()?],
    };
    let bytes = Bytes::from(one.repeat(element_count(&shape)?));
    Tensor::from_wire(datatype, shape, bytes).ok()
}

/// Why a trial run did not succeed.
pub(super) enum Trial {
    /// The model does not accept the inputs that were made up for it.
    Failed(String),
    /// The output is not what `model.yaml` says, whatever the input.
    Unfit(String),
}

/// Warms up each engine with the first of the rows that the model accepts. Returns that row, or else the problem with
/// the first one.
pub(super) fn warm_up_all(
    engines: &mut [Box<dyn Engine>],
    rows: Vec<Vec<Tensor>>,
    classifier: Option<&ImageClassifier>,
) -> Result<Vec<Tensor>, Trial> {
    let mut problem = None;
    for row in rows {
        let warm = |engine: &mut Box<dyn Engine>| warm_up(engine.as_mut(), &row, classifier);
        let warmed = std::thread::scope(|scope| {
            let threads: Vec<_> = engines
                .iter_mut()
                .map(|engine| scope.spawn(|| warm(engine)))
                .collect();
            let lost = |_| Err(Trial::Failed("it panicked".to_owned()));
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(lost))
        });
        match warmed {
            Ok(()) => return Ok(row),
            Err(unfit @ Trial::Unfit(_)) => return Err(unfit),
            Err(Trial::Failed(other)) => _ = problem.get_or_insert(other),
        }
    }
    Err(Trial::Failed(problem.unwrap_or_default()))
}

/// The first run of a session plans its memory and takes several times as long as the others. It also shows whether
/// the output has a value for each label, if that is not known yet.
fn warm_up(
    engine: &mut dyn Engine,
    row: &[Tensor],
    classifier: Option<&ImageClassifier>,
) -> Result<(), Trial> {
    let outputs: Vec<usize> = (0..engine.signature().outputs.len()).collect();
    let results = engine
        .run(row, &outputs)
        .map_err(|error| Trial::Failed(error.to_string()))?;
    match classifier.and_then(|classifier| Some((classifier, results.get(classifier.output())?))) {
        // The scores may be NaN, since the input was not a real image.
        Some((classifier, scores)) => classifier.scores(scores, 1).map(drop).map_err(Trial::Unfit),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::EngineError;
    use crate::models::Service;
    use modelservice_contract::Limits;

    const ALL: [(DataType, &str); 14] = [
        (DataType::Bool, "01"),
        (DataType::Uint8, "01"),
        (DataType::Uint16, "0100"),
        (DataType::Uint32, "01000000"),
        (DataType::Uint64, "0100000000000000"),
        (DataType::Int8, "01"),
        (DataType::Int16, "0100"),
        (DataType::Int32, "01000000"),
        (DataType::Int64, "0100000000000000"),
        (DataType::Fp16, "003c"),
        (DataType::Bf16, "803f"),
        (DataType::Fp32, "0000803f"),
        (DataType::Fp64, "000000000000f03f"),
        (DataType::Bytes, "0100000031"),
    ];

    #[test]
    fn every_type_has_a_one() {
        for (datatype, expected) in ALL {
            let tensor = ones(datatype, vec![2, 1]).unwrap();
            let wire = tensor.to_wire();
            let hex: String = wire.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected.repeat(2), "{datatype:?}");
        }
    }

    /// Rejects zeros, or everything.
    struct Divides(Signature, bool);

    impl Engine for Divides {
        fn signature(&self) -> &Signature {
            &self.0
        }

        fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
            match inputs[0].elements::<u8>() {
                Some([1, 1]) if self.1 => Ok(inputs.to_vec()),
                _ => Err(EngineError::Refused("division by zero".into())),
            }
        }
    }

    fn load(takes_ones: bool) -> Result<(), String> {
        let port = Port::new("x", DataType::Uint8, vec![-1, 2]);
        let signature = Signature::new(vec![port.clone()], vec![port], 17);
        let mut service = Service::empty("", "", Limits::default(), 1).unwrap();
        let engine = Box::new(Divides(signature, takes_ones));
        let added = service.add("m", String::new(), vec![engine], None);
        added.map_err(|fatal| fatal.message)
    }

    /// A model that divides by its input was once taken for a broken one.
    #[test]
    fn a_model_is_served_also_if_it_takes_nothing_that_is_made_up_for_it() {
        assert_eq!((load(true), load(false)), (Ok(()), Ok(())));
    }
}
