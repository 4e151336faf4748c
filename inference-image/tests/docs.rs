//! The server accepts and outputs what docs/server.md shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{ModelConfig, ServerConfig};
use modelservice_server::metrics::{Metrics, Reloaded};
use modelservice_server::package::manifest::{Labels, Manifest, parse};
use modelservice_server::{config, package};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use support::{Server, example, root};

fn docs() -> String {
    std::fs::read_to_string(root().join("docs/server.md")).unwrap()
}

/// The fenced block after a marker.
fn block(marker: &str) -> String {
    let docs = docs();
    let (_, rest) = docs.split_once(&format!("<!-- {marker} -->\n```yaml\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_model_yaml_shown_is_that_of_the_example() {
    let shown = parse(&block("model.yaml")).unwrap();
    assert_eq!(shown.labels, Labels::File("labels.txt".into()));
    let config = ModelConfig {
        name: "m".into(),
        path: example("efficientnet-lite0").display().to_string(),
        digest: None,
        ..ModelConfig::default()
    };
    let real = package::open(&config).unwrap().package.manifest.unwrap();
    assert_eq!(
        shown,
        Manifest {
            labels: shown.labels.clone(),
            input: shown.input.clone(),
            output: shown.output.clone(),
            ..real
        }
    );
}

#[test]
fn the_configuration_shown_is_valid_and_holds_the_defaults() {
    let shown = config::parse(&block("configuration")).unwrap();
    let defaults = ServerConfig {
        models: shown.models.clone(),
        ..ServerConfig::default()
    };
    assert_eq!(shown, defaults);
}

/// Nobody finds a key that is not shown.
#[test]
fn every_key_of_the_configuration_is_shown() {
    let shown = block("configuration");
    // Including the optional keys, which are shown as comments.
    let whole = shown.replace("\n# ", "\n").replace("\ncache: {}", "\ncache:");
    let whole = whole.replace("\nmax: ", "\n  max: ");
    // The CPU takes nothing of what is for devices.
    let whole = whole.replace("name: CPUExecutionProvider", "name: ggml");
    let whole = config::parse(&whole).unwrap_or_else(|problem| panic!("{problem}\n{whole}"));
    assert!(whole.tls.is_some() && whole.auth.is_some() && whole.cors.is_some() && whole.tracing.is_some());
    let text = config::effective(&whole).unwrap();
    assert!(!text.contains("null"), "{text}");
    for line in text.lines() {
        let (key, _) = line.trim_start_matches([' ', '-']).split_once(':').unwrap();
        assert!(
            shown.contains(&format!("{key}:")),
            "{key} is not in docs/server.md"
        );
    }
}

/// Copied commands must work: they are run unchanged, except for the name of the server.
#[test]
fn the_commands_that_classify_images_answer_what_is_shown() {
    let docs = docs();
    let (_, section) = docs.split_once("## Classify an image").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let config = json!({"models": [{"name": "photos", "path": example("efficientnet-lite0")}]});
    let mut server = Server::start(&config.to_string(), &[]);
    let (address, _) = server.addresses();
    let mut commands = 0;
    for text in section.split("```sh\n").skip(1) {
        let (command, rest) = text.split_once("```\n```json\n").unwrap();
        let shown: Value = serde_json::from_str(rest.split_once("```").unwrap().0).unwrap();
        let command = command.replace("photos.team-a.svc", &address.to_string());
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(example("photos"))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(agree(&answer, &shown), "{command}\n{answer}");
        commands += 1;
    }
    assert_eq!(commands, 2);
}

/// Equal except for the last digits of probabilities, which depend on the processor.
fn agree(answer: &Value, shown: &Value) -> bool {
    match (answer, shown) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(our, their)| agree(our, their))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.keys().eq(theirs.keys()) && ours.iter().all(|(name, our)| agree(our, &theirs[name]))
        }
        _ if shown.is_f64() => (answer.as_f64().unwrap() - shown.as_f64().unwrap()).abs() < 0.01,
        _ => answer == shown,
    }
}

#[test]
fn every_metric_is_described() {
    let metrics = Metrics::new("", "", "");
    let _model = metrics.model("photos");
    metrics.connections().reloaded(Reloaded::Tokens, true);
    let (docs, text) = (docs(), metrics.encode().unwrap());
    let described = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert!(
                docs.contains(&format!("| `{name}{suffix}` | {kind} |")),
                "{name}{suffix} is not in docs/server.md"
            );
        });
    assert_eq!(described.count(), 18);
}
