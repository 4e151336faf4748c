#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::*;
use super::{Fixture, model};
use std::fs::{create_dir, create_dir_all, remove_file, write};
use std::os::unix::fs::symlink;

impl Fixture {
    fn digest(&self) -> String {
        digest(&self.folder()).unwrap_or_else(|fatal| panic!("{}", fatal.message))
    }

    fn asking_for(&self, wanted: &str) -> Result<Package, Fatal> {
        let parsed = open(&ModelConfig {
            name: "m".into(),
            path: self.folder().display().to_string(),
            digest: Some(wanted.to_owned()),
            ..ModelConfig::default()
        });
        Ok(parsed?.package)
    }
}

fn of_file(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// The command in docs/server.md.
fn by_shell(folder: &Path) -> String {
    let text = include_str!("../../../../docs/server.md");
    let (_, command) = text.split_once("<!-- digest -->\n```sh\n").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split_whitespace().next().unwrap())
}

// A reviewer must be able to compute a package's digest without our program.
#[test]
fn the_digest_is_what_the_documented_command_prints() {
    let fixture = Fixture::new();
    assert_eq!(fixture.digest(), by_shell(&fixture.folder()));
    create_dir_all(fixture.at("below/deeper")).unwrap();
    create_dir_all(fixture.at(".optimized/0a")).unwrap();
    create_dir_all(fixture.at("..2026_01")).unwrap();
    create_dir(fixture.at("lost+found")).unwrap();
    create_dir(fixture.at("empty")).unwrap();
    for name in [
        "below/w",
        "below/deeper/é ü",
        "below-",
        "B",
        ".hidden",
        ".optimized/0a/graph.onnx",
        "below/..x",
    ] {
        write(fixture.at(name), name).unwrap();
    }
    for name in ["..2026_01/w", "lost+found/x", ".optimized/0a/2-batches.json"] {
        write(fixture.at(name), name).unwrap();
    }
    symlink("below/w", fixture.at("link")).unwrap();
    symlink("..2026_01", fixture.at("..data")).unwrap();
    symlink("..data/w", fixture.at("through")).unwrap();
    assert_eq!(fixture.digest(), by_shell(&fixture.folder()));
}

type Change = (&'static str, fn(&Fixture));

/// Changes that affect what is served, or may do so.
const CHANGES: &[Change] = &[
    ("a weight", |fixture| {
        write(fixture.at("w.data"), "weighte").unwrap()
    }),
    ("the length of the weights", |fixture| {
        write(fixture.at("w.data"), "weights2").unwrap()
    }),
    ("model.onnx", |fixture| {
        write(fixture.at(MODEL_FILE), model(&["./w.data"])).unwrap()
    }),
    ("model.yaml", |fixture| {
        write(
            fixture.at(MANIFEST_FILE),
            "task: image-classification\nlabels: [a]\npreprocessing: {}\n",
        )
        .unwrap()
    }),
    ("no model.yaml", |fixture| {
        remove_file(fixture.at(MANIFEST_FILE)).unwrap()
    }),
    ("the labels", |fixture| {
        write(fixture.at("names.txt"), "dog\ncat\n").unwrap()
    }),
    ("one more file", |fixture| write(fixture.at("more"), "").unwrap()),
    ("another name", |fixture| {
        std::fs::rename(fixture.at("names.txt"), fixture.at("names")).unwrap()
    }),
    ("an optimised graph", |fixture| {
        create_dir_all(fixture.at(".optimized/0a")).unwrap();
        write(fixture.at(".optimized/0a/graph.onnx"), "graph").unwrap();
    }),
    ("a link to other weights", |fixture| {
        write(fixture.at("other"), "others!").unwrap();
        remove_file(fixture.at("w.data")).unwrap();
        symlink("other", fixture.at("w.data")).unwrap();
    }),
    ("files that change their names with one another", |fixture| {
        std::fs::rename(fixture.at("w.data"), fixture.at("x")).unwrap();
        std::fs::rename(fixture.at("names.txt"), fixture.at("w.data")).unwrap();
        std::fs::rename(fixture.at("x"), fixture.at("names.txt")).unwrap();
    }),
];

// Otherwise other weights could be served under the same digest.
#[test]
fn a_package_that_is_not_the_one_that_was_asked_for_is_refused() {
    for (what, change) in CHANGES {
        let fixture = Fixture::new();
        let wanted = fixture.digest();
        let package = fixture.asking_for(&wanted).unwrap();
        let expected = Digest {
            text: wanted.clone(),
            covers: DigestCovers::Package,
            is_checked: true,
        };
        assert_eq!(package.digest, expected);
        assert!(package.vouches_for_graphs());
        change(&fixture);
        let fatal = fixture.asking_for(&wanted).expect_err(what);
        assert_eq!(
            fatal.reason,
            ExitReason::ModelDigestMismatch,
            "{what}: {}",
            fatal.message
        );
        assert!(
            fatal.message.contains(&fixture.digest()),
            "{what}: {}",
            fatal.message
        );
    }
}

#[test]
fn a_link_to_a_folder_counts_as_where_it_leads() {
    let fixture = Fixture::new();
    for folder in ["one", "two"] {
        create_dir(fixture.at(folder)).unwrap();
        write(fixture.at(folder).join("w.data"), folder).unwrap();
    }
    symlink("one", fixture.at("current")).unwrap();
    write(fixture.at(MODEL_FILE), model(&["current/w.data"])).unwrap();
    let wanted = fixture.digest();
    assert!(fixture.asking_for(&wanted).is_ok());
    remove_file(fixture.at("current")).unwrap();
    symlink("two", fixture.at("current")).unwrap();
    assert!(fixture.asking_for(&wanted).is_err());
}

#[test]
fn the_digest_of_model_onnx_is_enough_where_it_keeps_all_weights() {
    let fixture = Fixture::new();
    write(fixture.at(MODEL_FILE), model(&[])).unwrap();
    let wanted = of_file(&model(&[]));
    let package = fixture.asking_for(&wanted).unwrap();
    let mut expected = Digest {
        text: wanted.clone(),
        covers: DigestCovers::ModelFile,
        is_checked: true,
    };
    assert_eq!(package.digest, expected);
    assert!(
        !package.vouches_for_graphs(),
        "its weights are in them too, and were not mentioned"
    );
    expected.is_checked = false;
    assert_eq!(fixture.open().unwrap().digest, expected);
    assert_eq!(package.identity(), wanted);

    let fixture = Fixture::new();
    let fatal = fixture.asking_for(&of_file(&model(&["w.data"]))).unwrap_err();
    assert_eq!(fatal.reason, ExitReason::ModelDigestMismatch);
    for words in ["stores weights in w.data", &fixture.digest(), "digest FOLDER"] {
        assert!(fatal.message.contains(words), "{}", fatal.message);
    }
    let expected = Digest {
        text: fixture.digest(),
        covers: DigestCovers::Package,
        is_checked: false,
    };
    assert_eq!(fixture.open().unwrap().digest, expected);
}

// The graph of one model must not be used for another.
#[test]
fn a_graphs_key_covers_the_weights_that_are_in_other_files() {
    let fixture = Fixture::new();
    let before = fixture.open().unwrap().identity();
    write(fixture.at("w.data"), "weighte").unwrap();
    let after = fixture.open().unwrap().identity();
    write(fixture.at("names.txt"), "other names\n").unwrap();
    assert_ne!(before, after);
    assert_eq!(fixture.open().unwrap().identity(), after);
}

#[test]
fn what_cannot_be_covered_is_named() {
    for (what, make, words) in [
        (
            "a pipe",
            (|fixture| {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                mknodat(CWD, fixture.at("odd"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            }) as fn(&Fixture),
            "\"odd\" is a named pipe",
        ),
        (
            "a link out",
            |fixture| symlink("../secret", fixture.at("odd")).unwrap(),
            "\"odd\" is outside",
        ),
        (
            "a link to a folder outside",
            |fixture| symlink("..", fixture.at("odd")).unwrap(),
            "\"odd\" is outside",
        ),
        (
            "a name of two lines",
            |fixture| write(fixture.at("odd\nname"), "").unwrap(),
            "control characters",
        ),
        (
            "a file of many terabytes",
            |fixture| {
                std::fs::File::create(fixture.at("odd"))
                    .unwrap()
                    .set_len(1 << 43)
                    .unwrap();
            },
            "\"odd\" has 8796093022208 bytes",
        ),
    ] {
        let fixture = Fixture::new();
        let wanted = fixture.digest();
        make(&fixture);
        let problem = digest(&fixture.folder()).expect_err(what).message;
        assert!(problem.contains(words), "{what}: {problem}");
        assert!(fixture.asking_for(&wanted).is_err(), "{what}");
        // No digest is configured.
        let package = fixture.open().unwrap();
        assert_eq!(package.digest.covers, DigestCovers::ModelFile, "{what}");
    }
}
