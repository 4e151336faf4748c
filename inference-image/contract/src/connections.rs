//! The part of the configuration about connections and who may open them.

use serde::{Deserialize, Serialize};

/// How long connections live, and how many there may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Connections {
    /// Maximum number of connections. Without it, as many as the limit on open files allows, but at most 65,536 and
    /// no more than fit into a quarter of the memory limit at 32 KiB each. At the limit, the connections that have
    /// been idle longest are closed, and new ones wait.
    pub max: Option<u32>,
    /// Age at which a connection is ended without losing a request, in seconds, ±10 %; 0 is never.
    pub max_age_seconds: u32,
    /// Requests after which a connection is ended in the same way; 0 is never.
    pub max_requests: u32,
    /// Time after which an idle connection is closed, in seconds. Longer than the idle timeouts of load balancers
    /// (common ones have at most 600 s): if one side closes a connection while the other is sending, a request is
    /// lost.
    pub idle_seconds: u32,
    /// Concurrent requests on one HTTP/2 connection; further requests stay with the client. The same as
    /// `limits.queueLength`, so that a single connection never finds the queue full.
    pub max_concurrent_requests: u32,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: None,
            max_age_seconds: 300,
            max_requests: 0,
            idle_seconds: 620,
            max_concurrent_requests: 128,
        }
    }
}

/// TLS on the serving port. The files are PEM; they are re-read when they change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate, followed by the intermediate certificates.
    pub certificate_file: String,
    /// Its private key.
    pub key_file: String,
    /// Certificates of the CAs whose clients are admitted; without it, clients need no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<String>,
}

/// Who may use the serving port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// A file with one bearer token per line, re-read when it changes.
    pub token_file: String,
}

/// Which pages of other sites may use the serving port from a browser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cors {
    /// Origins as browsers send them, such as `https://app.example.com`, or `*` for all.
    pub allowed_origins: Vec<String>,
}
