//! What fuzzers feed: a function for each parser of the protocols that takes any bytes, and must neither panic nor
//! accept a request that does not fit the model. The models are fixed: one with an `FP32` matrix `x` and a `BYTES`
//! list `y`, and one with the matrix alone.

use super::body::{Budget, Wanted};
use super::grpc;
use super::infer::{Input, Request};
use super::{kserve_v1, oip};
use crate::engine::{Port, Signature};
use crate::tensor::DataType;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

/// The largest body in these functions, in bytes.
const MAX_BODY: u64 = 1 << 16;

fn ports(both: bool) -> Vec<Port> {
    let port = |name: &str, datatype, shape: &[i64]| Port {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
    };
    let mut ports = vec![port("x", DataType::Fp32, &[-1, 2])];
    if both {
        ports.push(port("y", DataType::Bytes, &[-1]));
    }
    ports
}

fn signature(both: bool) -> Signature {
    Signature {
        inputs: ports(both),
        outputs: ports(both),
        opset: 17,
    }
}

/// Reads the tensors of an accepted request, as the engine would get them; says whether there are some.
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

/// `POST /v2/models/{model}/infer`; a length of 0 is a raw binary request. Whether it was accepted.
#[must_use]
pub fn infer(header_length: Option<usize>, body: &[u8]) -> bool {
    let signature = signature(header_length != Some(0));
    let request = oip::parse(&Bytes::copy_from_slice(body), header_length, &signature);
    request.is_ok_and(|parsed| check(parsed.request, &signature))
}

/// `POST /v1/models/{model}:predict`, for a model with one input or with two. Whether it was accepted.
#[must_use]
pub fn predict(two_inputs: bool, body: &[u8]) -> bool {
    let signature = signature(two_inputs);
    let request = kserve_v1::parse(&Bytes::copy_from_slice(body), &signature);
    request.is_ok_and(|(request, _)| check(request, &signature))
}

/// A `ModelInferRequest`. Whether it was accepted.
#[must_use]
pub fn model_infer(message: &[u8]) -> bool {
    let (message, signature) = (Bytes::copy_from_slice(message), signature(true));
    // Where the first tensor lies is looked for in the beginning of a message, too.
    assert!(grpc::first_tensor_at(&message[..message.len() / 2]) <= message.len());
    grpc::parse(&message, &signature).is_ok_and(|request| check(request, &signature))
}

/// The body of a gRPC call with one message, which may be compressed with gzip. Whether it was accepted.
///
/// # Errors
/// Without a runtime.
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

/// A compressed body: with gzip, or else with deflate. Whether it was accepted.
///
/// # Errors
/// Without a runtime.
pub fn compressed_body(gzip: bool, body: &[u8]) -> std::io::Result<bool> {
    let encoding = HeaderValue::from_static(if gzip { "gzip" } else { "deflate" });
    let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding)]);
    let body = Body::from(Bytes::copy_from_slice(body));
    let budget = Budget::new(MAX_BODY);
    let received = runtime()?.block_on(budget.read(&headers, body, Wanted::default()));
    Ok(received.is_ok_and(|received| received.bytes.len() as u64 <= MAX_BODY))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use super::super::proto::{InferTensorContents, ModelInferRequest};
    use super::*;
    use prost::Message;
    use std::io::Read;

    /// xorshift64* (Vigna, 2016).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
        }

        /// The seed with some of its bytes changed, removed, doubled or exchanged for telling ones.
        fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
            const TELLING: &[u8] = b"[]{}\",:0-.eE\\ \xff\x00\x01\x7f\x80";
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                match self.below(6) {
                    0 if !bytes.is_empty() => bytes[at] = TELLING[self.below(TELLING.len())],
                    1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                    2 if !bytes.is_empty() => drop(bytes.remove(at)),
                    3 => bytes.insert(at, TELLING[self.below(TELLING.len())]),
                    4 => bytes.truncate(at),
                    _ => {
                        let end = at + self.below(bytes.len() - at + 1);
                        bytes.extend_from_within(at..end);
                    }
                }
            }
            bytes
        }
    }

    fn try_all(seeds: &[Vec<u8>], body: impl Fn(&[u8], &mut Random) -> bool) {
        let mut random = Random(7);
        for seed in seeds {
            assert!(body(seed, &mut Random(1)), "{:?}", String::from_utf8_lossy(seed));
            for _ in 0..2000 {
                let mutated = random.mutated(seed);
                let _ = body(&mutated, &mut random);
            }
        }
    }

    #[test]
    fn requests_with_broken_bytes_do_no_harm() {
        let json = r#"{"id":"a","parameters":{"p":[1]},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,-2.5],[3e0,4]]},
            {"name":"y","shape":[1],"datatype":"BYTES","data":["\u00e9"]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
        try_all(&[json.into()], |body, _| infer(None, body));
        let head = r#"{"inputs":[{"name":"y","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}},
            {"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#;
        let binary = [head.as_bytes(), b"\x01\0\0\0a", &[0; 8]].concat();
        try_all(&[binary], |body, random| {
            infer(Some(head.len() + random.below(3).saturating_sub(1)), body)
        });
        try_all(&[vec![0; 8]], |body, _| infer(Some(0), body));
    }

    #[test]
    fn predictions_with_broken_bytes_do_no_harm() {
        let one = [r#"{"instances":[[1,2],[3,4]]}"#, r#"{"inputs":{"x":[[1,2]]}}"#].map(|seed| seed.into());
        try_all(&one, |body, _| predict(false, body));
        let two = [
            r#"{"instances":[{"x":[1,2],"y":"a"}]}"#,
            r#"{"inputs":{"x":[[1,2]],"y":["a"]}}"#,
        ];
        try_all(&two.map(|seed| seed.into()), |body, _| predict(true, body));
    }

    fn messages() -> Vec<Vec<u8>> {
        let input = |name: &str, datatype: &str, shape: &[i64]| InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..Default::default()
        };
        let inputs = vec![input("x", "FP32", &[1, 2]), input("y", "BYTES", &[1])];
        let raw = ModelInferRequest {
            model_name: "m".to_owned(),
            inputs: inputs.clone(),
            outputs: vec![InferRequestedOutputTensor {
                name: "x".to_owned(),
                ..Default::default()
            }],
            raw_input_contents: vec![vec![0; 8].into(), (&b"\x01\0\0\0a"[..]).into()],
            ..Default::default()
        };
        let mut typed = ModelInferRequest {
            inputs,
            ..Default::default()
        };
        typed.inputs[0].contents = Some(InferTensorContents {
            fp32_contents: vec![1.0, 2.0],
            ..Default::default()
        });
        typed.inputs[1].contents = Some(InferTensorContents {
            bytes_contents: vec!["a".into()],
            ..Default::default()
        });
        vec![raw.encode_to_vec(), typed.encode_to_vec()]
    }

    #[test]
    fn messages_with_broken_bytes_do_no_harm() {
        try_all(&messages(), |message, _| model_infer(message));
        let framed = messages().into_iter().map(|message| {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            [&[0], &length[..], &message].concat()
        });
        try_all(&framed.collect::<Vec<_>>(), |body, _| grpc_body(body).unwrap());
    }

    #[test]
    fn compressed_bodies_with_broken_bytes_do_no_harm() {
        let text = b"some text, some text, some text".as_slice();
        let (mut gzip, mut deflate) = (Vec::new(), Vec::new());
        let best = flate2::Compression::best();
        flate2::read::GzEncoder::new(text, best)
            .read_to_end(&mut gzip)
            .unwrap();
        flate2::read::ZlibEncoder::new(text, best)
            .read_to_end(&mut deflate)
            .unwrap();
        try_all(&[gzip], |body, _| compressed_body(true, body).unwrap());
        try_all(&[deflate], |body, _| compressed_body(false, body).unwrap());
    }
}
