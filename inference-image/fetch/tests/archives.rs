//! What archives and layers may hold, and what is refused: made by `tar`, `zip` and by hand, for entries that those would not
//! write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use flate2::Compression;
use flate2::write::GzEncoder;
use modelservice_contract::{FetchConfig, FetchReason, IdentityKind, SourceIdentity};
use modelservice_fetch::error::FetchError;
use modelservice_fetch::fetch::fetch;
use modelservice_fetch::resolve::Behaviour;
use modelservice_fetch::source::Form;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::{Scripted, object};
use tar::{Builder, EntryType, Header};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tar, entry by entry. Names are written as they are.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, name: &str, target: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", content.as_bytes())
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    fn with_model(self) -> Self {
        self.file("model.onnx", "model")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn zip(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// By the program, with several frames as parallel compressors write them.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let half = bytes.len() / 2;
    let compress = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), bytes).unwrap();
        let output = Command::new("zstd")
            .args(["-q", "-c", "-19", "x"])
            .current_dir(folder.path())
            .output();
        output.unwrap().stdout
    };
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    [compress(&bytes[..half]), skippable, compress(&bytes[half..])].concat()
}

async fn fetched(source: Scripted, maximum: Option<u64>) -> Result<BTreeMap<String, String>, FetchError> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = source.config();
    config.maximum_bytes = maximum;
    fetch(
        &config,
        &source.opener(),
        Some(folder.path()),
        &Behaviour::default(),
    )
    .await?;
    let mut files = BTreeMap::new();
    list(folder.path(), folder.path(), &mut files);
    Ok(files)
}

fn list(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if name.starts_with("..") {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            list(root, &path, files);
        } else if metadata.is_symlink() {
            files.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else {
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o644, "{name}");
            files.insert(name, fs::read_to_string(path).unwrap());
        }
    }
}

async fn archive(name: &str, bytes: &[u8]) -> Result<BTreeMap<String, String>, FetchError> {
    fetched(Scripted::new(vec![object(name, bytes)]), None).await
}

fn package(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(name, content)| ((*name).into(), (*content).into()))
        .collect()
}

#[tokio::test]
async fn every_kind_of_archive_becomes_the_same_package() {
    let tar = Tar::new().with_model().file("sub/w.data", "weights").bytes();
    let in_a_folder = Tar::new()
        .entry(EntryType::Directory, "./resnet/", "", b"")
        .file("./resnet/model.onnx", "model")
        .file("./resnet/sub/w.data", "weights")
        .bytes();
    let wanted = package(&[("model.onnx", "model"), ("sub/w.data", "weights")]);
    for (name, bytes) in [
        ("m.tar", tar.clone()),
        ("m.tar.gz", gzip(&tar)),
        ("m.tgz", [gzip(&tar[..700]), gzip(&tar[700..])].concat()),
        ("m.tar.zst", zstd(&tar)),
        (
            "m.zip",
            zip(&[("model.onnx", "model"), ("sub/w.data", "weights")]),
        ),
        // What is in it counts, not its name.
        ("wrong-name.tar", gzip(&tar)),
        ("m.tar", in_a_folder),
        (
            "from-macos.zip",
            zip(&[
                ("resnet/model.onnx", "model"),
                ("resnet/sub/w.data", "weights"),
                ("__MACOSX/resnet/._model.onnx", "x"),
            ]),
        ),
    ] {
        let files = archive(name, &bytes).await;
        assert_eq!(files.as_ref(), Ok(&wanted), "{name}");
    }
}

#[tokio::test]
async fn files_become_a_package() {
    let files = |files: &[(&str, &str)]| {
        let objects = files
            .iter()
            .map(|(name, content)| object(name, content.as_bytes()));
        fetched(Scripted::new(objects.collect()), None)
    };
    assert_eq!(
        files(&[("resnet50.onnx", "m")]).await,
        Ok(package(&[("model.onnx", "m")]))
    );
    assert_eq!(
        files(&[("resnet50.onnx", "m"), ("resnet50.onnx.data", "w")]).await,
        Ok(package(&[("model.onnx", "m"), ("resnet50.onnx.data", "w")]))
    );
    // An archive beside other files is one of them.
    assert_eq!(
        files(&[("model.onnx", "m"), ("other.onnx", "o"), ("x.zip", "z")]).await,
        Ok(package(&[
            ("model.onnx", "m"),
            ("other.onnx", "o"),
            ("x.zip", "z")
        ]))
    );
    for (objects, words) in [
        (
            &[("a.onnx", "m"), ("b.onnx", "m")][..],
            "several models, a.onnx, b.onnx",
        ),
        (
            &[("weights.bin", "w"), ("x/y/m.onnx", "")],
            "no model.onnx and no other .onnx file at its root, only: weights.bin",
        ),
        (&[("model.onnx", "m"), ("../x", "")], "\"../x\" leads out"),
        (&[("model.onnx", "m"), ("Model.onnx", "")], "only by case"),
    ] {
        let error = files(objects).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::PackageInvalid);
        assert!(error.message.contains(words), "{error}");
    }
}

#[tokio::test]
async fn links_inside_a_package_stay() {
    let tar = Tar::new()
        .link("model.onnx", "blobs/abc")
        .link("latest", "blobs")
        .file("blobs/abc", "model")
        .entry(EntryType::Link, "again.data", "blobs/abc", b"")
        .bytes();
    let wanted = package(&[
        ("again.data", "model"),
        ("blobs/abc", "model"),
        ("latest", "-> blobs"),
        ("model.onnx", "-> blobs/abc"),
    ]);
    assert_eq!(archive("m.tar", &tar).await, Ok(wanted));
}

/// Each is refused, with the name of the entry.
#[tokio::test]
async fn archives_that_break_a_rule_are_refused() {
    let tar = || Tar::new().with_model();
    let long = "x".repeat(256);
    let huge_header = {
        let mut builder = tar().0;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(8 << 20);
        header.set_cksum();
        builder.append(&header, &vec![b'x'; 8 << 20][..]).unwrap();
        builder.into_inner().unwrap()
    };
    let long_name = {
        let mut builder = tar().0;
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_cksum();
        builder.append_data(&mut header, &long, &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    for (what, bytes, words) in [
        (
            "../",
            tar().file("../x", "").bytes(),
            "\"../x\" leads out of the package",
        ),
        (
            "a/../../x",
            tar().file("a/../../x", "").bytes(),
            "\"a/../../x\" leads out",
        ),
        (
            "an absolute path",
            tar().file("/etc/x", "").bytes(),
            "\"/etc/x\" is an absolute path",
        ),
        (
            "a reserved name below the only folder",
            Tar::new()
                .file("pkg/model.onnx", "model")
                .file("pkg/..modelservice/marker.json", "{}")
                .bytes(),
            "remove ..modelservice from the archive",
        ),
        (
            "a reserved file below the only folder",
            Tar::new()
                .file("pkg/model.onnx", "model")
                .file("pkg/..weights", "x")
                .bytes(),
            "\"pkg/..weights\" would begin with ..",
        ),
        (
            "a link out",
            tar().link("x", "../y").bytes(),
            "\"x\" is a link to \"../y\", outside",
        ),
        (
            "an absolute link",
            tar().link("x", "/etc/passwd").bytes(),
            "\"x\" is a link to \"/etc/passwd\", outside",
        ),
        (
            "a link out through another link",
            tar().link("sub/up", "..").link("x", "sub/up/../y").bytes(),
            "\"x\" is outside its package",
        ),
        (
            "a link to nothing",
            tar().link("x", "y").bytes(),
            "\"x\" is a link to \"y\", which does not exist",
        ),
        (
            "links in a circle",
            tar().link("x", "y").link("y", "x").bytes(),
            "loop of links",
        ),
        (
            "a file through a link",
            tar().link("a", "b").file("a/x", "").bytes(),
            "\"a/x\" is below \"a\"",
        ),
        (
            "a hard link out",
            tar().entry(EntryType::Link, "x", "../y", b"").bytes(),
            "\"x\" is a hard link whose target leads out",
        ),
        (
            "a hard link to nothing",
            tar().entry(EntryType::Link, "x", "y", b"").bytes(),
            "\"x\" is a hard link to \"y\"",
        ),
        (
            "a pipe",
            tar().entry(EntryType::Fifo, "x", "", b"").bytes(),
            "\"x\" is a named pipe",
        ),
        (
            "a device",
            tar().entry(EntryType::Char, "x", "", b"").bytes(),
            "\"x\" is a device",
        ),
        (
            "a sparse file",
            tar().entry(EntryType::GNUSparse, "x", "", b"").bytes(),
            "\"x\" is a sparse file",
        ),
        (
            "a name twice",
            tar().file("x", "1").file("x", "2").bytes(),
            "\"x\" is in the archive twice",
        ),
        (
            "names that differ by case",
            tar().file("X/a", "").file("x/b", "").bytes(),
            "\"x/b\" differs from \"X\" only by case",
        ),
        (
            "a name of Kubernetes",
            tar().file("..data", "").bytes(),
            "\"..data\" begins with ..",
        ),
        (
            "a name of two lines",
            tar().file("a\nb", "").bytes(),
            "control characters",
        ),
        ("a name that is too long", long_name, "more than 255 bytes"),
        ("a header of megabytes", huge_header, "too long"),
        (
            "a folder instead of the model",
            Tar::new()
                .entry(EntryType::Directory, "model.onnx/", "", b"")
                .bytes(),
            "is empty",
        ),
        ("no entries", Tar::new().bytes(), "the package is empty"),
        ("no archive", vec![7; 2000], "neither tar"),
        (
            "an incomplete archive",
            gzip(&tar().bytes())[..40].to_vec(),
            "cannot be unpacked",
        ),
        (
            "a wrong checksum",
            {
                let mut bytes = gzip(&tar().bytes());
                let at = bytes.len() - 6;
                bytes[at] ^= 1;
                bytes
            },
            "cannot be unpacked",
        ),
    ] {
        let error = archive("m.tar", &bytes).await.expect_err(what);
        assert_eq!(error.reason, FetchReason::PackageInvalid, "{what}: {error}");
        assert!(error.message.contains(words), "{what}: {error}");
    }
}

#[tokio::test]
async fn zips_that_break_a_rule_are_refused() {
    let link = |target: &str| {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default();
        writer.start_file("model.onnx", options).unwrap();
        writer.add_symlink("x", target, options).unwrap();
        writer.finish().unwrap().into_inner()
    };
    // The writer refuses a name that it has, so the second gets its name afterwards, in both of its headers.
    let twice = replaced(
        &zip(&[("model.onnx", "m"), ("xa", "1"), ("xb", "2")]),
        b"xb",
        b"xa",
    );
    let encrypted = {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.onnx"), "m").unwrap();
        let zipped = Command::new("zip")
            .args(["-q", "-P", "secret", "m.zip", "model.onnx"])
            .current_dir(folder.path())
            .status();
        assert!(zipped.unwrap().success());
        fs::read(folder.path().join("m.zip")).unwrap()
    };
    // Only one of its two headers names another file.
    let cloaked = {
        let mut bytes = zip(&[("model.onnx", "m"), ("xa", "1")]);
        let at = find(&bytes, b"xa").unwrap();
        bytes[at..at + 2].copy_from_slice(b"xb");
        bytes
    };
    for (what, bytes, words) in [
        (
            "../",
            zip(&[("model.onnx", "m"), ("../x", "")]),
            "\"../x\" leads out",
        ),
        (
            "an absolute path",
            zip(&[("model.onnx", "m"), ("/x", "")]),
            "\"/x\" is an absolute path",
        ),
        (
            "backslashes",
            zip(&[("model.onnx", "m"), ("a\\x", "")]),
            "backslash",
        ),
        (
            "a link out",
            link("../../y"),
            "\"x\" is a link to \"../../y\", outside",
        ),
        ("a name twice", twice, "\"xa\" is in the archive twice"),
        (
            "names that differ by case",
            zip(&[("model.onnx", "m"), ("a", ""), ("A", "")]),
            "only by case",
        ),
        ("a password", encrypted, "cannot be unpacked"),
        ("headers that differ", cloaked, "cannot be unpacked"),
        (
            "cut off",
            zip(&[("model.onnx", "m")])[..60].to_vec(),
            "cannot be unpacked",
        ),
    ] {
        let error = archive("m.zip", &bytes).await.expect_err(what);
        assert_eq!(error.reason, FetchReason::PackageInvalid, "{what}: {error}");
        assert!(error.message.contains(words), "{what}: {error}");
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while let Some(at) = find(&bytes, from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// They end at the bound, not when the disk is full.
#[tokio::test]
async fn what_unpacks_to_too_much_ends_at_the_bound() {
    let zeros = "\0".repeat(20 << 20);
    let tar = Tar::new().with_model().file("zeros", &zeros).bytes();
    for (name, bytes) in [
        ("m.zip", zip(&[("model.onnx", "m"), ("zeros", &zeros)])),
        ("m.tar.gz", gzip(&tar)),
        ("m.tar.zst", zstd(&tar)),
    ] {
        assert!(bytes.len() < 300_000, "{name}: {}", bytes.len());
        let source = Scripted::new(vec![object(name, &bytes)]);
        let error = fetched(source, Some(1 << 20)).await.unwrap_err();
        assert_eq!(error.reason, FetchReason::PackageInvalid, "{name}");
        assert!(
            error
                .message
                .contains("\"zeros\" makes the package larger than 1048576 bytes"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_million_entries_end_at_the_bound() {
    let mut tar = Tar::new().with_model();
    // Folders are the cheapest entries: one header each.
    for index in 0..100_001 {
        tar = tar.entry(EntryType::Directory, &format!("{index}/"), "", b"");
    }
    let error = archive("m.tar", &tar.bytes()).await.unwrap_err();
    assert!(error.message.contains("at most 100000"), "{error}");
}

#[tokio::test]
async fn layers_come_one_over_the_other() {
    let layers = |layers: Vec<Vec<u8>>| {
        let objects = layers
            .iter()
            .enumerate()
            .map(|(index, bytes)| object(&format!("{index:04}.tar"), bytes));
        let mut source = Scripted::new(objects.collect());
        source.form = Form::Layers;
        fetched(source, None)
    };
    let lower = Tar::new()
        .file("model.onnx", "old")
        .file("names.txt", "cat")
        .file("a/one", "1")
        .file("a/two", "2")
        .file("b/three", "3")
        .file("c", "a file")
        .bytes();
    let upper = Tar::new()
        .file("a/.wh.one", "")
        .file("b/four", "4")
        .file("b/.wh..wh..opq", "")
        .file(".wh.names.txt", "")
        .file("/model.onnx", "new")
        .file("c/d", "now in a folder")
        .link("link", "/a/two");
    // A folder takes the place of a file only if it says so.
    let error = layers(vec![lower.clone(), upper.bytes()]).await.unwrap_err();
    assert!(error.message.contains("\"c/d\" is below \"c\""), "{error}");
    let upper = Tar::new()
        .file("a/.wh.one", "")
        .file("b/four", "4")
        .file("b/.wh..wh..opq", "")
        .file(".wh.names.txt", "")
        .file("/model.onnx", "new")
        .entry(EntryType::Directory, "c/", "", b"")
        .file("c/d", "now in a folder")
        .link("b/link", "/a/two")
        .bytes();
    let wanted = package(&[
        ("a/two", "2"),
        ("b/four", "4"),
        ("b/link", "-> ../a/two"),
        ("c/d", "now in a folder"),
        ("model.onnx", "new"),
    ]);
    for upper in [upper.clone(), gzip(&upper), zstd(&upper)] {
        assert_eq!(layers(vec![gzip(&lower), upper]).await.as_ref(), Ok(&wanted));
    }
    let error = layers(vec![lower, zip(&[("x", "")])]).await.unwrap_err();
    assert!(error.message.contains("no layer"), "{error}");

    // Tools for models push files beside folders.
    let mut source = Scripted::new(vec![
        object("0000.tar", &Tar::new().file("tokens/a", "1").bytes()),
        object("model.onnx", b"model"),
        object("tokens/b", b"2"),
    ]);
    source.form = Form::Layers;
    let wanted = package(&[("model.onnx", "model"), ("tokens/a", "1"), ("tokens/b", "2")]);
    assert_eq!(fetched(source, None).await, Ok(wanted));
}

/// Without an ETag, the model's digest alone would let a server change everything else.
#[tokio::test]
async fn a_digest_that_is_the_version_covers_the_whole_archive() {
    let digest = format!("sha256:{:x}", Sha256::digest("model"));
    let fetched = async |tar: Tar, digest: &str| {
        let mut source = Scripted::new(vec![object("m.tar", &tar.bytes())]);
        source.identity = SourceIdentity {
            kind: IdentityKind::Digest,
            value: digest.to_owned(),
            is_retained: false,
        };
        let config = FetchConfig {
            digest: Some(digest.to_owned()),
            ..source.config()
        };
        let folder = tempfile::tempdir().unwrap();
        let behaviour = Behaviour::default();
        fetch(&config, &source.opener(), Some(folder.path()), &behaviour).await
    };
    let two = || Tar::new().with_model().file("model.yaml", "a: b");
    fetched(Tar::new().with_model(), &digest).await.unwrap();
    let error = fetched(two(), &digest).await.unwrap_err();
    assert_eq!(error.reason, FetchReason::DigestMismatch);
    let (_, package) = error.message.split_once("set it to ").unwrap();
    let (package, _) = package.split_once(',').unwrap();
    fetched(two(), package).await.unwrap();
}
