//! What the tests of both sources need.

use futures::TryStreamExt;
use modelservice_fetch::{
    credentials::Credentials,
    error::FetchError,
    http::{Client, Policy, Timeouts},
    source::{Found, Object, Source, access::Access},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use url::Url;

/// As in a pod, but that the tests' servers are on the machine itself, and need not be waited for long.
fn client() -> Client {
    let timeouts = Timeouts {
        headers: Duration::from_secs(5),
        idle: Duration::from_secs(2),
        ..Timeouts::default()
    };
    Client::new(Policy::default().with_loopback(), None, timeouts).unwrap()
}

/// How a source at this server is reached.
pub(crate) fn access(endpoint: &str, credentials: Option<Credentials>) -> Access {
    Access {
        client: client(),
        providers: None,
        credentials,
        endpoint: Some(Url::parse(endpoint).unwrap()),
    }
}

/// A mounted Secret: its keys, as files.
pub(crate) fn secret(keys: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (key, value) in keys {
        fs::write(folder.path().join(key), value).unwrap();
    }
    folder
}

pub(crate) fn credentials(folder: &TempDir) -> Option<Credentials> {
    Some(Credentials::open(folder.path()).unwrap())
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The whole object, in parts of at most `part` bytes.
pub(crate) async fn read(source: &dyn Source, object: &Object, part: u64) -> Result<Vec<u8>, FetchError> {
    let size = object.size.unwrap();
    let mut bytes = Vec::new();
    let mut start = 0;
    while start < size {
        let end = size.min(start + part);
        let stream = source.read(object, start..end).await?;
        let pieces: Vec<_> = stream.try_collect().await?;
        bytes.extend(pieces.concat());
        assert_eq!(bytes.len() as u64, end);
        start = end;
    }
    Ok(bytes)
}

/// All objects, by name.
pub(crate) async fn read_all(source: &dyn Source, found: &Found) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for object in &found.objects {
        let content = read(source, object, 1000).await.unwrap();
        files.insert(object.name.clone(), content);
    }
    files
}

pub(crate) fn names(found: &Found) -> Vec<&str> {
    found.objects.iter().map(|object| object.name.as_str()).collect()
}

/// Content that differs for each seed, and in each of its parts.
pub(crate) fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let byte = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(byte).collect()
}
