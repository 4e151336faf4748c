//! Entry points for fuzzers: one function for each protocol parser. They take arbitrary bytes, and must neither panic
//! nor accept a request that does not fit the model. The models are fixed: one has matrices `x` of `FP32` and `y` of
//! `BYTES`, both with two columns, and the other has only `x`. `tests/fuzz.rs` calls these functions, and so can any
//! other fuzzer.

use super::body::{Budget, ReadOptions};
use super::grpc;
use super::inference::{Input, Request};
use super::{kserve_v1, oip};
use crate::engine::{Port, Signature};
use crate::tensor::DataType;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

/// The largest body in these functions, in bytes.
const MAX_BODY: u64 = 1 << 16;

/// The inputs, and the outputs, of the model with both matrices or with one.
#[must_use]
pub fn signature(both: bool) -> Signature {
    let port = |name: &str, datatype, shape: &[i64]| Port::new(name, datatype, shape);
    let mut ports = vec![port("x", DataType::Fp32, &[-1, 2])];
    if both {
        ports.push(port("y", DataType::Bytes, &[-1, 2]));
    }
    Signature::new(ports.clone(), ports, 17)
}

/// Reads the tensors of an accepted request as the engine would get them. Returns whether there are any.
fn check(request: Request, signature: &Signature) -> bool {
    assert_eq!(request.inputs.len(), signature.inputs.len());
    assert!(
        request
            .outputs
            .iter()
            .all(|output| output.index < signature.outputs.len())
    );
    let tensors: Result<Vec<_>, _> = request.inputs.into_iter().map(Input::tensor).collect();
    let Ok(tensors) = tensors else {
        return false;
    };
    for (port, tensor) in signature.inputs.iter().zip(&tensors) {
        assert_eq!(port.check(tensor.datatype(), tensor.shape()), Ok(()));
        assert_eq!(tensor.to_wire().len(), tensor.wire_len());
    }
    true
}

/// `POST /v2/models/{model}/infer`; a length of 0 is a raw binary request. Returns whether it was accepted.
#[must_use]
pub fn infer(header_length: Option<usize>, body: &[u8]) -> bool {
    let signature = signature(header_length != Some(0));
    let request = oip::parse(&Bytes::copy_from_slice(body), header_length, &signature);
    request.is_ok_and(|parsed| check(parsed.request, &signature))
}

/// `POST /v1/models/{model}:predict`, for a model with one input or with two. Returns whether it was accepted.
#[must_use]
pub fn predict(two_inputs: bool, body: &[u8]) -> bool {
    let signature = signature(two_inputs);
    let request = kserve_v1::parse(&Bytes::copy_from_slice(body), &signature);
    request.is_ok_and(|(request, _)| check(request, &signature))
}

/// A `ModelInferRequest`. Returns whether it was accepted.
#[must_use]
pub fn model_infer(message: &[u8]) -> bool {
    let (message, signature) = (Bytes::copy_from_slice(message), signature(true));
    // The position of the first tensor is also looked up in the beginning of a message.
    assert!(grpc::first_tensor_at(&message[..message.len() / 2]) <= message.len());
    grpc::parse(&message, &signature).is_ok_and(|request| check(request, &signature))
}

/// The body of a gRPC call with one message, which may be compressed with gzip. Returns whether it was accepted.
///
/// # Errors
/// If a runtime cannot be started.
pub fn grpc_body(body: &[u8]) -> std::io::Result<bool> {
    let headers = HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-encoding"),
        HeaderValue::from_static("gzip"),
    )]);
    let body = Body::from(Bytes::copy_from_slice(body));
    let budget = Budget::new(MAX_BODY);
    let received = runtime()?.block_on(grpc::receive(
        &budget,
        &headers,
        body,
        None,
        grpc::first_tensor_at,
    ));
    Ok(received.is_ok_and(|received| received.bytes.len() as u64 <= MAX_BODY))
}

/// A body compressed with gzip, or else with deflate. Returns whether it was accepted.
///
/// # Errors
/// If a runtime cannot be started.
pub fn compressed_body(gzip: bool, body: &[u8]) -> std::io::Result<bool> {
    let encoding = HeaderValue::from_static(if gzip { "gzip" } else { "deflate" });
    let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding)]);
    let body = Body::from(Bytes::copy_from_slice(body));
    let budget = Budget::new(MAX_BODY);
    let received = runtime()?.block_on(budget.read(&headers, body, ReadOptions::default()));
    Ok(received.is_ok_and(|received| received.bytes.len() as u64 <= MAX_BODY))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}
