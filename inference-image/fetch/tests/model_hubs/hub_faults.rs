//! What goes wrong between the Hub and us: a test for each row of the table in docs/model-hubs.md.

use super::{
    hub::{public, with_token},
    hub_server::{Access, HubServer, Kept, TOKEN},
    proxy::Fault,
    support::{content, read},
};
use modelservice_contract::FetchReason;
use modelservice_fetch::{
    error::{FetchError, Retry},
    source::{Found, Hub, Source},
};
use std::time::Duration;

const LENGTH: usize = 5000;

/// A Hub with one large file, which is found.
async fn prepared() -> (HubServer, Hub, Found) {
    let server = HubServer::start().await;
    server.push(
        "onnx/tiny",
        Access::Public,
        "main",
        &[("model.onnx", Kept::Lfs, content(1, LENGTH))],
    );
    let hub = public(&server, "hf://onnx/tiny");
    let found = hub.find(None).await.unwrap();
    (server, hub, found)
}

/// The error of the next read, after which another read succeeds.
async fn broken_once(server: &HubServer, hub: &Hub, found: &Found, fault: Fault) -> FetchError {
    server.files.plan("/blobs/", 1, fault);
    let error = read(hub, &found.objects[0], LENGTH as u64).await.unwrap_err();
    assert_eq!(
        read(hub, &found.objects[0], 1234).await.unwrap(),
        content(1, LENGTH)
    );
    error
}

#[tokio::test]
async fn hub_500_is_unavailable_and_may_be_tried_again() {
    let (server, hub, found) = prepared().await;
    server.hub.plan("/api/", 1, Fault::Status(500, vec![]));
    let error = hub.find(None).await.unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(hub.find(None).await.is_ok());
    let error = broken_once(&server, &hub, &found, Fault::Status(503, vec![])).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
}

#[tokio::test]
async fn hub_429_is_tried_again_when_the_hub_says() {
    let (server, hub, _) = prepared().await;
    server
        .hub
        .plan("/api/", 1, Fault::Status(429, vec![("retry-after", "7".into())]));
    let error = hub.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Unavailable, "{error}");
    assert_eq!(error.retry, Retry::After(Duration::from_secs(7)));
}

#[tokio::test]
async fn hub_reset_mid_body_may_be_tried_again() {
    let (server, hub, found) = prepared().await;
    let error = broken_once(&server, &hub, &found, Fault::Reset(2000)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    server.hub.plan("/tree/", 1, Fault::Reset(10));
    let error = hub.find(None).await.unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
}

#[tokio::test]
async fn hub_truncated_body_may_be_tried_again() {
    let (server, hub, found) = prepared().await;
    let error = broken_once(&server, &hub, &found, Fault::Truncate(2000)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(error.message.contains("after 2000 of 5000 bytes"), "{error}");
}

#[tokio::test]
async fn hub_wrong_length_may_be_tried_again() {
    let (server, hub, found) = prepared().await;
    let error = broken_once(&server, &hub, &found, Fault::WrongTotal(4999)).await;
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
async fn hub_stalled_body_may_be_tried_again() {
    let (server, hub, found) = prepared().await;
    let error = broken_once(&server, &hub, &found, Fault::Stall(2000)).await;
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(error.message.contains("has sent nothing"), "{error}");
}

/// The engine compares: the source says what the digest must be.
#[tokio::test]
async fn hub_wrong_content_differs_from_the_digest_that_the_hub_states() {
    use sha2::{Digest, Sha256};
    let (server, hub, found) = prepared().await;
    server.files.plan("/blobs/", 1, Fault::Corrupt);
    let bytes = read(&hub, &found.objects[0], LENGTH as u64).await.unwrap();
    let stated = found.objects[0].sha256.as_deref().unwrap();
    assert_ne!(format!("{:x}", Sha256::digest(bytes)), stated);
    assert_eq!(format!("{:x}", Sha256::digest(content(1, LENGTH))), stated);
}

#[tokio::test]
async fn hub_redirect_loop_is_given_up() {
    let (server, hub, found) = prepared().await;
    let there = format!("{}/blobs/again", server.files.url());
    server
        .files
        .plan("/blobs/", 20, Fault::Status(302, vec![("location", there)]));
    let error = read(&hub, &found.objects[0], LENGTH as u64).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Unavailable, "{error}");
    assert!(error.message.contains("in a circle"), "{error}");
}

#[tokio::test]
async fn hub_redirect_to_a_forbidden_address_is_not_followed() {
    let (server, hub, found) = prepared().await;
    let metadata = "http://169.254.169.254/latest/meta-data/".to_owned();
    server
        .hub
        .plan("/resolve/", 1, Fault::Status(302, vec![("location", metadata)]));
    let error = read(&hub, &found.objects[0], LENGTH as u64).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden, "{error}");
}

/// Without it, a page of a captive portal or of a wrong endpoint is reported as a column of JSON.
#[tokio::test]
async fn hub_answer_that_is_no_hubs_asks_about_the_endpoint() {
    let (server, hub, _) = prepared().await;
    server
        .hub
        .plan("/api/", 1, Fault::Replace(b"<html>Please log in</html>".to_vec()));
    let error = hub.find(None).await.unwrap_err();
    assert_eq!(
        (error.reason, error.retry),
        (FetchReason::Unavailable, Retry::Soon),
        "{error}"
    );
    assert!(error.message.contains("is the endpoint right?"), "{error}");
    server
        .hub
        .plan("/api/", 1, Fault::Replace(br#"{"sha": "main"}"#.to_vec()));
    let error = hub.find(None).await.unwrap_err();
    assert!(
        error.message.contains("the commit \"main\", which is none"),
        "{error}"
    );
}

/// Without it, a download that takes longer than a token lives ends with it, although somebody has renewed it.
#[tokio::test]
async fn hub_token_that_is_renewed_in_its_secret_is_used() {
    let server = HubServer::start().await;
    server.push(
        "onnx/tiny",
        Access::Private,
        "main",
        &[("model.onnx", Kept::Lfs, content(1, LENGTH))],
    );
    let (hub, folder) = with_token(&server, "hf://onnx/tiny", TOKEN);
    let found = hub.find(None).await.unwrap();
    let token = folder.path().join("HF_TOKEN");
    std::fs::write(&token, "hf_expired").unwrap();
    let error = read(&hub, &found.objects[0], 1234).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Denied, "{error}");
    assert!(
        error.message.contains("used HF_TOKEN of the credentials' Secret"),
        "{error}"
    );
    std::fs::write(&token, TOKEN).unwrap();
    assert_eq!(
        read(&hub, &found.objects[0], 1234).await.unwrap(),
        content(1, LENGTH)
    );
}
