//! The cluster's image registry: a process in the hub's network. Nodes call it `registry.test:5000`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::addresses::Addresses;
use crate::command::{direct, output};
use crate::instance::Instance;
use crate::{network, tools};

/// The prefix of image names. containerd is told where it is; pods ask the cluster's DNS.
pub(crate) const HOST: &str = "registry.test:5000";
const PORT: u16 = 5000;

pub(crate) fn start(instance: &Instance) -> Result<()> {
    let config = instance.folder.join("registry.json");
    let text = serde_json::json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {
            "filesystem": {"rootdirectory": instance.folder.join("registry")},
            "delete": {"enabled": true},
        },
        "http": {"addr": format!(":{PORT}")},
    });
    fs::write(&config, text.to_string())?;
    let net = network::path(&instance.namespaces().hub());
    let words = [
        "nsenter".to_owned(),
        format!("--net={}", net.display()),
        "env".to_owned(),
        // Otherwise it would send traces to a collector on this host, and log each failure.
        "OTEL_TRACES_EXPORTER=none".to_owned(),
        tools::tool("registry")?.display().to_string(),
        "serve".to_owned(),
        config.display().to_string(),
    ];
    instance.start_command("registry", words.to_vec())?;
    instance.wait_port("registry", PORT)
}

/// Where this machine reaches the registry. Nodes can use this name too.
pub(crate) fn address(addresses: Addresses) -> String {
    format!("{}:{PORT}", addresses.hub_end())
}

/// Tells a node's containerd where the registry is, and that it has no certificate.
pub(crate) fn tell_containerd(folder: &Path, addresses: Addresses) -> Result<()> {
    let url = format!("http://{}:{PORT}", addresses.hub());
    let text = format!("server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    for name in [HOST.to_owned(), address(addresses)] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("hosts.toml"), &text)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    Ok(())
}

/// Pushes an image from buildah's storage, or an archive, and returns its name with the digest, as nodes see it.
pub(crate) fn push(instance: &Instance, image: &str, name: &str) -> Result<String> {
    let Some((repository, _tag)) = name.split_once(':') else {
        bail!("{name:?} has no tag; write it like models/photos:1");
    };
    let image = if Path::new(image).is_file() {
        unpack(image)?
    } else {
        image.to_owned()
    };
    let digest_file = instance
        .folder
        .join(format!("pushed-{}", name.replace(['/', ':'], "-")));
    let target = format!("docker://{}/{name}", address(instance.addresses()));
    let mut push = direct("buildah");
    push.args(["push", "--quiet", "--tls-verify=false", "--digestfile"])
        .arg(&digest_file);
    output(push.args([&image, &target]))?;
    let digest = fs::read_to_string(&digest_file)?;
    Ok(format!("{HOST}/{repository}@{}", digest.trim()))
}

/// Puts an archive into buildah's storage and returns the image's id.
fn unpack(archive: &str) -> Result<String> {
    let mut errors = Vec::new();
    for transport in ["oci-archive", "docker-archive"] {
        match output(Command::new("buildah").args(["pull", "--quiet", &format!("{transport}:{archive}")])) {
            // The ID is the last line; messages about signatures come before it.
            Ok(said) => {
                return said
                    .lines()
                    .last()
                    .map(str::to_owned)
                    .context("buildah named no image");
            }
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    bail!(
        "{archive} is neither an OCI nor a Docker image archive:\n{}",
        errors.join("\n")
    )
}
