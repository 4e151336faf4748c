//! The distribution registry as a process on the machine, and what pushes to it.

use super::{
    support::{content, root},
    token_server::TokenServer,
};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

/// Who may read from a registry with [`Access::Password`], and from a token server.
pub(crate) const USER: &str = "puller";
pub(crate) const PASSWORD: &str = "of-the-test";
/// The line of an htpasswd file for them (bcrypt).
const HTPASSWD: &str = "puller:$2b$05$abcdefghijklmnopqrstuuZQDFqlfhxikusxVp2uYfh7fKmiQU08a\n";

/// Who may read.
pub(crate) enum Access<'a> {
    Everybody,
    Password,
    Token(&'a TokenServer),
}

/// A registry. Its process ends with the value.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    _process: Child,
    _log: JoinHandle<()>,
    _folder: TempDir,
}

impl Registry {
    /// Serves what is in the folder `storage`, which registries may share.
    pub(crate) async fn start(storage: &Path, access: Access<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        fs::write(&config, configuration(folder.path(), storage, &access)).unwrap();
        let mut process = Command::new(tool("registry"))
            .arg("serve")
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("the registry has ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(['"', ' ', ',']).unwrap_or(rest.len());
                break rest[..end].parse().unwrap();
            }
        };
        // A full pipe would stop it.
        let log = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address,
            _process: process,
            _log: log,
            _folder: folder,
        }
    }
}

fn configuration(folder: &Path, storage: &Path, access: &Access<'_>) -> String {
    let auth = match access {
        Access::Everybody => String::new(),
        Access::Password => {
            let path = folder.join("htpasswd");
            fs::write(&path, HTPASSWD).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display())
        }
        Access::Token(server) => {
            let path = folder.join("jwks.json");
            fs::write(&path, server.public_keys()).unwrap();
            format!(
                "auth: {{token: {{realm: \"{}\", service: {}, issuer: {}, jwks: {}}}}}\n",
                server.realm(),
                TokenServer::SERVICE,
                TokenServer::ISSUER,
                path.display()
            )
        }
    };
    format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:0}}\n\
         {auth}",
        storage.display()
    )
}

fn tool(name: &str) -> PathBuf {
    let path = root().join(".cache/tools/bin").join(name);
    assert!(
        path.exists(),
        "{} does not exist: run scripts/tools {name}",
        path.display()
    );
    path
}

/// Files of a model package, and the folder that they are in.
pub(crate) struct Package {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) folder: TempDir,
}

pub(crate) fn package(seed: u8) -> Package {
    let files = BTreeMap::from([
        ("model.onnx".to_owned(), content(seed, 5000)),
        ("model.yaml".to_owned(), b"labels: extra/labels.txt\n".to_vec()),
        ("extra/labels.txt".to_owned(), b"cat\ndog\n".to_vec()),
    ]);
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in &files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    Package { files, folder }
}

/// Pushes as tools do (tests/cluster/tools/model-artifacts); returns the digest.
pub(crate) async fn push(form: &str, reference: &str, rest: &[&str]) -> String {
    let output = Command::new(tool("model-artifacts"))
        .args([form, reference])
        .args(rest)
        .output()
        .await
        .unwrap();
    succeeded(output, form).trim().to_owned()
}

/// Builds an image by scripts/model-image and pushes it with another compression of its layers; returns the digest of its
/// manifest.
pub(crate) async fn push_image(package: &Package, reference: &str, compression: &[&str]) -> String {
    let name = format!(
        "localhost/fetch-test-{}:1",
        reference.replace(['/', ':', '.'], "-")
    );
    let built = Command::new(root().join("scripts/model-image"))
        .arg(package.folder.path())
        .arg(&name)
        .output();
    succeeded(built.await.unwrap(), "scripts/model-image");
    let digest = package.folder.path().with_extension("digest");
    let pushed = Command::new("buildah")
        .args(["push", "--quiet", "--tls-verify=false", "--digestfile"])
        .arg(&digest)
        .args(compression)
        .arg(&name)
        .arg(format!("docker://{reference}"))
        .output();
    let pushed = pushed.await.unwrap();
    let removed = Command::new("buildah")
        .args(["rmi", &name])
        .output()
        .await
        .unwrap();
    succeeded(removed, "buildah rmi");
    succeeded(pushed, "buildah push");
    let text = fs::read_to_string(&digest).unwrap();
    fs::remove_file(digest).unwrap();
    text.trim().to_owned()
}

fn succeeded(output: Output, what: &str) -> String {
    assert!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The files of an archive, by `tar`.
pub(crate) async fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    fs::write(&path, archive).unwrap();
    let target = folder.path().join("files");
    fs::create_dir(&target).unwrap();
    let output = Command::new("tar")
        .arg("-xf")
        .arg(&path)
        .arg("-C")
        .arg(&target)
        .output()
        .await
        .unwrap();
    succeeded(output, "tar");
    let mut files = BTreeMap::new();
    collect(&target, &target, &mut files);
    files
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}
