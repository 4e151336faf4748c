//! The model images that the tests serve, good and bad ones.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use local_cluster::Cluster;
use serde_json::{Value, json};

use crate::fixture::{repository, run};
use crate::onnx;

/// Model images, pinned by digest.
pub(crate) struct Models {
    /// EfficientNet-Lite0 with its labels.
    pub(crate) photos: String,
    /// `y = x + 1`.
    pub plus_one: String,
    /// `y = x + 10`.
    pub plus_ten: String,
    /// `y = relu(x) + x`.
    pub two_nodes: String,
    /// An image with a file, but no model.onnx.
    pub without_model: String,
    /// A model.onnx that is something else.
    pub not_onnx: String,
    /// A model for an operator set that does not exist yet.
    pub too_new: String,
    /// An OCI artifact, which nodes mount as an empty folder.
    pub artifact: String,
}

impl Models {
    /// Pushes them all to the cluster's registry.
    pub(crate) fn push(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let push = |name: &str, files: &[(&str, &[u8])]| -> Result<String> {
            let package = folder.path().join(name);
            std::fs::create_dir(&package)?;
            for (file, content) in files {
                std::fs::write(package.join(file), content)?;
            }
            push_folder(cluster, name, &package)
        };
        Ok(Self {
            photos: push_folder(
                cluster,
                "photos",
                &repository().join(".cache/examples/efficientnet-lite0"),
            )?,
            plus_one: push("plus-one", &[("model.onnx", &onnx::adder(1.0, onnx::OPSET))])?,
            plus_ten: push("plus-ten", &[("model.onnx", &onnx::adder(10.0, onnx::OPSET))])?,
            two_nodes: push("two-nodes", &[("model.onnx", &onnx::two_nodes())])?,
            without_model: push("without-model", &[("readme.txt", b"the model is elsewhere")])?,
            not_onnx: push("not-onnx", &[("model.onnx", b"<html>404 not found</html>")])?,
            too_new: push("too-new", &[("model.onnx", &onnx::adder(1.0, 99))])?,
            artifact: push_artifact(cluster, "artifact", &onnx::adder(1.0, onnx::OPSET))?,
        })
    }
}

fn push_folder(cluster: &Cluster, name: &str, folder: &Path) -> Result<String> {
    let image = format!("localhost/e2e-{name}:1");
    let mut build = Command::new("buildah");
    build.args(["build", "--quiet", "--timestamp", "0", "--tag", &image, "--file"]);
    build
        .arg(repository().join("examples/package/Containerfile"))
        .arg(folder);
    run(&mut build)?;
    cluster.push(&image, &format!("models/{name}:1"))
}

/// What tools such as ORAS push, with the tag `v1`: an OCI manifest with a layer that is a file, not a file system.
pub(crate) fn push_artifact(cluster: &Cluster, name: &str, content: &[u8]) -> Result<String> {
    let registry = format!("http://{}/v2/models/{name}", cluster.registry_address());
    let blob = |content: &[u8]| -> Result<Value> {
        let digest = digest(content);
        let headers = curl(
            &[
                "-X",
                "POST",
                "-D",
                "-",
                "-o",
                "/dev/null",
                &format!("{registry}/blobs/uploads/"),
            ],
            b"",
        )?;
        let location = headers.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .starts_with("location:")
                .then(|| line[9..].trim())
        });
        let url = format!(
            "{}&digest={digest}",
            location.context("the registry named no place to upload to")?
        );
        curl(
            &[
                "-X",
                "PUT",
                "-H",
                "Content-Type: application/octet-stream",
                "--data-binary",
                "@-",
                &url,
            ],
            content,
        )?;
        Ok(json!({"digest": digest, "size": content.len()}))
    };
    let describe = |media_type: &str, content: &[u8]| -> Result<Value> {
        let mut described = blob(content)?;
        described["mediaType"] = json!(media_type);
        Ok(described)
    };
    let mut layer = describe("application/vnd.example.model.onnx", content)?;
    layer["annotations"] = json!({"org.opencontainers.image.title": "model.onnx"});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.model",
        "config": describe("application/vnd.oci.empty.v1+json", b"{}")?,
        "layers": [layer],
    })
    .to_string();
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    curl(
        &[
            "-X",
            "PUT",
            "-H",
            kind,
            "--data-binary",
            "@-",
            &format!("{registry}/manifests/v1"),
        ],
        manifest.as_bytes(),
    )?;
    Ok(format!(
        "{}/models/{name}@{}",
        cluster.registry_host(),
        digest(manifest.as_bytes())
    ))
}

/// As `sha256sum` prints it, after the algorithm's name.
pub(crate) fn digest(content: &[u8]) -> String {
    use sha2::Digest;
    let sum = sha2::Sha256::digest(content);
    format!(
        "sha256:{}",
        sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    )
}

fn curl(arguments: &[&str], input: &[u8]) -> Result<String> {
    pipe(
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
            .args(arguments),
        input,
    )
}

fn pipe(command: &mut Command, input: &[u8]) -> Result<String> {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child
        .stdin
        .take()
        .context("no standard input")?
        .write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
