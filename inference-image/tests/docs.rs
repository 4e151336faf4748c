//! What docs/server.md shows is what the server takes and says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_contract::{Drain, Limits};
use modelservice_server::metrics::{Metrics, Reloaded};
use modelservice_server::package::manifest::{Labels, Manifest, parse};
use modelservice_server::{config, package};
use support::{example, root};

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
    let real = package::manifest::read(&example("efficientnet-lite0"))
        .unwrap()
        .unwrap();
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
    assert_eq!((shown.limits, shown.drain), (Limits::default(), Drain::default()));
    let defaults = config::parse("models: [{name: a, path: b}]").unwrap();
    assert_eq!(shown.execution_provider, defaults.execution_provider);
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
    assert_eq!(described.count(), 17);
}
