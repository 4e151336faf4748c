//! The two images that every node has from the start. They are built on this machine, without an image registry.
//! Archives are stored in .cache/images and rebuilt when their inputs change.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::command::output;
use crate::tools;

/// The image of the process that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/pause:1";
/// A small Linux for tests: `/bin/sh` and the usual programs, all from busybox.
pub(crate) const BUSYBOX: &str = "localhost/busybox:1";

/// The programs in `/bin` of the busybox image.
const APPLETS: [&str; 16] = [
    "sh", "cat", "cp", "date", "echo", "env", "httpd", "ls", "mkdir", "nc", "nslookup", "sleep", "test",
    "true", "wget", "yes",
];

/// The archives of [`PAUSE`] and [`BUSYBOX`].
pub(crate) fn archives() -> Result<[PathBuf; 2]> {
    let folder = tools::repository().join(".cache/images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Several clusters may start at once: one builds the images, and the others wait.
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok([pause(&folder)?, busybox(&folder)?])
}

fn pause(folder: &Path) -> Result<PathBuf> {
    let (archive, source) = (
        folder.join("pause.tar"),
        tools::repository().join("tests/cluster/images/pause.c"),
    );
    if !is_newer(&archive, &source) {
        let root = fresh(&folder.join("pause"))?;
        let mut compile = Command::new("cc");
        output(
            compile
                .args(["-Os", "-static", "-s", "-o"])
                .arg(root.join("pause"))
                .arg(&source),
        )
        .context("the pause image needs a C compiler and static libc: install gcc and libc6-dev")?;
        archive_of(&root, PAUSE, "/pause", &archive)?;
    }
    Ok(archive)
}

fn busybox(folder: &Path) -> Result<PathBuf> {
    let archive = folder.join("busybox.tar");
    let Some(program) = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
    else {
        bail!("busybox is missing; install the Debian package busybox-static");
    };
    if !is_newer(&archive, &program) {
        let root = fresh(&folder.join("busybox"))?;
        for below in ["bin", "tmp", "mnt"] {
            fs::create_dir(root.join(below))?;
        }
        fs::copy(&program, root.join("bin/busybox"))?;
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        archive_of(&root, BUSYBOX, "/bin/sh", &archive)?;
    }
    Ok(archive)
}

fn is_newer(made: &Path, source: &Path) -> bool {
    let time = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    made.exists() && time(made) >= time(source)
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(folder.to_path_buf())
}

/// Builds an image with one layer, the content of `root`.
fn archive_of(root: &Path, name: &str, program: &str, archive: &Path) -> Result<()> {
    let container = output(Command::new("buildah").args(["from", "scratch"]))?;
    let container = container.trim();
    let made = output(
        Command::new("buildah")
            .args(["add", "--quiet", container])
            .arg(root)
            .arg("/"),
    )
    .and_then(|_| {
        let config = ["config", "--cmd", program, "--env", "PATH=/bin", container];
        output(Command::new("buildah").args(config))?;
        let partial = archive.with_extension("new");
        let _ = fs::remove_file(&partial);
        let target = format!("docker-archive:{}:{name}", partial.display());
        output(Command::new("buildah").args(["commit", "--quiet", container, &target]))?;
        Ok(fs::rename(&partial, archive)?)
    });
    output(Command::new("buildah").args(["rm", container]))?;
    fs::remove_dir_all(root)?;
    made.with_context(|| format!("cannot make the image {name}"))
}
