//! The published JSON Schema of `model.yaml` (docs/schemas/model.schema.json) says what the server says, to a validator
//! that knows nothing of the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use modelservice_server::package::SCHEMA;
use modelservice_server::package::manifest::parse;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{example, root};

const SMALLEST: &str = "task: image-classification\nlabels: [cat, dog]\npreprocessing: {}\n";

/// What the validator says of each document.
fn problems(documents: &BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    // It has jsonschema and PyYAML, which openapi-spec-validator needs.
    let python = root().join(".cache/venv-clients/bin/python");
    assert!(python.exists(), "run examples/clients/prepare");
    let script = root().join("inference-image/tests/schema/check.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let given = json!({"schema": schema, "documents": documents}).to_string();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every model.yaml below this folder.
fn manifests(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !path.is_symlink() && !["target", ".cache", ".git"].contains(&name) {
            manifests(&path, found);
        } else if name == "model.yaml" {
            found.insert(
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            );
        }
    }
}

/// An editor that marks a right key teaches people to ignore it.
#[test]
fn every_model_yaml_of_this_project_is_valid() {
    let mut documents = BTreeMap::new();
    manifests(&root(), &mut documents);
    for name in ["efficientnet-lite0", "colors", "tiny"] {
        let path = example(name).join("model.yaml");
        documents.insert(name.to_owned(), std::fs::read_to_string(path).unwrap());
    }
    let docs = std::fs::read_to_string(root().join("docs/server.md")).unwrap();
    let shown = docs.split("<!-- model.yaml -->\n```yaml\n").nth(1).unwrap();
    documents.insert(
        "docs/server.md".to_owned(),
        shown.split("```").next().unwrap().to_owned(),
    );
    documents.insert("the smallest".to_owned(), SMALLEST.to_owned());
    assert!(documents.len() >= 6, "{:?}", documents.keys());
    for (name, problems) in problems(&documents) {
        assert!(problems.is_empty(), "{name}: {problems:?}");
        parse(&documents[&name]).unwrap();
    }
}

/// What the server refuses for its form. Each replaces a part of the smallest document, or is one.
const WRONG: &[(&str, &str, &str)] = &[
    ("an unknown key", "", "colour: RGB\n"),
    ("an unknown step", "{}", "{meen: [1]}"),
    (
        "an unknown key of a step",
        "{}",
        "{resize: {mode: stretch, width: 1, height: 1, sise: 2}}",
    ),
    (
        "a key of the other mode",
        "{}",
        "{resize: {mode: stretch, width: 1, height: 1, size: 2}}",
    ),
    (
        "a size of which there is only half",
        "{}",
        "{resize: {mode: stretch, width: 1}}",
    ),
    ("a resize without a mode", "{}", "{resize: {size: 2}}"),
    ("an unknown mode", "{}", "{resize: {mode: longestEdge, size: 2}}"),
    (
        "a shortest edge without a size",
        "{}",
        "{resize: {mode: shortestEdge}}",
    ),
    ("a negative size", "{}", "{crop: {width: -1, height: 1}}"),
    ("half a pixel", "{}", "{crop: {width: 1.5, height: 1}}"),
    ("a crop without a height", "{}", "{crop: {width: 1}}"),
    ("a crop that is a number", "{}", "{crop: 224}"),
    (
        "an unknown key of the crop",
        "{}",
        "{crop: {width: 1, height: 1, depth: 1}}",
    ),
    (
        "an unknown filter",
        "{}",
        "{resize: {mode: shortestEdge, size: 2, filter: cubic}}",
    ),
    (
        "antialiasing that is a number",
        "{}",
        "{resize: {mode: shortestEdge, size: 2, antialias: 3}}",
    ),
    ("a colour order in lower case", "{}", "{colorOrder: rgb}"),
    ("an unknown layout", "{}", "{layout: CHW}"),
    ("a mean that is a word", "{}", "{mean: [grey]}"),
    ("a mean that is no list", "{}", "{mean: {red: 1}}"),
    ("a scale that is a word", "{}", "{scale: large}"),
    ("steps that are a list", "{}", "[]"),
    ("another task", "image-classification", "segmentation"),
    ("labels that are an object", "[cat, dog]", "{cat: 0}"),
    (
        "an unknown activation",
        "",
        "postprocessing: {activation: sigmoid}\n",
    ),
    ("a negative number of classes", "", "postprocessing: {topK: -1}\n"),
    (
        "an unknown key of the post-processing",
        "",
        "postprocessing: {top_k: 1}\n",
    ),
    ("no task", "task: image-classification\n", "\n"),
    ("no labels", "labels: [cat, dog]\n", "\n"),
    ("no steps", "preprocessing: {}\n", "\n"),
    ("a list", SMALLEST, "[]\n"),
    ("nothing", SMALLEST, "\n"),
];

/// Otherwise the mistake is only found when a pod starts.
#[test]
fn a_form_that_the_server_refuses_is_refused_by_the_schema() {
    let document = |(what, old, new): &(&str, &str, &str)| {
        let text = match *old {
            "" => format!("{SMALLEST}{new}"),
            old => SMALLEST.replacen(old, new, 1),
        };
        ((*what).to_owned(), text)
    };
    let documents: BTreeMap<String, String> = WRONG.iter().map(document).collect();
    assert_eq!(documents.len(), WRONG.len());
    for (what, problems) in problems(&documents) {
        let text = &documents[&what];
        assert!(parse(text).is_err(), "{what}: the server accepts {text:?}");
        assert!(!problems.is_empty(), "{what}: the schema accepts {text:?}");
    }
}

/// What an editor shows when it completes.
#[test]
fn every_key_and_value_has_a_description() {
    fn check(schema: &Value, at: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                // The tag of an enumeration: its description is the variant's.
                let is_described = property["description"].is_string() || property["const"].is_string();
                assert!(is_described, "{at}/{name}: {property}");
                check(property, &format!("{at}/{name}"));
            }
        }
        for list in ["oneOf", "anyOf", "allOf"] {
            for (index, one) in schema[list].as_array().into_iter().flatten().enumerate() {
                let is_described =
                    one["description"].is_string() || one["$ref"].is_string() || one["type"] == "null";
                assert!(is_described, "{at}/{list}/{index}: {one}");
                check(one, &format!("{at}/{list}/{index}"));
            }
        }
    }
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    check(&schema, "");
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        assert!(definition["description"].is_string(), "{name}");
        check(definition, name);
    }
}

/// People have the server, not always this repository.
#[test]
fn the_server_prints_the_schema() {
    let output = Command::new(env!("CARGO_BIN_EXE_modelservice-server"))
        .arg("schema")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), SCHEMA);
}
