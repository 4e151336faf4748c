//! A table for each family of operators: what keeps rows independent, and similar cases that do not.

use super::{judge, judge_at};

fn apart(inputs: &str, nodes: &[&str]) {
    for nodes in nodes {
        assert_eq!(judge(inputs, nodes), Ok(()), "{inputs} {nodes}");
    }
}

fn mixed(inputs: &str, nodes: &[&str]) {
    for nodes in nodes {
        assert!(judge(inputs, nodes).is_err(), "{inputs} {nodes}");
    }
}

#[test]
fn elements_in_the_same_place() {
    apart(
        "x[N,3] z[N,3] t[N]",
        &[
            "y = Relu(x)",
            "y = Add(x, z)",
            "y = Add(x, :[3])",
            "y = Add(x, :[])",
            "y = Add(:[1,3], x)",
            "y = Max(x, z, :[1])",
            "a = Unsqueeze(t, [1]); y = Mul(x, a)",
            "a = Greater(x, z); y = Where(a, x, :[3])",
            "y = Clip(x, :[], :[])",
            "y = PRelu(x, :[3])",
            "y = Cast<to=1>(x)",
            "y = CastLike(x, z)",
            "y = Dropout(x, :[], #0)",
            "y = com.microsoft.BiasGelu(x, :[3])",
        ],
    );
    mixed(
        "x[N,3] z[N,3] t[N]",
        &[
            "y = Add(x, :[2,3])",
            "y = Add(:[2,1], x)",
            "a = Transpose(x); y = Add(x, a)",
            "a = MatMul(:[4,5], :[5,3]); y = Add(x, a)",
            "y = Add(x, t)",
            "y = Clip(x, t)",
            "y = PRelu(x, :[4,1])",
            "a = Greater(x, z); y = Where(a, x, :[2,3])",
            "y = Dropout(x, :[], #1)",
            "y = Dropout(x, :[], :[])",
        ],
    );
    mixed("x[N,3] z[2,3]", &["y = Add(x, z)"]);
    mixed("x[N,3] z[?,3]", &["a = ReduceMax<axes=[0]>(z); y = Add(x, a)"]);
}

#[test]
fn quantisation() {
    apart(
        "x[N,3,4]",
        &[
            "y = QuantizeLinear(x, :[], :[])",
            "y = QuantizeLinear(x, :[1])",
            "y = QuantizeLinear<axis=1>(x, :[3], :[3])",
            "y = DequantizeLinear<axis=-1>(x, :[4])",
            "y = com.microsoft.QuantizeLinear(x, :[], :[])",
        ],
    );
    mixed(
        "x[N,3,4] s[N]",
        &[
            "y = QuantizeLinear<axis=0>(x, :[2])",
            "y = QuantizeLinear(x, s)",
            "y = QuantizeLinear<axis=0,block_size=2>(x, :[1,3,4])",
            "y, a, b = DynamicQuantizeLinear(x)",
            "m = ReduceMax<keepdims=0>(x); y = QuantizeLinear(x, m)",
        ],
    );
}

#[test]
fn shapes_and_their_arithmetic() {
    let shape = "s = Shape(x); n = Gather<axis=0>(s, [0]); ";
    let with = |rest: &str| format!("{shape}{rest}");
    for rest in [
        "a = ConstantOfShape(n); b = Unsqueeze(a, [1]); y = Add(x, b)",
        "t = Concat<axis=0>(n, [3]); a = ConstantOfShape(t); y = Add(x, a)",
        "t = Concat<axis=0>(n, [1]); a = Expand(:[3], t); y = Add(x, a)",
        "t = Concat<axis=0>(n, [1]); a = Tile(:[1,3], t); y = Add(x, a)",
        "m = Mul(n, [1]); t = Concat<axis=0>(m, [3]); y = Reshape(x, t)",
        "m = Cast<to=6>(n); k = Cast<to=7>(m); t = Concat<axis=0>(k, [-1]); y = Reshape(x, t)",
        "m = Squeeze(n, [0]); k = Reshape(m, [1]); t = Concat<axis=0>(k, [3]); y = Reshape(x, t)",
        "c = Gather<axis=0>(s, [1]); t = Concat<axis=0>([-1], c); y = Reshape(x, t)",
        "a = Slice(s, [0], [1]); t = Concat<axis=0>(a, [3]); y = Reshape(x, t)",
        "y = Expand(x, s)",
    ] {
        assert_eq!(judge("x[N,3]", &with(rest)), Ok(()), "{rest}");
    }
    for rest in [
        "a = Cast<to=1>(n); y = Mul(x, a)",
        "a = Cast<to=1>(n); y = Div(x, a)",
        "y = Mul(x, n)",
        "m = Mul(n, [2]); y = Expand(x, m)",
        "m = Sub(n, [1]); a = Slice(x, [0], m, [0]); y = Relu(a)",
        "a = Slice(x, [0], n, [1]); y = Relu(a)",
        "a = Range(#0, n, #1); y = Add(x, a)",
        "e = Equal(n, [1]); y = Where(e, x, :[3])",
        "m = Mod(n, [2]); t = Concat<axis=0>(m, [3]); y = Reshape(x, t)",
        "a = ReduceProd(s); y = Expand(x, a)",
        "a = Size(x); b = Cast<to=1>(a); y = Div(x, b)",
        "a = ConstantOfShape(n); b = NonZero(a); c = Transpose(b); y = Add(x, c)",
        "t = Concat<axis=0>(n, n); a = ConstantOfShape(t); y = MatMul(a, x)",
        "a = OneHot(:[1], n, :[2]); y = Relu(a)",
        "t = Concat<axis=0>([2], n); a = Expand(x, t); y = Relu(a)",
        "a = TopK(x, n); y = Relu(a)",
    ] {
        assert!(judge("x[N,3]", &with(rest)).is_err(), "{rest}");
    }
}

#[test]
fn the_same_elements_in_other_dimensions() {
    apart(
        "x[N,4,6]",
        &[
            "y = Reshape(x, [0,-1])",
            "y = Reshape(x, [-1,24])",
            "y = Reshape(x, [0,0,2,3])",
            "y = Reshape(x, [0,2,-1,3])",
            "a = Reshape(x, [1,-1,24]); y = Squeeze(a, [0])",
            "y = Flatten(x)",
            "y = Flatten<axis=-2>(x)",
            "a = Unsqueeze(x, [0,-1]); y = Squeeze(a, [0,4])",
            "a = Transpose<perm=[1,0,2]>(x); b = Reshape(a, [0,0,2,3]); y = Transpose<perm=[1,0,2,3]>(b)",
            "a = Transpose<perm=[1,0,2]>(x); b = Reshape(a, [2,2,-1,6]); y = Transpose<perm=[2,0,1,3]>(b)",
        ],
    );
    mixed(
        "x[N,4,6]",
        &[
            "y = Reshape(x, [-1,6])",
            "y = Reshape(x, [-1,48])",
            "y = Reshape(x, [-1])",
            "y = Reshape(x, [1,-1])",
            "y = Reshape(x, [4,-1,6])",
            "y = Reshape(x, [2,4,6])",
            "y = Reshape(x, :[2])",
            "y = Flatten<axis=0>(x)",
            "y = Flatten<axis=2>(x)",
            "y = Squeeze(x)",
            "y = Squeeze(x, [0])",
            "y = Squeeze(x, [])",
            "a = Transpose<perm=[1,0,2]>(x); y = Reshape(a, [-1,24])",
            "a = Transpose<perm=[1,2,0]>(x); y = Reshape(a, [-1,24])",
            "y = Transpose<perm=[2,1,0]>(x)",
            "a = Reshape(x, [-1,2,6]); y = Reshape(a, [-1,24])",
        ],
    );
    apart(
        "x[N,8,4,4]",
        &[
            "y = DepthToSpace<blocksize=2>(x)",
            "y = SpaceToDepth<blocksize=2>(x)",
        ],
    );
    mixed(
        "x[N,8,4,4]",
        &["a = Transpose<perm=[1,0,2,3]>(x); b = SpaceToDepth<blocksize=2>(a); y = Relu(b)"],
    );
}

#[test]
fn parts_of_tensors() {
    apart(
        "x[N,4,6] z[N,4,6] i[N]",
        &[
            "y = Concat<axis=1>(x, z)",
            "y = Concat<axis=-1>(x, z, x)",
            "y, b = Split<axis=1>(x)",
            "y, b = Split<axis=2>(x, [2,4])",
            "y = Slice(x, [1], [3], [1])",
            "y = Slice(x, [0,1], [2147483647,3], [0,1])",
            "y = Slice(x, [0], [9223372036854775807])",
            "y = Gather<axis=1>(x, [0,2])",
            "y = Gather<axis=2>(x, #0)",
            "y = Gather(:[10,5], i)",
            "y = Pad(x, [0,1,1,0,1,1])",
            "y = Pad(x, [1,1], , [2])",
        ],
    );
    mixed(
        "x[N,4,6] z[N,4,6] i[N]",
        &[
            "y = Concat<axis=0>(x, z)",
            "y = Concat<axis=0>(x, :[1,4,6])",
            "y = Concat<axis=1>(x, :[1,4,6])",
            "y, b = Split<axis=0>(x)",
            "y = Slice(x, [1], [2147483647], [0])",
            "y = Slice(x, [0], [2147483647], [0], [2])",
            "y = Slice(x, [-1], [-9223372036854775807], [0], [-1])",
            "y = Slice(x, [0], [1])",
            "y = Slice(x, [0], [2147483647], :[1])",
            "y = Gather<axis=0>(x, [0])",
            "y = Gather(x, i)",
            "y = Gather<axis=1>(x, i)",
            "y = GatherND(x, [[0]])",
            "y = Pad(x, [1,0,0,0,0,0])",
            "y = Pad(x, [0,0,0,-1,0,0])",
            "y = Pad(x, :[6])",
            "y = ReverseSequence(x, i)",
            "y = ScatterElements(x, i, z)",
            "y = Compress<axis=0>(x, :[4])",
        ],
    );
}

#[test]
fn along_dimensions() {
    apart(
        "x[N,4,6]",
        &[
            "y = Softmax<axis=1>(x)",
            "y = LogSoftmax<axis=-1>(x)",
            "y = CumSum(x, #1)",
            "y = ReduceMean<axes=[1,2]>(x)",
            "y = ReduceSum<keepdims=0>(x, [-1])",
            "y = ReduceSum<noop_with_empty_axes=1>(x)",
            "y = ArgMax<axis=1>(x)",
            "y, i = TopK<axis=1>(x, [2])",
            "y = LayerNormalization(x, :[6])",
            "y = LayerNormalization<axis=1>(x, :[4,6], :[4,6])",
            "y = LpNormalization(x)",
            "y = com.microsoft.QLinearSoftmax<axis=1,opset=11>(x, :[], :[], :[], :[])",
        ],
    );
    mixed(
        "x[N,4,6]",
        &[
            "y = Softmax<axis=0>(x)",
            "y = Softmax<axis=-3>(x)",
            "y = CumSum(x, #0)",
            "y = CumSum(x, #-3)",
            "y = CumSum(x, :[])",
            "a = ReduceMean(x); y = Add(x, a)",
            "a = ReduceMax<axes=[0]>(x); y = Add(x, a)",
            "a = ReduceSum<noop_with_empty_axes=0>(x, []); y = Add(x, a)",
            "a = ReduceSum(x, :[1]); y = Add(x, a)",
            "a = ArgMax(x); y = Add(x, a)",
            "y, i = TopK<axis=0>(x, [2])",
            "y = LayerNormalization<axis=0>(x, :[4,6])",
            "y = LayerNormalization(x, :[2,1,6])",
            "y = LpNormalization<axis=0>(x)",
            "y = MeanVarianceNormalization(x)",
            "y = com.microsoft.QLinearSoftmax<axis=0>(x, :[], :[], :[], :[])",
        ],
    );
    assert_eq!(judge_at(11, "x[N,4,6]", "y = Softmax(x)"), Ok(()));
    assert!(judge_at(11, "x[N,4,6]", "y = Softmax<axis=0>(x)").is_err());
    let behind = "a = Transpose<perm=[1,0,2]>(x); b = Softmax<axis=0>(a); y = Transpose<perm=[1,0,2]>(b)";
    assert_eq!(judge("x[N,4,6]", behind), Ok(()));
    assert!(
        judge_at(11, "x[N,4,6]", behind).is_err(),
        "all dimensions together"
    );
}

#[test]
fn products_of_matrices() {
    apart(
        "x[N,4,6] z[N,6,5] v[N,6]",
        &[
            "y = MatMul(v, :[6,5])",
            "y = MatMul(v, :[6])",
            "y = MatMul(x, :[6,5])",
            "y = MatMul(x, :[1,6,5])",
            "y = MatMul(x, z)",
            "y = MatMul(:[3,4], x)",
            "y = Gemm(v, :[6,5], :[5])",
            "y = Gemm<transB=1>(v, :[5,6])",
            "a = Transpose(v); y = Gemm<transA=1>(a, :[6,5])",
            "y = Einsum<equation=bij|bjk->bik>(x, z)",
            "y = Einsum<equation=bij|jk->bik>(x, :[6,5])",
        ],
    );
    mixed(
        "x[N,4,6] z[N,6,5] v[N,6] w[N]",
        &[
            "y = MatMul(:[2,4,4], x)",
            "a = Transpose(v); b = MatMul(a, v); y = MatMul(v, b)",
            "a = Transpose(v); b = MatMul(v, a); y = MatMul(b, v)",
            "y = MatMul(v, z)",
            "y = MatMul(w, v)",
            "y = MatMul(v, v)",
            "y = MatMulInteger(v, :[6,5], :[2])",
            "y = Gemm<transA=1>(v, v)",
            "y = Gemm(v, :[6,5], :[2,5])",
            "y = Gemm(v, :[6,5], w)",
            "y = Gemm(:[1,6], :[6,5], v)",
            "a = Einsum<equation=bij|bjk->ik>(x, z); y = Relu(a)",
            "y = Einsum<equation=bij|ajk->bik>(x, z)",
            "y = Einsum<equation=...ij|jk->...ik>(x, :[6,5])",
            "y = Einsum<equation=bi|bi->b>(v, :[2,6])",
        ],
    );
}

#[test]
fn windows_over_pixels() {
    apart(
        "x[N,3,8,8]",
        &[
            "y = Conv(x, :[4,3,3,3])",
            "y = ConvTranspose<group=3>(x, :[3,1,3,3])",
            "y = MaxPool<kernel_shape=[2,2]>(x)",
            "y = GlobalMaxPool(x)",
            "y = LRN<size=3>(x)",
            "y = InstanceNormalization(x, :[3], :[3])",
            "y = BatchNormalization<training_mode=0>(x, :[3], :[3], :[3], :[3])",
            "y = com.microsoft.FusedConv<activation=Relu>(x, :[3,3,1,1], :[3], x)",
        ],
    );
    mixed(
        "x[N,3,8,8] w[N,3,3,3]",
        &[
            "y = Conv(x, w)",
            "a = Transpose<perm=[1,0,2,3]>(x); b = Conv(a, :[4,3,3,3]); y = Transpose<perm=[1,0,2,3]>(b)",
            "a = Transpose<perm=[2,1,0,3]>(x); b = MaxPool<kernel_shape=[2,2]>(a); y = Transpose<perm=[2,1,0,3]>(b)",
            "a = Transpose<perm=[1,0,2,3]>(x); b = InstanceNormalization(a, :[3], :[3]); y = Transpose<perm=[1,0,2,3]>(b)",
            "y = BatchNormalization<training_mode=1>(x, :[3], :[3], :[3], :[3])",
            "y, m, v = BatchNormalization(x, :[3], :[3], :[3], :[3])",
            "y = com.microsoft.FusedConv(x, :[3,3,1,1], :[3], :[1,3,8,8])",
            "y = com.microsoft.QLinearConv<channels_last=1>(x, :[], :[], :[4,3,3,3], :[], :[], :[], :[])",
        ],
    );
}

#[test]
fn the_sizes_of_windows_are_those_of_onnx_runtime() {
    for (window, pixels) in [
        ("Conv(x, :[1,3,3,3])", 16 * 16),
        ("Conv<pads=[1,1,1,1]>(x, :[1,3,3,3])", 18 * 18),
        ("Conv<pads=[0,1,2,3]>(x, :[1,3,3,3])", 18 * 20),
        ("Conv<strides=[2,3]>(x, :[1,3,3,3])", 8 * 6),
        ("Conv<dilations=[2,2]>(x, :[1,3,3,3])", 14 * 14),
        ("Conv<auto_pad=SAME_LOWER,strides=[4,4]>(x, :[1,3,3,3])", 5 * 5),
        ("Conv<auto_pad=VALID,pads=[1,1,1,1]>(x, :[1,3,3,3])", 16 * 16),
        ("AveragePool<kernel_shape=[3,3],strides=[3,3]>(x)", 3 * 36),
        ("MaxPool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(x)", 3 * 81),
    ] {
        let judged = |pixels: usize| {
            judge(
                "x[N,3,18,18]",
                &format!("a = {window}; y = Reshape(a, [-1,{pixels}])"),
            )
        };
        assert_eq!(judged(pixels), Ok(()), "{window}");
        assert!(
            judged(pixels * 2).is_err() && judged(pixels / 2).is_err(),
            "{window}"
        );
    }
    // Where the size is not certain, it is not guessed.
    let odd = "a = MaxPool<kernel_shape=[2,2],strides=[3,3],ceil_mode=1>(x); y = Reshape(a, [-1,147])";
    assert!(judge("x[N,3,18,18]", odd).is_err());
}

#[test]
fn resizing() {
    apart(
        "x[N,3,8,8]",
        &[
            "y = Resize(x, , ~[1,1,2,2])",
            "y = Resize<mode=linear,coordinate_transformation_mode=align_corners>(x, , ~[1,1,2,2])",
            "y = Resize<axes=[2,3]>(x, , , [16,16])",
            "s = Shape(x); a = Slice(s, [0], [2]); t = Concat<axis=0>(a, [16,16]); y = Resize(x, , , t)",
            "y = Upsample(x, ~[1,1,2,2])",
        ],
    );
    mixed(
        "x[N,3,8,8]",
        &[
            "y = Resize(x, , ~[2,1,1,1])",
            "y = Resize(x, , ~[0.5,1,1,1])",
            "y = Resize(x, , :[4])",
            "y = Resize(x, , , [1,3,16,16])",
            "y = Resize<coordinate_transformation_mode=tf_crop_and_resize>(x, :[8], , [1,3,16,16])",
            "y = Resize<coordinate_transformation_mode=align_corners>(x, , ~[1,1,2,2])",
            "y = Resize<coordinate_transformation_mode=tf_half_pixel_for_nn>(x, , ~[1,1,2,2])",
            "y = Resize<axes=[0,3]>(x, , , [16,16])",
            "s = Shape(x); a = Slice(s, [0], [2]); t = Concat<axis=0>(a, [16,16]); y = Resize<keep_aspect_ratio_policy=not_larger>(x, , , t)",
            "y = Upsample(x, ~[2,1,2,2])",
        ],
    );
}
