//! A model of 2 GB, fetched by a process that may use 64 MiB, which needs root: in a control group, as in a pod.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{fetching, local, logged};

const MEBIBYTE: u64 = 1 << 20;

#[test]
fn two_gigabytes_fit_through_sixty_four_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    let size = 2 * 1024 * MEBIBYTE;
    File::create(folder.path().join("model.onnx"))
        .unwrap()
        .set_len(size)
        .unwrap();
    let group = Group::new(64 * MEBIBYTE);
    let config = local(&folder.path().join("model.onnx"));
    let fetch = fetching(&config, &folder.path().join("into"));
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "echo $$ > {}/cgroup.procs && exec \"$@\"",
            group.0.display()
        ))
        .arg("sh");
    command.arg(fetch.get_program()).args(fetch.get_args());
    command.envs(fetch.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{:?}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(logged(&output, "the model is ready")["received"], size);
}

/// A control group, removed with the test.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("msvc-fetch-{}", std::process::id());
        let is_unified = root.join("cgroup.controllers").exists();
        let (group, files) = if is_unified {
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (Self(root.join(name)), ["memory.max", "memory.swap.max"])
        } else {
            (
                Self(root.join("memory").join(name)),
                ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
            )
        };
        fs::create_dir(&group.0).unwrap_or_else(|error| panic!("{}: {error}", group.0.display()));
        for (index, file) in files.iter().enumerate() {
            let limit = if is_unified && index == 1 { 0 } else { bytes };
            // Without swap, there is no second file.
            if index == 0 || group.0.join(file).exists() {
                fs::write(group.0.join(file), limit.to_string()).unwrap();
            }
        }
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets go of it a moment after its last process.
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}
