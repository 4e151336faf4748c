//! Writes kubeconfig files. They contain their certificates, so that a copy works anywhere on this machine.

use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::{Authority, Identity, write_private};

/// Writes a kubeconfig whose one context goes to `server` as `identity`.
pub(crate) fn write(
    path: &Path,
    cluster: &str,
    server: &str,
    authority: &Authority,
    identity: &Identity,
) -> Result<()> {
    let name = format!("msvc-{cluster}");
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority.certificate()),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
        "current-context": name,
    });
    write_private(path, &serde_json::to_string_pretty(&config)?)
}
