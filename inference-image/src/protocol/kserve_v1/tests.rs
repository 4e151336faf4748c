#![allow(clippy::unwrap_used)]
use super::request::{Form, VERSION_2, parse};
use super::response::encode;
use crate::engine::Signature;
use crate::protocol::error::ApiError;
use crate::protocol::inference::Answer;
use crate::protocol::inference::tests::signature;
use crate::scheduling::Timing;
use crate::tensor::{DataType, Tensor};
use bytes::Bytes;
use serde_json::{Value, json};

fn one() -> Signature {
    signature(
        &[("x", DataType::Fp32, &[-1, 2])],
        &[("y", DataType::Fp32, &[-1, 2])],
    )
}

fn two() -> Signature {
    let ports: [(&str, DataType, &[i64]); 2] =
        [("a", DataType::Int64, &[-1, 2]), ("b", DataType::Bytes, &[-1])];
    signature(&ports, &ports)
}

/// The response of a model that returns its inputs.
fn echoed(signature: &Signature, request: Value) -> Result<Value, String> {
    let (request, form) = parse(&request.to_string().into(), signature)?;
    let inputs = request
        .inputs
        .into_iter()
        .map(|input| input.tensor().map_err(|error| error.to_string()));
    let tensors: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
    let answer = Answer {
        outputs: request.outputs.into_iter().zip(tensors).collect(),
        timing: Timing::default(),
    };
    let refused = |error: ApiError| error.message().to_owned();
    answer.check_json(signature, VERSION_2).map_err(refused)?;
    let text = encode(form, signature, &answer)?;
    Ok(serde_json::from_slice::<Value>(&text).unwrap()["predictions"].clone())
}

#[test]
fn rows_and_columns_of_one_input() {
    for request in [
        json!({"instances": [[1.5, 2.0], [3.0, 4.0]]}),
        json!({"instances": [{"x": [1.5, 2.0]}, {"x": [3, 4]}], "signature_name": "serving_default"}),
        json!({"inputs": [[1.5, 2], [3, 4]]}),
        json!({"inputs": {"x": [[1.5, 2], [3, 4]]}}),
    ] {
        assert_eq!(echoed(&one(), request).unwrap(), json!([[1.5, 2.0], [3.0, 4.0]]));
    }
    let flags = signature(&[("x", DataType::Bool, &[-1])], &[("y", DataType::Bool, &[-1])]);
    assert_eq!(
        echoed(&flags, json!({"instances": [true, false]})).unwrap(),
        json!([true, false])
    );
}

#[test]
fn rows_and_columns_of_several_inputs() {
    let rows = json!([{"a": [1, 2], "b": "é"}, {"a": [3, 4], "b": ""}]);
    assert_eq!(echoed(&two(), json!({"instances": rows})).unwrap(), rows);
    let columns = json!({"a": [[1, 2], [3, 4]], "b": ["é", ""]});
    assert_eq!(echoed(&two(), json!({"inputs": columns})).unwrap(), columns);
}

#[test]
fn texts_may_be_base64_by_rows_and_by_columns() {
    let texts = signature(&[("s", DataType::Bytes, &[-1])], &[("t", DataType::Bytes, &[-1])]);
    for request in [
        json!({"instances": [{"b64": "w6k="}, "a"]}),
        json!({"instances": [{"s": {"b64": "w6k="}}, {"s": "a"}]}),
        json!({"inputs": [{"b64": "w6k"}, {"b64": "YQ=="}]}),
        json!({"inputs": {"s": ["é", {"b64": "YQ=="}]}}),
    ] {
        assert_eq!(echoed(&texts, request).unwrap(), json!(["é", "a"]));
    }
    let row = json!([{"a": [1, 2], "b": {"b64": "w6k="}}]);
    assert_eq!(
        echoed(&two(), json!({"instances": row})).unwrap(),
        json!([{"a": [1, 2], "b": "é"}])
    );
    // An input of this name is not an encoding.
    let named = signature(
        &[("b64", DataType::Bytes, &[-1])],
        &[("t", DataType::Bytes, &[-1])],
    );
    assert_eq!(
        echoed(&named, json!({"instances": [{"b64": "w6k="}]})).unwrap(),
        json!(["w6k="])
    );
    for (text, words) in [
        (
            "w6k!",
            r#"expected a string or {"b64": BASE64}, found {"b64":"w6k!""#,
        ),
        // It is accepted, and sent back.
        ("/w==", "output \"t\": element 0 is not UTF-8"),
    ] {
        let problem = echoed(&texts, json!({"instances": [{"b64": text}]})).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
    let problem = echoed(&one(), json!({"instances": [{"b64": "AAAA"}]})).unwrap_err();
    assert!(problem.contains("no input \"b64\""), "{problem}");
}

#[test]
fn what_is_no_prediction_request_is_refused() {
    for (signature, request, words) in [
        (one(), json!({}), "neither instances nor inputs"),
        (one(), json!([]), "not a JSON object"),
        (one(), json!({"instances": [], "inputs": []}), "both"),
        (one(), json!({"instances": {"x": [1, 2]}}), "must be a list"),
        (one(), json!({"instances": [[1, 2], {"x": [1, 2]}]}), "mixed"),
        (
            one(),
            json!({"instances": [{"x": [1, 2]}, [1, 2]]}),
            "expected an object of inputs",
        ),
        (
            one(),
            json!({"instances": [{"x": [1, 2]}, {}]}),
            "instance 1: input \"x\" is missing",
        ),
        (
            one(),
            json!({"instances": [{"z": [1, 2]}]}),
            "instance 0: the model has no input \"z\"",
        ),
        (one(), json!({"instances": [[1, 2, 3]]}), "has shape [-1, 2]"),
        (one(), json!({"instances": []}), "has shape [-1, 2]"),
        (one(), json!({"inputs": {"z": 1}}), "has no input \"z\""),
        (one(), json!({"inputs": 7}), "but the request says []"),
        (one(), json!({"inputs": {"x": null}}), "expected a list"),
        (
            two(),
            json!({"instances": [[1, 2]]}),
            "several inputs, give each by name: a, b",
        ),
        (
            two(),
            json!({"inputs": {"a": [[1, 2]]}}),
            "input \"b\" is missing",
        ),
    ] {
        let problem = echoed(&signature, request).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
}

/// This version has no binary data, so advising it would not help.
#[test]
fn a_type_without_a_json_form_is_referred_to_version_2() {
    let float: (&str, DataType, &[i64]) = ("x", DataType::Fp32, &[-1]);
    let half: (&str, DataType, &[i64]) = ("h", DataType::Fp16, &[-1]);
    for (inputs, outputs, kind) in [([half], [float], "input"), ([float], [half], "output")] {
        let problem = echoed(&signature(&inputs, &outputs), json!({"instances": [1]})).unwrap_err();
        let words = format!("{kind} \"h\" of the model is FP16");
        assert!(
            problem.contains(&words) && problem.contains("/v2/models/"),
            "{problem}"
        );
    }
}

#[test]
fn outputs_without_rows_need_columns() {
    let outputs: [(&str, DataType, &[i64]); 2] = [("m", DataType::Int64, &[2]), ("n", DataType::Int64, &[])];
    let signature = signature(&[("x", DataType::Int64, &[-1])], &outputs);
    let tensors = [
        Tensor::from_vec(vec![2], vec![1_i64, 2]).unwrap(),
        Tensor::from_vec(vec![], vec![7_i64]).unwrap(),
    ];
    let (request, _) = parse(&Bytes::from_static(b"{\"inputs\": [1]}"), &signature).unwrap();
    let answer = Answer {
        outputs: request.outputs.into_iter().zip(tensors).collect(),
        timing: Timing::default(),
    };
    let columns = encode(Form::Columns, &signature, &answer).unwrap();
    assert_eq!(columns, br#"{"predictions":{"m":[1,2],"n":7}}"#);
    assert!(
        encode(Form::Rows, &signature, &answer)
            .unwrap_err()
            .contains("by columns")
    );
}
