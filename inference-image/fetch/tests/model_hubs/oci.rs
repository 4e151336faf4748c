//! What is found in registries, and which version.

use super::{
    proxy::Proxy,
    registry::{Access, Registry, package, push, push_image, unpacked},
    support::{access, names, read_all},
};
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use modelservice_fetch::{
    credentials::Credentials,
    source::{Form, Oci, Source},
};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};
use tempfile::TempDir;

/// A registry that everybody may read, and its storage.
pub(super) async fn registry() -> (Registry, TempDir) {
    let storage = tempfile::tempdir().unwrap();
    let registry = Registry::start(storage.path(), Access::Everybody).await;
    (registry, storage)
}

/// Where the Secrets of a source are.
#[derive(Default)]
pub(super) struct Secrets {
    pub(super) pull_secrets: PathBuf,
    pub(super) credentials: Option<Credentials>,
}

/// A source of a registry without TLS.
pub(super) fn source(registry: SocketAddr, reference: &str, secrets: Secrets) -> Oci {
    let uri = format!("oci://{registry}/{reference}");
    let access = access(&format!("http://{registry}"), secrets.credentials);
    Oci::new(&uri, access, secrets.pull_secrets).unwrap()
}

pub(super) fn digest(value: &str) -> SourceIdentity {
    SourceIdentity {
        kind: IdentityKind::OciDigest,
        value: value.to_owned(),
        is_retained: true,
    }
}

/// All files, those of archives too.
async fn all_files(source: &Oci, form: Form) -> BTreeMap<String, Vec<u8>> {
    let found = source.find(None).await.unwrap();
    assert_eq!(found.form, form);
    let mut files = BTreeMap::new();
    for (name, content) in read_all(source, &found).await {
        if name.starts_with("00") {
            files.extend(unpacked(&content).await);
        } else {
            files.insert(name, content);
        }
    }
    files
}

/// Without it, what `oras push` made, with folders beside files, would be mounted or fetched as nothing.
#[tokio::test]
async fn an_artifact_of_oras_has_its_files_and_folders() {
    let (registry, _storage) = registry().await;
    let package = package(1);
    let reference = format!("{}/models/tiny:1", registry.address);
    let pushed = push("oras", &reference, &[package.folder.path().to_str().unwrap()]).await;
    let source = source(registry.address, "models/tiny:1", Secrets::default());
    let found = source.find(None).await.unwrap();
    assert_eq!(found.identity, digest(&pushed));
    assert_eq!(names(&found), ["0000.tar.gz", "model.onnx", "model.yaml"]);
    assert_eq!(all_files(&source, Form::Layers).await, package.files);
}

/// Without it, models of tools for ModelPack (`modctl`, `kit`) cannot be served.
#[tokio::test]
async fn an_artifact_of_model_pack_has_its_files_raw_or_in_archives() {
    let (registry, _storage) = registry().await;
    let package = package(1);
    for (form, expected) in [("modelpack", Form::Files), ("modelpack-tar", Form::Layers)] {
        let reference = format!("{}/models/{form}:1", registry.address);
        push(form, &reference, &[package.folder.path().to_str().unwrap()]).await;
        let source = source(registry.address, &format!("models/{form}:1"), Secrets::default());
        assert_eq!(all_files(&source, expected).await, package.files, "{form}");
    }
}

/// Without it, an image that a cluster without image volumes fetches has other files than the one that is mounted.
#[tokio::test]
async fn an_image_has_the_files_of_its_layers_however_they_are_compressed() {
    let package = package(1);
    let folder = package.folder.path().to_str().unwrap();
    for (tag, layer) in [
        ("plain", "0000.tar"),
        ("gzip", "0000.tar.gz"),
        ("zstd", "0000.tar.zst"),
    ] {
        // buildah uses a layer of the registry again, whatever its compression.
        let (registry, _storage) = registry().await;
        let reference = format!("{}/models/image:{tag}", registry.address);
        let pushed = match tag {
            "plain" => push("image", &reference, &[folder]).await,
            _ => push_image(&package, &reference, &["--compression-format", tag]).await,
        };
        let source = source(
            registry.address,
            &format!("models/image:{tag}"),
            Secrets::default(),
        );
        let found = source.find(None).await.unwrap();
        assert_eq!(found.identity, digest(&pushed), "{tag}");
        assert_eq!((names(&found), found.form), (vec![layer], Form::Layers), "{tag}");
        if tag == "zstd" {
            let content = &read_all(&source, &found).await[layer];
            assert!(content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "not zstd");
        } else {
            assert_eq!(all_files(&source, Form::Layers).await, package.files, "{tag}");
        }
    }
}

/// Without it, images for several platforms cannot be fetched, or each node gets another model.
#[tokio::test]
async fn of_an_index_the_manifest_of_the_platform_is_frozen() {
    let (registry, _storage) = registry().await;
    let mut digests = BTreeMap::new();
    for (seed, tag) in [(1, "amd64"), (2, "arm64")] {
        let reference = format!("{}/models/tiny:{tag}", registry.address);
        digests.insert(
            tag,
            push(
                "modelpack",
                &reference,
                &[package(seed).folder.path().to_str().unwrap()],
            )
            .await,
        );
    }
    let index = format!("{}/models/tiny:1", registry.address);
    let pushed = push("index", &index, &["linux/amd64=amd64", "linux/arm64=arm64"]).await;
    let source = source(registry.address, "models/tiny:1", Secrets::default());
    let found = source.find(None).await.unwrap();
    let machine = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    assert_eq!(found.identity, digest(&digests[machine]));
    // An image whose spec names the index's digest keeps it.
    let pinned = source.find(Some(&digest(&pushed))).await.unwrap();
    assert_eq!(pinned.identity, digest(&pushed));
    assert_eq!(pinned.objects, found.objects);
}

/// Without it, the pods of one Deployment would serve different models after a push.
#[tokio::test]
async fn a_moved_tag_does_not_change_what_is_frozen() {
    let (registry, _storage) = registry().await;
    let reference = format!("{}/models/tiny:1", registry.address);
    let (old, new) = (package(1), package(2));
    let old_digest = push("modelpack", &reference, &[old.folder.path().to_str().unwrap()]).await;
    let source = source(registry.address, "models/tiny:1", Secrets::default());
    let resolved = source.find(None).await.unwrap();
    let new_digest = push("modelpack", &reference, &[new.folder.path().to_str().unwrap()]).await;
    assert_eq!(read_all(&source, &resolved).await, old.files);
    assert_eq!(source.find(Some(&digest(&old_digest))).await.unwrap(), resolved);
    let fresh = source.find(None).await.unwrap();
    assert_eq!(fresh.identity, digest(&new_digest));
    assert_eq!(read_all(&source, &fresh).await, new.files);
}

/// Without it, a digest in the URI could be overridden by the tag beside it.
#[tokio::test]
async fn a_digest_in_the_uri_wins_over_a_tag() {
    let (registry, _storage) = registry().await;
    let reference = format!("{}/models/tiny:1", registry.address);
    let old = push(
        "modelpack",
        &reference,
        &[package(1).folder.path().to_str().unwrap()],
    )
    .await;
    push(
        "modelpack",
        &reference,
        &[package(2).folder.path().to_str().unwrap()],
    )
    .await;
    let source = source(
        registry.address,
        &format!("models/tiny:1@{old}"),
        Secrets::default(),
    );
    assert_eq!(source.find(None).await.unwrap().identity, digest(&old));
}

/// Without it, a typo in a tag is the same as a version that somebody has deleted.
#[tokio::test]
async fn what_is_not_there_is_not_found_or_a_changed_source() {
    let (registry, _storage) = registry().await;
    let reference = format!("{}/models/tiny:1", registry.address);
    push(
        "modelpack",
        &reference,
        &[package(1).folder.path().to_str().unwrap()],
    )
    .await;
    for reference in ["models/tiny:2", "models/other:1"] {
        let source = source(registry.address, reference, Secrets::default());
        let error = source.find(None).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::NotFound, "{error}");
        assert!(error.message.contains("unknown"), "{error}");
    }
    let gone = digest(&format!("sha256:{:064}", 0));
    let source = source(registry.address, "models/tiny:1", Secrets::default());
    let error = source.find(Some(&gone)).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::SourceChanged, "{error}");
    assert!(error.message.contains("spec.model.refresh"), "{error}");
}

/// Without it, a registry without ranges, such as behind some proxies, gives files whose parts all begin alike.
#[tokio::test]
async fn a_registry_without_ranges_is_read_all_the_same() {
    let (registry, _storage) = registry().await;
    let package = package(1);
    let reference = format!("{}/models/tiny:1", registry.address);
    push(
        "modelpack",
        &reference,
        &[package.folder.path().to_str().unwrap()],
    )
    .await;
    let proxy = Proxy::without_ranges(registry.address).await;
    let source = source(proxy.address, "models/tiny:1", Secrets::default());
    let found = source.find(None).await.unwrap();
    assert_eq!(read_all(&source, &found).await, package.files);
}
