//! Who may read from a registry: passwords and tokens, from image pull secrets and from the credentials' Secret, and where
//! they go.

use super::{
    oci::{Secrets, source},
    proxy::{Fault, Proxy, serve},
    registry::{Access, PASSWORD, Registry, USER, package, push},
    support::{credentials, names, read, read_all, secret},
    token_server::TokenServer,
};
use axum::{Router, body::Body, extract::State, response::Response};
use http::{HeaderMap, Uri, header};
use modelservice_contract::FetchReason;
use modelservice_fetch::source::Source;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

/// Storage with `models/tiny:1`, and its files.
async fn stored() -> (TempDir, BTreeMap<String, Vec<u8>>) {
    let storage = tempfile::tempdir().unwrap();
    let registry = Registry::start(storage.path(), Access::Everybody).await;
    let package = package(1);
    let reference = format!("{}/models/tiny:1", registry.address);
    push(
        "modelpack",
        &reference,
        &[package.folder.path().to_str().unwrap()],
    )
    .await;
    (storage, package.files)
}

fn docker_config(host: &str, password: &str) -> String {
    json!({"auths": {host: {"username": USER, "password": password}}}).to_string()
}

/// A mounted image pull secret for a host.
fn pull_secret(folder: &Path, name: &str, host: &str, password: &str, endpoints: Option<&str>) {
    let secret = folder.join(name);
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join(".dockerconfigjson"), docker_config(host, password)).unwrap();
    if let Some(endpoints) = endpoints {
        fs::write(secret.join("endpoints"), endpoints).unwrap();
    }
}

fn pull_secrets(folder: &TempDir) -> Secrets {
    Secrets {
        pull_secrets: folder.path().to_owned(),
        credentials: None,
    }
}

/// Without it, private registries cannot be used, or their password is in a message.
#[tokio::test]
async fn a_password_comes_from_an_image_pull_secret() {
    let (storage, files) = stored().await;
    let registry = Registry::start(storage.path(), Access::Password).await;
    let host = format!("http://{}", registry.address);
    let folder = tempfile::tempdir().unwrap();
    // The kubelet tries the others too.
    pull_secret(folder.path(), "a-wrong-one", &host, "wrong-password", None);
    pull_secret(
        folder.path(),
        "of-another-registry",
        "ghcr.io",
        "wrong-password",
        None,
    );
    pull_secret(folder.path(), "the-right-one", &host, PASSWORD, None);
    let source = source(registry.address, "models/tiny:1", pull_secrets(&folder));
    let found = source.find(None).await.unwrap();
    assert_eq!(read_all(&source, &found).await, files);
}

/// Without it, nobody knows which of the Secrets is wrong, or that the node's credentials do not apply.
#[tokio::test]
async fn a_refusal_names_the_secret_and_what_does_not_apply() {
    let (storage, _files) = stored().await;
    let registry = Registry::start(storage.path(), Access::Password).await;
    let host = format!("http://{}", registry.address);
    let folder = tempfile::tempdir().unwrap();
    pull_secret(folder.path(), "registry", &host, "wrong-password", None);
    for (files, part) in [
        (Secrets::default(), "carried no credentials"),
        (pull_secrets(&folder), "used the image pull secret registry"),
    ] {
        let error = source(registry.address, "models/tiny:1", files)
            .find(None)
            .await
            .unwrap_err();
        assert_eq!(error.reason, FetchReason::Denied, "{error}");
        assert!(error.message.contains(part), "{error}");
        assert!(
            error
                .message
                .contains("providers and mirrors of the nodes do not apply"),
            "{error}"
        );
        assert!(!error.message.contains("wrong-password"), "{error}");
    }
}

/// Without it, the two Secrets that a service may name do not both work, or the stricter one is not strict.
#[tokio::test]
async fn a_password_of_the_credentials_secret_goes_to_listed_registries_only() {
    let (storage, files) = stored().await;
    let registry = Registry::start(storage.path(), Access::Password).await;
    let host = format!("http://{}", registry.address);
    let config = docker_config(&host, PASSWORD);
    for (endpoints, is_listed) in [(host.clone(), true), ("ghcr.io".to_owned(), false)] {
        let folder = secret(&[("endpoints", &endpoints), (".dockerconfigjson", &config)]);
        let files_of = Secrets {
            pull_secrets: PathBuf::new(),
            credentials: credentials(&folder),
        };
        let source = source(registry.address, "models/tiny:1", files_of);
        match source.find(None).await {
            Ok(found) => {
                assert!(is_listed);
                assert_eq!(read_all(&source, &found).await, files);
            }
            Err(error) => {
                assert!(!is_listed, "{error}");
                assert_eq!(error.reason, FetchReason::Forbidden, "{error}");
                assert!(error.message.contains("`endpoints`"), "{error}");
            }
        }
    }
}

/// Without it, whoever sets an endpoint without TLS could read the password of a pull secret on its way.
#[tokio::test]
async fn a_password_of_a_pull_secret_goes_without_tls_only_if_its_key_says_so() {
    let (storage, _files) = stored().await;
    let tokens = TokenServer::start(true).await;
    for access in [Access::Password, Access::Token(&tokens)] {
        let registry = Registry::start(storage.path(), access).await;
        let proxy = Proxy::start(registry.address).await;
        let folder = tempfile::tempdir().unwrap();
        let host = proxy.address.to_string();
        pull_secret(folder.path(), "registry", &host, PASSWORD, Some(&tokens.url()));
        let source = source(proxy.address, "models/tiny:1", pull_secrets(&folder));
        let error = source.find(None).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::Forbidden, "{error}");
        assert!(
            error.message.contains(&format!("add a line http://{host}")),
            "{error}"
        );
        assert!(
            proxy
                .seen()
                .iter()
                .all(|seen| !seen.headers.contains_key(header::AUTHORIZATION))
        );
    }
    assert!(tokens.asked().is_empty());
}

/// Without it, Docker Hub and every registry like it cannot be read, not even what is public there.
#[tokio::test]
async fn a_registry_with_tokens_is_read_without_credentials_if_it_is_public() {
    let (storage, files) = stored().await;
    let tokens = TokenServer::start(false).await;
    let registry = Registry::start(storage.path(), Access::Token(&tokens)).await;
    let source = source(registry.address, "models/tiny:1", Secrets::default());
    let found = source.find(None).await.unwrap();
    assert_eq!(read_all(&source, &found).await, files);
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "one token is used for all requests: {asked:?}");
    let (uri, headers) = &asked[0];
    assert_eq!(
        uri.query(),
        Some("service=registry-of-the-test&scope=repository%3Amodels%2Ftiny%3Apull")
    );
    assert!(!headers.contains_key(header::AUTHORIZATION));
}

/// Without it, a registry could have the password of a pull secret sent to any server.
#[tokio::test]
async fn a_password_goes_to_a_token_server_on_another_host_only_if_it_is_listed() {
    let (storage, files) = stored().await;
    let tokens = TokenServer::start(true).await;
    let registry = Registry::start(storage.path(), Access::Token(&tokens)).await;
    let host = format!("http://{}", registry.address);
    let folder = tempfile::tempdir().unwrap();
    pull_secret(folder.path(), "registry", &host, PASSWORD, None);
    let refused = source(registry.address, "models/tiny:1", pull_secrets(&folder))
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(refused.reason, FetchReason::Forbidden, "{refused}");
    assert!(
        refused.message.contains(&tokens.url()) && refused.message.contains("`endpoints`"),
        "{refused}"
    );
    assert!(tokens.asked().is_empty());
    let folder = tempfile::tempdir().unwrap();
    pull_secret(folder.path(), "registry", &host, PASSWORD, Some(&tokens.url()));
    let source = source(registry.address, "models/tiny:1", pull_secrets(&folder));
    let found = source.find(None).await.unwrap();
    assert_eq!(read_all(&source, &found).await, files);
}

/// Without it, the words of the server for tokens are lost, or its refusal looks like the registry's.
#[tokio::test]
async fn a_wrong_password_is_refused_in_the_token_servers_words() {
    let (storage, _files) = stored().await;
    let tokens = TokenServer::start(true).await;
    let registry = Registry::start(storage.path(), Access::Token(&tokens)).await;
    let host = format!("http://{}", registry.address);
    let folder = tempfile::tempdir().unwrap();
    pull_secret(
        folder.path(),
        "registry",
        &host,
        "wrong-password",
        Some(&tokens.url()),
    );
    let error = source(registry.address, "models/tiny:1", pull_secrets(&folder))
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Denied, "{error}");
    assert!(
        error.message.contains("incorrect username or password"),
        "{error}"
    );
    assert!(
        error.message.contains("the image pull secret registry"),
        "{error}"
    );
}

/// Without it, a download that takes longer than a token lives, which is minutes, never ends.
#[tokio::test]
async fn a_token_that_expires_during_a_download_is_replaced() {
    let (storage, files) = stored().await;
    let tokens = TokenServer::start(false).await;
    let registry = Registry::start(storage.path(), Access::Token(&tokens)).await;
    let proxy = Proxy::start(registry.address).await;
    let source = source(proxy.address, "models/tiny:1", Secrets::default());
    let found = source.find(None).await.unwrap();
    let challenge = format!(
        "Bearer realm=\"{}\",service=\"{}\",error=\"invalid_token\"",
        tokens.realm(),
        TokenServer::SERVICE
    );
    proxy.plan(
        "/blobs/",
        1,
        Fault::Status(401, vec![("www-authenticate", challenge)]),
    );
    assert_eq!(read_all(&source, &found).await, files);
    assert_eq!(tokens.asked().len(), 2);
}

/// The host of an object store: answers any request with a part of the content, and remembers it.
async fn object_store(content: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<(Uri, HeaderMap)>>>) {
    let seen: Arc<Mutex<Vec<(Uri, HeaderMap)>>> = Arc::default();
    type Shared = (Vec<u8>, Arc<Mutex<Vec<(Uri, HeaderMap)>>>);
    let answer = |State((content, seen)): State<Shared>, uri: Uri, headers: HeaderMap| async move {
        seen.lock().unwrap().push((uri, headers));
        Response::new(Body::from(content))
    };
    let router = Router::new().fallback(answer).with_state((content, seen.clone()));
    let (address, _task) = serve(router).await;
    (address, seen)
}

/// Without it, the object store of a registry gets the registry's token or password.
#[tokio::test]
async fn a_redirect_of_a_layer_to_an_object_store_carries_no_credentials() {
    let (storage, files) = stored().await;
    let registry = Registry::start(storage.path(), Access::Password).await;
    let proxy = Proxy::start(registry.address).await;
    let folder = tempfile::tempdir().unwrap();
    pull_secret(folder.path(), "registry", &proxy.url(), PASSWORD, None);
    let source = source(proxy.address, "models/tiny:1", pull_secrets(&folder));
    let found = source.find(None).await.unwrap();
    let position = names(&found)
        .iter()
        .position(|name| *name == "model.onnx")
        .unwrap();
    let (store, seen) = object_store(files["model.onnx"].clone()).await;
    let location = format!("http://{store}/layer?X-Amz-Signature=of-the-registry");
    proxy.plan("/blobs/", 1, Fault::Status(307, vec![("location", location)]));
    let content = read(&source, &found.objects[position], 10_000).await.unwrap();
    assert_eq!(content, files["model.onnx"]);
    assert!(
        proxy
            .seen_of("/blobs/")
            .iter()
            .all(|seen| seen.headers.contains_key(header::AUTHORIZATION))
    );
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    let (uri, headers) = &seen[0];
    let mut names: Vec<&str> = headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept-encoding", "host", "range", "user-agent"]);
    assert_eq!(uri.query(), Some("X-Amz-Signature=of-the-registry"));
}
