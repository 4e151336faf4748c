//! Requests to the servers, as their administrator.

use crate::processes::{AZURE_ACCOUNT, AZURE_KEY, S3_KEY_ID, S3_SECRET};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{HttpRequest, HttpRequestBody},
};
use url::Url;

/// Sends a request and demands success.
pub(crate) async fn send(method: Method, url: Url, headers: HeaderMap, body: Vec<u8>) -> Response<Bytes> {
    let shown = format!("{method} {url}");
    let mut request = http::Request::builder()
        .method(method)
        .uri(url.as_str())
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    *request.headers_mut() = headers;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let said = String::from_utf8_lossy(&body);
    assert!(
        head.status.is_success(),
        "{shown}: {} {:?} {said}",
        head.status,
        head.headers
    );
    Response::from_parts(head, body)
}

fn unsigned(method: &Method, url: &Url, body: &[u8]) -> HttpRequest {
    http::Request::builder()
        .method(method)
        .uri(url.as_str())
        .body(HttpRequestBody::from(body.to_vec()))
        .unwrap()
}

/// A request to versitygw, signed.
pub(crate) async fn s3(method: Method, url: Url, body: Vec<u8>) {
    let credential = AwsCredential {
        key_id: S3_KEY_ID.to_owned(),
        secret_key: S3_SECRET.to_owned(),
        token: None,
    };
    let mut request = unsigned(&method, &url, &body);
    AwsAuthorizer::new(&credential, "s3", "us-east-1")
        .try_authorize(&mut request, None)
        .unwrap();
    send(method, url, request.headers().clone(), body).await;
}

/// A request to azurite, signed.
pub(crate) async fn azure(method: Method, url: Url, headers: HeaderMap, body: Vec<u8>) {
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY).unwrap());
    let mut request = unsigned(&method, &url, &body);
    *request.headers_mut() = headers;
    request
        .headers_mut()
        .insert(header::CONTENT_LENGTH, body.len().into());
    AzureAuthorizer::new(&credential, AZURE_ACCOUNT)
        .try_authorize(&mut request)
        .unwrap();
    send(method, url, request.headers().clone(), body).await;
}
