#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod digest;

use super::*;
use crate::onnx::{Entry, Graph, Model, Tensor};
use prost::Message;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{create_dir, create_dir_all, write};
use std::os::unix::fs::symlink;

const MANIFEST: &str = "task: image-classification\nlabels: names.txt\npreprocessing: {}\n";

/// A model that stores weights in these files.
pub(super) fn model(files: &[&str]) -> Vec<u8> {
    let external = files.iter().map(|&file| Entry {
        key: "location".into(),
        value: file.to_owned().into(),
    });
    let weights = Tensor {
        external: external.collect(),
        ..Tensor::default()
    };
    let graph = Graph {
        initializers: vec![weights],
        ..Graph::default()
    };
    let model = Model {
        graph: Some(graph),
        ..Model::default()
    };
    model.encode_to_vec()
}

/// A package with every kind of file, next to a file that does not belong to it.
pub(super) struct Fixture(tempfile::TempDir);

impl Fixture {
    pub(super) fn new() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        create_dir(fixture.folder()).unwrap();
        write(fixture.secret(), "secret").unwrap();
        write(fixture.at(MODEL_FILE), model(&["w.data"])).unwrap();
        write(fixture.at("w.data"), "weights").unwrap();
        write(fixture.at(MANIFEST_FILE), MANIFEST).unwrap();
        write(fixture.at("names.txt"), "cat\ndog\n").unwrap();
        fixture
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.0.path().join("package")
    }

    fn secret(&self) -> PathBuf {
        self.0.path().join("secret")
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(super) fn open(&self) -> Result<Package, Fatal> {
        self.open_at(&self.folder())
    }

    fn open_at(&self, folder: &Path) -> Result<Package, Fatal> {
        let parsed = open(&ModelConfig {
            name: "m".into(),
            path: folder.display().to_string(),
            digest: None,
            ..ModelConfig::default()
        });
        Ok(parsed?.package)
    }
}

/// What replaces a file, and the expected error.
type Row = (&'static str, fn(&Fixture, &Path), &'static str);

const IN_A_FILES_PLACE: &[Row] = &[
    (
        "a link out",
        |_, file| symlink("../secret", file).unwrap(),
        "outside its package",
    ),
    (
        "an absolute link out",
        |fixture, file| symlink(fixture.secret(), file).unwrap(),
        "outside its package",
    ),
    (
        "a link to a device",
        |_, file| symlink("/dev/zero", file).unwrap(),
        "outside its package",
    ),
    (
        "a link through a folder link that leads out",
        |fixture, file| {
            symlink("..", fixture.at("up")).unwrap();
            symlink("up/secret", file).unwrap();
        },
        "outside its package",
    ),
    (
        "a link to a link that leads out",
        |fixture, file| {
            symlink("../secret", fixture.at("second")).unwrap();
            symlink("second", file).unwrap();
        },
        "outside its package",
    ),
    (
        "a link that leads out and back",
        |_, file| {
            let name = Path::new("../package").join(file.file_name().unwrap());
            symlink(name, file).unwrap();
        },
        "outside its package",
    ),
    (
        "a link to itself",
        |_, file| symlink(file.file_name().unwrap(), file).unwrap(),
        "loop of links",
    ),
    (
        "links to one another",
        |fixture, file| {
            symlink(file.file_name().unwrap(), fixture.at("other")).unwrap();
            symlink("other", file).unwrap();
        },
        "loop of links",
    ),
    (
        "a link to nothing",
        |_, file| symlink("nothing", file).unwrap(),
        "is a link to \"nothing\", which does not exist",
    ),
    (
        "a folder",
        |_, file| create_dir(file).unwrap(),
        "is a folder, not a file",
    ),
    (
        "a link to a folder",
        |_, file| symlink(".", file).unwrap(),
        "is a folder, not a file",
    ),
    (
        "a named pipe",
        |_, file| mknodat(CWD, file, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        "is a named pipe, not a file",
    ),
    (
        "a link to a named pipe",
        |fixture, file| {
            mknodat(CWD, fixture.at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            symlink("pipe", file).unwrap();
        },
        "is a named pipe, not a file",
    ),
    (
        "a socket",
        |_, file| drop(std::os::unix::net::UnixListener::bind(file).unwrap()),
        "is a socket, not a file",
    ),
    (
        "a file of many terabytes",
        |_, file| std::fs::File::create(file).unwrap().set_len(1 << 43).unwrap(),
        "has 8796093022208 bytes, but at most",
    ),
];

// Someone who can write a package must not be able to read the server's other files with it, make it wait for ever or
// fill its memory.
#[test]
fn whatever_is_in_a_files_place_is_refused_with_its_name() {
    for file in [MODEL_FILE, "w.data", MANIFEST_FILE, "names.txt"] {
        for (what, make, words) in IN_A_FILES_PLACE {
            let fixture = Fixture::new();
            std::fs::remove_file(fixture.at(file)).unwrap();
            make(&fixture, &fixture.at(file));
            let fatal = fixture.open().expect_err(what);
            let message = &fatal.message;
            assert_eq!(
                fatal.reason,
                ExitReason::ModelInvalid,
                "{file}: {what}: {message}"
            );
            assert!(message.contains(words), "{file}: {what}: {message}");
            assert!(message.contains(file), "{file}: {what}: {message}");
        }
    }
}

#[test]
fn names_that_lead_out_are_refused_and_those_that_stay_are_read() {
    for (name, is_inside) in [
        ("./w.data", true),
        ("w.data", true),
        ("below/w.data", true),
        ("below/../w.data", true),
        ("./below/./w.data", true),
        ("below//w.data", true),
        ("", false),
        (".", false),
        ("..", false),
        ("../package/w.data", false),
        ("below/../../package/w.data", false),
        ("../secret", false),
        ("/etc/hostname", false),
        ("w.data/w.data", false),
        ("*/_ORT_MEM_ADDR_/*", false),
    ] {
        let fixture = Fixture::new();
        create_dir(fixture.at("below")).unwrap();
        write(fixture.at("below/w.data"), "weights").unwrap();
        write(fixture.at(MODEL_FILE), model(&[name])).unwrap();
        let opened = fixture.open();
        assert_eq!(opened.is_ok(), is_inside, "{name:?}: {opened:?}");
        write(fixture.at(MODEL_FILE), model(&["w.data"])).unwrap();
        let manifest = MANIFEST.replace("names.txt", &format!("{name:?}"));
        write(fixture.at(MANIFEST_FILE), manifest).unwrap();
        let opened = fixture.open();
        assert_eq!(opened.is_ok(), is_inside, "labels {name:?}: {opened:?}");
    }
}

// ONNX Runtime may use the other one.
#[test]
fn every_file_that_a_tensor_names_is_checked() {
    let fixture = Fixture::new();
    write(fixture.at(MODEL_FILE), model(&["w.data", "../secret"])).unwrap();
    assert!(fixture.open().unwrap_err().message.contains("../secret"));
}

#[test]
fn links_that_stay_in_the_package_are_followed() {
    let fixture = Fixture::new();
    create_dir_all(fixture.at("..2026/store")).unwrap();
    std::fs::rename(fixture.at("w.data"), fixture.at("..2026/store/w")).unwrap();
    symlink("..2026", fixture.at("..data")).unwrap();
    for target in [
        Path::new("..data/store/w"),
        Path::new("..data/../..data/store/w"),
        &fixture.at("..2026/store/w"),
    ] {
        symlink(target, fixture.at("w.data")).unwrap();
        let package = fixture
            .open()
            .unwrap_or_else(|fatal| panic!("{target:?}: {}", fatal.message));
        assert_eq!(&*package.external[0].bytes, b"weights");
        std::fs::remove_file(fixture.at("w.data")).unwrap();
    }
}

// The operator or a person chooses the package's own path, which may lead anywhere.
#[test]
fn the_packages_folder_may_be_reached_by_a_link() {
    let fixture = Fixture::new();
    let link = fixture.0.path().join("current");
    symlink("package", &link).unwrap();
    assert!(fixture.open_at(&link).is_ok());
    assert!(fixture.open_at(&link.join(".")).is_ok());
}

/// `repository/snapshots/1` and the blobs that it links to, as huggingface_hub makes it.
fn hugging_face(fixture: &Fixture) -> PathBuf {
    let repository = fixture.0.path().join("models--org--net");
    let snapshot = repository.join("snapshots/1/onnx");
    create_dir_all(&snapshot).unwrap();
    create_dir(repository.join("blobs")).unwrap();
    for (index, name) in [MODEL_FILE, "w.data", MANIFEST_FILE, "names.txt"]
        .iter()
        .enumerate()
    {
        std::fs::copy(fixture.at(name), repository.join(format!("blobs/{index}"))).unwrap();
        symlink(format!("../../../blobs/{index}"), snapshot.join(name)).unwrap();
    }
    snapshot
}

#[test]
fn a_snapshot_in_hugging_faces_cache_has_its_files_in_the_blobs_beside_it() {
    let fixture = Fixture::new();
    let snapshot = hugging_face(&fixture);
    let package = fixture.open_at(&snapshot).unwrap();
    assert_eq!(&*package.external[0].bytes, b"weights");
    assert_eq!(package.manifest.unwrap().labels.names(), ["cat", "dog"]);
    let repository = fixture.0.path().join("models--org--net");
    create_dir(repository.join("snapshots/2")).unwrap();
    write(repository.join("snapshots/2/w"), "weights").unwrap();
    write(repository.join("refs"), "1").unwrap();
    for elsewhere in ["../../../refs", "../../2/w", "../../../../secret"] {
        std::fs::remove_file(snapshot.join("w.data")).unwrap();
        symlink(elsewhere, snapshot.join("w.data")).unwrap();
        let problem = fixture.open_at(&snapshot).unwrap_err().message;
        assert!(problem.contains("outside its package"), "{elsewhere}: {problem}");
    }
}

#[test]
fn a_file_that_may_not_be_larger_is_read_up_to_that() {
    let fixture = Fixture::new();
    let files = Files::of(&fixture.folder()).unwrap();
    let most = |bytes| Most { bytes, advice: "" };
    assert_eq!(files.read("w.data", most(7)).unwrap(), b"weights");
    assert!(matches!(
        files.read("w.data", most(6)),
        Err(FileError::TooLarge { size: 7, most: 6, .. })
    ));
}
