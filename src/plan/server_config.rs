//! The server's configuration: one document inside a revision's pod template. Pure.

use super::volumes::TOKEN_FILE;
use crate::{
    crd::{
        AcceleratorClass, AccessLogSettings, ConnectionSettings, DeviceType, Plugin, Runtime, ServerSettings,
        TracingSettings,
    },
    revision::thousandths,
    validate::ValidatedService,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use modelservice_contract::{
    AccessLog, Auth, CACHE_PATH, Cache, Connections, ExecutionProvider, Limits, MODEL_PATH, ModelConfig,
    ProviderPlugin, Scheduling, ServerConfig, Tracing,
};
use serde_json::{Value, json};

/// The document for a new revision. It contains only values that differ from the server's defaults, so that a runtime
/// image that is older than a setting sees it only if it is used.
pub(super) fn server_config(service: &ValidatedService, class: &AcceleratorClass) -> String {
    let default = ServerConfig::default();
    let config = config(service, class, &default);
    let defaults = json!({
        "limits": default.limits,
        "scheduling": default.scheduling,
        "connections": default.connections,
        "accessLog": default.access_log,
        "tracing": {"sampleRatio": Tracing::SAMPLE_RATIO},
    });
    // Plain data, whose serialisation cannot fail.
    let different = without_defaults(serde_json::to_value(&config).unwrap_or_default(), &defaults);
    serde_saphyr::to_string(&different.unwrap_or_default()).unwrap_or_default()
}

fn config(service: &ValidatedService, class: &AcceleratorClass, default: &ServerConfig) -> ServerConfig {
    let (model, settings) = (&service.spec().model, &service.spec().server);
    let name = settings.model_name.as_ref().unwrap_or(&service.name);
    ServerConfig {
        models: vec![ModelConfig {
            name: name.clone(),
            path: MODEL_PATH.into(),
            digest: model.digest.clone(),
            ..ModelConfig::default()
        }],
        execution_provider: execution_provider(&class.spec.runtime),
        limits: limits(settings, &default.limits),
        scheduling: Scheduling {
            max_batch_size: number(settings.max_batch_size, default.scheduling.max_batch_size),
        },
        connections: connections(&settings.connections, &default.connections),
        auth: settings.auth.as_ref().map(|_| Auth {
            token_file: TOKEN_FILE.into(),
        }),
        access_log: access_log(&settings.access_log, &default.access_log),
        tracing: settings.tracing.as_ref().map(tracing),
        cache: Cache {
            path: Some(CACHE_PATH.into()),
        },
        ..default.clone()
    }
}

fn execution_provider(runtime: &Runtime) -> ExecutionProvider {
    let bytes = |quantity: &Quantity| u64::try_from(thousandths(&quantity.0)? / 1000).ok();
    ExecutionProvider {
        name: runtime.execution_provider.clone(),
        options: runtime.options.clone(),
        plugin: runtime.plugin.as_ref().map(plugin),
        runners: runtime.runners.and_then(|runners| u32::try_from(runners).ok()),
        memory_limit_bytes: runtime.memory_limit.as_ref().and_then(bytes),
        allow_cpu_percent: number(runtime.allow_cpu_share, 0),
    }
}

fn plugin(plugin: &Plugin) -> ProviderPlugin {
    ProviderPlugin {
        library: plugin.library.clone(),
        registration_name: plugin.registration_name.clone(),
        device_vendor: plugin.device_vendor.clone(),
        device_type: plugin
            .device_type
            .map(|type_| DeviceType::as_str(type_).to_owned()),
    }
}

fn limits(settings: &ServerSettings, default: &Limits) -> Limits {
    Limits {
        max_body_bytes: number(settings.max_body_bytes, default.max_body_bytes),
        max_image_pixels: number(settings.max_image_pixels, default.max_image_pixels),
        max_images_per_request: number(settings.max_images_per_request, default.max_images_per_request),
        queue_length: number(settings.queue_length, default.queue_length),
        ..default.clone()
    }
}

fn connections(settings: &ConnectionSettings, default: &Connections) -> Connections {
    Connections {
        max_age_seconds: number(settings.max_age_seconds, default.max_age_seconds),
        max_requests: number(settings.max_requests, default.max_requests),
        idle_seconds: number(settings.idle_seconds, default.idle_seconds),
        ..default.clone()
    }
}

fn access_log(settings: &AccessLogSettings, default: &AccessLog) -> AccessLog {
    AccessLog {
        sample_ratio: settings.sample_ratio.unwrap_or(default.sample_ratio),
        failures: settings.failures.unwrap_or(default.failures),
    }
}

fn tracing(settings: &TracingSettings) -> Tracing {
    Tracing {
        endpoint: settings.endpoint.clone(),
        sample_ratio: settings.sample_ratio.unwrap_or(Tracing::SAMPLE_RATIO),
    }
}

/// The value that was set, or the default. The schema accepts only numbers that fit.
fn number<Set, Used: TryFrom<Set>>(set: Option<Set>, default: Used) -> Used {
    set.and_then(|set| Used::try_from(set).ok()).unwrap_or(default)
}

/// The parts of a value that differ from the default; `None` if nothing differs.
fn without_defaults(value: Value, default: &Value) -> Option<Value> {
    match value {
        value if value == *default => None,
        Value::Object(fields) => {
            let different = fields
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), without_defaults(value, &default[&key])?)));
            Some(Value::Object(different.collect()))
        }
        value => Some(value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{crd::definitions, fixtures::observed, validate::validate};

    fn config(server: &Value) -> (String, ServerConfig) {
        let service = validate(&observed(json!({"server": server}))).unwrap();
        let text = server_config(&service, &AcceleratorClass::new("cpu", Default::default()));
        let read = serde_saphyr::from_str(&text).unwrap();
        (text, read)
    }

    /// Numbers and switches in `spec.server`, and their places in the configuration.
    const SETTINGS: &[(&str, &str)] = &[
        ("/maxBodyBytes", "/limits/maxBodyBytes"),
        ("/maxImagePixels", "/limits/maxImagePixels"),
        ("/maxImagesPerRequest", "/limits/maxImagesPerRequest"),
        ("/queueLength", "/limits/queueLength"),
        ("/maxBatchSize", "/scheduling/maxBatchSize"),
        ("/connections/maxAgeSeconds", "/connections/maxAgeSeconds"),
        ("/connections/maxRequests", "/connections/maxRequests"),
        ("/connections/idleSeconds", "/connections/idleSeconds"),
        ("/accessLog/sampleRatio", "/accessLog/sampleRatio"),
        ("/accessLog/failures", "/accessLog/failures"),
        ("/tracing/sampleRatio", "/tracing/sampleRatio"),
    ];

    fn nested(pointer: &str, value: Value) -> Value {
        let keys = pointer.trim_start_matches('/').rsplit('/');
        keys.fold(value, |inner, key| json!({key: inner}))
    }

    /// A setting that does not reach the server would be worse than no setting.
    #[test]
    fn every_setting_of_the_spec_arrives_in_the_configuration() {
        for (setting, place) in SETTINGS {
            let value = match *setting {
                ratio if ratio.ends_with("Ratio") => json!(0.5),
                "/accessLog/failures" => json!(false),
                _ => json!(4321),
            };
            let mut server = nested(setting, value.clone());
            if let Some(tracing) = server.get_mut("tracing") {
                tracing["endpoint"] = "http://collector:4317".into();
            }
            let (text, config) = config(&server);
            let arrived = serde_json::to_value(&config).unwrap();
            assert_eq!(arrived.pointer(place), Some(&value), "{setting}: {text}");
        }
    }

    #[test]
    fn texts_of_the_spec_arrive_in_the_configuration() {
        let (_, config) = config(&json!({"modelName": "net", "auth": {"tokenSecretName": "known"},
            "tracing": {"endpoint": "http://collector:4317"}}));
        assert_eq!(config.models[0].name, "net");
        assert_eq!(config.auth.unwrap().token_file, TOKEN_FILE);
        let tracing = config.tracing.unwrap();
        assert_eq!(
            (tracing.endpoint.as_str(), tracing.sample_ratio),
            ("http://collector:4317", 0.01)
        );
    }

    /// A setting of the class that does not reach the server would leave a device unused, or used wrongly.
    #[test]
    fn every_setting_of_the_classs_runtime_arrives_in_the_configuration() {
        let runtime = json!({"executionProvider": "TpuExecutionProvider", "options": {"cores": "2"}, "runners": 2,
            "memoryLimit": "1.5Gi", "allowCpuShare": 10, "plugin": {"library": "/opt/tpu/provider.so",
                "registrationName": "tpu", "deviceVendor": "Example", "deviceType": "NPU"}});
        let service = validate(&observed(json!({}))).unwrap();
        let class = serde_json::from_value(json!({"runtime": runtime})).unwrap();
        let text = server_config(&service, &AcceleratorClass::new("tpu", class));
        let config: ServerConfig = serde_saphyr::from_str(&text).unwrap();
        let arrived = json!({"name": "TpuExecutionProvider", "options": {"cores": "2"}, "runners": 2,
            "memoryLimitBytes": 1_610_612_736, "allowCpuPercent": 10, "plugin": {"library": "/opt/tpu/provider.so",
                "registrationName": "tpu", "deviceVendor": "Example", "deviceType": "NPU"}});
        assert_eq!(
            serde_json::to_value(&config.execution_provider).unwrap(),
            arrived,
            "{text}"
        );
    }

    #[test]
    fn only_what_was_set_is_said() {
        let (text, _) =
            config(&json!({"modelName": "net", "connections": {"maxAgeSeconds": 60, "idleSeconds": 620}}));
        let said = "cache:\n  path: /var/cache/modelservice\nconnections:\n  maxAgeSeconds: 60\nmodels:\n- name: net\n  path: /mnt/model\n";
        assert_eq!(text, said);
    }

    /// People configure their clients by the API reference.
    #[test]
    fn every_setting_is_tested_and_its_documented_default_is_the_servers() {
        let definition = serde_json::to_value(&definitions()[1]).unwrap();
        let server = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["server"];
        let ServerConfig {
            limits,
            scheduling,
            connections,
            access_log,
            ..
        } = ServerConfig::default();
        let defaults = json!({"limits": limits, "scheduling": scheduling, "connections": connections,
            "accessLog": access_log, "tracing": {"sampleRatio": Tracing::SAMPLE_RATIO}});
        for (setting, place) in SETTINGS {
            let schema = server.pointer(&setting.replace('/', "/properties/")).unwrap();
            let described = schema["description"].as_str().unwrap();
            let default = defaults.pointer(place).unwrap();
            assert!(
                described.contains(&format!("default {default}")),
                "{setting}: {described}"
            );
        }
        assert_eq!(
            SETTINGS.len(),
            settings(server),
            "a setting of spec.server is not in the table"
        );
    }

    /// Writing out a default changes nothing. (src/revision/canonical.rs has the defaults.)
    #[test]
    fn a_default_that_is_written_out_makes_no_revision() {
        let revision = |server: Value| validate(&observed(json!({"server": server}))).unwrap().revision;
        let defaults = json!({"limits": Limits::default(), "scheduling": Scheduling::default(),
            "connections": Connections::default(), "accessLog": AccessLog::default(),
            "tracing": {"sampleRatio": Tracing::SAMPLE_RATIO}});
        for (setting, place) in SETTINGS {
            let mut without = json!({"tracing": {"endpoint": "http://collector:4317"}});
            let expected = (revision(without.clone()), config(&without).0);
            let (group, name) = setting.rsplit_once('/').unwrap();
            let group = group.trim_start_matches('/');
            let place_of = if group.is_empty() {
                &mut without
            } else {
                &mut without[group]
            };
            place_of[name] = defaults.pointer(place).unwrap().clone();
            assert_eq!(
                (revision(without.clone()), config(&without).0),
                expected,
                "{setting}"
            );
        }
    }

    fn settings(schema: &Value) -> usize {
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .map(|(_, inner)| {
                let is_text = inner["type"] == "string" || inner["type"] == "object";
                usize::from(!is_text) + settings(inner)
            })
            .sum()
    }
}
