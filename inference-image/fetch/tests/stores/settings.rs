//! Configurations that cannot work, and Secrets that are not for a server.

use crate::{
    bucket::{Secret, Sources as _, access},
    proxy::Proxy,
};
use modelservice_contract::{FetchConfig, FetchReason};
use modelservice_fetch::{
    http::{Policy, Timeouts},
    source::{access::Access, objects},
};
use modelservice_test_stores::{
    bucket::{Bucket, Kind},
    processes::Servers,
};
use url::Url;

/// Each says what is missing, and no value.
pub(crate) async fn credentials_that_cannot_be_used_say_what_to_change() {
    let endpoint = Url::parse("http://127.0.0.1:1/").unwrap();
    for (uri, keys, part) in [
        (
            "s3://m/a.onnx",
            &[("AWS_ACCESS_KEY_ID", "hunter2")][..],
            "has no key AWS_SECRET_ACCESS_KEY",
        ),
        (
            "s3://m/a.onnx",
            &[("AWS_SECRET_ACCESS_KEY", "hunter2")],
            "has no key AWS_ACCESS_KEY_ID",
        ),
        (
            "gs://m/a.onnx",
            &[("GOOGLE_APPLICATION_CREDENTIALS", "{hunter2")],
            "malformed",
        ),
        (
            "gs://m/a.onnx",
            &[("GOOGLE_APPLICATION_CREDENTIALS", r#"{"private_key": "hunter2"}"#)],
            "malformed",
        ),
        (
            "az://m/a.onnx",
            &[("AZURE_STORAGE_KEY", "aHVudGVyMg==")],
            "add AZURE_STORAGE_ACCOUNT",
        ),
        (
            "az://m/a.onnx",
            &[
                ("AZURE_STORAGE_ACCOUNT", "photos"),
                ("AZURE_STORAGE_KEY", "hunter2!"),
            ],
            "malformed",
        ),
        (
            "az://m/a.onnx",
            &[
                ("AZURE_STORAGE_ACCOUNT", "photos"),
                ("AZURE_STORAGE_SAS_TOKEN", "hunter2"),
            ],
            "malformed",
        ),
        (
            "s3://m/a.onnx",
            &[("AWS_REGION", "hunter2.evil.example/")],
            "AWS_REGION of the credentials' Secret is not the name of a region",
        ),
        (
            "s3://m/a.onnx",
            &[("AWS_REGION", "EU-hunter2")],
            "AWS_REGION of the credentials' Secret is not the name of a region",
        ),
        (
            "az://m/a.onnx",
            &[("AZURE_STORAGE_ACCOUNT", "hunter2.evil.example/")],
            "AZURE_STORAGE_ACCOUNT of the credentials' Secret is not the name",
        ),
        (
            "az://m/a.onnx",
            &[("AZURE_STORAGE_ACCOUNT", "a")],
            "AZURE_STORAGE_ACCOUNT of the credentials' Secret is not the name",
        ),
        ("ftp://m/a.onnx", &[], "is no object store"),
        ("s3:///a.onnx", &[], "no name of a bucket"),
    ] {
        let secret = Secret::new(&endpoint);
        for (key, value) in keys {
            secret.set(key, value);
        }
        let opened = objects::open(uri, access(Some(&endpoint), Some(&secret)).unwrap());
        let error = opened.err().unwrap_or_else(|| panic!("{uri} {keys:?}"));
        assert_eq!(error.reason, FetchReason::ConfigInvalid, "{}", error.message);
        assert!(error.message.contains(part), "{uri} {keys:?}: {}", error.message);
        assert!(!error.message.contains("hunter2"), "{}", error.message);
    }
}

/// Otherwise whoever may create a service could have the pod's identity sent to a server of their own.
pub(crate) async fn the_pods_identity_is_for_its_vendor_only() {
    for (uri, endpoint) in [
        ("s3://m/a.onnx", "https://minio.example"),
        ("gs://m/a.onnx", "https://storage.example"),
        ("az://m/a.onnx", "https://me.blob.core.windows.net.example"),
    ] {
        let config = FetchConfig {
            endpoint: Some(endpoint.to_owned()),
            pod_identity: true,
            ..FetchConfig::default()
        };
        let access = Access::new(&config, None, Policy::default(), Timeouts::default()).unwrap();
        let error = objects::open(uri, access).err().unwrap();
        assert_eq!(error.reason, FetchReason::ConfigInvalid, "{}", error.message);
        let part = "for the vendor's servers only";
        assert!(error.message.contains(part), "{}", error.message);
    }
}

/// Otherwise whoever may set an endpoint gets any Secret of the namespace.
pub(crate) async fn a_secret_is_not_sent_to_a_server_that_it_does_not_list(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("model.onnx", b"x").await;
    let proxy = Proxy::start(&bucket.server(), None).await;
    let secret = bucket.secret(&bucket.server());
    let source = bucket.source("model.onnx", &proxy.url, Some(&secret)).unwrap();
    let error = source.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden);
    let line = format!(
        "add a line {} to the key `endpoints`",
        proxy.url.origin().ascii_serialization()
    );
    assert!(error.message.contains(&line), "{}", error.message);
    assert!(proxy.seen().is_empty());
}

/// A pod's policy knows no exception.
pub(crate) async fn an_endpoint_that_is_no_store_is_not_reached(kind: Kind) {
    for endpoint in [
        "http://127.0.0.1:9/account",
        "http://169.254.169.254/account",
        "http://[::1]:9/account",
    ] {
        let config = FetchConfig {
            endpoint: Some(endpoint.to_owned()),
            ..FetchConfig::default()
        };
        let access = Access::new(&config, None, Policy::default(), Timeouts::default()).unwrap();
        let source = objects::open(&format!("{}://m/a.onnx", kind.scheme()), access).unwrap();
        let error = source.find(None).await.unwrap_err();
        assert_eq!(
            error.reason,
            FetchReason::Forbidden,
            "{endpoint}: {}",
            error.message
        );
    }
}
