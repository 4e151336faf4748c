//! From a source to the package that a server reads, by the fetcher itself.

use super::{
    hub::public,
    hub_server::{self, HubServer, Kept},
    oci::{Secrets, registry, source},
    proxy::{Fault, Proxy},
    registry::{Package, package, push, push_image},
    support::content,
};
use modelservice_contract::{FetchConfig, FetchReason};
use modelservice_fetch::{
    error::FetchError,
    fetch::{Behaviour, Outcome, fetch},
    source::Source,
};
use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

/// Fetches into a folder. The URI of the configuration only says what the marker is of.
async fn fetch_from(
    open: impl Fn() -> Box<dyn Source> + Sync,
    uri: &str,
    folder: &Path,
) -> Result<Outcome, FetchError> {
    let config = FetchConfig {
        uri: uri.to_owned(),
        ..FetchConfig::default()
    };
    fetch(&config, &|_| Ok(open()), Some(folder), &Behaviour::default()).await
}

async fn fetch_artifact(registry: SocketAddr, reference: &str, folder: &Path) -> Result<Outcome, FetchError> {
    let open = || Box::new(source(registry, reference, Secrets::default())) as Box<dyn Source>;
    fetch_from(open, &format!("oci://{registry}/{reference}"), folder).await
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    collect(folder, folder, &mut files);
    files
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with("..") {
            collect(root, &path, files);
        } else if path.is_file() {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

async fn push_form(form: &str, package: &Package, reference: &str) {
    match form {
        "gzip" | "zstd" => push_image(package, reference, &["--compression-format", form]).await,
        form => push(form, reference, &[package.folder.path().to_str().unwrap()]).await,
    };
}

/// Without it, a model would depend on the tool that pushed it.
#[tokio::test]
async fn every_form_in_a_registry_becomes_the_same_package() {
    let package = package(1);
    let mut digests = Vec::new();
    for form in ["oras", "modelpack", "modelpack-tar", "image", "gzip", "zstd"] {
        // buildah uses a layer of the registry again, whatever its compression.
        let (registry, _storage) = registry().await;
        let reference = format!("models/{form}:1");
        push_form(form, &package, &format!("{}/{reference}", registry.address)).await;
        let folder = tempfile::tempdir().unwrap();
        let outcome = fetch_artifact(registry.address, &reference, folder.path())
            .await
            .unwrap();
        assert_eq!(files(folder.path()), package.files, "{form}");
        digests.push(outcome.marker.digest);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

/// Without it, a model whose name in its repository is another one cannot be served, or without its tensors.
#[tokio::test]
async fn a_file_on_the_hub_becomes_the_model_of_a_package() {
    let server = HubServer::start().await;
    let (model, data) = (content(1, 5000), content(2, 9000));
    let pushed = [
        ("onnx/model_int8.onnx", Kept::Lfs, model.clone()),
        ("onnx/model_int8.onnx_data", Kept::Xet, data.clone()),
        ("onnx/model.onnx", Kept::Lfs, content(3, 7000)),
    ];
    server.push("onnx/tiny", hub_server::Access::Public, "main", &pushed);
    let uri = "hf://onnx/tiny@main/onnx/model_int8.onnx";
    let folder = tempfile::tempdir().unwrap();
    let open = || Box::new(public(&server, uri)) as Box<dyn Source>;
    fetch_from(open, uri, folder.path()).await.unwrap();
    let expected = BTreeMap::from([
        ("model.onnx".to_owned(), model),
        ("model_int8.onnx_data".to_owned(), data),
    ]);
    assert_eq!(files(folder.path()), expected);
}

/// Without it, a proxy or a disk on the way that breaks bytes decides what is served.
#[tokio::test]
async fn content_with_another_digest_is_fetched_once_more_and_then_refused() {
    let (registry, _storage) = registry().await;
    let package = package(1);
    push_form(
        "modelpack",
        &package,
        &format!("{}/models/tiny:1", registry.address),
    )
    .await;
    let proxy = Proxy::start(registry.address).await;
    let folder = tempfile::tempdir().unwrap();
    proxy.plan("/blobs/", 1, Fault::Corrupt);
    fetch_artifact(proxy.address, "models/tiny:1", folder.path())
        .await
        .unwrap();
    assert_eq!(files(folder.path()), package.files);
    let folder = tempfile::tempdir().unwrap();
    proxy.plan("/blobs/", 100, Fault::Corrupt);
    let error = fetch_artifact(proxy.address, "models/tiny:1", folder.path())
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Unavailable, "{error}");
    assert!(error.message.contains("twice"), "{error}");
    assert_eq!(files(folder.path()), BTreeMap::new());
}
