//! `modelservice-server check`: says all at once what a start says one by one, and what clients send is accepted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{ExitReason, TerminationMessage};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::{copy, create_dir, read, read_to_string, remove_file, write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use support::onnx::{self, FLOAT, FLOAT16, INT64, STRING, external, identity, node};
use support::{Server, check_docs_table, example, library};

/// What `check` says of the package in this folder.
fn check(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelservice-server"));
    for name in ["MODELSERVICE_CONFIG", "LOG_LEVEL"] {
        command.env_remove(name);
    }
    if !arguments
        .iter()
        .any(|argument| argument.starts_with("--onnx-runtime"))
    {
        command.arg("--onnx-runtime").arg(library());
    }
    command
        .arg("check")
        .args(arguments)
        .arg(format!("photos={}", folder.display()))
        .output()
        .unwrap()
}

/// The same as JSON, and the exit code.
fn verdict(folder: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = check(folder, &[&["--output=json"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let verdict = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    (verdict, output.status.code().unwrap())
}

struct Case {
    what: &'static str,
    /// Makes the package in an empty folder.
    make: fn(&Path),
    arguments: &'static [&'static str],
    /// Every problem: its reason, and part of its message.
    problems: &'static [(ExitReason, &'static str)],
    /// What cannot be checked then.
    unchecked: &'static [&'static str],
}

const LOADS: &str = "whether ONNX Runtime loads the model";
const FITS: &str = "whether model.yaml fits the model";

use ExitReason::{
    AcceleratorUnavailable, ConfigInvalid, ExecutionProviderFallback, ModelDigestMismatch, ModelInvalid,
    ModelMissing, RuntimeUnavailable,
};

const fn case(
    what: &'static str,
    make: fn(&Path),
    problems: &'static [(ExitReason, &'static str)],
    unchecked: &'static [&'static str],
) -> Case {
    Case {
        what,
        make,
        arguments: &[],
        problems,
        unchecked,
    }
}

impl Case {
    const fn with(mut self, arguments: &'static [&'static str]) -> Self {
        self.arguments = arguments;
        self
    }
}

/// The digest of no file.
const NO_DIGEST: &str = "--digest=sha256:0000000000000000000000000000000000000000000000000000000000000000";

const CASES: &[Case] = &[
    case(
        "a folder with neither a model nor a good model.yaml",
        |folder| write(folder.join("model.yaml"), "task: image-clasification\n").unwrap(),
        &[
            (ModelMissing, "only: model.yaml"),
            (ModelInvalid, "did you mean `image-classification`?"),
        ],
        &[LOADS],
    ),
    case(
        "an empty folder",
        |_| {},
        &[(ModelMissing, "OCI artifact")],
        &[LOADS],
    ),
    case(
        "no folder",
        |folder| std::fs::remove_dir(folder).unwrap(),
        &[(ModelMissing, "does not exist")],
        &[LOADS],
    ),
    case(
        "an empty model.onnx, and labels that are not there",
        |folder| {
            write(folder.join("model.onnx"), "").unwrap();
            manifest(folder, "labels: names.txt\n");
        },
        &[
            (ModelInvalid, "is empty"),
            (ModelInvalid, "\"names.txt\", which does not exist"),
        ],
        &[LOADS],
    ),
    case(
        "another digest, two files of weights that are not there, and a misspelt key",
        |folder| {
            two_files(folder);
            manifest(folder, "labels: [a]\ncolour: red\n");
        },
        &[
            (ModelDigestMismatch, "is configured"),
            (
                ModelInvalid,
                "stores weights in \"one.data\", which does not exist",
            ),
            (
                ModelInvalid,
                "stores weights in \"two.data\", which does not exist",
            ),
            (ModelInvalid, "unknown key `colour`"),
        ],
        &[LOADS],
    )
    .with(&[NO_DIGEST]),
    case(
        "weights outside the package, and weights that are a folder",
        |folder| {
            two_files(folder);
            symlink("/etc/passwd", folder.join("one.data")).unwrap();
            create_dir(folder.join("two.data")).unwrap();
        },
        &[
            (ModelInvalid, "is outside its package"),
            (ModelInvalid, "is a folder, not a file"),
        ],
        &[LOADS],
    ),
    case(
        "a digest that is none",
        colors,
        &[(ConfigInvalid, "sha256:")],
        &["the package"],
    )
    .with(&["--digest=1d0818"]),
    case(
        "a model that is not ONNX, and a misspelt key",
        |folder| {
            write(
                folder.join("model.onnx"),
                "version https://git-lfs.github.com/spec/v1",
            )
            .unwrap();
            manifest(folder, "labels: [a]\ncolour: red\n");
        },
        &[
            (ModelInvalid, "unknown key `colour`"),
            (ModelInvalid, "check the file with onnx.checker"),
        ],
        &[],
    ),
    case(
        "a truncated model, with a good model.yaml",
        |folder| {
            colors(folder);
            let model = read(folder.join("model.onnx")).unwrap();
            write(folder.join("model.onnx"), &model[..model.len() / 2]).unwrap();
        },
        &[(ModelInvalid, "cannot load the model")],
        &[FITS],
    ),
    case(
        "an opset that this ONNX Runtime does not know",
        |folder| {
            let mut model = read(example("colors/model.onnx")).unwrap();
            // Field 8 of ModelProto, an OperatorSetIdProto with an empty domain and version 17.
            let import = [0x42, 4, 0x0A, 0, 0x10, 17];
            let at = model
                .windows(import.len())
                .position(|bytes| bytes == import)
                .unwrap();
            model[at + import.len() - 1] = 99;
            write(folder.join("model.onnx"), model).unwrap();
        },
        &[(ModelInvalid, "older opset")],
        &[],
    ),
    case(
        "a type that the protocol does not have",
        |folder| {
            let complex = 14;
            write(
                folder.join("model.onnx"),
                identity(&[("x", complex, &[2])]).encode_to_vec(),
            )
            .unwrap();
        },
        &[(ModelInvalid, "complex64")],
        &[],
    ),
    case(
        "labels, a number of answers, an output and steps that do not fit",
        |folder| {
            colors(folder);
            let text = "task: image-classification\nlabels: [red, green]\n\
                        preprocessing: {resize: {mode: stretch, width: 8, height: 8}, colorOrder: Gray, std: [0]}\n\
                        postprocessing: {topK: 0}\n";
            write(folder.join("model.yaml"), text).unwrap();
        },
        &[
            (ModelInvalid, "there are 2 labels"),
            (ModelInvalid, "postprocessing.topK must be at least 1"),
            (ModelInvalid, "make 1 channels"),
            (
                ModelInvalid,
                "produces images of 8×8, but the model expects 16×16",
            ),
            (ModelInvalid, "preprocessing.std must not be 0"),
        ],
        &[],
    ),
    case(
        "an output that is not in the model, and labels that are not there",
        |folder| {
            colors(folder);
            manifest(folder, "labels: names.txt\noutput: classes\n");
        },
        &[
            (ModelInvalid, "\"names.txt\", which does not exist"),
            (ModelInvalid, "output \"classes\" is not in the model"),
        ],
        &[],
    ),
    case(
        "a model.yaml for a model whose input is no image",
        |folder| {
            let model = onnx::rows(FLOAT, [4, -1], vec![node("Relu", &["x"], &["y"])], Vec::new());
            write(folder.join("model.onnx"), model).unwrap();
            manifest(folder, "labels: [a]\n");
        },
        &[
            (ModelInvalid, "there are 1 labels"),
            (ModelInvalid, "four dimensions"),
        ],
        &[],
    ),
    case(
        "a provider that this ONNX Runtime does not have, and a misspelt key",
        |folder| {
            colors(folder);
            manifest(folder, "labels: [a]\ncolour: red\n");
        },
        &[
            (AcceleratorUnavailable, "CUDAExecutionProvider"),
            (ModelInvalid, "unknown key `colour`"),
        ],
        &[LOADS],
    )
    .with(&["--execution-provider=CUDAExecutionProvider"]),
    case(
        "a provider that runs nothing of the model",
        colors,
        &[(
            ExecutionProviderFallback,
            "runs none of the model's 3 compute nodes",
        )],
        &[FITS],
    )
    .with(&["--execution-provider=AzureExecutionProvider"]),
    case(
        "no ONNX Runtime, and labels that are not there",
        |folder| {
            colors(folder);
            manifest(folder, "labels: names.txt\n");
        },
        &[
            (RuntimeUnavailable, "set ORT_DYLIB_PATH"),
            (ModelInvalid, "\"names.txt\""),
        ],
        &[LOADS, FITS],
    )
    .with(&["--onnx-runtime=/nowhere/libonnxruntime.so"]),
];

/// A copy of the package `colors`.
fn colors(folder: &Path) {
    for file in ["model.onnx", "model.yaml"] {
        copy(example("colors").join(file), folder.join(file)).unwrap();
    }
}

fn manifest(folder: &Path, more: &str) {
    let text = format!("task: image-classification\npreprocessing: {{}}\n{more}");
    write(folder.join("model.yaml"), text).unwrap();
}

/// A model with weights in `one.data` and `two.data`.
fn two_files(folder: &Path) {
    let weights = ["one", "two"].map(|name| external(name, FLOAT, &[2, 2], &format!("{name}.data")));
    let nodes = vec![
        node("MatMul", &["x", "one"], &["z"]),
        node("MatMul", &["z", "two"], &["y"]),
    ];
    write(
        folder.join("model.onnx"),
        onnx::rows(FLOAT, [2, 2], nodes, weights.into()),
    )
    .unwrap();
}

/// Without this, people repair one mistake, wait for a pod, and find the next.
#[test]
fn every_problem_is_told_at_once_and_the_first_is_that_of_a_start() {
    for case in CASES {
        let what = case.what;
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("photos");
        create_dir(&package).unwrap();
        (case.make)(&package);
        let (verdict, code) = verdict(&package, case.arguments);
        let problems = verdict["problems"].as_array().unwrap();
        assert_eq!(problems.len(), case.problems.len(), "{what}: {verdict:#}");
        for (problem, (reason, words)) in problems.iter().zip(case.problems) {
            assert_eq!(problem["reason"], json!(reason), "{what}: {verdict:#}");
            assert_eq!(problem["exitCode"], reason.code(), "{what}");
            let message = problem["message"].as_str().unwrap();
            assert!(message.contains(words), "{what}: {message}");
        }
        assert_eq!(verdict["unchecked"], json!(case.unchecked), "{what}");
        assert_eq!(verdict["isServed"], false, "{what}");
        assert!(verdict.get("requests").is_none(), "{what}");
        assert_eq!(code, i32::from(case.problems[0].0.code()), "{what}");

        let text = String::from_utf8(check(&package, case.arguments).stdout).unwrap();
        for problem in problems {
            assert!(
                text.contains(problem["message"].as_str().unwrap()),
                "{what}: {text}"
            );
        }
        assert_eq!(problems[0]["message"], first_of_start(&package, case), "{what}");
    }
}

/// What a server ends with, without its own prefixes.
fn first_of_start(package: &Path, case: &Case) -> String {
    let digest = case
        .arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("--digest="));
    let config = json!({"models": [{"name": "photos", "path": package, "digest": digest}]});
    let others = case
        .arguments
        .iter()
        .filter(|argument| !argument.starts_with("--digest="));
    let mut server = Server::start(&config.to_string(), &others.copied().collect::<Vec<_>>());
    server.wait();
    let words: TerminationMessage =
        serde_json::from_slice(&read(server.termination_log.path()).unwrap()).unwrap();
    assert_eq!(words.reason, case.problems[0].0, "{}", words.message);
    let message = words.message.replace("MODELSERVICE_CONFIG:", "--model:");
    message
        .strip_prefix("model \"photos\": ")
        .unwrap_or(&message)
        .to_owned()
}

/// What a person knows from the documentation must be what the program does.
#[test]
fn the_documentation_lists_what_is_told_at_once() {
    let row = |case: &Case| {
        let code = case.problems[0].0.code();
        format!("| {} | {} | {code} |", case.what, case.problems.len())
    };
    let rows: Vec<String> = CASES.iter().map(row).collect();
    check_docs_table("checks", "| Package | Problems | Exit code |", &rows);
}

type Good = (&'static str, fn(&Path), &'static str);

/// Packages that are served, and what is noted.
const GOOD: &[Good] = &[
    ("colors", colors, ""),
    (
        "a photograph's model",
        |folder| {
            for file in ["model.onnx", "model.yaml", "labels.txt"] {
                copy(example("efficientnet-lite0").join(file), folder.join(file)).unwrap();
            }
        },
        "",
    ),
    (
        "tensors only",
        |folder| {
            colors(folder);
            remove_file(folder.join("model.yaml")).unwrap();
        },
        "",
    ),
    (
        "any size",
        |folder| {
            let model = identity(&[("x", FLOAT, &[-1, -1]), ("it's", INT64, &[])]);
            write(folder.join("model.onnx"), model.encode_to_vec()).unwrap();
        },
        "accepts inputs of any size",
    ),
    (
        "text and half precision",
        |folder| {
            let model = identity(&[("text", STRING, &[-1, 2]), ("half", FLOAT16, &[-1, 3])]);
            write(folder.join("model.onnx"), model.encode_to_vec()).unwrap();
        },
        "",
    ),
    (
        "ones only",
        |folder| {
            // 1 / 0 is an error for integers.
            let model = onnx::rows(
                INT64,
                [40, 40],
                vec![node("Div", &["x", "x"], &["y"])],
                Vec::new(),
            );
            write(folder.join("model.onnx"), model).unwrap();
        },
        "",
    ),
];

/// A command that is shown must work when it is pasted.
#[test]
fn the_commands_that_are_shown_are_answered_by_a_server() {
    for (what, make, note) in GOOD {
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("photos");
        create_dir(&package).unwrap();
        make(&package);
        let (verdict, code) = verdict(&package, &[]);
        assert_eq!(
            (&verdict["isServed"], code),
            (&json!(true), 0),
            "{what}: {verdict:#}"
        );
        let notes = verdict["notes"].to_string();
        assert!(notes.contains(note), "{what}: {notes}");

        let config = json!({"models": [{"name": "photos", "path": package}]}).to_string();
        let mut server = Server::start(&config, &[]);
        let address = server.addresses().0;
        let requests = &verdict["requests"];
        assert_eq!(requests["isTried"], true, "{what}");
        let image = example("photos/cat.jpg");
        copy(image, folder.path().join("image.jpg")).unwrap();
        let mut commands = vec![&requests["infer"]];
        commands.extend(requests.get("images").map(|images| &images["classify"]));
        for command in commands {
            let command = command
                .as_str()
                .unwrap()
                .replace("localhost:8080", &address.to_string());
            assert!(command.contains(&address.to_string()), "{what}: {command}");
            let command = command.replace("curl ", "curl --silent --show-error --fail-with-body ");
            let output = Command::new("bash")
                .args(["-c", &command])
                .current_dir(folder.path())
                .output()
                .unwrap();
            let told = [&output.stdout[..], &output.stderr].concat();
            assert!(
                output.status.success(),
                "{what}: {command}\n{}",
                String::from_utf8_lossy(&told)
            );
        }
        let text = String::from_utf8(check(&package, &[]).stdout).unwrap();
        assert!(
            text.contains(requests["infer"].as_str().unwrap()),
            "{what}: {text}"
        );
        println!("{text}");
    }
}

/// Whoever reads the page must see the same in their terminal.
#[test]
fn the_documentation_shows_what_is_printed() {
    let docs = read_to_string(support::root().join("docs/server.md")).unwrap();
    let shown = docs
        .split("<!-- check -->")
        .nth(1)
        .and_then(|rest| rest.split("```text\n").nth(1))
        .unwrap();
    let shown = shown.split("```").next().unwrap();
    let output = check(&example("colors"), &[]);
    let printed = String::from_utf8(output.stdout)
        .unwrap()
        .replace("photos:", "colors:");
    assert!(printed.starts_with(shown), "{printed}");
}

/// It runs in pipelines, where the digest of what is published is known.
#[test]
fn a_digest_is_compared_and_the_report_is_that_of_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("photos");
    create_dir(&package).unwrap();
    colors(&package);
    let model = read(package.join("model.onnx")).unwrap();
    let digest = format!("--digest=sha256:{:x}", Sha256::digest(&model));
    let (verdict, code) = verdict(&package, &[&digest]);
    assert_eq!(code, 0, "{verdict:#}");
    let report = &verdict["model"];
    assert_eq!(report["digestChecked"], true);
    assert_eq!(
        report["inputs"],
        json!([{"name": "images", "datatype": "FP32", "shape": [-1, 3, 16, 16]}])
    );
    assert_eq!(report["assignment"]["provider"], "CPUExecutionProvider");
    assert_eq!(verdict["requests"]["images"]["classes"], 3);
    assert_eq!(verdict["requests"]["inferPath"], "/v2/models/photos/infer");
}

/// Nothing may be written into a package that is about to be signed or published.
#[test]
fn a_check_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    colors(folder.path());
    let list = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = list();
    assert!(check(folder.path(), &[]).status.success());
    assert_eq!(list(), before);
}

#[test]
fn the_help_teaches_how_to_check() {
    let help = Command::new(env!("CARGO_BIN_EXE_modelservice-server"))
        .args(["check", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for words in [
        "modelservice-server check ./photos",
        "--output json",
        "exit code",
        "sha256:",
    ] {
        assert!(help.contains(words), "{help}");
    }
    let docs = read_to_string(support::root().join("docs/server.md")).unwrap();
    assert!(
        docs.contains("modelservice-server check "),
        "the documentation names it"
    );
}
