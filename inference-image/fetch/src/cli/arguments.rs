//! The command line.

use crate::error::FetchError;
use clap::{Args, Parser, Subcommand, ValueEnum};
use modelservice_contract::{FETCH_CONFIG_ENV, FetchConfig, FetchReason, TERMINATION_LOG};
use std::path::PathBuf;

/// Fetches a model package from where it is kept: once, verified, resumable.
///
/// In a pod, the operator says what to fetch in MODELSERVICE_FETCH. By hand:
///
///   modelservice-fetch fetch hf://onnx-community/resnet-50@main/onnx ./resnet
///   modelservice-fetch fetch s3://models/resnet50.tar.gz ./resnet --endpoint http://minio:9000
///   modelservice-fetch verify ./resnet
///
/// A fetch that was interrupted goes on where it ended. Exit codes:
///
///    0 done
///   30 ConfigInvalid      31 NotFound           32 Denied
///   33 Forbidden          34 Unavailable        35 SourceChanged
///   36 PackageInvalid     37 DigestMismatch     38 SignatureInvalid
///   39 SystemError       143 told to stop
#[derive(Debug, Parser)]
#[command(name = "modelservice-fetch", version, verbatim_doc_comment)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// File for the result as JSON, if it exists: the kubelet creates it, and shows its content in the pod's status.
    #[arg(long, global = true, value_name = "FILE", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
    /// What is logged: error, warn, info, debug.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "info",
        env = "RUST_LOG"
    )]
    pub log_level: String,
    /// Form of the log: text by default on a terminal, else JSON.
    #[arg(long, global = true, value_name = "FORM")]
    pub log_format: Option<LogFormat>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find out which version a source has, without fetching it. Prints it as JSON.
    Resolve {
        /// Where the model is.
        #[command(flatten)]
        what: What,
    },
    /// Put the model package into a folder, unless it is there.
    Fetch {
        /// Where the model is.
        #[command(flatten)]
        what: What,
        /// The folder: empty, or filled by this program before.
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// The same, if the URI comes from MODELSERVICE_FETCH; by default the cache, or else /mnt/model.
        #[arg(long, value_name = "FOLDER", conflicts_with = "folder")]
        into: Option<PathBuf>,
    },
    /// Check the package in a folder against what it was when it was fetched, if it was. Prints its digest.
    Verify {
        /// The folder; by default /mnt/model, and then MODELSERVICE_FETCH says what to check.
        folder: Option<PathBuf>,
        /// Digest that the package, or its model.onnx, must have: sha256:<64 hex>.
        #[arg(long)]
        digest: Option<String>,
    },
}

/// Where a model is.
#[derive(Debug, Args)]
pub struct What {
    /// s3://BUCKET/KEY, gs://BUCKET/OBJECT, az://CONTAINER/BLOB, https://…, hf://ORG/REPOSITORY@REVISION[/FOLDER],
    /// oci://REGISTRY/REPOSITORY@sha256:… or file:///PATH. A folder ends with /.
    #[arg(value_name = "URI")]
    pub uri: Option<String>,
    /// Server of a store that is not its vendor's.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Digest that the package, or its model.onnx, must have: sha256:<64 hex>.
    #[arg(long)]
    pub digest: Option<String>,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One object per line.
    Json,
    /// For people.
    Text,
}

impl What {
    /// The configuration: of the arguments, or else of the environment variable's text.
    ///
    /// # Errors
    /// `ConfigInvalid` if there is none, or two.
    pub fn config(&self, environment: Option<&str>) -> Result<FetchConfig, FetchError> {
        let invalid = |message: String| FetchError::new(FetchReason::ConfigInvalid, message);
        let config = match (&self.uri, environment) {
            (Some(uri), None) => FetchConfig {
                uri: uri.clone(),
                endpoint: self.endpoint.clone(),
                digest: self.digest.clone(),
                ..FetchConfig::default()
            },
            (None, Some(text)) if self.endpoint.is_none() && self.digest.is_none() => parse(text)?,
            (None, None) => {
                return Err(invalid(format!(
                    "nothing says what to fetch: give a URI, or set {FETCH_CONFIG_ENV}"
                )));
            }
            _ => {
                return Err(invalid(format!(
                    "{FETCH_CONFIG_ENV} is set, and so are arguments: give either of them"
                )));
            }
        };
        if let Some(digest) = &config.digest
            && !is_digest(digest)
        {
            return Err(invalid(format!(
                "the digest {digest:?} is not sha256: with 64 lower-case hexadecimal digits"
            )));
        }
        Ok(config)
    }
}

/// The configuration of the environment variable.
pub(super) fn parse(text: &str) -> Result<FetchConfig, FetchError> {
    serde_json::from_str(text).map_err(|error| {
        let message = format!("{FETCH_CONFIG_ENV} is not a configuration: {error}");
        FetchError::new(FetchReason::ConfigInvalid, message)
    })
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let hex = digest.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(is_hex))
}
