//! The Hub's own library (PyPI `huggingface_hub`) and our source download the same from the tests' Hub: so what the tests
//! have for a Hub behaves like one.

use super::{
    hub_server::{Access, HubServer, Kept, TOKEN},
    support::{access, content, credentials, names, read_all, root, secret},
};
use modelservice_fetch::source::{Hub, Source};
use std::{collections::BTreeMap, path::Path};
use tokio::process::Command;

/// Runs `library.py`: it prints the commit, and the path and the SHA-256 of each file.
async fn download(
    server: &HubServer,
    repository: &str,
    revision: &str,
    token: Option<&str>,
) -> Result<String, String> {
    let python = root().join(".cache/venv-hub/bin/python");
    let problem = "does not exist: run inference-image/fetch/tests/model_hubs/prepare";
    assert!(python.exists(), "{} {problem}", python.display());
    let home = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model_hubs/library.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .args([repository, revision])
        .arg(home.path().join("model"));
    command
        .env("HF_ENDPOINT", server.hub.url())
        .env("HF_HOME", home.path());
    // Xet has a protocol of its own; all files are also at their plain URLs, which is what we use.
    command
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env_remove("HF_TOKEN");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

fn listing(commit: &str, files: &BTreeMap<String, Vec<u8>>) -> String {
    use sha2::{Digest, Sha256};
    let mut text = format!("{commit}\n");
    for (name, content) in files {
        text.push_str(&format!("{name} {:x}\n", Sha256::digest(content)));
    }
    text
}

/// Without it, the tests' Hub could be anything.
#[tokio::test]
async fn the_hubs_own_library_and_the_source_download_the_same() {
    let server = HubServer::start().await;
    let files = [
        ("README.md", Kept::Git, b"# A model\n".to_vec()),
        ("model.onnx", Kept::Lfs, content(1, 70_000)),
        ("model.yaml", Kept::Git, b"labels: labels.txt\n".to_vec()),
        ("labels.txt", Kept::Git, b"cat\ndog\n".to_vec()),
        ("deep/er/a b#1.bin", Kept::Xet, content(2, 3000)),
        ("empty", Kept::Git, Vec::new()),
    ];
    for (revision, written) in [
        ("main", "main"),
        ("refs/pr/3", "refs/pr/3"),
        ("feature/x", "feature%2Fx"),
    ] {
        let commit = server.push("onnx/tiny", Access::Public, revision, &files);
        let library = download(&server, "onnx/tiny", revision, None).await.unwrap();
        let uri = format!("hf://onnx/tiny@{written}");
        let hub = Hub::new(&uri, access(&server.hub.url(), None)).unwrap();
        let found = hub.find(None).await.unwrap();
        assert_eq!(found.identity.value, commit, "{revision}");
        assert_eq!(names(&found).len(), files.len());
        assert_eq!(
            listing(&commit, &read_all(&hub, &found).await),
            library,
            "{revision}"
        );
    }
}

/// Without it, what the tests say of gated and private models would be said of a server that nobody has.
#[tokio::test]
async fn the_hubs_own_library_takes_the_tests_hub_for_gated_private_and_renamed_models() {
    let server = HubServer::start().await;
    let files = [("model.onnx", Kept::Lfs, content(1, 3000))];
    server.push("onnx/gated", Access::Gated, "main", &files);
    server.push("onnx/private", Access::Private, "main", &files);
    server.push("onnx/new", Access::Public, "main", &files);
    server.rename("onnx/old", "onnx/new");
    for (repository, revision, token, error) in [
        ("onnx/gated", "main", None, Some("GatedRepoError")),
        ("onnx/private", "main", None, Some("RepositoryNotFoundError")),
        (
            "onnx/missing",
            "main",
            Some(TOKEN),
            Some("RepositoryNotFoundError"),
        ),
        ("onnx/new", "other", None, Some("RevisionNotFoundError")),
        ("onnx/gated", "main", Some(TOKEN), None),
        ("onnx/private", "main", Some(TOKEN), None),
        ("onnx/old", "main", None, None),
    ] {
        let library = download(&server, repository, revision, token).await;
        match (library, error) {
            (Ok(_), None) => {}
            (Err(text), Some(error)) => assert!(text.contains(error), "{repository}: {text}"),
            (library, error) => panic!("{repository} {revision}: {library:?}, not {error:?}"),
        }
        let endpoint = server.hub.url();
        let folder = secret(&[("endpoints", &endpoint), ("HF_TOKEN", token.unwrap_or("unused"))]);
        let credentials = token.and_then(|_| credentials(&folder));
        let uri = format!("hf://{repository}@{revision}");
        let hub = Hub::new(&uri, access(&endpoint, credentials)).unwrap();
        let is_readable = match hub.find(None).await {
            Err(_) => false,
            Ok(found) => hub.read(&found.objects[0], 0..10).await.is_ok(),
        };
        assert_eq!(is_readable, error.is_none(), "{repository}");
    }
}
