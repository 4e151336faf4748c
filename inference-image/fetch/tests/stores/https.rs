//! Files on web servers, over TLS with a private authority.

use crate::{
    finding::read,
    proxy::Fault,
    web::{File, Web},
};
use modelservice_contract::{FetchReason, IdentityKind};
use modelservice_fetch::source::Source;

const PATH: &str = "models/resnet.onnx";
const DIGEST: &str = "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";

pub(crate) async fn a_file_is_found_by_its_etag_and_read_in_parts() {
    let web = Web::start(File::default()).await;
    let secret = web.secret();
    let source = web.source(PATH, Some(&secret), None).unwrap();
    let found = source.find(None).await.unwrap();
    assert_eq!(
        (found.identity.kind, found.identity.value.as_str()),
        (IdentityKind::ETag, "\"one\"")
    );
    let object = &found.objects[0];
    assert_eq!((object.name.as_str(), object.size), ("resnet.onnx", Some(10)));
    assert!(source.has_ranges());
    assert_eq!(read(&source, object, 3..7).await.unwrap(), b"3456");
    assert_eq!(source.find(Some(&found.identity)).await.unwrap(), found);
    let seen = web.proxy.seen();
    assert!(
        seen.iter()
            .all(|head| head.header("accept-encoding") == Some("identity"))
    );
    assert_eq!(seen[1].header("if-match"), Some("\"one\""));
}

/// Some servers ignore conditions; what they answer is compared.
pub(crate) async fn an_overwritten_file_is_not_read() {
    for heeds_conditions in [true, false] {
        let web = Web::start(File {
            heeds_conditions,
            ..File::default()
        })
        .await;
        let secret = web.secret();
        let source = web.source(PATH, Some(&secret), None).unwrap();
        let found = source.find(None).await.unwrap();
        web.change(|file| file.tag = Some("\"two\"".to_owned()));
        for error in [
            source.find(Some(&found.identity)).await.unwrap_err(),
            read(&source, &found.objects[0], 3..7).await.unwrap_err(),
        ] {
            assert_eq!(error.reason, FetchReason::SourceChanged, "{}", error.message);
            assert!(error.message.contains("spec.model.refresh"), "{}", error.message);
        }
    }
}

pub(crate) async fn without_a_strong_etag_the_digest_is_the_version() {
    for tag in [None, Some("W/\"one\"".to_owned()), Some("unquoted".to_owned())] {
        let web = Web::start(File {
            tag,
            ..File::default()
        })
        .await;
        let secret = web.secret();
        let error = web
            .source(PATH, Some(&secret), None)
            .unwrap()
            .find(None)
            .await
            .unwrap_err();
        assert_eq!(error.reason, FetchReason::ConfigInvalid);
        assert!(
            error.message.contains("set spec.model.digest"),
            "{}",
            error.message
        );
        let source = web.source(PATH, Some(&secret), Some(DIGEST)).unwrap();
        let found = source.find(None).await.unwrap();
        assert_eq!(
            (found.identity.kind, found.identity.value.as_str()),
            (IdentityKind::Digest, DIGEST)
        );
        assert_eq!(
            read(&source, &found.objects[0], 0..10).await.unwrap(),
            b"0123456789"
        );
        assert_eq!(source.find(Some(&found.identity)).await.unwrap(), found);
    }
}

pub(crate) async fn a_server_without_ranges_sends_all_of_it() {
    let web = Web::start(File {
        has_ranges: false,
        ..File::default()
    })
    .await;
    let secret = web.secret();
    let source = web.source(PATH, Some(&secret), None).unwrap();
    let found = source.find(None).await.unwrap();
    assert!(!source.has_ranges());
    assert_eq!(found.objects[0].size, Some(10));
    assert_eq!(
        read(&source, &found.objects[0], 0..10).await.unwrap(),
        b"0123456789"
    );
    let error = read(&source, &found.objects[0], 3..7).await.unwrap_err();
    assert!(error.message.contains("sends no parts"), "{}", error.message);
}

/// Its ranges and lengths would be those of the compressed file.
pub(crate) async fn an_answer_that_is_no_file_is_refused() {
    for (extra, reason, part) in [
        (
            ("content-encoding", "gzip"),
            FetchReason::Unavailable,
            "compresses its answer (\"gzip\")",
        ),
        (
            ("content-type", "text/html; charset=utf-8"),
            FetchReason::Denied,
            "web page",
        ),
    ] {
        let web = Web::start(File {
            extra: Some(extra),
            ..File::default()
        })
        .await;
        let secret = web.secret();
        let error = web
            .source(PATH, Some(&secret), None)
            .unwrap()
            .find(None)
            .await
            .unwrap_err();
        assert_eq!(error.reason, reason);
        assert!(error.message.contains(part), "{}", error.message);
    }
}

pub(crate) async fn an_empty_file_is_refused() {
    let web = Web::start(File {
        body: Vec::new(),
        ..File::default()
    })
    .await;
    let secret = web.secret();
    let error = web
        .source(PATH, Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::PackageInvalid);
    assert!(error.message.contains("empty"), "{}", error.message);
}

pub(crate) async fn a_file_that_is_not_there_is_an_error() {
    let web = Web::start(File::default()).await;
    let secret = web.secret();
    let error = web
        .source("models/other.onnx", Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::NotFound);
    for part in ["/models/other.onnx", "404: no such file"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
}

pub(crate) async fn a_private_authority_is_trusted_only_if_the_secret_has_it() {
    let web = Web::start(File::default()).await;
    let error = web
        .source(PATH, None, None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Unavailable);
    for part in ["not trusted", "`ca.crt`"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    let secret = web.secret();
    secret.set("ca.crt", "no certificate");
    let error = web.source(PATH, Some(&secret), None).err().unwrap();
    assert_eq!(error.reason, FetchReason::ConfigInvalid);
    assert!(
        error.message.contains("`ca.crt` has no certificate"),
        "{}",
        error.message
    );
}

pub(crate) async fn the_secrets_headers_are_sent_to_the_servers_that_it_lists() {
    let web = Web::start(File {
        wants: Some(("authorization", "Bearer right")),
        ..File::default()
    })
    .await;
    let secret = web.secret();
    let error = web
        .source(PATH, Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Denied);
    assert!(
        error.message.contains("carried no credentials"),
        "{}",
        error.message
    );

    secret.set("headers", "Authorization: Bearer wrong-token");
    let error = web
        .source(PATH, Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert!(
        error.message.contains("used headers of the credentials' Secret"),
        "{}",
        error.message
    );
    assert!(!error.message.contains("wrong-token"), "{}", error.message);

    secret.set("headers", "Authorization: Bearer right");
    web.source(PATH, Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap();

    secret.set("endpoints", "https://other.example");
    let before = web.proxy.seen().len();
    let error = web
        .source(PATH, Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden);
    assert_eq!(web.proxy.seen().len(), before);
}

/// Otherwise the one byte that was asked for would be all of the model.
pub(crate) async fn a_part_of_a_file_of_unknown_length_does_not_say_its_length() {
    let web = Web::start(File {
        says_total: false,
        ..File::default()
    })
    .await;
    let secret = web.secret();
    let error = web.source(PATH, Some(&secret), None).unwrap().find(None).await;
    let error = error.unwrap_err();
    assert!(
        error.message.contains("does not say how long"),
        "{}",
        error.message
    );
    let source = web.source(PATH, Some(&secret), Some(DIGEST)).unwrap();
    let found = source.find(None).await.unwrap();
    assert_eq!(found.objects[0].size, None);
    assert!(!source.has_ranges());
    assert_eq!(
        read(&source, &found.objects[0], 0..u64::MAX).await.unwrap(),
        b"0123456789"
    );
}

/// The chunks' own end says where the file ends.
pub(crate) async fn a_file_of_unknown_length_is_read_to_its_end() {
    let web = Web::start(File {
        has_ranges: false,
        says_length: false,
        ..File::default()
    })
    .await;
    let secret = web.secret();
    let source = web.source(PATH, Some(&secret), None).unwrap();
    let found = source.find(None).await.unwrap();
    assert_eq!(found.objects[0].size, None);
    assert_eq!(
        read(&source, &found.objects[0], 0..u64::MAX).await.unwrap(),
        b"0123456789"
    );
    web.proxy.fail(|_| Some(Fault::Truncated));
    let error = read(&source, &found.objects[0], 0..u64::MAX).await.unwrap_err();
    assert!(error.message.contains("broke off"), "{}", error.message);
}

/// Stores hand out such URLs for a while.
pub(crate) async fn a_signed_url_is_used_and_never_shown() {
    let web = Web::start(File::default()).await;
    let secret = web.secret();
    let signed = format!("{PATH}?v=1&sig=secret-signature");
    let source = web.source(&signed, Some(&secret), None).unwrap();
    let found = source.find(None).await.unwrap();
    assert!(web.proxy.seen()[0].target.ends_with("?v=1&sig=secret-signature"));
    assert!(!format!("{found:?}").contains("secret-signature"));
    web.proxy.fail(|head| {
        Some(Fault::Status(
            403,
            None,
            if head.target.contains("sig=") {
                "secret-signature is over"
            } else {
                ""
            },
        ))
    });
    let error = source.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Denied);
    assert!(error.message.contains("[redacted] is over"), "{}", error.message);
}

pub(crate) async fn a_redirect_to_less_than_tls_is_refused() {
    let web = Web::start(File::default()).await;
    let secret = web.secret();
    let plain = format!("http://localhost:{}/", web.proxy.url.port().unwrap());
    web.proxy
        .fail(move |_| Some(Fault::Status(302, Some(("location", plain.clone())), "")));
    let error = web
        .source(PATH, Some(&secret), None)
        .unwrap()
        .find(None)
        .await
        .unwrap_err();
    assert_eq!(error.reason, FetchReason::Forbidden);
    assert!(error.message.contains("https:// to http://"), "{}", error.message);
    assert_eq!(web.proxy.seen().len(), 1);
}
