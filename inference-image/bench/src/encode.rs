//! Requests as bytes: Open Inference Protocol over REST with binary tensors and over gRPC, and images. Pure.

use serde_json::json;

/// Name of the only input of every model here.
const INPUT: &str = "images";

/// A complete HTTP request with a binary tensor, as tritonclient sends it.
pub(crate) fn rest(model: &str, shape: &[i64], tensor: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let document = json!({
        "inputs": [{
            "name": INPUT,
            "shape": shape,
            "datatype": "FP32",
            "parameters": {"binary_data_size": tensor.len()},
        }],
        "parameters": {"binary_data_output": true},
    });
    let document = document.to_string();
    let length = document.len().to_string();
    let headers = [&[("Inference-Header-Content-Length", length.as_str())], headers].concat();
    let body = [document.as_bytes(), tensor].concat();
    post(
        &format!("/v2/models/{model}/infer"),
        "application/octet-stream",
        &headers,
        &body,
    )
}

/// A complete HTTP request with an image to classify.
pub(crate) fn classify(model: &str, image: &[u8]) -> Vec<u8> {
    post(
        &format!("/v1/models/{model}:classify?top_k=5"),
        "image/jpeg",
        &[],
        image,
    )
}

/// A complete HTTP request with an HTML form of one file.
pub(crate) fn form(path: &str, field: &str, content: &[u8]) -> Vec<u8> {
    const BOUNDARY: &str = "bench-server-boundary";
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{field}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let body = [head.as_bytes(), content, end.as_bytes()].concat();
    post(
        path,
        &format!("multipart/form-data; boundary={BOUNDARY}"),
        &[],
        &body,
    )
}

/// A complete HTTP request.
pub(crate) fn post(path: &str, content_type: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n"
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// `inference.ModelInferRequest` with raw contents, after gRPC's prefix.
/// <https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto>
pub(crate) fn grpc(model: &str, shape: &[i64], tensor: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    field(&mut input, 1, INPUT.as_bytes());
    field(&mut input, 2, b"FP32");
    let mut packed = Vec::new();
    for &size in shape {
        varint(&mut packed, size.cast_unsigned());
    }
    field(&mut input, 3, &packed);
    let mut message = Vec::new();
    field(&mut message, 1, model.as_bytes());
    field(&mut message, 5, &input);
    field(&mut message, 7, tensor);
    // Not compressed, and the length.
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.append(&mut message);
    framed
}

/// A field of wire type 2: strings, bytes, messages, packed numbers.
fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grpc_message_is_what_protobuf_makes_of_it() {
        // From Python: ModelInferRequest(model_name="m", inputs=[InferInputTensor(name="images", datatype="FP32",
        // shape=[1, 300])], raw_input_contents=[b"abcd"]).SerializeToString()
        let expected = b"\x0a\x01m\x2a\x13\x0a\x06images\x12\x04FP32\x1a\x03\x01\xac\x02\x3a\x04abcd";
        let framed = grpc("m", &[1, 300], b"abcd");
        assert_eq!(framed[..5], [0, 0, 0, 0, expected.len() as u8]);
        assert_eq!(framed[5..], expected[..]);
    }

    #[test]
    fn lengths_in_the_http_request_are_right() {
        let request = rest("m", &[1, 2], &[7; 8], &[("X-Request-Timeout", "100")]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert!(
            head.contains(&format!("Inference-Header-Content-Length: {}", body.len() - 8)),
            "{head}"
        );
        assert!(head.ends_with("X-Request-Timeout: 100"), "{head}");
    }
}
