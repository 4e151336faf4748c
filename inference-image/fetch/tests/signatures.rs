//! Signed packages: the signatures that `model_signing` makes, and everything that can be wrong with one.
//!
//! tests/signing/signed.json holds bundles and keys that tests/signing/make.py made with the real program; one test has a
//! new signature made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use modelservice_contract::FetchReason::{self, ConfigInvalid, SignatureInvalid, SystemError};
use modelservice_fetch::verify::{SIGNATURE_FILE, Verified, verify};
use serde_json::{Value, json};
use std::fs::{copy, create_dir, create_dir_all, read_to_string, remove_file, rename, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Where the fixtures are.
fn signing() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signing")
}

fn signed() -> Value {
    serde_json::from_str(include_str!("signing/signed.json")).unwrap()
}

fn key(name: &str) -> String {
    signed()["keys"][name].as_str().unwrap().to_owned()
}

fn bundle(name: &str) -> Value {
    let bundle = signed()["bundles"][name].clone();
    assert!(bundle.is_object(), "no bundle {name:?}: run make.py");
    bundle
}

/// A copy of the package that was signed, with the signature `name`.
struct Package(TempDir);

impl Package {
    fn signed_as(name: &str) -> Self {
        let package = Self(tempfile::tempdir().unwrap());
        create_dir_all(package.at("weights")).unwrap();
        for file in ["model.onnx", "model.yaml", "weights/w.bin"] {
            copy(signing().join("photos").join(file), package.at(file)).unwrap();
        }
        package.sign(&bundle(name));
        package
    }

    fn sign(&self, bundle: &Value) {
        write(self.at(SIGNATURE_FILE), bundle.to_string()).unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("package")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// What is said of it, for the key of its signer.
    fn verified(&self) -> Result<Verified, (FetchReason, String)> {
        self.verified_by(&key("signer"))
    }

    fn verified_by(&self, key: &str) -> Result<Verified, (FetchReason, String)> {
        verify(&self.folder(), key).map_err(|error| (error.reason, error.message))
    }

    #[track_caller]
    fn is_refused(&self, what: &str, reason: FetchReason, words: &str) {
        self.is_refused_by(&key("signer"), what, reason, words);
    }

    #[track_caller]
    fn is_refused_by(&self, key: &str, what: &str, reason: FetchReason, words: &str) {
        let (got, message) = self.verified_by(key).expect_err(what);
        assert_eq!(got, reason, "{what}: {message}");
        assert!(message.contains(words), "{what}: {message}");
        println!("{what}: {message}");
    }
}

/// A signer must be believed.
#[test]
fn a_package_that_is_as_it_was_signed_is_verified() {
    for (name, by) in [
        ("photos", "signer"),
        ("git is covered", "signer"),
        ("p384", "p384"),
    ] {
        let verified = Package::signed_as(name).verified_by(&key(by)).unwrap();
        assert_eq!(verified.name, "photos");
        assert_eq!(verified.unsigned, [SIGNATURE_FILE]);
    }
}

/// People compare it with what `openssl` prints.
#[test]
fn a_key_is_named_by_the_sha_256_of_its_der_form() {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("key.pub");
    write(&pem, key("signer")).unwrap();
    let script = "openssl pkey -pubin -in \"$0\" -outform DER | sha256sum";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(&pem)
        .output()
        .unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    let verified = Package::signed_as("photos").verified().unwrap();
    assert_eq!(
        verified.key,
        format!("sha256:{}", hash.split(' ').next().unwrap())
    );
}

/// Without this, whoever can write to a store decides what a model answers.
#[test]
fn a_package_that_is_not_as_it_was_signed_is_refused_by_the_names_of_its_files() {
    type Row = (&'static str, fn(&Package), &'static str);
    let rows: &[Row] = &[
        (
            "a changed byte",
            |package| write(package.at("model.onnx"), "a m0del\n").unwrap(),
            "other bytes: model.onnx",
        ),
        (
            "a byte more",
            |package| write(package.at("weights/w.bin"), "some weights\n\n").unwrap(),
            "other bytes: weights/w.bin",
        ),
        (
            "two files changed",
            |package| {
                ["model.onnx", "model.yaml"]
                    .iter()
                    .for_each(|name| write(package.at(name), "").unwrap())
            },
            "other bytes: model.onnx, model.yaml",
        ),
        (
            "files exchanged",
            |package| {
                rename(package.at("model.onnx"), package.at("aside")).unwrap();
                rename(package.at("model.yaml"), package.at("model.onnx")).unwrap();
                rename(package.at("aside"), package.at("model.yaml")).unwrap();
            },
            "other bytes: model.onnx, model.yaml",
        ),
        (
            "a changed name",
            |package| rename(package.at("weights/w.bin"), package.at("weights/v.bin")).unwrap(),
            "not signed: weights/v.bin; missing: weights/w.bin",
        ),
        (
            "another case",
            |package| rename(package.at("model.yaml"), package.at("Model.yaml")).unwrap(),
            "not signed: Model.yaml; missing: model.yaml",
        ),
        (
            "an added file",
            |package| write(package.at("labels.txt"), "cat").unwrap(),
            "not signed: labels.txt",
        ),
        (
            "an added hidden file",
            |package| write(package.at("weights/.hidden"), "").unwrap(),
            "not signed: weights/.hidden",
        ),
        (
            "a graph that was optimised later",
            |package| {
                create_dir(package.at(".optimized")).unwrap();
                write(package.at(".optimized/x-batches.json"), "").unwrap();
            },
            "not signed: .optimized/x-batches.json",
        ),
        (
            "very many added files",
            |package| (0..200).for_each(|index| write(package.at(&format!("{index}")), "").unwrap()),
            ", …",
        ),
        (
            "a removed file",
            |package| remove_file(package.at("model.yaml")).unwrap(),
            "missing: model.yaml",
        ),
        (
            "a second signature elsewhere",
            |package| write(package.at("weights/model.sig"), "{}").unwrap(),
            "not signed: weights/model.sig",
        ),
        (
            "Git's files below",
            |package| write(package.at("weights/.gitattributes"), "").unwrap(),
            "not signed: weights/.gitattributes",
        ),
        (
            "a name that is not UTF-8",
            |package| {
                use std::os::unix::ffi::OsStrExt as _;
                let name = std::ffi::OsStr::from_bytes(b"\xff.bin");
                write(package.folder().join(name), "").unwrap();
            },
            "not signed: \u{fffd}.bin",
        ),
    ];
    for (what, change, words) in rows {
        let package = Package::signed_as("photos");
        change(&package);
        package.is_refused(what, SignatureInvalid, words);
    }
}

/// Links must not exchange a file, and must not lead to files of others.
#[test]
fn links_and_special_files_are_no_way_around() {
    type Row = (
        &'static str,
        &'static str,
        fn(&Package, &Path),
        FetchReason,
        &'static str,
    );
    let rows: &[Row] = &[
        (
            "a link to another file of the package",
            "model.yaml",
            |_, file| symlink("model.onnx", file).unwrap(),
            SignatureInvalid,
            "other bytes: model.yaml",
        ),
        (
            "a link to the same bytes outside",
            "model.onnx",
            |package, file| {
                copy(
                    signing().join("photos/model.onnx"),
                    package.0.path().join("outside"),
                )
                .unwrap();
                symlink("../outside", file).unwrap();
            },
            SignatureInvalid,
            "outside its package",
        ),
        (
            "a link to a device",
            "model.onnx",
            |_, file| symlink("/dev/zero", file).unwrap(),
            SignatureInvalid,
            "outside its package",
        ),
        (
            "a link to itself",
            "model.onnx",
            |_, file| symlink("model.onnx", file).unwrap(),
            SignatureInvalid,
            "loop of links",
        ),
        (
            "the signature as a link out",
            SIGNATURE_FILE,
            |package, file| {
                write(package.0.path().join("outside"), bundle("photos").to_string()).unwrap();
                symlink("../outside", file).unwrap();
            },
            SignatureInvalid,
            "outside its package",
        ),
        (
            "an added link to a signed file",
            "nothing",
            |package, _| symlink("weights/w.bin", package.at("more")).unwrap(),
            SignatureInvalid,
            "not signed: more",
        ),
        (
            "an added link to a folder",
            "nothing",
            |package, _| symlink("weights", package.at(".optimized")).unwrap(),
            SignatureInvalid,
            "not signed: .optimized",
        ),
        (
            "a named pipe",
            "model.onnx",
            |_, file| {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                mknodat(CWD, file, FileType::Fifo, Mode::RUSR, 0).unwrap();
            },
            SignatureInvalid,
            "named pipe",
        ),
        (
            "a folder",
            "model.yaml",
            |_, file| create_dir(file).unwrap(),
            SignatureInvalid,
            "missing: model.yaml",
        ),
        (
            "the signature as a folder",
            SIGNATURE_FILE,
            |_, file| create_dir(file).unwrap(),
            SignatureInvalid,
            "is a folder",
        ),
    ];
    for (what, file, make, reason, words) in rows {
        let package = Package::signed_as("photos");
        let _ = remove_file(package.at(file));
        make(&package, &package.at(file));
        package.is_refused(what, *reason, words);
    }
}

/// The Hub's cache and Kubernetes' volumes consist of links.
#[test]
fn links_that_lead_to_the_signed_bytes_are_followed() {
    let package = Package::signed_as("photos");
    create_dir(package.at("..2026")).unwrap();
    symlink("..2026", package.at("..data")).unwrap();
    for file in ["model.onnx", SIGNATURE_FILE] {
        rename(package.at(file), package.at("..2026").join(file)).unwrap();
        symlink(Path::new("..data").join(file), package.at(file)).unwrap();
    }
    package.verified().unwrap();
    write(package.at("..2026/model.onnx"), "another").unwrap();
    package.is_refused(
        "changed behind the link",
        SignatureInvalid,
        "other bytes: model.onnx",
    );
}

/// Repositories on a hub contain `.gitattributes`, which signers leave out; nothing else may be left out.
#[test]
fn gits_own_files_need_no_signature_where_the_signer_says_so_and_a_model_always_does() {
    let package = Package::signed_as("photos");
    create_dir(package.at(".git")).unwrap();
    write(package.at(".git/config"), "").unwrap();
    write(package.at(".gitattributes"), "*.onnx filter=lfs\n").unwrap();
    let verified = package.verified().unwrap();
    assert_eq!(verified.unsigned, [".git", ".gitattributes", SIGNATURE_FILE]);

    package.sign(&bundle("git is covered"));
    package.is_refused("the signer covers Git's files", SignatureInvalid, "not signed: ");

    for (name, file) in [
        ("without model.onnx", "model.onnx"),
        ("without weights", "weights/w.bin"),
    ] {
        let words = format!("not signed: {file} (the signer left it out)");
        Package::signed_as(name).is_refused(name, SignatureInvalid, &words);
        let package = Package::signed_as(name);
        remove_file(package.at(file)).unwrap();
        package.verified().unwrap();
    }
}

/// A valid signature of something else must not count.
#[test]
fn a_statement_that_is_not_about_a_models_files_is_refused() {
    for (name, words) in [
        ("one file", "it is about a file, not a folder"),
        ("blake3", "\"blake3\", not \"sha256\""),
        ("shards", "\"shards\", not \"files\""),
        ("statement of another version", "Statement/v0.1"),
        ("unknown predicate", "https://example.com/approval/v1"),
        ("predicate before 1.0", "Digests/v0.1"),
        ("two subjects", "about 2 models"),
        ("list that is not its digest's", "is not that of its list"),
        ("list with a file twice", "\"model.onnx\", it gives two digests"),
        ("path above", "\"../model.onnx\", which is no path"),
        ("absolute path", "\"/etc/passwd\", which is no path"),
        ("older signature", "covers an older signature"),
        ("mixed digests", "of kind \"blake3\""),
        ("digest of another length", "it gives no SHA-256"),
        ("payload of another kind", "application/vnd.example+json"),
    ] {
        Package::signed_as(name).is_refused(name, SignatureInvalid, words);
    }
}

/// Anybody can write a signature file.
#[test]
fn a_bundle_that_is_not_the_signers_is_refused() {
    type Row = (&'static str, fn() -> Value, &'static str);
    let rows: &[Row] = &[
        (
            "the signature of another model",
            || bundle("letters"),
            "other bytes: model.onnx",
        ),
        (
            "the payload of another model",
            || {
                let mut bundle = bundle("photos");
                bundle["dsseEnvelope"]["payload"] =
                    self::bundle("letters")["dsseEnvelope"]["payload"].clone();
                bundle
            },
            "the signature is wrong",
        ),
        (
            "the signature bytes of another model",
            || {
                let mut bundle = bundle("photos");
                bundle["dsseEnvelope"]["signatures"] =
                    self::bundle("letters")["dsseEnvelope"]["signatures"].clone();
                bundle
            },
            "the signature is wrong",
        ),
        ("by another key", || bundle("p384"), "by another key"),
        (
            "by another key that claims to be this one",
            || {
                let mut bundle = bundle("p384");
                bundle["verificationMaterial"] = self::bundle("photos")["verificationMaterial"].clone();
                bundle
            },
            "the signature is wrong",
        ),
        (
            "a kind of payload that was not signed",
            || {
                let mut bundle = bundle("payload of another kind");
                bundle["dsseEnvelope"]["payloadType"] = json!("application/vnd.in-toto+json");
                bundle
            },
            "the signature is wrong",
        ),
        (
            "an empty signature",
            || {
                let mut bundle = bundle("photos");
                bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!("");
                bundle
            },
            "the signature is wrong",
        ),
        (
            "no signature",
            || {
                let mut bundle = bundle("photos");
                bundle["dsseEnvelope"]["signatures"] = json!([]);
                bundle
            },
            "exactly one signature, found 0",
        ),
        (
            "several signatures, of which one is right",
            || {
                let mut bundle = bundle("photos");
                let wrong = self::bundle("letters")["dsseEnvelope"]["signatures"][0].clone();
                bundle["dsseEnvelope"]["signatures"]
                    .as_array_mut()
                    .unwrap()
                    .push(wrong);
                bundle
            },
            "exactly one signature, found 2",
        ),
        (
            "a payload that is not JSON",
            || {
                let mut bundle = bundle("photos");
                bundle["dsseEnvelope"]["payload"] = json!("AAAA");
                bundle
            },
            "the signature is wrong",
        ),
        (
            "an older bundle",
            || {
                let mut bundle = bundle("photos");
                bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2");
                bundle
            },
            "not v0.3",
        ),
        (
            "a keyless identity",
            || {
                let mut bundle = bundle("photos");
                bundle["verificationMaterial"] =
                    json!({"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []});
                bundle
            },
            "only keys are supported",
        ),
        (
            "the signature of a file",
            || {
                let mut bundle = bundle("photos");
                bundle.as_object_mut().unwrap().remove("dsseEnvelope");
                bundle["messageSignature"] = json!({"signature": "AAAA"});
                bundle
            },
            "a single file",
        ),
        (
            "nothing that is signed",
            || {
                let mut bundle = bundle("photos");
                bundle.as_object_mut().unwrap().remove("dsseEnvelope");
                bundle
            },
            "not a Sigstore bundle",
        ),
        ("something else", || json!({"a": 1}), "not a Sigstore bundle"),
        ("a list", || json!([]), "not a Sigstore bundle"),
    ];
    for (what, make, words) in rows {
        let package = Package::signed_as("photos");
        package.sign(&make());
        package.is_refused(what, SignatureInvalid, words);
    }
}

/// It must neither be believed nor fill the memory.
#[test]
fn a_file_that_is_no_bundle_is_refused() {
    let whole = bundle("photos").to_string();
    let deep = "[".repeat(200_000);
    let huge = whole.clone() + &" ".repeat(4 << 20);
    let twice = whole.replacen('{', "{\"mediaType\":\"x\",", 1);
    for (what, text, words) in [
        ("an empty file", "".as_bytes(), "not a Sigstore bundle"),
        (
            "half a bundle",
            &whole.as_bytes()[..whole.len() / 2],
            "not a Sigstore bundle",
        ),
        (
            "a bundle without its last byte",
            &whole.as_bytes()[..whole.len() - 1],
            "not a Sigstore bundle",
        ),
        (
            "a bundle and more",
            (whole.clone() + "{}").as_bytes(),
            "not a Sigstore bundle",
        ),
        ("bytes", b"\xff\xfe", "is not text"),
        ("a deep list", deep.as_bytes(), "not a Sigstore bundle"),
        ("a huge bundle", huge.as_bytes(), "but at most 4194304 are read"),
        ("a key twice", twice.as_bytes(), "not a Sigstore bundle"),
    ] {
        let package = Package::signed_as("photos");
        write(package.at(SIGNATURE_FILE), text).unwrap();
        package.is_refused(what, SignatureInvalid, words);
    }
    let package = Package::signed_as("photos");
    remove_file(package.at(SIGNATURE_FILE)).unwrap();
    package.is_refused("none", SignatureInvalid, "has no signature");
}

/// A typo in the key must not look like an attack, and must not open anything.
#[test]
fn a_key_that_cannot_be_used_is_an_error_of_the_configuration() {
    let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let two = key("signer") + &key("other");
    let half = key("signer")[..100].to_owned();
    let (p521, ed25519, rsa) = (key("p521"), key("ed25519"), key("rsa"));
    for (what, key, words) in [
        ("none", "", "PEM"),
        ("words", "cat", "PEM"),
        ("half a key", &*half, "PEM"),
        ("a private key", secret, "expected PUBLIC KEY"),
        ("two keys", &two, "2 PEM blocks"),
        ("P-521", &p521, "another kind"),
        ("Ed25519", &ed25519, "another kind"),
        ("RSA", &rsa, "another kind"),
        (
            "bytes",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "broken",
        ),
    ] {
        let package = Package::signed_as("photos");
        package.is_refused_by(key, what, ConfigInvalid, words);
        let (_, message) = package.verified_by(key).expect_err(what);
        assert!(!message.contains("c2VjcmV0"), "{message}");
    }
    Package::signed_as("photos").is_refused_by(
        &key("other"),
        "another key",
        SignatureInvalid,
        "by another key",
    );
    Package::signed_as("p521").is_refused("signed by P-521", SignatureInvalid, "by another key");
}

#[test]
fn what_cannot_be_read_is_an_error_of_the_machine() {
    let nowhere = Path::new("/nonexistent/package");
    let error = verify(nowhere, &key("signer")).unwrap_err();
    assert_eq!(error.reason, SystemError, "{error}");
    // Root may read everything.
    if !rustix::process::geteuid().is_root() {
        let package = Package::signed_as("photos");
        let permissions = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(package.at("model.onnx"), permissions).unwrap();
        package.is_refused("no permission", SystemError, "model.onnx");
    }
}

/// The signatures above are kept; this is what the program makes today, with the commands of the documentation.
#[test]
fn a_signature_that_model_signing_makes_now_is_verified() {
    let venv = root().join(".cache/venv-signing");
    assert!(
        venv.exists(),
        "run inference-image/fetch/tests/signing/prepare first"
    );
    // It is installed already, in these versions.
    let (install, sign): (Vec<_>, Vec<_>) = commands()
        .into_iter()
        .partition(|line| line.contains("venv") || line.contains("pip "));
    let pins = read_to_string(signing().join("requirements.txt"))
        .unwrap()
        .to_lowercase();
    let named: Vec<_> = install
        .iter()
        .flat_map(|line| line.split(' '))
        .filter(|word| word.contains("=="))
        .collect();
    assert_eq!(named.len(), 2, "{install:?}");
    for pin in named {
        assert!(
            pins.lines().any(|line| line == pin.to_lowercase()),
            "{pin} is not what requirements.txt has"
        );
    }

    let package = Package::signed_as("photos");
    remove_file(package.at(SIGNATURE_FILE)).unwrap();
    // The page's folder; links are not signed.
    rename(package.folder(), package.0.path().join("photos")).unwrap();
    symlink("photos", package.folder()).unwrap();
    symlink(venv, package.0.path().join("signing")).unwrap();
    let output = Command::new("bash")
        .args(["-euxc", &sign.join("\n")])
        .current_dir(package.0.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let public = read_to_string(package.0.path().join("signer.pub")).unwrap();
    let verified = package.verified_by(&public).unwrap();
    assert_eq!(verified.unsigned, [SIGNATURE_FILE]);
    write(package.at("model.onnx"), "another").unwrap();
    package.is_refused_by(
        &public,
        "changed later",
        SignatureInvalid,
        "other bytes: model.onnx",
    );
}

/// Somebody who searches the page for a message must find it.
#[test]
fn the_documentation_lists_the_messages() {
    let messages = include_str!("../src/verify/refusal.rs");
    let table: Vec<String> = page()
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(str::to_owned)
        .collect();
    let words = table.iter().map(|row| row.rsplit(" | ").next().unwrap());
    let words: Vec<&str> = words
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    for word in &words {
        assert!(messages.contains(word), "no message says {word:?}");
    }
    assert_eq!(words.len(), messages.matches("#[error(").count());
}

fn root() -> PathBuf {
    signing().join("../../../..").canonicalize().unwrap()
}

fn page() -> String {
    read_to_string(root().join("docs/model-signing.md")).unwrap()
}

/// The commands of the page's first example.
fn commands() -> Vec<String> {
    let page = page();
    let script = page
        .split("```sh\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    script.lines().map(str::to_owned).collect()
}
