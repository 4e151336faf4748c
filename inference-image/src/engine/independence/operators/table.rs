//! The rule of each operator.

use super::operator::{Facts, Operator, Rule};
use super::{axes, fused, pointwise, products, reshape, resize, selection, shapes, windows};
use crate::engine::independence::fact::Fact;
use crate::engine::independence::problem::Problem;
use crate::engine::independence::size::Size;

/// What is known about the outputs; outputs that are not returned are unknown.
pub(crate) fn outputs(operator: &Operator<'_>) -> Facts {
    let is_standard = matches!(&operator.node.domain[..], b"" | b"ai.onnx");
    if operator.node.has_graph() {
        return Err(Problem::Nested);
    }
    let rule = if is_standard {
        if is_random(operator.node.operator()) {
            return Err(Problem::Random);
        }
        standard(operator.node.operator())
    } else if operator.node.domain == "com.microsoft" {
        fused::rule(operator.node.operator())
    } else {
        return Err(Problem::Unknown);
    };
    let facts = rule.map_or(Err(Problem::Unknown), |rule| applied(operator, rule));
    let depends = operator.inputs.iter().flatten().any(|input| input.depends());
    match facts {
        // If its inputs are the same for all rows, so are its outputs, whatever it computes.
        Err(problem) if problem != Problem::Random && !depends => {
            Ok(vec![Fact::default(); operator.node.outputs.len()])
        }
        facts => facts,
    }
}

fn applied(operator: &Operator<'_>, rule: Rule) -> Facts {
    let counts = operator.inputs.iter().flatten().any(|input| input.counts());
    if counts && !takes_counts(operator.node.operator()) {
        return Err(Problem::Counts);
    }
    let facts = rule(operator)?;
    let is_spread = |fact: &Fact| {
        let sizes = fact.shape.iter().flatten();
        sizes.filter(|&&size| size == Size::Rows).count() > 1
    };
    if facts.iter().any(is_spread) {
        return Err(Problem::Meets);
    }
    Ok(facts)
}

/// Whether two runs with the same inputs have different outputs.
fn is_random(operator: &str) -> bool {
    matches!(
        operator,
        "Bernoulli"
            | "Multinomial"
            | "RandomNormal"
            | "RandomNormalLike"
            | "RandomUniform"
            | "RandomUniformLike"
    )
}

/// Operators whose rules know what to do with the number of rows, as an element of an input.
fn takes_counts(operator: &str) -> bool {
    matches!(
        operator,
        "Add"
            | "Cast"
            | "Concat"
            | "ConstantOfShape"
            | "Div"
            | "Equal"
            | "Expand"
            | "Gather"
            | "Identity"
            | "Mul"
            | "Reshape"
            | "Resize"
            | "Shape"
            | "Slice"
            | "Squeeze"
            | "Sub"
            | "Tile"
            | "Unsqueeze"
            | "Where"
    )
}

/// Operators of ONNX itself.
#[rustfmt::skip]
fn standard(operator: &str) -> Option<Rule> {
    Some(match operator {
        "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot" | "Ceil" | "Celu"
        | "Clip" | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid" | "HardSwish" | "IsInf"
        | "IsNaN" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Not" | "Reciprocal" | "Relu" | "Round" | "Selu" | "Shrink"
        | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Softplus" | "Softsign" | "Sqrt" | "Swish" | "Tan" | "Tanh"
        | "ThresholdedRelu" => pointwise::one,
        "And" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Greater" | "GreaterOrEqual" | "Less"
        | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "Or" | "PRelu" | "Pow" | "Sum" | "Xor" => pointwise::several,
        "Add" | "Sub" | "Mul" | "Div" | "Equal" => pointwise::arithmetic,
        "Where" => pointwise::chosen,
        "Identity" => pointwise::identity,
        "Cast" => pointwise::cast,
        "CastLike" => pointwise::cast_like,
        "Dropout" => pointwise::dropout,
        "QuantizeLinear" | "DequantizeLinear" => pointwise::quantised,

        "Constant" => shapes::constant,
        "ConstantOfShape" => shapes::constant_of_shape,
        "Shape" => shapes::shape,
        "Transpose" => shapes::transpose,
        "Expand" => shapes::expand,
        "Tile" => shapes::tile,

        "Reshape" => reshape::reshape,
        "Flatten" => reshape::flatten,
        "Squeeze" => reshape::squeeze,
        "Unsqueeze" => reshape::unsqueeze,
        "DepthToSpace" => reshape::depth_to_space,
        "SpaceToDepth" => reshape::space_to_depth,

        "Concat" => selection::concat,
        "Gather" => selection::gather,
        "Pad" => selection::pad,
        "Slice" => selection::slice,
        "Split" => selection::split,

        "Resize" | "Upsample" => resize::resize,

        "Conv" => windows::convolution,
        "ConvInteger" => windows::convolution,
        "QLinearConv" => windows::quantised_convolution,
        "ConvTranspose" => windows::transposed_convolution,
        "AveragePool" | "LpPool" | "MaxPool" => windows::pool,
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => windows::global_pool,
        "BatchNormalization" => windows::batch_normalization,
        "GroupNormalization" | "InstanceNormalization" | "LRN" => windows::each_example,

        "CumSum" => axes::cumulative,
        "Hardmax" | "LogSoftmax" | "Softmax" => axes::softmax,
        "LayerNormalization" | "RMSNormalization" => axes::layer_normalization,
        "LpNormalization" => axes::normalization,
        "ArgMax" | "ArgMin" => axes::index,
        "TopK" => axes::top,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => axes::reduce,

        "MatMul" | "MatMulInteger" => products::matrices,
        "QLinearMatMul" => products::quantised_matrices,
        "Gemm" => products::gemm,
        "Einsum" => products::einsum,
        _ => return None,
    })
}
