//! What is found on the Hub, and which version.

use super::{
    hub_server::{Access, HubServer, Kept, OTHER_TOKEN, TOKEN},
    support::{access, content, credentials, names, read_all, secret},
};
use http::header;
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use modelservice_fetch::source::{Form, Hub, Source};
use tempfile::TempDir;

/// A source of the tests' Hub without credentials.
pub(super) fn public(server: &HubServer, uri: &str) -> Hub {
    Hub::new(uri, access(&server.hub.url(), None)).unwrap()
}

/// One with a token for it.
pub(super) fn with_token(server: &HubServer, uri: &str, token: &str) -> (Hub, TempDir) {
    let endpoint = server.hub.url();
    let folder = secret(&[("endpoints", &endpoint), ("HF_TOKEN", token)]);
    let hub = Hub::new(uri, access(&endpoint, credentials(&folder))).unwrap();
    (hub, folder)
}

pub(super) fn commit(value: &str) -> SourceIdentity {
    SourceIdentity {
        kind: IdentityKind::Commit,
        value: value.to_owned(),
        is_retained: true,
    }
}

/// A repository as exporters make them: weights for another framework at the top, and several models in a folder.
fn exported() -> Vec<(&'static str, Kept, Vec<u8>)> {
    vec![
        ("README.md", Kept::Git, b"# A model\n".to_vec()),
        ("config.json", Kept::Git, b"{}".to_vec()),
        ("model.safetensors", Kept::Xet, content(1, 9000)),
        ("onnx/model.onnx", Kept::Lfs, content(2, 5000)),
        ("onnx/model.onnx_data", Kept::Xet, content(3, 8000)),
        ("onnx/model_int8.onnx", Kept::Lfs, content(4, 2000)),
        ("onnx/extra/labels.txt", Kept::Git, b"cat\ndog\n".to_vec()),
    ]
}

/// Without it, a service could not say which part of a repository it serves.
#[tokio::test]
async fn a_folder_or_a_file_of_a_repository_is_found_in_all_pages_of_its_list() {
    let server = HubServer::start().await;
    let pushed = server.push("onnx/tiny", Access::Public, "main", &exported());
    for (uri, expected) in [
        (
            "hf://onnx/tiny@main/onnx",
            &[
                "extra/labels.txt",
                "model.onnx",
                "model.onnx_data",
                "model_int8.onnx",
            ][..],
        ),
        (
            "hf://onnx/tiny/onnx/model.onnx",
            &["model.onnx", "model.onnx_data"],
        ),
        ("hf://onnx/tiny@main/onnx/model_int8.onnx", &["model_int8.onnx"]),
    ] {
        let hub = public(&server, uri);
        let found = hub.find(None).await.unwrap();
        assert_eq!(names(&found), expected, "{uri}");
        assert_eq!((&found.identity, found.form), (&commit(&pushed), Form::Files));
        let files = read_all(&hub, &found).await;
        for (path, _, content) in exported() {
            if let Some(name) = path.strip_prefix("onnx/").filter(|name| expected.contains(name)) {
                assert_eq!(files[name], content, "{uri} {name}");
            }
        }
    }
}

/// Without it, a revision would change with its branch: the pods of one Deployment would serve different models.
#[tokio::test]
async fn a_moved_branch_does_not_change_what_is_frozen() {
    let server = HubServer::start().await;
    let old = server.push(
        "onnx/tiny",
        Access::Public,
        "main",
        &[("model.onnx", Kept::Lfs, content(1, 3000))],
    );
    let hub = public(&server, "hf://onnx/tiny");
    let resolved = hub.find(None).await.unwrap();
    let new = server.push(
        "onnx/tiny",
        Access::Public,
        "main",
        &[("model.onnx", Kept::Lfs, content(2, 3000))],
    );
    // What was found before the move is still read, and found again by its commit.
    assert_eq!(read_all(&hub, &resolved).await["model.onnx"], content(1, 3000));
    let frozen = hub.find(Some(&commit(&old))).await.unwrap();
    assert_eq!(frozen, resolved);
    let fresh = hub.find(None).await.unwrap();
    assert_eq!(fresh.identity, commit(&new));
    assert_eq!(read_all(&hub, &fresh).await["model.onnx"], content(2, 3000));
}

/// Without it, a history that was rewritten is a model that "does not exist", with no word about what to do.
#[tokio::test]
async fn a_commit_that_is_gone_is_a_changed_source() {
    let server = HubServer::start().await;
    let old = server.push(
        "onnx/tiny",
        Access::Public,
        "main",
        &[("model.onnx", Kept::Lfs, content(1, 3000))],
    );
    let hub = public(&server, "hf://onnx/tiny");
    let resolved = hub.find(None).await.unwrap();
    server.forget("onnx/tiny", &old);
    let again = hub.find(Some(&commit(&old))).await.unwrap_err();
    let read = hub.read(&resolved.objects[0], 0..10).await.err().unwrap();
    for error in [again, read] {
        assert_eq!(error.reason, FetchReason::SourceChanged, "{error}");
        assert!(error.message.contains("spec.model.refresh"), "{error}");
    }
}

/// Without it, each of these is a status that says nothing about what to write or to do.
#[tokio::test]
async fn what_is_not_there_or_not_for_us_is_said_in_the_hubs_words_with_what_to_do() {
    let server = HubServer::start().await;
    let files = [("model.onnx", Kept::Lfs, content(1, 3000))];
    server.push("onnx/tiny", Access::Public, "main", &exported());
    server.push("onnx/gated", Access::Gated, "main", &files);
    server.push("onnx/private", Access::Private, "main", &files);
    use FetchReason::{Denied, NotFound, PackageInvalid};
    for (uri, token, reason, parts) in [
        (
            "hf://onnx/missing",
            None,
            Denied,
            &[
                "Invalid username or password",
                "There is no such model, or it is private",
                "HF_TOKEN",
            ][..],
        ),
        (
            "hf://onnx/missing",
            Some(TOKEN),
            NotFound,
            &["Repository not found", "the token has no right to read it"],
        ),
        (
            "hf://onnx/private",
            None,
            Denied,
            &["Invalid username or password", "it is private"],
        ),
        (
            "hf://onnx/private",
            Some(OTHER_TOKEN),
            NotFound,
            &["the token has no right to read it"],
        ),
        (
            "hf://onnx/tiny",
            Some("hf_wrong"),
            Denied,
            &["Invalid credentials in Authorization header", "used HF_TOKEN"],
        ),
        (
            "hf://onnx/tiny@v2",
            None,
            NotFound,
            &["Invalid rev id: v2", "no such branch, tag or commit"],
        ),
        (
            "hf://onnx/tiny@main/int8",
            None,
            NotFound,
            &["int8 does not exist", "no such folder or file"],
        ),
        (
            "hf://onnx/tiny@main/onnx/other.onnx",
            None,
            NotFound,
            &["does not exist"],
        ),
        (
            "hf://onnx/tiny",
            None,
            PackageInvalid,
            &[
                "onnx/model.onnx, onnx/model_int8.onnx",
                "such as hf://onnx/tiny@main/onnx/model.onnx",
            ],
        ),
    ] {
        let (hub, _folder) = match token {
            None => (public(&server, uri), None),
            Some(token) => {
                let (hub, folder) = with_token(&server, uri, token);
                (hub, Some(folder))
            }
        };
        let error = hub.find(None).await.unwrap_err();
        assert_eq!(error.reason, reason, "{uri}: {error}");
        assert!(error.message.starts_with("hf://onnx/"), "{error}");
        for part in parts {
            assert!(error.message.contains(part), "{uri}: {error}");
        }
        assert!(
            !token.is_some_and(|token| error.message.contains(token)),
            "{error}"
        );
    }
    for (token, part) in [
        (None, "must have access"),
        (Some(OTHER_TOKEN), "not in the authorized list"),
    ] {
        let uri = "hf://onnx/gated";
        let (hub, _folder) = token.map_or_else(
            || (public(&server, uri), None),
            |token| {
                let (hub, folder) = with_token(&server, uri, token);
                (hub, Some(folder))
            },
        );
        let found = hub.find(None).await.unwrap();
        let error = hub.read(&found.objects[0], 0..10).await.err().unwrap();
        assert_eq!(error.reason, Denied, "{error}");
        assert!(error.message.contains(part), "{error}");
        let page = format!(
            "The model is gated: accept its conditions at {}/onnx/gated",
            server.hub.url()
        );
        assert!(error.message.contains(&page), "{error}");
    }
}

/// Without it, models that were renamed could no longer be fetched by the name that a service has.
#[tokio::test]
async fn a_renamed_repository_is_found_with_the_token() {
    let server = HubServer::start().await;
    server.push(
        "onnx/new",
        Access::Private,
        "main",
        &[("model.onnx", Kept::Lfs, content(1, 3000))],
    );
    server.rename("onnx/old", "onnx/new");
    let (hub, _folder) = with_token(&server, "hf://onnx/old", TOKEN);
    let found = hub.find(None).await.unwrap();
    assert_eq!(read_all(&hub, &found).await["model.onnx"], content(1, 3000));
}

/// Without it, the host of the large files, or whoever it belongs to, gets the token.
#[tokio::test]
async fn the_token_goes_to_the_hub_and_not_to_the_host_of_its_large_files() {
    let server = HubServer::start().await;
    server.push(
        "onnx/tiny",
        Access::Private,
        "main",
        &[("model.onnx", Kept::Xet, content(1, 3000))],
    );
    let (hub, _folder) = with_token(&server, "hf://onnx/tiny", TOKEN);
    let found = hub.find(None).await.unwrap();
    read_all(&hub, &found).await;
    let expected = format!("Bearer {TOKEN}");
    assert!(
        server
            .hub
            .seen()
            .iter()
            .all(|seen| seen.headers[header::AUTHORIZATION] == expected)
    );
    let seen = server.files.seen();
    assert_eq!(seen.len(), 3, "one for each part");
    for seen in seen {
        let mut names: Vec<&str> = seen.headers.keys().map(header::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "host", "range", "user-agent"]);
        assert_eq!(seen.uri.query(), Some("X-Amz-Signature=of-the-hub"));
        assert!(!format!("{seen:?}").contains(TOKEN));
    }
}

/// Without it, a service with a free endpoint could send any Secret's token away.
#[tokio::test]
async fn the_token_is_not_sent_to_an_endpoint_that_its_secret_does_not_list() {
    let server = HubServer::start().await;
    server.push("onnx/tiny", Access::Public, "main", &exported());
    let folder = secret(&[("endpoints", "huggingface.co"), ("HF_TOKEN", TOKEN)]);
    let hub = Hub::new("hf://onnx/tiny", access(&server.hub.url(), credentials(&folder))).unwrap();
    let error = hub.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden);
    assert!(
        error.message.contains(&format!("not for {}", server.hub.url())),
        "{error}"
    );
    assert!(server.hub.seen().is_empty());
}
