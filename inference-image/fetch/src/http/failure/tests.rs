#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use http::HeaderValue;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect()
}

fn asked(used: Used, is_frozen: bool) -> Asked {
    Asked {
        what: "s3://models/a.onnx".to_owned(),
        used,
        is_frozen,
    }
}

fn error(status: u16, pairs: &[(&'static str, &'static str)], body: &str, asked: &Asked) -> FetchError {
    let headers = headers(pairs);
    let words = words(&headers, body.as_bytes());
    classify(
        StatusCode::from_u16(status).unwrap(),
        &headers,
        "store.example",
        &words,
        asked,
    )
}

#[test]
fn the_stores_own_words_are_kept_and_nothing_else_of_its_answer() {
    let s3 = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message>\
              <AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
    for (body, said) in [
        (s3, "NoSuchKey: The key does not exist."),
        (
            "\u{feff}<Error><Code>BlobNotFound</Code><Message>gone\nRequestId:1</Message></Error>",
            "BlobNotFound: gone RequestId:1",
        ),
        (
            r#"{"error":{"code":404,"message":"No such object"}}"#,
            "404: No such object",
        ),
        (
            r#"{"error":"invalid_grant","error_description":"Bad"}"#,
            "invalid_grant: Bad",
        ),
        (
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#,
            "MANIFEST_UNKNOWN: unknown",
        ),
        (r#"{"error":"Repository not found"}"#, "Repository not found"),
        (r#"{"message":"no"}"#, "no"),
        ("slow down,\u{1b}[31m please", "slow down, [31m please"),
        ("<html><body>big page</body></html>", ""),
        ("{broken", ""),
        ("", ""),
    ] {
        assert_eq!(words(&HeaderMap::new(), body.as_bytes()), said, "{body}");
    }
    let long = bounded(&words(&HeaderMap::new(), "é".repeat(1000).as_bytes()));
    assert_eq!(long.chars().count(), WORDS + 1);
    let hub = headers(&[
        ("x-error-code", "GatedRepo"),
        ("x-error-message", "Ask for access"),
    ]);
    assert_eq!(words(&hub, b""), "GatedRepo: Ask for access");
}

#[test]
fn a_status_says_what_failed_and_whether_to_try_again() {
    let after = Retry::After(Duration::from_secs(7));
    for (status, header, frozen, reason, retry) in [
        (400, "", false, FetchReason::Unavailable, Retry::Never),
        (401, "", false, FetchReason::Denied, Retry::Never),
        (403, "", true, FetchReason::Denied, Retry::Never),
        (404, "", false, FetchReason::NotFound, Retry::Never),
        (404, "", true, FetchReason::SourceChanged, Retry::Never),
        (410, "", false, FetchReason::NotFound, Retry::Never),
        (412, "", true, FetchReason::SourceChanged, Retry::Never),
        (416, "", false, FetchReason::Unavailable, Retry::Never),
        (408, "", false, FetchReason::Unavailable, Retry::Soon),
        (429, "", false, FetchReason::Unavailable, Retry::Soon),
        (429, "7", false, FetchReason::Unavailable, after),
        (503, " 7 ", false, FetchReason::Unavailable, after),
        (
            503,
            "7000000",
            false,
            FetchReason::Unavailable,
            Retry::After(LONGEST_WAIT),
        ),
        (
            503,
            "Thu, 01 Jan 1970 00:00:00 GMT",
            false,
            FetchReason::Unavailable,
            Retry::After(Duration::ZERO),
        ),
        (503, "soon", false, FetchReason::Unavailable, Retry::Soon),
        (500, "7", false, FetchReason::Unavailable, Retry::Soon),
        (502, "", false, FetchReason::Unavailable, Retry::Soon),
    ] {
        let error = error(
            status,
            &[("retry-after", header)],
            "",
            &asked(Used::Nothing, frozen),
        );
        assert_eq!(
            (error.reason, error.retry),
            (reason, retry),
            "{status} {header:?}: {}",
            error.message
        );
    }
}

#[test]
fn who_was_denied_is_told_which_credentials_were_used() {
    let secret = Used::Secret("HF_TOKEN".to_owned());
    for (used, part) in [
        (Used::Nothing, "carried no credentials"),
        (secret.clone(), "HF_TOKEN of the credentials' Secret"),
        (Used::PodIdentity, "the pod's own identity"),
    ] {
        let error = error(
            403,
            &[],
            "<Error><Code>AccessDenied</Code></Error>",
            &asked(used, false),
        );
        assert!(
            error
                .message
                .starts_with("s3://models/a.onnx: store.example answers 403: AccessDenied. ")
        );
        assert!(error.message.contains(part), "{}", error.message);
    }
    let body = "<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>";
    assert_eq!(
        error(400, &[], body, &asked(secret, true)).reason,
        FetchReason::Denied
    );
}

#[test]
fn a_bucket_of_another_region_names_the_region() {
    let error = error(
        301,
        &[("x-amz-bucket-region", "eu-north-1")],
        "",
        &asked(Used::Nothing, false),
    );
    assert!(error.message.contains("set AWS_REGION"), "{}", error.message);
    assert!(error.message.contains("eu-north-1"), "{}", error.message);
}

#[test]
fn a_store_that_repeats_a_credential_does_not_get_it_into_a_message() {
    let secrets = ["Bearer hf_abcdef".to_owned(), "hf_abcdef".to_owned()];
    let words = redacted("no access for hf_abcdef, Bearer hf_abcdef".to_owned(), &secrets);
    assert_eq!(words, "no access for [redacted], [redacted]");
}

/// Otherwise its beginning stays at the end of the message.
#[test]
fn a_credential_at_the_cut_is_left_out_too() {
    let secret = "hf_abcdefghijklmnop".to_owned();
    let said = format!("{}{secret}", "x".repeat(WORDS - 5));
    let words = bounded(&redacted(words(&HeaderMap::new(), said.as_bytes()), &[secret]));
    assert!(!words.contains("hf_"), "{words}");
}
