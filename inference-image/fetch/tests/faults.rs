//! What a source can do wrong, and what becomes of it. The source is a script, since these faults are what the engine is given:
//! that each kind of source turns its server's faults into them is for the tests of that source.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{FetchReason, FetchReason::*};
use modelservice_fetch::download::{Progress, Settings, Slowest, download};
use modelservice_fetch::error::{FetchError, Retry};
use modelservice_fetch::fetch::fetch;
use modelservice_fetch::resolve::Behaviour;
use sha2::{Digest, Sha256};
use std::time::Duration;
use support::{Fault, Scripted, content, object};
use tokio::time::Instant;

const BLOCK: u64 = 10_000;

fn settings() -> Settings {
    Settings {
        block_bytes: BLOCK,
        part_blocks: 3,
        parallel: 4,
        slowest: Slowest {
            bytes: 3_000,
            ..Slowest::default()
        },
        ..Settings::default()
    }
}

struct Result {
    outcome: std::result::Result<Vec<u8>, FetchError>,
    received: u64,
    took: Duration,
}

/// Downloads the only object.
async fn run(source: &Scripted, folder: &std::path::Path) -> Result {
    let progress = Progress::default();
    let found = modelservice_fetch::source::Source::find(source, None)
        .await
        .unwrap();
    let begun = Instant::now();
    let downloaded = download(source, &found, folder, &settings(), &progress).await;
    Result {
        outcome: downloaded.map(|objects| {
            let bytes = std::fs::read(&objects[0].path).unwrap();
            assert_eq!(objects[0].hash, <[u8; 32]>::from(Sha256::digest(&bytes)));
            assert_eq!(objects[0].size, bytes.len() as u64);
            bytes
        }),
        received: progress.received(),
        took: begun.elapsed(),
    }
}

fn failing(reason: FetchReason, message: &str, retry: Retry) -> Fault {
    let error = FetchError::new(reason, message);
    Fault::Refused(FetchError { retry, ..error })
}

/// Faults that pass: the download ends well, and asks for no byte more than it must.
#[tokio::test(start_paused = true)]
async fn faults_that_pass_cost_only_time() {
    let all = content(100_000);
    // What came, and has to come again.
    for (what, faults, twice) in [
        ("none", vec![], 0),
        ("500s", vec![failing(Unavailable, "500", Retry::Soon); 6], 0),
        (
            "429 with Retry-After",
            vec![failing(Unavailable, "429", Retry::After(Duration::from_secs(20)))],
            0,
        ),
        ("a reset before the first byte", vec![Fault::Reset(0)], 0),
        ("resets in the middle", vec![Fault::Reset(12_345); 3], 0),
        ("truncated", vec![Fault::Truncated(7)], 0),
        ("a byte too many", vec![Fault::TooLong], BLOCK),
        ("a drip", vec![Fault::Drip(10)], 0),
        ("silence", vec![Fault::Silent], 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let source = Scripted::new(vec![object("model.onnx", &all)]).with(faults);
        let result = run(&source, folder.path()).await;
        assert_eq!(result.outcome.as_ref(), Ok(&all), "{what}");
        assert_eq!(result.received, all.len() as u64 + twice, "{what}");
    }
}

/// Faults that stay end the download, with the source's words.
#[tokio::test(start_paused = true)]
async fn faults_that_stay_end_a_download() {
    let soon = |message: &str| failing(Unavailable, message, Retry::Soon);
    for (what, fault, reason, words) in [
        (
            "500s",
            soon("503 Slow Down"),
            Unavailable,
            "503 Slow Down (given up after 8 attempts)",
        ),
        (
            "403",
            failing(Denied, "403 AccessDenied", Retry::Never),
            Denied,
            "403 AccessDenied",
        ),
        (
            "412",
            failing(SourceChanged, "412", Retry::Never),
            SourceChanged,
            "412",
        ),
        (
            "resets",
            Fault::Reset(0),
            Unavailable,
            "connection reset by peer (given up",
        ),
        (
            "truncated",
            Fault::Truncated(0),
            Unavailable,
            "bytes too early (given up",
        ),
        ("endless", Fault::Endless, Unavailable, "sent more than the"),
        ("a drip", Fault::Drip(10), Unavailable, "sent only"),
        ("silence", Fault::Silent, Unavailable, "sent only 0 bytes in 30 s"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        // Each attempt at most four bytes: that is no progress.
        let source = Scripted::new(vec![object("model.onnx", &content(9_000))]).with(vec![fault; 100]);
        let result = run(&source, folder.path()).await;
        let error = result.outcome.unwrap_err();
        assert_eq!(error.reason, reason, "{what}: {error}");
        assert!(error.message.contains(words), "{what}: {error}");
        assert!(error.message.contains("bucket/model.onnx"), "{what}: {error}");
        assert!(
            result.took < Duration::from_secs(600),
            "{what}: {:?}",
            result.took
        );
    }
}

/// Otherwise a source that sends a little each time keeps a pod in its init container for ever.
#[tokio::test(start_paused = true)]
async fn a_little_progress_each_time_is_not_enough() {
    let folder = tempfile::tempdir().unwrap();
    let source = Scripted::new(vec![object("model.onnx", &content(9_000))]).with(vec![Fault::Reset(1); 100]);
    let error = run(&source, folder.path()).await.outcome.unwrap_err();
    assert!(error.message.contains("given up after 8 attempts"), "{error}");
    assert_eq!(source.requests.lock().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn without_ranges_an_object_starts_again() {
    let (folder, all) = (tempfile::tempdir().unwrap(), content(50_000));
    let mut source = Scripted::new(vec![object("model.onnx", &all)]).with([Fault::Reset(49_000)]);
    source.has_ranges = false;
    let result = run(&source, folder.path()).await;
    assert_eq!(result.outcome.as_ref(), Ok(&all));
    assert_eq!(result.received, 50_000 + 49_000);
    let requests: Vec<_> = source
        .requests
        .lock()
        .iter()
        .map(|(_, range)| range.clone())
        .collect();
    assert_eq!(requests, [0..50_000, 0..50_000]);
}

#[tokio::test(start_paused = true)]
async fn an_object_without_a_size_ends_where_its_body_ends() {
    let (folder, all) = (tempfile::tempdir().unwrap(), content(50_000));
    let mut source = Scripted::new(vec![object("model.onnx", &all)]).with([Fault::Reset(30_000)]);
    source.objects[0].0.size = None;
    assert_eq!(run(&source, folder.path()).await.outcome.as_ref(), Ok(&all));

    // A body that never ends is bounded by the size of the largest package.
    let folder = tempfile::tempdir().unwrap();
    let source = source.with([Fault::Endless]);
    let found = modelservice_fetch::source::Source::find(&source, None)
        .await
        .unwrap();
    let settings = Settings {
        maximum_bytes: 5_000_000,
        ..settings()
    };
    let error = download(&source, &found, folder.path(), &settings, &Progress::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason, PackageInvalid);
    assert!(error.message.contains("more than 5000000 bytes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_what_the_source_says_come_once_more_and_then_no_more() {
    let all = content(25_000);
    let stated = |faults: Vec<Fault>| {
        let mut source = Scripted::new(vec![object("model.onnx", &all)]).with(faults);
        source.objects[0].0.sha256 = Some(format!("{:x}", Sha256::digest(&all)));
        source
    };
    let folder = tempfile::tempdir().unwrap();
    let result = run(&stated(vec![Fault::Corrupt]), folder.path()).await;
    assert_eq!(result.outcome.as_ref(), Ok(&all));
    assert_eq!(result.received, 2 * 25_000);

    let folder = tempfile::tempdir().unwrap();
    let source = stated(vec![Fault::Corrupt, Fault::Corrupt]);
    let error = run(&source, folder.path()).await.outcome.unwrap_err();
    assert_eq!(error.reason, Unavailable);
    assert!(error.message.contains("but its source says"), "{error}");
    // Nothing of it is taken for good by the next attempt.
    let result = run(&source, folder.path()).await;
    assert_eq!(result.outcome.as_ref(), Ok(&all));
}

#[tokio::test(start_paused = true)]
async fn a_download_that_was_dropped_goes_on_with_its_missing_blocks() {
    let (folder, all) = (tempfile::tempdir().unwrap(), content(200_000));
    let source = Scripted::new(vec![object("model.onnx", &all), object("empty", b"")]);
    let source = source.with([
        Fault::Drip(9_000),
        Fault::Drip(9_000),
        Fault::Silent,
        Fault::Silent,
    ]);
    let stopped = tokio::time::timeout(Duration::from_millis(3_500), run(&source, folder.path())).await;
    assert!(stopped.is_err());
    // Each drip has completed one block at least.
    let journal = std::fs::read_to_string(folder.path().join("objects/journal")).unwrap();
    let complete = journal.lines().count() as u64 - 1;
    assert!((2..=4).contains(&complete), "{complete}");
    source.faults.lock().clear();
    let result = run(&source, folder.path()).await;
    assert_eq!(result.outcome.as_ref(), Ok(&all));
    assert_eq!(result.received, 200_000 - complete * BLOCK);
    // Once complete, nothing is requested again.
    let before = source.requests.lock().len();
    assert_eq!(run(&source, folder.path()).await.received, 0);
    assert_eq!(source.requests.lock().len(), before);
}

/// A version that is not the frozen one must never be mixed with it.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_another_version_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let old = Scripted::new(vec![object("model.onnx", &content(30_000))]);
    run(&old, folder.path()).await.outcome.unwrap();
    let all: Vec<u8> = content(30_000).iter().map(|byte| !byte).collect();
    let mut new = Scripted::new(vec![object("model.onnx", &all)]);
    new.identity.value = "v2".into();
    let result = run(&new, folder.path()).await;
    assert_eq!(result.outcome.as_ref(), Ok(&all));
    assert_eq!(result.received, 30_000);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_no_longer_there_is_not_replaced_by_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let source = Scripted::new(vec![object("model.onnx", b"x")]);
    let mut config = source.config();
    config.identity.as_mut().unwrap().value = "v0".into();
    let error = fetch(
        &config,
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason, SourceChanged);
    assert!(source.requests.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_package_of_another_digest_is_refused_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let digest = |text: &[u8]| format!("sha256:{:x}", Sha256::digest(text));
    let mut config = source.config();
    config.digest = Some(digest(b"another model"));
    let error = fetch(
        &config,
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason, DigestMismatch);
    assert!(error.message.contains(&digest(b"model")), "{error}");
    assert!(!folder.path().join("model.onnx").exists());
    config.digest = Some(digest(b"model"));
    let outcome = fetch(
        &config,
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await
    .unwrap();
    assert_eq!(outcome.marker.model_digest, digest(b"model"));
}

#[tokio::test(start_paused = true)]
async fn a_verified_copy_needs_no_source_and_a_damaged_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let source = Scripted::new(vec![
        object("model.onnx", b"model"),
        object("sub/w.data", b"weights"),
    ]);
    let config = source.config();
    let behaviour = Behaviour::default();
    fetch(&config, &source.opener(), Some(folder.path()), &behaviour)
        .await
        .unwrap();
    let asked = (*source.found.lock(), source.requests.lock().len());
    let down = |_: &modelservice_contract::FetchConfig| Err(FetchError::unavailable("down"));
    let outcome = fetch(&config, &down, Some(folder.path()), &behaviour)
        .await
        .unwrap();
    assert!(!outcome.is_new());
    assert_eq!((*source.found.lock(), source.requests.lock().len()), asked);

    std::fs::write(folder.path().join("sub/w.data"), "weighty").unwrap();
    assert_eq!(
        fetch(&config, &down, Some(folder.path()), &behaviour)
            .await
            .unwrap_err()
            .message,
        "down"
    );
    fetch(&config, &source.opener(), Some(folder.path()), &behaviour)
        .await
        .unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("sub/w.data")).unwrap(),
        b"weights"
    );

    // Another version replaces all of it.
    let mut new = Scripted::new(vec![object("model.onnx", b"newer")]);
    new.identity.value = "v2".into();
    fetch(&new.config(), &new.opener(), Some(folder.path()), &behaviour)
        .await
        .unwrap();
    assert_eq!(std::fs::read(folder.path().join("model.onnx")).unwrap(), b"newer");
    assert!(!folder.path().join("sub").exists());
}

/// Fail closed: a model that nobody has signed must not be served as one that was, however often it is tried.
#[tokio::test(start_paused = true)]
async fn a_package_without_the_signature_that_is_demanded_is_refused_each_time() {
    let signed: serde_json::Value = serde_json::from_str(include_str!("signing/signed.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let demand = |key: &str| {
        let mut config = source.config();
        config.verification = Some(modelservice_contract::Verification {
            public_key: key.to_owned(),
        });
        config
    };
    for _ in 0..2 {
        let config = demand(signed["keys"]["signer"].as_str().unwrap());
        let error = fetch(
            &config,
            &source.opener(),
            Some(folder.path()),
            &Behaviour::default(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.reason, SignatureInvalid, "{error}");
        assert!(!folder.path().join("model.onnx").exists());
    }
    // One that is there already is not served either.
    fetch(
        &source.config(),
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await
    .unwrap();
    let config = demand(signed["keys"]["signer"].as_str().unwrap());
    let error = fetch(
        &config,
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason, SignatureInvalid, "{error}");

    let found = *source.found.lock();
    let error = fetch(
        &demand("no key"),
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason, ConfigInvalid, "{error}");
    assert_eq!(
        *source.found.lock(),
        found,
        "a key that cannot be used is told before anything is fetched"
    );
}
