#![allow(clippy::unwrap_used, clippy::expect_used)]

mod notation;
mod operators;

use super::rows_stay_apart as verdict;
use crate::onnx::{Attribute, Function, Graph, Model, Tensor};
use notation::{judge, judge_at, model};

/// Each of these models was once batched, with wrong answers.
#[test]
fn models_whose_rows_see_each_other_are_recognised_and_the_operator_is_named() {
    for (what, inputs, nodes, named) in [
        (
            "a sum of all rows before",
            "x[N,3]",
            "y = CumSum(x, #0)",
            "CumSum",
        ),
        (
            "differences to the row before",
            "x[N,3]",
            "a = Pad(x, [1,0,-1,0]); y = Sub(x, a)",
            "Pad",
        ),
        (
            "the same by slices",
            "x[N,3]",
            "a = Slice(x, [0], [1], [0]); b = Slice(x, [0], [-1], [0]); c = Concat<axis=0>(a, b); y = Sub(x, c)",
            "Slice",
        ),
        (
            "a recurrent network over rows",
            "x[N,3]",
            "a = Unsqueeze(x, [1]); b, c = RNN<hidden_size=4>(a, :[1,4,3], :[1,4,4]); y = Squeeze(b, [1,2])",
            "RNN",
        ),
        (
            "the distance to the least",
            "x[N,3]",
            "a = ReduceMin<axes=[0],keepdims=1>(x); y = Sub(x, a)",
            "ReduceMin",
        ),
        (
            "rows that no equal one came before",
            "x[N,3]",
            "a = Unsqueeze(x, [1]); b = Unsqueeze(x, [0]); c = Equal(a, b); y = ReduceMin<axes=[1]>(c)",
            "Equal",
        ),
        (
            "the same by sorting",
            "x[N]",
            "a, b, c, d = Unique<axis=0>(x); y = Gather<axis=0>(a, c)",
            "Unique",
        ),
        (
            "large columns beside small ones",
            "x[N,3]",
            "a = ReduceMean<axes=[0],keepdims=1>(x); b = Mul(x, ~[1000000]); c = Sub(x, a); y = Concat<axis=1>(b, c)",
            "ReduceMean",
        ),
        (
            "dynamic quantisation after normalisation of each row",
            "x[N,768]",
            "a = LayerNormalization(x, :[768], :[768]); b, s, z = DynamicQuantizeLinear(a); \
             c = MatMulInteger(b, :[768,10], z); d = Cast<to=1>(c); y = Mul(d, s)",
            "DynamicQuantizeLinear",
        ),
    ] {
        let problem = judge(inputs, nodes).expect_err(what);
        assert!(problem.contains(named), "{what}: {problem}");
    }
}

#[test]
fn networks_for_images_keep_their_rows_apart() {
    for (what, inputs, nodes) in [
        (
            "fp32, flattened",
            "x[N,3,224,224]",
            "a = Conv<strides=[2,2],pads=[1,1,1,1]>(x, :[32,3,3,3], :[32]); b = BatchNormalization(a, :[32], :[32], :[32], :[32]); \
             c = Clip(b, ~[0], ~[6]); d = GlobalAveragePool(c); e = Flatten(d); f = Gemm<transB=1>(e, :[10,32], :[10]); \
             y = Softmax(f)",
        ),
        (
            "int8 between quantisation with fixed scales",
            "x[N,3,224,224]",
            "a = QuantizeLinear(x, :[], :[]); b = DequantizeLinear(a, :[], :[]); w = DequantizeLinear<axis=0>(:[32,3,3,3], :[32], :[32]); \
             c = Conv(b, w, :[32]); d = QuantizeLinear(c, :[], :[]); e = DequantizeLinear(d, :[], :[]); f = GlobalAveragePool(e); \
             g = Squeeze(f, [2,3]); v = DequantizeLinear<axis=0>(:[10,32], :[10], :[10]); y = Gemm<transB=1>(g, v, :[10])",
        ),
        (
            "int8 operators",
            "x[N,3,8,8]",
            "a = QuantizeLinear(x, :[], :[]); b = QLinearConv<pads=[1,1,1,1]>(a, :[], :[], :[8,3,3,3], :[8], :[8], :[], :[]); \
             c = com.microsoft.QLinearAdd(b, :[], :[], b, :[], :[], :[], :[]); \
             d = com.microsoft.QLinearGlobalAveragePool(c, :[], :[], :[], :[]); e = Reshape(d, [-1,8]); \
             f = QLinearMatMul(e, :[], :[], :[8,10], :[], :[], :[], :[]); y = DequantizeLinear(f, :[], :[])",
        ),
        (
            "a shape that is computed",
            "x[N,3,8,8]",
            "a = Conv(x, :[4,3,1,1]); s = Shape(a); n = Gather<axis=0>(s, #0); m = Unsqueeze(n, [0]); t = Concat<axis=0>(m, [-1]); \
             y = Reshape(a, t)",
        ),
        (
            "a shape with a number from layers before",
            "x[N,3,224,224]",
            "a = Conv<strides=[4,4],pads=[2,2,2,2]>(x, :[96,3,11,11]); b = MaxPool<kernel_shape=[3,3],strides=[2,2]>(a); \
             c = AveragePool<kernel_shape=[2,2],strides=[2,2],auto_pad=SAME_UPPER>(b); y = Reshape(c, [-1,18816])",
        ),
        (
            "channels last",
            "x[N,8,8,3]",
            "a = Transpose<perm=[0,3,1,2]>(x); b = Conv(a, :[4,3,3,3]); c = Transpose<perm=[0,2,3,1]>(b); y = ReduceMean<axes=[1,2]>(c)",
        ),
        (
            "shuffled channels",
            "x[N,8,?,?]",
            "s = Shape(x); h = Gather(s, [2]); w = Gather(s, [3]); n = Gather(s, [0]); t = Concat<axis=0>(n, [2,4], h, w); \
             a = Reshape(x, t); b = Transpose<perm=[0,2,1,3,4]>(a); u = Concat<axis=0>(n, [8], h, w); y = Reshape(b, u)",
        ),
        (
            "enlarged to the size of another layer",
            "x[N,3,?,?]",
            "a = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x); s = Shape(x); t = Slice(s, [2], [4], [0]); u = Shape(a); \
             v = Slice(u, [0], [2], [0]); w = Concat<axis=0>(v, t); b = Resize<mode=linear>(a, , , w); y = Concat<axis=1>(x, b)",
        ),
        (
            "a transformer of images",
            "x[N,196,64]",
            "s = Shape(x); n = Gather(s, [0]); t = Concat<axis=0>(n, [1,64]); c = Expand(:[1,1,64], t); a = Concat<axis=1>(c, x); \
             b = Add(a, :[1,197,64]); l = LayerNormalization(b, :[64], :[64]); q = MatMul(l, :[64,64]); \
             h = Reshape(q, [0,-1,4,16]); k = Transpose<perm=[0,2,1,3]>(h); j = Transpose<perm=[0,2,3,1]>(h); \
             m = MatMul(k, j); p = Softmax<axis=-1>(m); o = MatMul(p, k); r = Transpose<perm=[0,2,1,3]>(o); \
             u = Reshape(r, [0,0,64]); f = Gather<axis=1>(u, #0); y = Gemm(f, :[64,10], :[10])",
        ),
        (
            "a list that is repeated for each row, as exporters spell it",
            "x[N,3]",
            "s = Shape(x); n = Gather(s, [0]); t = Concat<axis=0>(n, [-1]); r = Shape(t); o = ConstantOfShape<value=#1>(r); \
             m = Mul(o, [-1]); e = Equal(t, m); w = Where(e, o, t); c = Expand(:[1,3], w); y = Add(x, c)",
        ),
        (
            "text of a fixed vocabulary",
            "ids[N,?] mask[N,?]",
            "a = Gather(:[1000,32], ids); b = LayerNormalization(a, :[32], :[32]); m = Unsqueeze(mask, [2]); c = Mul(b, m); \
             d = ReduceSum(c, [1]); y = Flatten(d)",
        ),
    ] {
        assert_eq!(judge(inputs, nodes), Ok(()), "{what}");
    }
}

#[test]
fn every_input_and_every_output_has_the_rows_first() {
    for (inputs, nodes, part) in [
        ("x[1,3]", "y = Relu(x)", "\"x\" has no dynamic first dimension"),
        ("x[]", "y = Relu(x)", "\"x\" has no dynamic first dimension"),
        (
            "x[N,3] z[2,3]",
            "y = Relu(x)",
            "\"z\" has no dynamic first dimension",
        ),
        ("x[N,3]", "y = Transpose(x)", "\"y\" is not the batch"),
        (
            "x[N,3]",
            "a = Shape(x); y = Gather(a, [1])",
            "\"y\" is not the batch",
        ),
        ("x[N,3]", "y = Shape(x)", "\"y\" is not the batch"),
        ("x[N,3]", "z = Relu(x)", "nothing makes its output \"y\""),
        ("x[N,3]", "y = Relu(w)", "nothing is known about its tensor \"w\""),
    ] {
        let problem = judge(inputs, nodes).unwrap_err();
        assert!(problem.contains(part), "{nodes}: {problem}");
    }
    let mut shapeless = model(17, "x[N,3]", "y = Relu(x)");
    shapeless.graph.as_mut().unwrap().inputs[0].r#type = None;
    assert!(verdict(&shapeless).unwrap_err().contains("shape of its input"));
}

// Parts of the graph that lead to no output do not matter.
#[test]
fn only_where_outputs_come_from_matters() {
    assert_eq!(judge("x[N,3]", "a = CumSum(x, #0); y = Relu(x)"), Ok(()));
    assert_eq!(judge("x[N,3]", "y, mask = Dropout(x)"), Ok(()));
    let pool = "p, i = MaxPool<kernel_shape=[2,2]>(x)";
    assert_eq!(judge("x[N,3,4,4]", &format!("{pool}; y = Relu(p)")), Ok(()));
    assert!(judge("x[N,3,4,4]", &format!("{pool}; y = Relu(i)")).is_err());
}

#[test]
fn what_is_the_same_for_all_rows_may_come_from_any_operator_but_a_random_one() {
    assert_eq!(
        judge("x[N,3]", "a = Det(:[3,3]); b = Unsqueeze(a, [0]); y = Relu(x)"),
        Ok(())
    );
    assert_eq!(judge("x[N,3]", "a = CumSum(:[3], #0); y = Mul(x, a)"), Ok(()));
    // If nothing is known about a tensor, its shape is unknown too.
    assert!(judge("x[N,3]", "a = Det(:[3,3]); y = Mul(x, a)").is_err());
    for random in [
        "RandomNormal<shape=[3]>()",
        "Bernoulli(:[3])",
        "RandomUniformLike(:[3])",
    ] {
        let problem = judge("x[N,3]", &format!("a = {random}; y = Add(x, a)")).unwrap_err();
        assert!(problem.contains("random"), "{problem}");
    }
    assert!(judge("x[N,3]", "a = RandomNormalLike(x); y = Add(x, a)").is_err());
}

#[test]
fn what_is_not_in_the_table_is_not_trusted() {
    for nodes in [
        "y = SomethingNew(x)",
        "y = com.example.Relu(x)",
        "y = com.microsoft.Relu(x)",
        "y = ai.onnx.ml.Normalizer(x)",
        "a = com.example.Weights(:[3]); y = Add(x, a)",
        "y = com.microsoft.DynamicQuantizeMatMul(x, :[3,4], :[])",
    ] {
        assert!(judge("x[N,3]", nodes).is_err(), "{nodes}");
    }
    for opset in [6, 99] {
        assert!(
            judge_at(opset, "x[N,3]", "y = Relu(x)")
                .unwrap_err()
                .contains("operator set")
        );
    }
}

// Whatever its name is, it may do something else.
#[test]
fn a_function_of_the_file_and_a_nested_graph_are_not_trusted() {
    let mut own = model(17, "x[N,3]", "y = Relu(x)");
    own.functions.push(Function {
        name: "Relu".into(),
        ..Function::default()
    });
    assert!(verdict(&own).unwrap_err().contains("graph of its own"));
    let mut nested = model(17, "x[N,3]", "a = If(#1); y = Add(x, a)");
    nested.graph.as_mut().unwrap().nodes[0]
        .attributes
        .push(Attribute {
            name: "then_branch".into(),
            graph: Some(Graph::default()),
            ..Attribute::default()
        });
    assert!(verdict(&nested).unwrap_err().contains("If"));
}

// A client may send something else instead.
#[test]
fn a_default_of_an_input_is_no_constant() {
    let mut defaults = model(17, "x[N,4,3]", "y = Reshape(x, [-1,12])");
    assert_eq!(verdict(&defaults), Ok(()));
    let graph = defaults.graph.as_mut().unwrap();
    let mut input = graph.inputs[0].clone();
    input.name.clone_from(&graph.initializers[0].name);
    graph.inputs.push(input);
    assert!(verdict(&defaults).is_err());
    // Old files list all initialisers as inputs.
    defaults.ir_version = 3;
    assert_eq!(verdict(&defaults), Ok(()));
}

#[test]
fn a_file_that_is_no_model_is_no_reason_to_batch() {
    assert!(verdict(&Model::default()).is_err());
    let numbers = Tensor {
        name: "w".into(),
        raw: Some(vec![0; 7].into()),
        dims: vec![i64::MAX, i64::MAX],
        ..Tensor::default()
    };
    let mut odd = model(17, "x[N,3]", "y = Mul(x, w)");
    odd.graph.as_mut().unwrap().initializers.push(numbers);
    assert!(verdict(&odd).is_err());
}
