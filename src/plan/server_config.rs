//! The server's configuration, as the one document that travels in a revision's pod template. Pure.

use crate::{crd::AcceleratorClass, validate::ValidatedService};
use modelservice_contract::{
    CACHE_PATH, Cache, ExecutionProvider, Limits, MODEL_PATH, ModelConfig, ServerConfig,
};
use serde_json::{Value, json};

/// The document for a new revision. It says only what differs from the server's defaults: a runtime image that is
/// older than a setting is not disturbed by it unless somebody uses it.
pub(super) fn server_config(service: &ValidatedService, class: &AcceleratorClass) -> String {
    let spec = service.spec();
    let settings = &spec.server;
    let default = Limits::default();
    let config = ServerConfig {
        models: vec![ModelConfig {
            name: settings
                .model_name
                .clone()
                .unwrap_or_else(|| service.name.clone()),
            path: MODEL_PATH.into(),
            digest: spec.model.digest.clone(),
        }],
        execution_provider: ExecutionProvider {
            name: class.spec.runtime.execution_provider.clone(),
            options: class.spec.runtime.options.clone(),
        },
        limits: Limits {
            max_body_bytes: number(settings.max_body_bytes, default.max_body_bytes),
            max_image_pixels: number(settings.max_image_pixels, default.max_image_pixels),
            queue_length: number(settings.queue_length, default.queue_length),
            ..default.clone()
        },
        cache: Cache {
            path: Some(CACHE_PATH.into()),
        },
        ..ServerConfig::default()
    };
    let defaults = json!({"limits": default});
    // Plain data: serialises infallibly.
    let different = without_defaults(serde_json::to_value(&config).unwrap_or_default(), &defaults);
    serde_saphyr::to_string(&different.unwrap_or_default()).unwrap_or_default()
}

/// What was set; the schema lets no number pass that does not fit.
fn number<Set, Used: TryFrom<Set>>(set: Option<Set>, default: Used) -> Used {
    set.and_then(|set| Used::try_from(set).ok()).unwrap_or(default)
}

/// What of a value differs from its default; a section without a difference is left out.
fn without_defaults(value: Value, default: &Value) -> Option<Value> {
    match value {
        value if value == *default => None,
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), without_defaults(value, &default[&key])?)));
            Some(Value::Object(kept.collect()))
        }
        value => Some(value),
    }
}
