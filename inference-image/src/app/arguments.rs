//! Command-line flags, and the environment variables that can replace them. Everything else is in the configuration.

use crate::config::Overrides;
use clap::{Args, Parser, Subcommand, ValueEnum};
use modelservice_contract::{HTTP_PORT, MANAGEMENT_PORT, ModelConfig, TERMINATION_LOG, names_levels};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  Serve the model package in ./photos as \"photos\", and classify an image with it:
    modelservice-server --model photos=./photos
    curl --data-binary @cat.jpg http://localhost:8080/v1/models/photos:classify

  Two models, on another port:
    modelservice-server --model ./photos --model letters=/models/emnist --http-port 9000

  For this machine alone:
    modelservice-server --model ./photos --address 127.0.0.1

  Is a package good, and how is it asked?
    modelservice-server check ./photos

  Make starts quicker, once, before a package becomes an image:
    modelservice-server optimize ./photos

  Everything else is in a configuration; this prints one with all defaults:
    modelservice-server --model ./photos --check-config > server.yaml
    modelservice-server --config server.yaml

A model package is a folder with model.onnx and, to classify images, model.yaml.
Health and metrics are on the management port: /readyz, /metrics, /report, /load.";

const CHECK_EXAMPLES: &str = "\
Examples:
  What would a server say about the package in ./photos?
    modelservice-server check ./photos

  In a pipeline, before the package is published:
    modelservice-server check --digest sha256:1d08… --output json ./photos

  On a machine with the device that will run it:
    modelservice-server check --execution-provider CUDAExecutionProvider ./photos

The package is read, its model is loaded and run once, as at a start. Nothing is served or written.

The exit code is 0, or that with which a server would end:
  10  the configuration, such as a digest that is none
  11  no model
  12  another digest
  13  the model, or model.yaml
  14  the execution provider or its device
  15  an execution provider that runs too little of the model
  16  ONNX Runtime
  17  the machine";

/// ONNX Runtime inference server for image models
#[derive(Clone, Debug, Parser)]
#[command(name = "modelservice-server", version, args_override_self = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Serve the model package in this folder. Its name in requests is NAME, or else the folder's name. Can be
    /// repeated; adds to the models of the configuration
    #[arg(
        long = "model",
        env = "MODELSERVICE_MODELS",
        value_name = "[NAME=]FOLDER",
        value_delimiter = ',',
        value_parser = model,
        action = clap::ArgAction::Append
    )]
    pub models: Vec<ModelConfig>,
    /// Configuration file; without it, the configuration is the text of the environment variable
    /// `MODELSERVICE_CONFIG`
    #[arg(long, env = "MODELSERVICE_CONFIG_FILE", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration, print it with all defaults, and exit
    #[arg(long)]
    pub check_config: bool,
    /// Address that both ports listen on, such as 127.0.0.1; without it, every address of this machine
    #[arg(long, env = "MODELSERVICE_ADDRESS", value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// Port of the inference protocols; 0 picks a free one
    #[arg(long, env = "MODELSERVICE_HTTP_PORT", default_value_t = HTTP_PORT, value_name = "PORT")]
    pub http_port: u16,
    /// Port for health, metrics and the report; 0 picks a free one
    #[arg(long, env = "MODELSERVICE_MANAGEMENT_PORT", default_value_t = MANAGEMENT_PORT, value_name = "PORT")]
    pub management_port: u16,
    /// Execution provider that must run the models; overrides the configuration's
    #[arg(long, env = "MODELSERVICE_EXECUTION_PROVIDER", value_name = "NAME")]
    pub execution_provider: Option<String>,
    /// Path of the ONNX Runtime library
    #[arg(
        long,
        global = true,
        env = "ORT_DYLIB_PATH",
        default_value = "/usr/lib/libonnxruntime.so",
        value_name = "FILE"
    )]
    pub onnx_runtime: PathBuf,
    /// File for the termination message, if that file exists
    #[arg(long, default_value = TERMINATION_LOG, value_name = "FILE")]
    pub termination_log: PathBuf,
    /// Log level, or filter directives of tracing (`info,onnxruntime=debug`)
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "LEVEL", value_parser = log_filter)]
    pub log_level: String,
    /// Log format; the default is text on a terminal and JSON elsewhere
    #[arg(long, env = "LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Optimise the graph of each package and store it in its folder, so that the server does not have to do it at
    /// every start. Run this on the kind of processor that the server will run on, before building the package's
    /// image
    Optimize {
        /// Folders with a model package
        #[arg(required = true, value_name = "FOLDER")]
        packages: Vec<PathBuf>,
    },
    /// Check a model package: print every problem that a server would have with it, or else what clients send and get
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArguments),
    /// Print the digest of a whole model package, for use in a configuration or a `ModelService`
    Digest {
        /// Folder with a model package
        #[arg(value_name = "FOLDER")]
        package: PathBuf,
    },
    /// Print the JSON Schema of model.yaml, with which editors complete it
    Schema,
}

/// What to check, and how the result is printed.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// Folder with a model package. Its name in requests is NAME, or else the folder's name
    #[arg(value_name = "[NAME=]FOLDER", value_parser = model)]
    pub package: ModelConfig,
    /// Digest that the package must have: of model.onnx, or of the whole package
    #[arg(long, value_name = "sha256:HEX")]
    pub digest: Option<String>,
    /// Execution provider that must run the model; the CPU's by default
    #[arg(long, value_name = "NAME")]
    pub execution_provider: Option<String>,
    /// Print text for people, or JSON for programs
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// Human-readable text
    Text,
}

impl Arguments {
    /// The flags that override the configuration.
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
        ..ModelConfig::default()
    })
}

fn folder_name(path: &Path) -> Result<String, String> {
    // `.` and `..` are not names.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        format!(
            "{} does not end in a name: write NAME={}",
            path.display(),
            path.display()
        )
    })
}

/// A log filter.
fn log_filter(text: &str) -> Result<String, &'static str> {
    if names_levels(text) && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("write error, warn, info, debug or trace, or a filter such as info,onnxruntime=debug")
    }
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

    /// Nobody should have to write YAML to try a model.
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

    /// A server that is asked for `loud` and logs nothing hides what goes wrong.
    #[test]
    fn a_log_level_is_a_level_or_names_one() {
        let parse = |level| Arguments::try_parse_from(["modelservice-server", "--log-level", level]);
        for right in ["info", "WARN", "off", "info,onnxruntime=debug"] {
            assert_eq!(parse(right).unwrap().log_level, right);
        }
        for wrong in ["loud", "", "info,", "info,onnxruntime", "onnxruntime=loud"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
