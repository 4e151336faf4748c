//! What a person types: flags, and environment variables in their place. Everything else is in the configuration.

use crate::config::Overrides;
use clap::{Parser, Subcommand, ValueEnum};
use modelservice_contract::{HTTP_PORT, MANAGEMENT_PORT, ModelConfig, TERMINATION_LOG};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  Serve the model package in ./photos as \"photos\", and classify an image with it:
    modelservice-server --model photos=./photos
    curl --data-binary @cat.jpg http://localhost:8080/v1/models/photos:classify

  Two models, on another port:
    modelservice-server --model ./photos --model letters=/models/emnist --http-port 9000

  Make starts quicker, once, before a package becomes an image:
    modelservice-server optimize ./photos

  Everything else is in a configuration; this prints one with all defaults:
    modelservice-server --model ./photos --check-config > server.yaml
    modelservice-server --config server.yaml

A model package is a folder with model.onnx and, to classify images, model.yaml.
Health and metrics are on the management port: /readyz, /metrics, /report, /load.";

/// ONNX Runtime inference server for image models
#[derive(Clone, Debug, Parser)]
#[command(name = "modelservice-server", version, args_override_self = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Serve the model package in this folder; its name in requests is that of the folder unless it is given.
    /// Can be repeated, and adds to the configuration's models
    #[arg(
        long = "model",
        env = "MODELSERVICE_MODELS",
        value_name = "[NAME=]FOLDER",
        value_delimiter = ',',
        value_parser = model,
        action = clap::ArgAction::Append
    )]
    pub models: Vec<ModelConfig>,
    /// File with the configuration; without it the environment variable `MODELSERVICE_CONFIG` holds its text
    #[arg(long, env = "MODELSERVICE_CONFIG_FILE", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print it with all defaults, and end
    #[arg(long)]
    pub check_config: bool,
    /// Port of the inference protocols; 0 is any free one
    #[arg(long, env = "MODELSERVICE_HTTP_PORT", default_value_t = HTTP_PORT, value_name = "PORT")]
    pub http_port: u16,
    /// Port of health, metrics and the report; 0 is any free one
    #[arg(long, env = "MODELSERVICE_MANAGEMENT_PORT", default_value_t = MANAGEMENT_PORT, value_name = "PORT")]
    pub management_port: u16,
    /// Execution provider that must hold the models, instead of the configuration's
    #[arg(long, env = "MODELSERVICE_EXECUTION_PROVIDER", value_name = "NAME")]
    pub execution_provider: Option<String>,
    /// The ONNX Runtime library
    #[arg(
        long,
        global = true,
        env = "ORT_DYLIB_PATH",
        default_value = "/usr/lib/libonnxruntime.so",
        value_name = "FILE"
    )]
    pub onnx_runtime: PathBuf,
    /// Where the last words go, if that file exists
    #[arg(long, default_value = TERMINATION_LOG, value_name = "FILE")]
    pub termination_log: PathBuf,
    /// What is logged: a level, or tracing's directives (`info,onnxruntime=debug`)
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// How it is logged; by default for people on a terminal, and otherwise as JSON
    #[arg(long, env = "LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Put the optimised graph of each package into its folder, so that no start has to make it; to be run on the
    /// kind of processor that will serve, before the package becomes an image
    Optimize {
        /// Folders with a model package
        #[arg(required = true, value_name = "FOLDER")]
        packages: Vec<PathBuf>,
    },
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// For people
    Text,
}

impl Arguments {
    /// What goes before the configuration.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            models: self.models.clone(),
            execution_provider: self.execution_provider.clone(),
        }
    }
}

fn model(text: &str) -> Result<ModelConfig, String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), path),
        None => (folder_name(Path::new(text))?, text),
    };
    Ok(ModelConfig {
        name,
        path: path.to_owned(),
        digest: None,
    })
}

fn folder_name(path: &Path) -> Result<String, String> {
    // `.` and `..` have no name of their own.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| format!("{} has no name: write NAME={}", path.display(), path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn models(arguments: &[&str]) -> Vec<(String, String)> {
        let arguments = Arguments::try_parse_from([&["modelservice-server"], arguments].concat()).unwrap();
        let pair = |model: ModelConfig| (model.name, model.path);
        arguments.models.into_iter().map(pair).collect()
    }

    // To try a model nobody should have to write YAML.
    #[test]
    fn a_model_needs_no_more_than_its_folder() {
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(models(&["--model", "a=./b"]), [pair("a", "./b")]);
        assert_eq!(
            models(&["--model", "models/photos/", "--model=/mnt/letters"]),
            [pair("photos", "models/photos/"), pair("letters", "/mnt/letters")]
        );
        let here = models(&["--model", "."]);
        let folder = std::env::current_dir().unwrap();
        assert_eq!(here[0].0, folder.file_name().unwrap().to_str().unwrap());
        assert!(Arguments::try_parse_from(["modelservice-server", "--model", "/"]).is_err());
    }
}
