//! The server's configuration: where it is read from, and which values are rejected.

mod check;
pub mod reload;
#[cfg(test)]
mod tests;
pub mod yaml;

use crate::process::exit::Fatal;
use check::check;
use modelservice_contract::{
    AccessLog, Auth, CONFIG_ENV, Cache, Connections, Cors, Drain, ExecutionProvider, ExitReason, Limits,
    ModelConfig, Scheduling, ServerConfig, Tls, Tracing,
};
use serde::Serialize;
use std::path::Path;

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
/// When a value has no YAML form, which never happens.
pub fn effective(config: &ServerConfig) -> Result<String, String> {
    // Without `..`, so that a new field cannot be forgotten.
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
