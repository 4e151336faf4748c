//! The server's configuration: where it is read from, and what in it is impossible.

use crate::exit::Fatal;
use crate::yaml;
use modelservice_contract::{CONFIG_ENV, ExitReason, ModelConfig, ServerConfig};
use std::collections::BTreeSet;
use std::path::Path;

/// Less does not hold what ordinary clients send.
const MIN_HEADER_BYTES: u32 = 1024;

/// Reads the configuration from `file`, or else from the text of the environment variable
/// [`CONFIG_ENV`], and checks it.
///
/// # Errors
/// `ConfigInvalid`, naming the key in question.
pub fn load(file: Option<&Path>, environment: Option<&str>) -> Result<ServerConfig, Fatal> {
    let (source, text) = match (file, environment) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path);
            (
                path.display().to_string(),
                text.map_err(|error| invalid(&path.display(), &error))?,
            )
        }
        (None, Some(text)) => (CONFIG_ENV.to_owned(), text.to_owned()),
        (None, None) => {
            let message =
                format!("no configuration: set {CONFIG_ENV} to the YAML text, or use --config FILE");
            return Err(Fatal::new(ExitReason::ConfigInvalid, message));
        }
    };
    parse(&text).map_err(|problem| invalid(&source, &problem))
}

fn invalid(source: &dyn std::fmt::Display, problem: &dyn std::fmt::Display) -> Fatal {
    let message = format!("{source}: {problem} (docs/server.md lists every key)");
    Fatal::new(ExitReason::ConfigInvalid, message)
}

/// Parses and checks the text of a configuration.
///
/// # Errors
/// What is wrong, with its place.
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
    Ok(())
}

fn check_model(model: &ModelConfig) -> Result<(), String> {
    let name = &model.name;
    // The name stands in request paths, before a colon.
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

    // What the operator writes must be read as it was meant.
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
    fn a_file_goes_before_the_environment_and_one_of_them_is_needed() {
        let fatal = load(None, None).unwrap_err();
        assert!(fatal.reason == ExitReason::ConfigInvalid && fatal.message.contains("MODELSERVICE_CONFIG"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SMALLEST).unwrap();
        assert!(load(Some(file.path()), Some("nonsense")).is_ok());
        let fatal = load(Some(Path::new("/nowhere/config.yaml")), Some(SMALLEST)).unwrap_err();
        assert!(fatal.message.contains("/nowhere/config.yaml"));
    }
}
