//! An inference response: JSON, or JSON followed by the bytes of the tensors that were requested in binary.

use super::request::Echo;
use super::template::ResponseTemplate;
use crate::protocol::body::Encoding;
use crate::protocol::body::compression::compress;
use crate::protocol::body::frames::Frames;
use crate::protocol::error::ApiError;
use crate::protocol::inference::request::server_timing;
use crate::protocol::inference::{Answer, Output};
use crate::protocol::json;
use crate::tensor::Tensor;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::io::Write;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Length of the JSON part of a body, which tensors follow.
pub(super) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A tensor below this size is copied behind the JSON: a separate part would cost more. A response below it is not
/// compressed.
const SMALL: usize = 16 << 10;

/// The response, compressed if the client asked for it and it is not small: most clients always ask for it, and
/// sending a few packets takes less time than compressing them.
///
/// # Errors
/// When it cannot be compressed.
pub(super) async fn encode(
    template: &ResponseTemplate,
    echo: &Echo,
    answer: Answer,
    encoding: Option<Encoding>,
) -> Result<Response, ApiError> {
    let mut text = Vec::with_capacity(512);
    head(&mut text, template, echo, &answer.outputs);
    let length = text.len();
    let binary = answer.outputs.iter().any(|(output, _)| output.binary);
    let parts = parts(text, answer.outputs);
    let large = parts.iter().map(Bytes::len).sum::<usize>() >= SMALL;
    let (body, encoded) = match encoding.filter(|_| large) {
        None => (Body::new(Frames::new(parts)), None),
        Some(encoding) => (compress(encoding, parts).await?, Some(encoding)),
    };
    let (timing, value) = server_timing(answer.timing);
    let mut response = ([(timing, value)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, if binary { BINARY } else { JSON });
    if binary {
        headers.insert(HEADER_LENGTH, length.into());
    }
    if let Some(encoding) = encoded {
        headers.insert(
            header::CONTENT_ENCODING,
            HeaderValue::from_static(encoding.name()),
        );
    }
    Ok(response)
}

/// The JSON; writing to memory does not fail.
fn head(text: &mut Vec<u8>, template: &ResponseTemplate, echo: &Echo, outputs: &[(Output, Tensor)]) {
    text.extend_from_slice(&template.head);
    if let Some(id) = &echo.id {
        let _ = write!(text, r#","id":{id}"#);
    }
    if let Some(parameters) = &echo.parameters {
        let _ = write!(text, r#","parameters":{parameters}"#);
    }
    text.extend_from_slice(br#","outputs":["#);
    for (index, (output, tensor)) in outputs.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&template.outputs[output.index]);
        text.extend_from_slice(tensor.datatype().name().as_bytes());
        text.extend_from_slice(br#"","shape":["#);
        for (index, dimension) in tensor.shape().iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(text, "{comma}{dimension}");
        }
        if output.binary {
            let _ = write!(
                text,
                r#"],"parameters":{{"binary_data_size":{}}}}}"#,
                tensor.wire_len()
            );
        } else {
            text.extend_from_slice(br#"],"data":"#);
            json::flat(text, tensor);
            text.push(b'}');
        }
    }
    text.extend_from_slice(b"]}");
}

fn parts(mut text: Vec<u8>, outputs: Vec<(Output, Tensor)>) -> Vec<Bytes> {
    let mut parts = Vec::with_capacity(2 * outputs.len());
    for (output, tensor) in outputs {
        if !output.binary {
            continue;
        }
        let bytes = tensor.to_wire();
        if bytes.len() < SMALL {
            text.extend_from_slice(&bytes);
        } else {
            parts.push(std::mem::take(&mut text).into());
            parts.push(bytes);
        }
    }
    parts.push(text.into());
    parts
}
