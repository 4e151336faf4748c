//! Response templates: the parts of a model's responses that never change.

use crate::engine::Signature;
use crate::protocol::names::MODEL_VERSION;

/// The template of one model.
pub(crate) struct ResponseTemplate {
    /// The beginning of a response: `{"model_name":"…","model_version":"1"`.
    pub(crate) head: Vec<u8>,
    /// The beginning of each output: `{"name":"…","datatype":"`.
    pub(crate) outputs: Vec<Vec<u8>>,
}

impl ResponseTemplate {
    pub(crate) fn new(name: &str, signature: &Signature) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let output = |name: &str| format!(r#"{{"name":{},"datatype":""#, quoted(name)).into_bytes();
        let (name, version) = (quoted(name), quoted(MODEL_VERSION));
        Self {
            head: format!(r#"{{"model_name":{name},"model_version":{version}"#).into_bytes(),
            outputs: signature.outputs.iter().map(|port| output(&port.name)).collect(),
        }
    }
}
