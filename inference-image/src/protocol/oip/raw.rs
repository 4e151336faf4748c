//! Raw binary requests (`Inference-Header-Content-Length: 0`): the body is the tensor of the model's only input, and
//! its shape follows from the signature, as in Triton.

use crate::engine::{Port, Signature};
use crate::protocol::inference::{self, Input, RequestBuilder, Urgency};
use crate::tensor::{DataType, Tensor};
use bytes::Bytes;

/// The request; all outputs are sent as bytes.
///
/// # Errors
/// If the model has several inputs, or the shape cannot be deduced.
pub(super) fn parse(body: &Bytes, signature: &Signature) -> Result<inference::Request, String> {
    let [port] = &signature.inputs[..] else {
        let count = signature.inputs.len();
        return Err(format!(
            "a raw binary request needs a model with one input, but this one has {count}"
        ));
    };
    if port.any_rank {
        return Err(not_deduced(port));
    }
    let tensor = if port.datatype == DataType::Bytes {
        // The body is the one element, without a length.
        let shape = port
            .shape
            .iter()
            .map(|&dimension| if dimension < 0 { 1 } else { dimension });
        Tensor::from_strings(shape.collect(), vec![body.clone()])
    } else {
        Tensor::from_wire(
            port.datatype,
            shape(port, inference::takes_batches(signature), body.len())?,
            body.clone(),
        )
    };
    let mut builder = RequestBuilder::new(signature);
    let tensor = tensor.map_err(|problem| format!("input {:?}: {problem}", port.name))?;
    let (index, _) = builder.input(&port.name, port.datatype.name(), tensor.shape())?;
    builder.give(index, Input::Ready(tensor));
    builder.finish(true, Urgency::default())
}

fn not_deduced(port: &Port) -> String {
    format!(
        "the shape of input {:?}, {:?}, cannot be deduced from a raw binary request: send its shape",
        port.name,
        port.told_shape()
    )
}

/// A batch of 1; the size of one more dynamic dimension follows from the length.
fn shape(port: &Port, batched: bool, length: usize) -> Result<Vec<i64>, String> {
    let mut shape = port.shape.clone();
    if let Some(batch) = shape.first_mut().filter(|_| batched) {
        *batch = 1;
    }
    let dynamic: Vec<usize> = (0..shape.len()).filter(|&index| shape[index] < 0).collect();
    let &[dynamic] = &dynamic[..] else {
        return if dynamic.is_empty() {
            Ok(shape)
        } else {
            Err(not_deduced(port))
        };
    };
    let size = i64::try_from(port.datatype.size().unwrap_or(1)).unwrap_or(1);
    let others = shape.iter().filter(|&&dimension| dimension >= 0);
    let row = others.fold(size, |product, &dimension| product.saturating_mul(dimension));
    shape[dynamic] = i64::try_from(length)
        .unwrap_or(i64::MAX)
        .checked_div(row)
        .unwrap_or(0);
    Ok(shape)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::protocol::inference::tests::signature;

    fn deduced(shape: &[i64], output: &[i64], length: usize) -> Result<Vec<i64>, String> {
        let signature = signature(&[("x", DataType::Fp32, shape)], &[("y", DataType::Fp32, output)]);
        let request = parse(&vec![0; length].into(), &signature)?;
        match &request.inputs[..] {
            [Input::Ready(tensor)] => Ok(tensor.shape().to_vec()),
            _ => Err("not ready".to_owned()),
        }
    }

    #[test]
    fn the_batch_is_one_and_one_dimension_follows_from_the_length() {
        assert_eq!(deduced(&[-1, 3, 2], &[-1, 5], 24).unwrap(), [1, 3, 2]);
        assert_eq!(deduced(&[-1, 3, -1], &[-1, 5], 36).unwrap(), [1, 3, 3]);
        assert_eq!(deduced(&[3, -1], &[5], 36).unwrap(), [3, 3]);
        assert_eq!(deduced(&[-1], &[5], 20).unwrap(), [5]);
        assert!(
            deduced(&[-1, 3, 2], &[-1, 5], 48)
                .unwrap_err()
                .contains("takes 24 bytes, not 48")
        );
        assert!(
            deduced(&[-1, -1, -1], &[-1, 5], 36)
                .unwrap_err()
                .contains("cannot be deduced")
        );
        assert!(
            deduced(&[3, -1], &[5], 35)
                .unwrap_err()
                .contains("takes 24 bytes, not 35")
        );
        assert!(deduced(&[3, -1], &[5], 0).is_err());
    }

    #[test]
    fn text_is_one_element_and_two_inputs_are_one_too_many() {
        let text = signature(
            &[("x", DataType::Bytes, &[-1, 1])],
            &[("y", DataType::Fp32, &[-1])],
        );
        let request = parse(&Bytes::from_static(b"427"), &text).unwrap();
        let Input::Ready(tensor) = &request.inputs[0] else {
            unreachable!()
        };
        assert_eq!(
            (tensor.shape(), tensor.strings().unwrap()),
            (&[1, 1][..], &[Bytes::from_static(b"427")][..])
        );
        assert!(request.outputs.iter().all(|output| output.binary));
        let two = signature(
            &[("a", DataType::Fp32, &[1]), ("b", DataType::Fp32, &[1])],
            &[("y", DataType::Fp32, &[1])],
        );
        assert!(
            parse(&Bytes::new(), &two)
                .map(drop)
                .unwrap_err()
                .contains("has 2")
        );
    }
}
