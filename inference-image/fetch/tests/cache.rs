//! The cache that pods share: what it keeps, what it removes, and what it does when it is damaged.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{FetchCache, FetchConfig};
use modelservice_fetch::error::FetchError;
use modelservice_fetch::fetch::fetch;
use modelservice_fetch::resolve::Behaviour;
use modelservice_fetch::store::{Beats, Cache, Lock, Turn, examine};
use sha2::{Digest, Sha256};
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

/// Whoever can write to the volume can write a marker that fits: only bytes count.
#[tokio::test]
async fn a_marker_is_not_believed() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let digest = format!("sha256:{:x}", Sha256::digest("model"));
    let config = FetchConfig {
        digest: Some(digest.clone()),
        ..volumes.config(&source, "a", None)
    };
    let behaviour = Behaviour::default();
    let pod = volumes.pod("one");
    fetch(&config, &source.opener(), Some(&pod), &behaviour)
        .await
        .unwrap();
    let poison = async |folder: &Path| {
        fs::write(folder.join("model.onnx"), "other").unwrap();
        let file = folder.join("..modelservice/marker.json");
        let mut marker: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        marker["digest"] = examine(folder).await.unwrap().digest.into();
        marker["modelDigest"] = digest.clone().into();
        fs::write(&file, marker.to_string()).unwrap();
    };
    poison(&volumes.cache().join("packages/a")).await;
    let other = volumes.pod("two");
    let outcome = fetch(&config, &source.opener(), Some(&other), &behaviour)
        .await
        .unwrap();
    assert_eq!(outcome.received, 5);
    assert_eq!(fs::read(other.join("model.onnx")).unwrap(), b"model");
    poison(&pod).await;
    fetch(&config, &source.opener(), Some(&pod), &behaviour)
        .await
        .unwrap();
    assert_eq!(fs::read(pod.join("model.onnx")).unwrap(), b"model");
}

/// Otherwise it would be downloaded for ever.
#[tokio::test]
async fn a_package_that_is_damaged_again_is_given_up() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let config = volumes.config(&source, "a", None);
    let cached = volumes.cache().join("packages/a/model.onnx");
    let download = async || {
        fetch(&config, &source.opener(), None, &Behaviour::default())
            .await
            .unwrap();
    };
    download().await;
    let cache = Cache::open(config.cache.as_ref().unwrap(), Beats::default()).unwrap();
    fs::write(&cached, "other").unwrap();
    assert!(matches!(cache.turn(&config, None).await.unwrap(), Turn::Ours(_)));
    assert!(!cached.exists());
    download().await;
    fs::write(&cached, "other").unwrap();
    let error = cache.turn(&config, None).await.unwrap_err();
    assert_eq!(error.reason, modelservice_contract::FetchReason::SystemError);
    assert!(error.message.contains("spec.fetch.cache"), "{}", error.message);
    assert!(cached.exists());
}

/// Otherwise a slow reader removes what another one has just downloaded.
#[tokio::test]
async fn a_damaged_package_is_removed_by_the_owner_of_its_lock_only() {
    let volumes = Volumes::new();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let config = volumes.config(&source, "a", None);
    fetch(&config, &source.opener(), None, &Behaviour::default())
        .await
        .unwrap();
    let package = volumes.cache().join("packages/a");
    let whole = volumes.pod("whole");
    fs::rename(&package, &whole).unwrap();
    // The same package, as another download has made it.
    fetch(&config, &source.opener(), None, &Behaviour::default())
        .await
        .unwrap();
    fs::write(package.join("model.onnx"), "other").unwrap();
    let lock = volumes.cache().join("locks/a.lock");
    let owner = Lock::try_take(&lock, Beats::default(), &mut None)
        .unwrap()
        .unwrap();
    let cache = Cache::open(config.cache.as_ref().unwrap(), Beats::default()).unwrap();
    let turn = cache.turn(&config, None);
    let replace = async {
        // Damage is found before the lock is asked for, and a reader's file is there as long as it reads.
        let uses = volumes.cache().join("uses");
        let is_read = || {
            fs::read_dir(&uses)
                .unwrap()
                .flatten()
                .any(|file| is_of_a_reader(&file))
        };
        while !is_read() {
            tokio::task::yield_now().await;
        }
        while is_read() {
            tokio::task::yield_now().await;
        }
        assert!(package.exists());
        fs::remove_dir_all(&package).unwrap();
        fs::rename(&whole, &package).unwrap();
        drop(owner);
    };
    let (turn, ()) = tokio::join!(turn, replace);
    assert!(matches!(turn.unwrap(), Turn::Ready(None, _)));
    assert_eq!(fs::read(package.join("model.onnx")).unwrap(), b"model");
}

fn is_of_a_reader(file: &fs::DirEntry) -> bool {
    let name = file.file_name().into_string().unwrap();
    name.starts_with("a.") && !name.contains("lease")
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
    // The lock of a machine that never came back.
    fs::write(volumes.cache().join("locks/abandoned.lock"), "{}").unwrap();
    fs::File::options()
        .write(true)
        .open(volumes.cache().join("locks/abandoned.lock"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    fs::create_dir(volumes.cache().join("trash/x")).unwrap();
    volumes.fetch("b", None).await;
    assert!(!work.join("abandoned").exists() && work.join("recent").exists());
    assert_eq!(fs::read_dir(volumes.cache().join("trash")).unwrap().count(), 0);
}

/// What cannot be removed is no reason to serve nothing.
#[tokio::test]
async fn what_cannot_be_cleaned_up_does_not_keep_a_model_from_its_pod() {
    let volumes = Volumes::new();
    volumes.fetch("a", None).await;
    // A file, where folders are removed.
    fs::write(volumes.cache().join("trash/x"), "x").unwrap();
    volumes.fetch("b", None).await;
    assert_eq!(volumes.packages(), ["a", "b"]);
}

/// Otherwise a cache without a size fills its volume, and then no model is fetched.
#[tokio::test]
async fn a_cache_without_a_size_makes_room_on_its_volume() {
    let volumes = Volumes::new();
    for key in ["a", "b"] {
        volumes.fetch(key, None).await;
    }
    let uses = volumes.cache().join("uses");
    fs::write(uses.join("b.0123"), "x").unwrap();
    let source = Scripted::new(vec![object("model.onnx", b"model")]);
    let config = volumes.config(&source, "c", None);
    let cache = Cache::open(config.cache.as_ref().unwrap(), Beats::default()).unwrap();
    cache.make_room(1000, 1000).await.unwrap();
    assert_eq!(volumes.packages(), ["a", "b"]);
    // More than any volume has.
    cache.make_room(1000, u64::MAX).await.unwrap();
    assert_eq!(volumes.packages(), ["b"]);
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
