//! The cache that pods share: what it keeps, what it removes, and what it does when it is damaged.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{FetchCache, FetchConfig};
use modelservice_fetch::error::FetchError;
use modelservice_fetch::fetch::fetch;
use modelservice_fetch::resolve::Behaviour;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Fault, Scripted, content, object};

struct Volumes(tempfile::TempDir);

impl Volumes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn pod(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, source: &Scripted, key: &str, maximum_bytes: Option<u64>) -> FetchConfig {
        let cache = FetchCache {
            path: self.cache().display().to_string(),
            key: key.into(),
            maximum_bytes,
        };
        FetchConfig {
            uri: format!("scripted://{key}"),
            cache: Some(cache),
            ..source.config()
        }
    }

    /// Fetches a model of 1000 bytes with this name.
    async fn fetch(&self, key: &str, most: Option<u64>) {
        let source = Scripted::new(vec![object("model.onnx", &content(1000))]);
        let config = self.config(&source, key, most);
        fetch(
            &config,
            &source.opener(),
            Some(&self.pod(key)),
            &Behaviour::default(),
        )
        .await
        .unwrap();
        self.set_used(key);
    }

    /// Times of use that are a second apart, so that their order is certain.
    fn set_used(&self, key: &str) {
        let second = self.packages().len() as u64;
        let used = self
            .cache()
            .join("packages")
            .join(key)
            .join("..modelservice/used");
        let time = std::time::UNIX_EPOCH + Duration::from_secs(second);
        fs::File::options()
            .write(true)
            .open(used)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    fn packages(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache().join("packages")).unwrap();
        let mut names =
            Vec::from_iter(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        names.sort();
        names
    }
}

fn down(_: &FetchConfig) -> Result<Box<dyn modelservice_fetch::source::Source>, FetchError> {
    Err(FetchError::unavailable("down"))
}

#[tokio::test]
async fn another_pod_starts_from_the_cache_while_the_source_is_down() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![
        object("model.onnx", b"model"),
        object("sub/w.data", b"weights"),
    ]);
    let config = volumes.config(&source, "a", None);
    let behaviour = Behaviour::default();
    fetch(&config, &source.opener(), Some(&volumes.pod("one")), &behaviour)
        .await
        .unwrap();
    let outcome = fetch(&config, &down, Some(&volumes.pod("two")), &behaviour)
        .await
        .unwrap();
    assert_eq!(outcome.received, 0);
    assert_eq!(
        fs::read(volumes.pod("two").join("sub/w.data")).unwrap(),
        b"weights"
    );
    // The pods' copies are their own.
    fs::remove_dir_all(volumes.cache()).unwrap();
    fetch(&config, &down, Some(&volumes.pod("two")), &behaviour)
        .await
        .unwrap();
}

/// Whoever shares the volume could change what others serve.
#[tokio::test]
async fn a_damaged_package_is_downloaded_again_and_never_served() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let config = volumes.config(&source, "a", None);
    let behaviour = Behaviour::default();
    fetch(&config, &source.opener(), Some(&volumes.pod("one")), &behaviour)
        .await
        .unwrap();
    let cached = volumes.cache().join("packages/a/model.onnx");
    let damages: [fn(&Path); 3] = [
        |file| fs::write(file, "other").unwrap(),
        |file| fs::remove_file(file).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", file).unwrap();
        },
    ];
    for (index, damage) in damages.iter().enumerate() {
        damage(&cached);
        let pod = volumes.pod(&format!("pod-{index}"));
        let outcome = fetch(&config, &source.opener(), Some(&pod), &behaviour)
            .await
            .unwrap();
        assert_eq!(outcome.received, 5);
        assert_eq!(fs::read(pod.join("model.onnx")).unwrap(), b"model");
    }
}

#[tokio::test]
async fn what_was_used_longest_ago_makes_room() {
    let volumes = Volumes::new();
    for key in ["a", "b", "c"] {
        volumes.fetch(key, Some(3000)).await;
    }
    assert_eq!(volumes.packages(), ["a", "b", "c"]);
    volumes.set_used("a");
    volumes.fetch("d", Some(3000)).await;
    assert_eq!(volumes.packages(), ["a", "c", "d"]);
}

#[tokio::test]
async fn what_is_being_read_is_never_removed() {
    let volumes = Volumes::new();
    for key in ["a", "b"] {
        volumes.fetch(key, Some(2000)).await;
    }
    let uses = volumes.cache().join("uses");
    fs::write(uses.join("a.0123"), "x").unwrap();
    volumes.fetch("c", Some(2000)).await;
    assert_eq!(volumes.packages(), ["a", "c"]);
    fs::write(uses.join("c.0123"), "x").unwrap();
    volumes.fetch("d", Some(2000)).await;
    assert_eq!(
        volumes.packages(),
        ["a", "c", "d"],
        "rather too large than without a model"
    );

    // A reader that has died does not keep a package for ever.
    let old = std::time::SystemTime::now() - Duration::from_secs(601);
    fs::File::options()
        .write(true)
        .open(uses.join("a.0123"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    volumes.fetch("e", Some(3000)).await;
    assert_eq!(volumes.packages(), ["c", "d", "e"]);
}

#[tokio::test]
async fn what_dead_fetchers_left_is_removed() {
    let volumes = Volumes::new();
    volumes.fetch("a", None).await;
    let work = volumes.cache().join("work");
    for key in ["abandoned", "recent"] {
        fs::create_dir(work.join(key)).unwrap();
    }
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    fs::File::open(work.join("abandoned"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    fs::create_dir(volumes.cache().join("trash/x")).unwrap();
    volumes.fetch("b", None).await;
    assert!(!work.join("abandoned").exists() && work.join("recent").exists());
    assert_eq!(fs::read_dir(volumes.cache().join("trash")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_failed_download_leaves_its_lock_to_the_next_pod() {
    let volumes = Volumes::new();
    let all = content(10_000);
    let denied = FetchError::new(modelservice_contract::FetchReason::Denied, "403");
    let source = Scripted::new(vec![object("model.onnx", &all)]).with([Fault::Refused(denied)]);
    let config = volumes.config(&source, "a", None);
    let behaviour = Behaviour::default();
    let error = fetch(&config, &source.opener(), Some(&volumes.pod("one")), &behaviour)
        .await
        .unwrap_err();
    assert_eq!(error.message, "bucket/model.onnx: 403");
    fetch(&config, &source.opener(), Some(&volumes.pod("two")), &behaviour)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_that_leads_out_of_the_cache_is_refused() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![object("model.onnx", b"x")]);
    for key in ["", "..", "a/b", "../a", ".hidden"] {
        let config = volumes.config(&source, key, None);
        let error = fetch(
            &config,
            &source.opener(),
            Some(&volumes.pod("one")),
            &Behaviour::default(),
        )
        .await
        .unwrap_err();
        assert_eq!(
            error.reason,
            modelservice_contract::FetchReason::ConfigInvalid,
            "{key}"
        );
    }
}

/// Without a copy, the server reads the cache itself, and says nothing to it: its pod's lease keeps the package.
#[tokio::test]
async fn a_server_may_read_the_cache_itself() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![object("model.onnx", &content(1000))]);
    let behaviour = Behaviour::default();
    let config = volumes.config(&source, "a", Some(1000));
    fetch(&config, &source.opener(), None, &behaviour).await.unwrap();
    let outcome = fetch(&config, &down, None, &behaviour).await.unwrap();
    assert_eq!(outcome.received, 0);
    let model = volumes.cache().join("packages/a/model.onnx");
    assert_eq!(fs::read(model).unwrap(), content(1000));
    volumes.fetch("b", Some(1000)).await;
    assert_eq!(
        volumes.packages(),
        ["a", "b"],
        "rather too large than a server without its model"
    );
    let leases = fs::read_dir(volumes.cache().join("uses")).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(31 * 24 * 3600);
    for lease in leases {
        let lease = fs::File::options().write(true).open(lease.unwrap().path());
        lease.unwrap().set_modified(old).unwrap();
    }
    volumes.fetch("c", Some(1000)).await;
    assert_eq!(volumes.packages(), ["c"]);
}
