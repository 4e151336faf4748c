//! The server's configuration: where it is read from, and which values are rejected.

pub mod reload;
pub mod yaml;

use crate::process::exit::Fatal;
use modelservice_contract::{
    AccessLog, Auth, CONFIG_ENV, Cache, Connections, Cors, Drain, ExecutionProvider, ExitReason, Limits,
    ModelConfig, Scheduling, ServerConfig, Tls, Tracing,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Ordinary clients send more than this.
const MIN_HEADER_BYTES: u32 = 1024;

/// Values given by flags, which override the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Additional models.
    pub models: Vec<ModelConfig>,
    /// Another execution provider, without options.
    pub execution_provider: Option<String>,
}

/// Reads the configuration from `file`, or else from the text of the environment variable [`CONFIG_ENV`], and checks
/// it together with the overrides. If the overrides name a model, neither is needed.
///
/// # Errors
/// `ConfigInvalid`, naming the key in question.
pub fn load(
    file: Option<&Path>,
    environment: Option<&str>,
    overrides: Overrides,
) -> Result<ServerConfig, Fatal> {
    let (source, text) = match (file, environment) {
        (Some(path), _) => {
            let source = path.display().to_string();
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| invalid(&source, &error))?;
            (source, text)
        }
        (None, Some(text)) => (CONFIG_ENV.to_owned(), text.to_owned()),
        (None, None) if !overrides.models.is_empty() => ("--model".to_owned(), "{}".to_owned()),
        (None, None) => {
            let message = format!(
                "nothing to serve: name a model package with --model FOLDER, or give a configuration \
                 with --config FILE or as the text of {CONFIG_ENV}"
            );
            return Err(Fatal::new(ExitReason::ConfigInvalid, message));
        }
    };
    let config = yaml::read(&text).and_then(|mut config: ServerConfig| {
        config.models.extend(overrides.models);
        if let Some(name) = overrides.execution_provider {
            config.execution_provider = ExecutionProvider {
                name,
                ..ExecutionProvider::default()
            };
        }
        check(&config).map(|()| config)
    });
    config.map_err(|problem| invalid(&source, &problem))
}

/// The configuration as YAML, with the values of all keys, including those that were left out.
///
/// # Errors
/// When a value has no YAML form; every value has one.
pub fn effective(config: &ServerConfig) -> Result<String, String> {
    // Without `..`, so that a new part cannot be forgotten.
    let ServerConfig {
        models,
        execution_provider,
        limits,
        scheduling,
        cache,
        connections,
        tls,
        auth,
        cors,
        access_log,
        tracing,
        drain,
    } = config;
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Effective<'a> {
        models: &'a [ModelConfig],
        execution_provider: &'a ExecutionProvider,
        limits: &'a Limits,
        scheduling: &'a Scheduling,
        cache: &'a Cache,
        connections: &'a Connections,
        tls: &'a Option<Tls>,
        auth: &'a Option<Auth>,
        cors: &'a Option<Cors>,
        access_log: &'a AccessLog,
        tracing: &'a Option<Tracing>,
        drain: &'a Drain,
    }
    let effective = Effective {
        models,
        execution_provider,
        limits,
        scheduling,
        cache,
        connections,
        tls,
        auth,
        cors,
        access_log,
        tracing,
        drain,
    };
    serde_saphyr::to_string(&effective).map_err(|error| error.to_string())
}

fn invalid(source: &dyn std::fmt::Display, problem: &dyn std::fmt::Display) -> Fatal {
    let message = format!("{source}: {problem} (docs/server.md lists every key)");
    Fatal::new(ExitReason::ConfigInvalid, message)
}

/// Parses and checks the text of a configuration.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str) -> Result<ServerConfig, String> {
    let config: ServerConfig = yaml::read(text)?;
    check(&config)?;
    Ok(config)
}

fn check(config: &ServerConfig) -> Result<(), String> {
    if config.models.is_empty() {
        return Err("models is empty: name at least one model".to_owned());
    }
    let mut names = BTreeSet::new();
    for model in &config.models {
        check_model(model)?;
        if !names.insert(&model.name) {
            return Err(format!("models: the name {:?} is given twice", model.name));
        }
    }
    let limits = &config.limits;
    let sizes = [limits.max_body_bytes, limits.max_image_pixels];
    let counts = [limits.max_images_per_request, limits.queue_length];
    if sizes.contains(&0) || counts.contains(&0) {
        let message =
            "limits: maxBodyBytes, maxImagePixels, maxImagesPerRequest and queueLength must be at least 1";
        return Err(message.to_owned());
    }
    if limits.header_seconds == 0 || limits.body_seconds == 0 || limits.max_header_bytes < MIN_HEADER_BYTES {
        return Err(format!(
            "limits: headerSeconds and bodySeconds must be at least 1, maxHeaderBytes at least {MIN_HEADER_BYTES}"
        ));
    }
    let connections = &config.connections;
    if connections.max == Some(0) || connections.idle_seconds == 0 || connections.max_concurrent_requests == 0
    {
        return Err("connections: max, idleSeconds and maxConcurrentRequests must be at least 1".to_owned());
    }
    check_observability(config)
}

fn check_observability(config: &ServerConfig) -> Result<(), String> {
    let share = 0.0..=1.0;
    if !share.contains(&config.access_log.sample_ratio) {
        return Err("accessLog: sampleRatio must be a share from 0 to 1".to_owned());
    }
    config.cors.as_ref().map_or(Ok(()), check_cors)?;
    let Some(tracing) = &config.tracing else {
        return Ok(());
    };
    if !share.contains(&tracing.sample_ratio) {
        return Err("tracing: sampleRatio must be a share from 0 to 1".to_owned());
    }
    if !tracing.endpoint.starts_with("http://") {
        return Err(format!(
            "tracing: endpoint is {:?}, it must be a URL such as http://collector.observability:4317",
            tracing.endpoint
        ));
    }
    Ok(())
}

fn check_cors(cors: &Cors) -> Result<(), String> {
    let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    // As browsers write it: without a path, and without the port that the scheme means.
    let is_origin = |origin: &String| {
        let https = origin.strip_prefix("https://").map(|host| (host, ":443"));
        let http = origin.strip_prefix("http://").map(|host| (host, ":80"));
        https.or(http).is_some_and(|(host, port)| {
            !host.is_empty() && host.bytes().all(is_host) && !host.ends_with(port)
        })
    };
    match cors
        .allowed_origins
        .iter()
        .find(|origin| *origin != "*" && !is_origin(origin))
    {
        Some(origin) => Err(format!(
            "cors: allowedOrigins has {origin:?}, it must be '*' or a scheme, a host and perhaps a port, in small letters \
             and without a slash at the end, such as https://app.example.com"
        )),
        None if cors.allowed_origins.is_empty() => {
            Err("cors: allowedOrigins is empty: leave cors out".to_owned())
        }
        None => Ok(()),
    }
}

fn check_model(model: &ModelConfig) -> Result<(), String> {
    let name = &model.name;
    // The name appears in request paths, before a colon.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(is_plain) {
        return Err(format!(
            "models: {name:?} is no name: use 1 to 253 letters, digits, '.', '_' and '-'"
        ));
    }
    if model.path.is_empty() {
        return Err(format!("models: {name:?} has an empty path"));
    }
    match &model.digest {
        Some(digest) if !is_digest(digest) => Err(format!(
            "models: {name:?} has the digest {digest:?}, it must be sha256: and 64 lower-case hexadecimal digits"
        )),
        _ => Ok(()),
    }
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SMALLEST: &str = "models: [{name: photos, path: /mnt/model}]\n";

    #[test]
    fn the_smallest_configuration_serves_on_the_cpu() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(config.execution_provider.name, "CPUExecutionProvider");
        assert_eq!(
            (config.drain.accept_seconds, config.drain.finish_seconds),
            (5, 20)
        );
    }

    /// The server must read what the operator writes as it was meant.
    #[test]
    fn what_is_written_as_json_is_read_back() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(parse(&serde_json::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn what_is_impossible_is_named() {
        let model = |fields: &str| format!("models: [{{name: photos, path: /mnt/model, {fields}}}]");
        for (text, word) in [
            ("models: []".to_owned(), "models is empty"),
            ("limits: {}".to_owned(), "models"),
            (model("colour: red"), "colour"),
            (format!("{SMALLEST}limit: {{}}"), "limit"),
            (format!("{SMALLEST}limits: {{queueLength: 0}}"), "queueLength"),
            (
                format!("{SMALLEST}limits: {{maxImagesPerRequest: 0}}"),
                "maxImagesPerRequest",
            ),
            (format!("{SMALLEST}limits: {{queueLength: many}}"), "queueLength"),
            (format!("{SMALLEST}drain: {{acceptSeconds: -1}}"), "acceptSeconds"),
            (format!("{SMALLEST}cors: {{allowedOrigins: []}}"), "empty"),
            (
                format!("{SMALLEST}cors: {{allowedOrigins: [a.example]}}"),
                "a.example",
            ),
            (
                format!("{SMALLEST}cors: {{allowedOrigins: ['https://a/']}}"),
                "https://a/",
            ),
            (
                format!("{SMALLEST}cors: {{allowedOrigins: ['https://a:443']}}"),
                ":443",
            ),
            (
                format!("{SMALLEST}cors: {{allowedOrigins: ['*', 'null']}}"),
                "null",
            ),
            ("models: [{name: a/b, path: x}]".to_owned(), "a/b"),
            ("models: [{name: '', path: x}]".to_owned(), "no name"),
            ("models: [{name: a, path: ''}]".to_owned(), "empty path"),
            (
                "models: [{name: a, path: x}, {name: a, path: y}]".to_owned(),
                "twice",
            ),
            (model("digest: sha256:00"), "sha256:00"),
            ("models: [".to_owned(), "line"),
        ] {
            let problem = parse(&text).unwrap_err();
            assert!(problem.contains(word), "{text}\n{problem}");
        }
    }

    #[test]
    fn a_file_goes_before_the_environment_and_one_of_them_or_a_model_is_needed() {
        let none = Overrides::default;
        let fatal = load(None, None, none()).unwrap_err();
        assert!(fatal.reason == ExitReason::ConfigInvalid && fatal.message.contains("MODELSERVICE_CONFIG"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SMALLEST).unwrap();
        assert!(load(Some(file.path()), Some("nonsense"), none()).is_ok());
        let fatal = load(Some(Path::new("/nowhere/config.yaml")), Some(SMALLEST), none()).unwrap_err();
        assert!(fatal.message.contains("/nowhere/config.yaml"));
        let typed = |name: &str| Overrides {
            models: parse(&SMALLEST.replace("photos", name)).unwrap().models,
            execution_provider: Some("Other".to_owned()),
        };
        let config = load(None, Some(SMALLEST), typed("letters")).unwrap();
        let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(
            (names, config.execution_provider.name.as_str()),
            (vec!["photos", "letters"], "Other")
        );
        assert_eq!(load(None, None, typed("a")).unwrap().models[0].name, "a");
        assert!(
            load(None, Some(SMALLEST), typed("photos"))
                .unwrap_err()
                .message
                .contains("twice")
        );
    }

    /// What is printed is in force, and can be used as a configuration.
    #[test]
    fn the_effective_configuration_holds_every_value_and_is_read_back() {
        let config = parse(SMALLEST).unwrap();
        let text = effective(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config);
        for key in [
            "maxAgeSeconds: 300",
            "queueLength: 128",
            "acceptSeconds: 5",
            "tls: null",
            "failures: true",
        ] {
            assert!(text.contains(key), "{key} is not in\n{text}");
        }
    }
}
