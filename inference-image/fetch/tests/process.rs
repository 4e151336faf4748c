//! The program as a process: killed, stopped, started many times at once, and without space.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{FetchCache, FetchConfig, FetchFailure, FetchReason, Resolved};
use modelservice_fetch::source::{Folder, Source};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use support::{Running, content, fetching, local, logged, program};

const MEBIBYTE: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(120);

/// A model of this size in a folder of its own. Most of it is a hole.
fn model(folder: &Path, bytes: u64) -> PathBuf {
    let package = folder.join("source");
    fs::create_dir(&package).unwrap();
    let file = File::create(package.join("model.onnx")).unwrap();
    fs::write(package.join("names.txt"), "cat\ndog\n").unwrap();
    file.set_len(bytes).unwrap();
    package
}

/// The same, in the version that it has now.
async fn pinned(package: &Path) -> FetchConfig {
    let found = Folder::new(package).find(None).await.unwrap();
    FetchConfig {
        identity: Some(found.identity),
        ..local(package)
    }
}

fn succeeded(output: &Output) -> &Output {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn received(output: &Output) -> u64 {
    logged(succeeded(output), "the model is ready")["received"]
        .as_u64()
        .unwrap()
}

/// Complete blocks, of one MiB each.
fn blocks(work: &Path) -> u64 {
    let text = fs::read_to_string(work.join("objects/journal")).unwrap_or_default();
    text.lines().count().saturating_sub(1) as u64
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_fetch_that_is_killed_at_sixty_percent_loses_at_most_one_part() {
    let folder = tempfile::tempdir().unwrap();
    let size = 400 * MEBIBYTE;
    let (config, into) = (
        pinned(&model(folder.path(), size)).await,
        folder.path().join("into"),
    );
    let work = into.join("..modelservice/work");
    let mut running = Running(fetching(&config, &into).spawn().unwrap());
    wait_until("60 %", || blocks(&work) >= 240);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    assert!(!into.join("model.onnx").exists(), "it is not complete");
    let kept = blocks(&work);
    let output = fetching(&config, &into).output().unwrap();
    // Of the few bytes of the other file, a block is complete too.
    assert!(received(&output) <= size + 8 - (kept - 1) * MEBIBYTE);
    assert!(
        received(&output) <= (400 - 240 + 1) * MEBIBYTE,
        "{kept} blocks were kept"
    );
    assert_eq!(fs::metadata(into.join("model.onnx")).unwrap().len(), size);
    assert!(!work.exists());
}

#[tokio::test]
async fn a_fetch_that_is_told_to_stop_keeps_what_has_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let (config, into) = (
        pinned(&model(folder.path(), 400 * MEBIBYTE)).await,
        folder.path().join("into"),
    );
    let work = into.join("..modelservice/work");
    let running = fetching(&config, &into).spawn().unwrap();
    wait_until("a tenth", || blocks(&work) >= 40);
    let process = Pid::from_raw(running.id().try_into().unwrap()).unwrap();
    kill_process(process, Signal::TERM).unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(String::from_utf8_lossy(&output.stderr).contains("told to stop"));
    assert!(received(&fetching(&config, &into).output().unwrap()) <= 361 * MEBIBYTE);
}

#[tokio::test]
async fn a_pod_restarts_while_its_source_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let package = model(folder.path(), 5 * MEBIBYTE);
    let (config, into) = (pinned(&package).await, folder.path().join("into"));
    assert_eq!(
        received(&fetching(&config, &into).output().unwrap()),
        5 * MEBIBYTE + 8
    );
    fs::remove_dir_all(&package).unwrap();
    assert_eq!(received(&fetching(&config, &into).output().unwrap()), 0);
}

#[tokio::test]
async fn two_fetchers_of_one_folder_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let size = 100 * MEBIBYTE;
    let (config, into) = (
        pinned(&model(folder.path(), size)).await,
        folder.path().join("into"),
    );
    let both = [(); 2].map(|()| fetching(&config, &into).spawn().unwrap());
    let outputs = both.map(|one| one.wait_with_output().unwrap());
    assert_eq!(outputs.iter().map(received).sum::<u64>(), size + 8);
}

/// The store would be asked ten times for the same bytes, when it is needed most.
#[tokio::test]
async fn ten_pods_that_start_together_fetch_each_byte_once() {
    let folder = tempfile::tempdir().unwrap();
    let size = 60 * MEBIBYTE;
    let mut config = pinned(&model(folder.path(), size)).await;
    config.cache = Some(FetchCache {
        path: folder.path().join("cache").display().to_string(),
        key: "resnet-1".into(),
        maximum_bytes: Some(size / 2),
    });
    let pods = Vec::from_iter((0..10).map(|pod| {
        let into = folder.path().join(format!("pod-{pod}"));
        (into.clone(), fetching(&config, &into).spawn().unwrap())
    }));
    let mut total = 0;
    for (into, pod) in pods {
        let output = pod.wait_with_output().unwrap();
        total += received(&output);
        assert_eq!(fs::read(into.join("names.txt")).unwrap(), b"cat\ndog\n");
    }
    assert_eq!(total, size + 8);
    let left = |folder_name: &str| {
        fs::read_dir(folder.path().join("cache").join(folder_name))
            .unwrap()
            .count()
    };
    assert_eq!(
        [left("packages"), left("work"), left("locks"), left("uses")],
        [1, 0, 0, 0]
    );
}

#[tokio::test]
async fn the_next_pod_goes_on_where_one_was_killed_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let size = 400 * MEBIBYTE;
    let mut config = pinned(&model(folder.path(), size)).await;
    let cache = folder.path().join("cache");
    config.cache = Some(FetchCache {
        path: cache.display().to_string(),
        key: "resnet-1".into(),
        maximum_bytes: None,
    });
    let work = cache.join("work/resnet-1");
    let mut running = Running(fetching(&config, &folder.path().join("one")).spawn().unwrap());
    wait_until("half", || blocks(&work) >= 200);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    assert!(cache.join("locks/resnet-1.lock").exists());
    let begun = Instant::now();
    let output = fetching(&config, &folder.path().join("two")).output().unwrap();
    assert!(received(&output) <= 201 * MEBIBYTE);
    let lock = logged(&output, "taking over the lock of a fetcher that has died");
    assert!(
        lock["lock"].as_str().unwrap().contains("resnet-1"),
        "{:?}",
        begun.elapsed()
    );
}

/// A file system in memory, of this size.
struct Volume(PathBuf);

impl Volume {
    /// `None` where mounts are not possible.
    fn new(path: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match mount(
            "tmpfs",
            &path,
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        ) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                eprintln!("skipped: a volume cannot be mounted here: {error}");
                None
            }
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_says_which_volume_and_how_much_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let package = model(folder.path(), 20 * MEBIBYTE);
    let Some(volume) = Volume::new(folder.path().join("volume"), 8 * MEBIBYTE) else {
        return;
    };
    let log = folder.path().join("termination-log");
    fs::write(&log, "").unwrap();
    let fetch = |config: &FetchConfig| {
        let mut command = fetching(config, &volume.0);
        let output = command.arg("--termination-log").arg(&log).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(39),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let failure: FetchFailure = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
        assert_eq!(failure.reason, FetchReason::SystemError);
        let volume = format!("the volume at {} is full", volume.0.display());
        assert!(failure.message.contains(&volume), "{}", failure.message);
        failure.message
    };
    let message = fetch(&pinned(&package).await);
    assert!(
        message.contains(&format!("{} more bytes are needed", 20 * MEBIBYTE + 8)),
        "{message}"
    );
    assert!(message.contains("Give the model a larger volume"), "{message}");

    // An archive of a few kilobytes that unpacks to more than there is: only while it is unpacked is that known.
    fs::remove_file(package.join("names.txt")).unwrap();
    let packed = std::process::Command::new("tar")
        .args(["-czf", "m.tar.gz", "source"])
        .current_dir(folder.path())
        .status();
    assert!(packed.unwrap().success());
    let message = fetch(&pinned(&folder.path().join("m.tar.gz")).await);
    assert!(message.contains("and more are needed"), "{message}");
}

#[tokio::test]
async fn by_hand_a_model_is_resolved_fetched_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let package = model(folder.path(), 1000);
    fs::write(package.join("model.onnx"), content(1000)).unwrap();
    let uri = format!("file://{}", package.display());
    let log = folder.path().join("termination-log");
    fs::write(&log, "").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = program();
        command
            .args(arguments)
            .arg("--termination-log")
            .arg(&log)
            .current_dir(folder.path());
        command.output().unwrap()
    };
    let output = run(&["resolve", &uri]);
    let resolved: Resolved = serde_json::from_slice(&succeeded(&output).stdout).unwrap();
    assert_eq!((resolved.objects, resolved.bytes), (2, Some(1008)));
    assert_eq!(
        serde_json::from_slice::<Resolved>(&fs::read(&log).unwrap()).unwrap(),
        resolved
    );

    succeeded(&run(&["fetch", &uri, "into"]));
    let output = run(&["verify", "into"]);
    let digest = String::from_utf8(succeeded(&output).stdout.clone()).unwrap();
    assert!(digest.starts_with("sha256:"), "{digest}");
    succeeded(&run(&["verify", "into", "--digest", digest.trim()]));
    succeeded(&run(&["fetch", &uri, "other", "--digest", digest.trim()]));
    fs::write(folder.path().join("into/names.txt"), "dog\ncat\n").unwrap();
    assert_eq!(run(&["verify", "into"]).status.code(), Some(37));

    for (arguments, code, words) in [
        (&["fetch"][..], 30, "nothing says what to fetch"),
        (&["fetch", "ftp://x/y", "into"], 30, "names no kind of source"),
        (
            &["fetch", &uri, "into", "--digest", "sha256:ABC"],
            30,
            "64 lower-case",
        ),
        // It would remove what is there.
        (&["fetch", &uri, "source"], 30, "name an empty folder"),
        (&["fetch", "file:///no/such/model", "new"], 31, "does not exist"),
        (&["verify", "no/such"], 39, "cannot read"),
    ] {
        let output = run(arguments);
        let failure: FetchFailure = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(code, i32::from(failure.reason.code()));
        assert!(
            failure.message.contains(words),
            "{arguments:?}: {}",
            failure.message
        );
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for reason in FetchReason::ALL {
        let line = format!("{} {reason:?}", reason.code());
        assert!(help.contains(&line), "{line}");
    }
}
