//! The documentation is correct: pages generated from the code are current, tables list what the code has, and links
//! lead somewhere. `lifecycle` applies its manifests (as a dry run).

mod api_reference;

use crate::{helm::Helm, read, repository};
use kube::runtime::reflector::ObjectRef;
use modelservice_operator::{
    crd::ModelServiceSpec,
    process::metrics::{Metrics, Step},
    reason::Reason,
    revision,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every page of the book, README and CONTRIBUTING.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = std::fs::read_dir(repository("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|path| path.ends_with(".md"))
        .collect();
    pages.sort();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(str::to_owned));
    pages
}

/// Fenced blocks of a language: where they begin, and their text.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<(String, String)> {
    let text = read(page);
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            Some(_) if line.trim() == "```" => found.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
            None => {
                if let Some(fence) = line.trim().strip_prefix("```") {
                    // Blocks of other languages are read too, so that their end is not taken for a beginning.
                    let place = if fence == language {
                        format!("{page}:{}", number + 1)
                    } else {
                        String::new()
                    };
                    open = Some((place, String::new()));
                }
            }
        }
    }
    found.retain(|(place, _)| !place.is_empty());
    found
}

/// Manifests in the documentation that a control plane with our definitions can validate.
pub(crate) fn manifests() -> Vec<(String, String)> {
    let all: Vec<(String, String)> = pages().iter().flat_map(|page| blocks(page, "yaml")).collect();
    let manifests: Vec<(String, String)> = all
        .into_iter()
        .filter(|(_, text)| text.contains("apiVersion:") && text.contains("kind:"))
        // Argo CD's definitions are only in very large modules.
        .filter(|(_, text)| !text.contains("apiVersion: argoproj.io/"))
        .collect();
    assert!(manifests.len() > 10, "the documentation has lost its examples");
    manifests
}

/// Otherwise users copy values that the schema rejects.
#[test]
fn the_chart_accepts_the_values_in_the_documentation() {
    let all = pages();
    let values: Vec<(String, String)> = all
        .iter()
        .flat_map(|page| blocks(page, "yaml"))
        .filter(|(_, text)| text.starts_with("# values.yaml"))
        .collect();
    assert!(values.len() >= 2);
    for (place, text) in values {
        let name = place.replace(['/', ':'], "-");
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        Helm::Four
            .template(&["--values", file.to_str().unwrap()])
            .unwrap_or_else(|error| panic!("{place}: {error}"));
    }
}

#[test]
fn the_api_reference_is_what_the_definitions_say() {
    let wanted = api_reference::render(&[
        read("crds/modelservices.yaml"),
        read("crds/acceleratorclasses.yaml"),
    ]);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(repository("docs/api.md"), &wanted).unwrap();
    }
    assert!(
        read("docs/api.md") == wanted,
        "docs/api.md is stale: run `UPDATE_GENERATED=1 cargo test --test chart`"
    );
}

/// Nobody finds a page that is not in the summary.
#[test]
fn every_page_is_in_the_summary() {
    let summary = read("docs/SUMMARY.md");
    for page in pages()
        .iter()
        .filter_map(|page| page.strip_prefix("docs/"))
        .filter(|page| *page != "SUMMARY.md")
    {
        assert!(
            summary.contains(&format!("({page})")),
            "docs/SUMMARY.md lacks {page}"
        );
    }
}

#[test]
fn every_link_inside_the_repository_leads_somewhere() {
    let mut checked = 0;
    for page in pages() {
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(&read(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                format!("{folder}/{path}").trim_start_matches('/').to_owned()
            };
            assert!(
                repository(&target).exists(),
                "{page} links to {link}, which does not exist"
            );
            if !anchor.is_empty() {
                let anchors = anchors(&read(&target));
                assert!(
                    anchors.contains(anchor),
                    "{page} links to {link}; {target} has {anchors:?}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
}

/// Targets of `[text](target)` outside code.
fn links(text: &str) -> Vec<String> {
    let mut inside = false;
    let prose: Vec<&str> = text
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
        .collect();
    // Patterns in code look like links.
    let prose: String = prose.join("\n").split('`').step_by(2).collect();
    let parts = prose.split("](").skip(1);
    parts
        .filter_map(|part| part.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// Anchors of headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// Rows of the tables of a page, as cells without code marks.
fn rows(page: &str) -> Vec<Vec<String>> {
    let text = read(page);
    text.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-") && !line.starts_with("| -"))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
}

/// People on call look up reasons; a missing one costs them hours.
#[test]
fn every_reason_has_a_row_in_troubleshooting() {
    let rows = rows("docs/troubleshooting.md");
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    for reason in &reasons {
        let row = rows.iter().find(|row| row[0] == **reason);
        let row = row.unwrap_or_else(|| panic!("docs/troubleshooting.md has no row for {reason}"));
        assert!(
            row.len() >= 3 && row.iter().all(|cell| !cell.is_empty()),
            "{row:?}"
        );
    }
    let documented = rows.iter().filter(|row| row.len() == 4 && row[0] != "Reason");
    for row in documented {
        assert!(
            reasons.contains(row[0].as_str()),
            "docs/troubleshooting.md explains {}, which the code does not say",
            row[0]
        );
    }
}

/// People use this table to decide whether a change can be made on a Friday.
#[test]
fn the_table_of_revisions_says_what_the_hash_does() {
    let rows = rows("docs/revisions.md");
    let base = json!({"model": {"image": "i"}});
    let samples: &[(&str, Value)] = &[
        ("spec.model.image", json!({"model": {"image": "j"}})),
        (
            "spec.model.digest",
            json!({"model": {"image": "i", "digest": "sha256:0"}}),
        ),
        (
            "spec.model.uri",
            json!({"model": {"uri": "s3://models/net.onnx"}}),
        ),
        (
            "spec.model.volumeClaim",
            json!({"model": {"volumeClaim": {"name": "models"}}}),
        ),
        (
            "spec.model.endpoint",
            json!({"model": {"image": "i", "endpoint": "http://minio:9000"}}),
        ),
        (
            "spec.model.refresh",
            json!({"model": {"image": "i", "refresh": "1"}}),
        ),
        (
            "spec.model.delivery",
            json!({"model": {"image": "i", "delivery": "Fetch"}}),
        ),
        (
            "spec.model.verification",
            json!({"model": {"image": "i", "verification": {"publicKey": "k"}}}),
        ),
        ("spec.fetch", json!({"fetch": {"runAsUser": 7}})),
        ("spec.accelerators", json!({"accelerators": ["tpu"]})),
        ("spec.fallbackAfter", json!({"fallbackAfter": "1m"})),
        ("spec.resources", json!({"resources": {"requests": {"cpu": "3"}}})),
        ("spec.server", json!({"server": {"queueLength": 3}})),
        (
            "spec.server.cache",
            json!({"server": {"cache": {"volumeClaim": {"name": "graphs"}}}}),
        ),
        ("spec.pod", json!({"pod": {"fsGroup": 3}})),
        ("spec.adoptRuntime", json!({"adoptRuntime": "0.2.0"})),
        ("spec.replicas", json!({"replicas": 3})),
        ("spec.autoscaling", json!({"autoscaling": {"maxReplicas": 3}})),
        ("spec.suspend", json!({"suspend": true})),
        (
            "spec.rollout.strategy",
            json!({"rollout": {"strategy": "Recreate"}}),
        ),
        (
            "spec.rollout.startupDeadlineSeconds",
            json!({"rollout": {"startupDeadlineSeconds": 33}}),
        ),
        (
            "spec.rollout.fetchDeadlineSeconds",
            json!({"rollout": {"fetchDeadlineSeconds": 33}}),
        ),
        (
            "spec.rollout.progressDeadlineSeconds",
            json!({"rollout": {"progressDeadlineSeconds": 33}}),
        ),
        ("spec.revisionHistoryLimit", json!({"revisionHistoryLimit": 1})),
    ];
    let named =
        |spec: &Value| revision::name(&serde_json::from_value::<ModelServiceSpec>(spec.clone()).unwrap());
    for (field, change) in samples {
        let row = rows
            .iter()
            .find(|row| row[0] == *field)
            .unwrap_or_else(|| panic!("docs/revisions.md lacks {field}"));
        let mut spec = base.clone();
        spec.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let is_new = named(&spec) != named(&base);
        assert_eq!(row[1].starts_with("new revision"), is_new, "{field}: {}", row[1]);
    }
    let definition: Value = serde_saphyr::from_str(&read("crds/modelservices.yaml")).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for field in spec.as_object().unwrap().keys() {
        let path = format!("spec.{field}");
        assert!(
            samples
                .iter()
                .any(|(sample, _)| *sample == path || sample.starts_with(&format!("{path}."))),
            "{path} is not in the table"
        );
    }
}

/// People use this page to decide what to allow.
#[test]
fn the_security_page_names_everything_that_is_refused_of_pods() {
    let page = read("docs/security.md");
    let definition: Value = serde_saphyr::from_str(&read("crds/modelservices.yaml")).unwrap();
    let pod = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["pod"]["properties"];
    let rule = |schema: &Value, about: &str| {
        let rules = schema["x-kubernetes-validations"].as_array().unwrap();
        let rule = rules
            .iter()
            .find(|rule| rule["message"].as_str().unwrap().contains(about))
            .unwrap();
        rule["rule"].as_str().unwrap().to_owned()
    };
    let variables = rule(&pod["env"]["items"], "environment variable is refused");
    let pattern = variables.split('\'').nth(1).unwrap();
    let names = pattern
        .split(['^', '(', '|', ')', '$'])
        .map(|name| name.trim_start_matches(".*"));
    let annotations = rule(&pod["annotations"], "confines a pod");
    let keys = annotations.split('\'').skip(1).step_by(2);
    let all: Vec<&str> = names.chain(keys).filter(|text| !text.is_empty()).collect();
    assert!(all.len() > 30, "{all:?}");
    for text in all {
        let is_named = page.contains(&format!("`{text}")) || page.contains(&format!("…{text}"));
        assert!(is_named, "docs/security.md lacks {text}");
    }
}

/// People build dashboards from this list.
#[test]
fn every_metric_of_the_operator_is_documented() {
    let page = read("docs/metrics.md");
    let metrics = Metrics::default();
    // A family without a value is not written.
    metrics
        .reconcile_started(&ObjectRef::new("orchids"))
        .step(Step::Plan, || ());
    metrics.requested("GET", 200);
    let text = metrics.text();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(names.len() >= 7, "{text}");
    for name in names {
        assert!(page.contains(name), "docs/metrics.md lacks {name}");
    }
}

#[test]
fn the_readme_is_short_and_begins_with_the_two_commands() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 200);
    let top: Vec<&str> = readme.lines().take(25).collect();
    for command in ["make quickstart", "make test"] {
        assert!(
            top.iter().any(|line| line.contains(command)),
            "{command} is not at the top"
        );
    }
}
