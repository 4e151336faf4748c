//! Shared access signatures of Azure: credentials that are part of each URL.

use crate::{
    bucket::{Secret, Sources as _},
    finding::read,
    proxy::{Fault, Proxy},
};
use http::Method;
use modelservice_contract::FetchReason;
use modelservice_test_stores::{
    bucket::{Bucket, Kind},
    processes::{AZURE_ACCOUNT, AZURE_KEY, Servers},
};
use object_store::{
    ClientOptions,
    azure::MicrosoftAzureBuilder,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    path::Path,
    signer::Signer,
};
use std::time::Duration;

/// Signing needs no connection.
#[derive(Debug)]
struct NoConnection;

impl HttpConnector for NoConnection {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

#[async_trait::async_trait]
impl HttpService for NoConnection {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        Err(HttpError::new(
            HttpErrorKind::Connect,
            std::io::Error::other("nothing is sent"),
        ))
    }
}

/// A signature for one object.
async fn signature(bucket: &Bucket, key: &str) -> String {
    let store = MicrosoftAzureBuilder::new()
        .with_account(AZURE_ACCOUNT)
        .with_access_key(AZURE_KEY)
        .with_container_name(&bucket.name)
        // The account is part of what is signed, and here not of the path.
        .with_endpoint("https://devstoreaccount1.example".to_owned())
        .with_http_connector(NoConnection)
        .build()
        .unwrap();
    let signed = store
        .signed_url(Method::GET, &Path::from(key), Duration::from_secs(600))
        .await;
    signed.unwrap().query().unwrap().to_owned()
}

/// The signature is sent to the store that the Secret lists, to no other host, and into no message.
pub(crate) async fn a_shared_access_signature_is_used_and_not_passed_on(servers: &Servers) {
    let bucket = Bucket::new(servers, Kind::Azure).await;
    bucket.put("model.onnx", b"0123456789").await;
    let (proxy, other) = (
        Proxy::start(&bucket.server(), None).await,
        Proxy::start(&bucket.server(), None).await,
    );
    let signature = signature(&bucket, "model.onnx").await;
    let secret = Secret::new(&proxy.url);
    secret.set("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT);
    secret.set("AZURE_STORAGE_SAS_TOKEN", &signature);
    let source = bucket.source("model.onnx", &proxy.url, Some(&secret)).unwrap();
    let found = source.find(None).await.unwrap();
    assert_eq!(
        read(source.as_ref(), &found.objects[0], 3..5).await.unwrap(),
        b"34"
    );
    assert!(proxy.seen().iter().all(|head| head.target.contains("sig=")));

    // The first host repeats the whole query to the other.
    let port = other.url.port().unwrap();
    proxy.fail(move |head| {
        let location = format!("http://127.0.0.1:{port}{}", head.target);
        Some(Fault::Status(307, Some(("location", location)), ""))
    });
    let error = read(source.as_ref(), &found.objects[0], 3..5).await.unwrap_err();
    let sent = other.seen();
    assert_eq!(sent.len(), 1);
    assert!(!sent[0].target.contains("sig="), "{}", sent[0].target);
    assert!(!error.message.contains("sig="), "{}", error.message);

    secret.set("endpoints", "https://other.example");
    let elsewhere = bucket.source("model.onnx", &proxy.url, Some(&secret)).unwrap();
    let error = elsewhere.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden, "{}", error.message);
}
