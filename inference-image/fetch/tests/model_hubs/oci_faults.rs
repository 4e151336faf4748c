//! What goes wrong between a registry and us: a test for each row of the table in docs/model-hubs.md.

use super::{
    oci::{Secrets, digest, registry, source},
    proxy::{Fault, Proxy},
    registry::{Registry, package, push},
    support::read,
};
use modelservice_contract::FetchReason;
use modelservice_fetch::{
    error::{FetchError, Retry},
    source::{Found, Object, Oci, Source},
};
use std::{collections::BTreeMap, time::Duration};
use tempfile::TempDir;

/// A registry behind a proxy, with an artifact that is found.
struct Prepared {
    proxy: Proxy,
    source: Oci,
    found: Found,
    digest: String,
    files: BTreeMap<String, Vec<u8>>,
    _registry: Registry,
    _storage: TempDir,
}

async fn prepared() -> Prepared {
    let (registry, storage) = registry().await;
    let package = package(1);
    let reference = format!("{}/models/tiny:1", registry.address);
    let digest = push(
        "modelpack",
        &reference,
        &[package.folder.path().to_str().unwrap()],
    )
    .await;
    let proxy = Proxy::start(registry.address).await;
    let source = source(proxy.address, "models/tiny:1", Secrets::default());
    Prepared {
        found: source.find(None).await.unwrap(),
        proxy,
        source,
        digest,
        files: package.files,
        _registry: registry,
        _storage: storage,
    }
}

impl Prepared {
    fn model(&self) -> &Object {
        self.found
            .objects
            .iter()
            .find(|object| object.name == "model.onnx")
            .unwrap()
    }

    /// The error of the next read, after which another read succeeds.
    async fn broken_once(&self, fault: Fault) -> FetchError {
        self.proxy.plan("/blobs/", 1, fault);
        let error = read(&self.source, self.model(), 10_000).await.unwrap_err();
        assert_eq!(
            read(&self.source, self.model(), 1234).await.unwrap(),
            self.files["model.onnx"]
        );
        error
    }
}

#[tokio::test]
async fn oci_500_is_unavailable_and_may_be_tried_again() {
    let prepared = prepared().await;
    prepared.proxy.plan("/manifests/", 1, Fault::Status(500, vec![]));
    let error = prepared.source.find(None).await.unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(prepared.source.find(None).await.is_ok());
    let error = prepared.broken_once(Fault::Status(502, vec![])).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
}

/// Docker Hub limits pulls.
#[tokio::test]
async fn oci_429_is_tried_again_when_the_registry_says() {
    let prepared = prepared().await;
    prepared.proxy.plan(
        "/manifests/",
        1,
        Fault::Status(429, vec![("retry-after", "60".into())]),
    );
    let error = prepared.source.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Unavailable, "{error}");
    assert_eq!(error.retry, Retry::After(Duration::from_secs(60)));
}

#[tokio::test]
async fn oci_reset_mid_body_may_be_tried_again() {
    let prepared = prepared().await;
    let error = prepared.broken_once(Fault::Reset(2000)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    prepared.proxy.plan("/manifests/", 1, Fault::Reset(10));
    let error = prepared.source.find(None).await.unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
}

#[tokio::test]
async fn oci_truncated_body_may_be_tried_again() {
    let error = prepared().await.broken_once(Fault::Truncate(2000)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(error.message.contains("after 2000 of 5000 bytes"), "{error}");
}

#[tokio::test]
async fn oci_wrong_length_may_be_tried_again() {
    let error = prepared().await.broken_once(Fault::WrongTotal(4999)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(
        error
            .message
            .contains("5000 bytes in the source's list, and 4999"),
        "{error}"
    );
}

#[tokio::test]
async fn oci_stalled_body_may_be_tried_again() {
    let error = prepared().await.broken_once(Fault::Stall(2000)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(error.message.contains("has sent nothing"), "{error}");
}

/// Without it, whoever is between the registry and us, or the registry itself, decides what is served.
#[tokio::test]
async fn oci_wrong_digest_of_a_manifest_is_a_lie_and_of_a_layer_is_stated_for_the_engine() {
    use sha2::{Digest, Sha256};
    let prepared = prepared().await;
    prepared.proxy.plan(
        "/manifests/",
        2,
        Fault::Replace(br#"{"schemaVersion": 2}"#.to_vec()),
    );
    for version in [None, Some(&digest(&prepared.digest))] {
        let error = prepared.source.find(version).await.unwrap_err();
        assert_eq!(
            (error.reason, error.retry),
            (FetchReason::Unavailable, Retry::Soon),
            "{error}"
        );
        assert!(
            error.message.contains(&format!("instead of {}", prepared.digest)),
            "{error}"
        );
    }
    prepared.proxy.plan("/blobs/", 1, Fault::Corrupt);
    let bytes = read(&prepared.source, prepared.model(), 10_000).await.unwrap();
    let stated = prepared.model().sha256.clone().unwrap();
    assert_ne!(format!("{:x}", Sha256::digest(bytes)), stated);
    assert_eq!(
        format!("{:x}", Sha256::digest(&prepared.files["model.onnx"])),
        stated
    );
}

#[tokio::test]
async fn oci_redirect_loop_is_given_up() {
    let prepared = prepared().await;
    let there = format!("{}/v2/blobs/again", prepared.proxy.url());
    prepared
        .proxy
        .plan("/blobs/", 20, Fault::Status(307, vec![("location", there)]));
    let error = read(&prepared.source, prepared.model(), 10_000)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Unavailable, "{error}");
    assert!(error.message.contains("in a circle"), "{error}");
}

#[tokio::test]
async fn oci_redirect_to_a_forbidden_address_is_not_followed() {
    let prepared = prepared().await;
    let metadata = "http://169.254.169.254/latest/meta-data/".to_owned();
    prepared
        .proxy
        .plan("/blobs/", 1, Fault::Status(307, vec![("location", metadata)]));
    let error = read(&prepared.source, prepared.model(), 10_000)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden, "{error}");
}

/// Without it, a layer that was deleted is a source that is unavailable for ever.
#[tokio::test]
async fn oci_layer_that_is_gone_is_a_changed_source() {
    let prepared = prepared().await;
    prepared.proxy.plan("/blobs/", 1, Fault::Status(404, vec![]));
    let error = read(&prepared.source, prepared.model(), 10_000)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::SourceChanged, "{error}");
}
