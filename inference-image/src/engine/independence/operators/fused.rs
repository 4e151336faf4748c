//! Operators of ONNX Runtime itself (`com.microsoft`), as its tools for quantisation and optimisation write them into
//! models of images. Those that derive a range from their inputs are not included.

use super::operator::{Facts, Operator, Rule};
use super::windows::{convolved, examples};
use super::{axes, pointwise, products, selection, windows};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::{self, Size, broadcast};

#[rustfmt::skip]
pub(super) fn rule(operator: &str) -> Option<Rule> {
    Some(match operator {
        "Gelu" | "QuickGelu" => pointwise::one,
        "QLinearLeakyRelu" | "QLinearSigmoid" => pointwise::one,
        "BiasGelu" | "FastGelu" => pointwise::several,
        "QuantizeLinear" | "DequantizeLinear" => pointwise::quantised,
        "QLinearAdd" | "QLinearMul" => arithmetic,
        "QLinearConcat" => concat,
        "QLinearSoftmax" => axes::quantised_softmax,
        "QLinearAveragePool" => average_pool,
        "QLinearGlobalAveragePool" => global_average_pool,
        "FusedConv" => convolution,
        "QLinearConv" => quantised_convolution,
        "FusedGemm" => products::gemm,
        "QGemm" => gemm,
        _ => return None,
    })
}

/// Of two tensors, each followed by its scale and zero point.
fn arithmetic(operator: &Operator<'_>) -> Facts {
    operator.only(&[0, 3])?;
    let shape = broadcast(&[operator.shape(0)?, operator.shape(3)?], operator.names)?;
    Ok(vec![Fact::shaped(shape)])
}

/// Inputs: a scale and a zero point, then each tensor with its own.
fn concat(operator: &Operator<'_>) -> Facts {
    let parts: Vec<usize> = (2..operator.inputs.len()).step_by(3).collect();
    operator.only(&parts)?;
    let joined = Operator {
        inputs: parts.iter().map(|&part| operator.given(part)).collect(),
        node: operator.node,
        ..*operator
    };
    selection::concat(&joined)
}

fn average_pool(operator: &Operator<'_>) -> Facts {
    first_channels(operator)?;
    windows::pool(operator)
}

fn quantised_convolution(operator: &Operator<'_>) -> Facts {
    first_channels(operator)?;
    windows::quantised_convolution(operator)
}

/// Channels come before pixels; the other order is not supported.
fn first_channels(operator: &Operator<'_>) -> Result<(), Problem> {
    if operator.flag("channels_last") {
        return Err(Problem::Shape);
    }
    Ok(())
}

fn global_average_pool(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    let mut shape = examples(operator)?.to_vec();
    let last = shape
        .len()
        .checked_sub(1)
        .filter(|&last| last > 1)
        .ok_or(Problem::Shape)?;
    let pixels = if operator.flag("channels_last") {
        1..last
    } else {
        2..last + 1
    };
    shape[pixels].fill(Size::Fixed(1));
    Ok(vec![Fact::shaped(shape)])
}

/// If there is a fourth input, it is added to the result.
fn convolution(operator: &Operator<'_>) -> Facts {
    let mut facts = convolved(operator, 1, &[0, 3])?;
    if operator.given(3).is_some() {
        let (result, added) = (facts[0].shape.as_deref().unwrap_or_default(), operator.shape(3)?);
        if size::rows(result) != size::rows(added) {
            return Err(Problem::Meets);
        }
        facts = vec![Fact::shaped(broadcast(&[result, added], operator.names)?)];
    }
    Ok(facts)
}

/// Inputs are followed by their scales and zero points.
fn gemm(operator: &Operator<'_>) -> Facts {
    operator.only(&[0])?;
    products::dense(operator, [0, 3, 6])
}
