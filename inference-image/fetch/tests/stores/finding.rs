//! What is found at a URI, in which version, and that nothing else is read afterwards.

use crate::bucket::Sources as _;
use futures::StreamExt;
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use modelservice_fetch::{
    error::FetchError,
    source::{Form, Found, Object, Source},
};
use modelservice_test_stores::{
    bucket::{Bucket, Kind},
    processes::Servers,
};
use std::ops::Range;

/// Reads a part of an object.
pub(crate) async fn read(
    source: &dyn Source,
    object: &Object,
    range: Range<u64>,
) -> Result<Vec<u8>, FetchError> {
    let mut stream = source.read(object, range).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

async fn read_all(source: &dyn Source, found: &Found) -> Result<Vec<Vec<u8>>, FetchError> {
    let mut all = Vec::new();
    for object in &found.objects {
        all.push(read(source, object, 0..object.size.unwrap()).await?);
    }
    Ok(all)
}

fn names(found: &Found) -> Vec<&str> {
    found.objects.iter().map(|object| object.name.as_str()).collect()
}

fn assert_reason(result: Result<impl std::fmt::Debug, FetchError>, reason: FetchReason, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.reason, reason, "{}", error.message);
    assert!(error.message.contains(part), "{}", error.message);
}

/// The first thing that anybody does.
pub(crate) async fn an_object_is_found_and_read_whole_and_in_parts(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("models/a b/resnet.onnx", b"0123456789").await;
    let source = bucket.open("models/a b/resnet.onnx");
    let found = source.find(None).await.unwrap();
    assert_eq!(found.form, Form::Files);
    assert_eq!(names(&found), ["resnet.onnx"]);
    assert!(!found.identity.is_retained);
    let object = &found.objects[0];
    assert_eq!(
        (object.key.as_str(), object.size),
        ("models/a b/resnet.onnx", Some(10))
    );
    for (range, bytes) in [(0..10, "0123456789"), (3..5, "34"), (9..10, "9"), (4..4, "")] {
        assert_eq!(
            read(&*source, object, range.clone()).await.unwrap(),
            bytes.as_bytes(),
            "{range:?}"
        );
    }
    let again = source.find(Some(&found.identity)).await.unwrap();
    assert_eq!(again, found);
}

/// A prefix that matches too much is what users of other fetchers complain about.
pub(crate) async fn a_folder_is_exactly_what_is_below_it(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    for key in [
        "m/res/model.onnx",
        "m/res/data/weights.bin",
        "m/resnet/model.onnx",
        "m/res.onnx",
        "m/re",
    ] {
        bucket.put(key, key.as_bytes()).await;
    }
    for key in ["m/res", "m/res/"] {
        let source = bucket.open(key);
        let found = source.find(None).await.unwrap();
        assert_eq!(names(&found), ["data/weights.bin", "model.onnx"], "{key}");
        assert_eq!(found.identity.kind, IdentityKind::Folder);
        let bytes = read_all(&*source, &found).await.unwrap();
        assert_eq!(
            bytes,
            [b"m/res/data/weights.bin".to_vec(), b"m/res/model.onnx".to_vec()]
        );
        assert_eq!(source.find(Some(&found.identity)).await.unwrap(), found);
    }
    let everything = bucket.open("").find(None).await.unwrap();
    assert_eq!(everything.objects.len(), 5);
}

pub(crate) async fn an_object_comes_before_a_folder_of_its_name(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("m", b"object").await;
    bucket.put("m/model.onnx", b"folder").await;
    let found = bucket.open("m").find(None).await.unwrap();
    assert_eq!(names(&found), ["m"]);
    let found = bucket.open("m/").find(None).await.unwrap();
    assert_eq!(names(&found), ["model.onnx"]);
}

/// Otherwise a typing error becomes an empty model.
pub(crate) async fn nothing_is_an_error_that_names_what_is_similar(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("models/resnet/model.onnx", b"x").await;
    bucket.put("models/mobilenet.onnx", b"x").await;
    for (key, part) in [
        ("models/res", "There is a folder models/resnet/"),
        ("models/ResNet", "There is a folder models/resnet/"),
        ("models/resnet.onnx", "There is a folder models/resnet/"),
        ("models/mobilenet", "There is an object models/mobilenet.onnx"),
        (
            "models/moblienet.onnx",
            "There is an object models/mobilenet.onnx",
        ),
        ("models/zzz", "Check the URI"),
        (
            "models/resnet/model.onnx/",
            "There is an object models/resnet/model.onnx",
        ),
        ("other/resnet", "neither an object of this name nor one below"),
    ] {
        assert_reason(bucket.open(key).find(None).await, FetchReason::NotFound, part);
    }
    let uri = format!("{}://{}/models/res", kind.scheme(), bucket.name);
    assert_reason(
        bucket.open("models/res").find(None).await,
        FetchReason::NotFound,
        &uri,
    );
}

pub(crate) async fn a_bucket_that_does_not_exist_is_an_error(servers: &Servers, kind: Kind) {
    let mut bucket = Bucket::new(servers, kind).await;
    bucket.name = "nobody-has-this".to_owned();
    assert_reason(
        bucket.open("model.onnx").find(None).await,
        FetchReason::NotFound,
        "nobody-has-this",
    );
}

/// The promise of the whole thing: what serves cannot change under it.
pub(crate) async fn an_overwritten_object_is_not_read(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("model.onnx", b"old").await;
    let source = bucket.open("model.onnx");
    let found = source.find(None).await.unwrap();
    bucket.put("model.onnx", b"new").await;
    let changed = FetchReason::SourceChanged;
    assert_reason(
        source.find(Some(&found.identity)).await,
        changed,
        "spec.model.refresh",
    );
    assert_reason(
        read(&*source, &found.objects[0], 0..3).await,
        changed,
        "spec.model.refresh",
    );
    let newest = source.find(None).await.unwrap();
    assert_ne!(newest.identity, found.identity);
    bucket.delete("model.onnx").await;
    assert_reason(
        source.find(Some(&newest.identity)).await,
        changed,
        "spec.model.refresh",
    );
    assert_reason(
        read(&*source, &newest.objects[0], 0..3).await,
        changed,
        "spec.model.refresh",
    );
}

pub(crate) async fn a_changed_folder_is_not_read(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("m/model.onnx", b"old").await;
    bucket.put("m/weights.bin", b"w").await;
    let source = bucket.open("m");
    let found = source.find(None).await.unwrap();
    let changed = FetchReason::SourceChanged;
    bucket.put("m/extra.bin", b"e").await;
    assert_reason(
        source.find(Some(&found.identity)).await,
        changed,
        "spec.model.refresh",
    );
    bucket.delete("m/extra.bin").await;
    assert_eq!(source.find(Some(&found.identity)).await.unwrap(), found);
    bucket.put("m/model.onnx", b"new").await;
    assert_reason(
        source.find(Some(&found.identity)).await,
        changed,
        "spec.model.refresh",
    );
    assert_reason(
        read(&*source, &found.objects[0], 0..3).await,
        changed,
        "spec.model.refresh",
    );
    for key in ["m/model.onnx", "m/weights.bin"] {
        bucket.delete(key).await;
    }
    assert_reason(
        source.find(Some(&found.identity)).await,
        changed,
        "spec.model.refresh",
    );
}

/// A pod that starts a week later still gets its revision's model.
pub(crate) async fn an_old_version_is_read_where_the_bucket_keeps_it(servers: &Servers, kind: Kind) {
    let bucket = Bucket::versioned(servers, kind).await;
    bucket.put("model.onnx", b"old").await;
    let source = bucket.open("model.onnx");
    let found = source.find(None).await.unwrap();
    assert!(found.identity.is_retained, "{found:?}");
    let kinds = [IdentityKind::Version, IdentityKind::Generation];
    assert!(kinds.contains(&found.identity.kind), "{found:?}");
    bucket.put("model.onnx", b"newer").await;
    let again = source.find(Some(&found.identity)).await.unwrap();
    assert_eq!(again.identity, found.identity);
    assert_eq!(read(&*source, &again.objects[0], 0..3).await.unwrap(), b"old");
    assert_eq!(source.find(None).await.unwrap().objects[0].size, Some(5));
    bucket.delete("model.onnx").await;
    assert_eq!(read(&*source, &found.objects[0], 0..3).await.unwrap(), b"old");
}

pub(crate) async fn a_version_of_another_kind_is_a_wrong_configuration(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("model.onnx", b"x").await;
    let commit = SourceIdentity {
        kind: IdentityKind::Commit,
        value: "0".repeat(40),
        is_retained: true,
    };
    let result = bucket.open("model.onnx").find(Some(&commit)).await;
    assert_reason(result, FetchReason::ConfigInvalid, "is no version of an object");
}

/// More than a page of the store's list.
pub(crate) async fn a_folder_of_many_objects_is_listed_to_its_end(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    let keys: Vec<String> = (0..1_050).map(|index| format!("m/{index:05}")).collect();
    let puts = futures::stream::iter(&keys).for_each_concurrent(16, |key| bucket.put(key, b"x"));
    puts.await;
    for marker in ["m/", "m/data/"] {
        bucket.put(marker, b"").await;
    }
    let found = bucket.open("m").find(None).await.unwrap();
    assert_eq!(found.objects.len(), keys.len());
    assert!(found.objects.iter().all(|object| object.version.is_some()));
    let source = bucket.open("m");
    assert_eq!(read(&*source, &found.objects[1_049], 0..1).await.unwrap(), b"x");
}

/// Consoles and tools make them for each folder.
pub(crate) async fn a_marker_of_a_folder_is_no_file(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    for key in ["m/", "m/data/", "m/data/weights.bin", "m/model.onnx"] {
        bucket.put(key, if key.ends_with('/') { b"" } else { b"x" }).await;
    }
    bucket.put("m/empty.txt", b"").await;
    let source = bucket.open("m");
    let found = source.find(None).await.unwrap();
    assert_eq!(names(&found), ["data/weights.bin", "empty.txt", "model.onnx"]);
    assert_eq!(read(&*source, &found.objects[1], 0..0).await.unwrap(), b"");
}

/// Public models need no Secret.
pub(crate) async fn a_public_object_is_read_without_credentials(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("model.onnx", b"public").await;
    bucket.make_public().await;
    let source = bucket.source("model.onnx", &bucket.server(), None).unwrap();
    let found = source.find(None).await.unwrap();
    assert_eq!(read(&*source, &found.objects[0], 0..6).await.unwrap(), b"public");
}

/// The message is what a user has: it says what to do.
pub(crate) async fn who_is_denied_learns_why(servers: &Servers, kind: Kind) {
    let bucket = Bucket::new(servers, kind).await;
    bucket.put("private/model.onnx", b"x").await;
    if kind == Kind::S3 {
        let source = bucket
            .source("private/model.onnx", &bucket.server(), None)
            .unwrap();
        assert_reason(
            source.find(None).await,
            FetchReason::Denied,
            "carried no credentials",
        );
    }
    let secret = bucket.secret(&bucket.server());
    let (key, wrong) = match kind {
        Kind::S3 => ("AWS_SECRET_ACCESS_KEY", "wrong-secret-value"),
        _ => ("AZURE_STORAGE_KEY", "d3Jvbmctc2VjcmV0LXZhbHVl"),
    };
    secret.set(key, wrong);
    let source = bucket
        .source("private/model.onnx", &bucket.server(), Some(&secret))
        .unwrap();
    let error = source.find(None).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::Denied, "{}", error.message);
    for part in [key, "of the credentials' Secret", "answers 403: "] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    assert!(!error.message.contains(wrong), "{}", error.message);
}
