//! values.schema.json: what can be said, and what is refused before anything is installed.

use crate::{
    helm::{CHART, Helm},
    read,
};
use serde_json::Value;

/// A typo that is accepted silently is found in production.
#[test]
fn nonsense_is_refused_and_the_message_names_the_key() {
    let digest = "sha256:short";
    let table: &[(&[&str], &str)] = &[
        (&["--set", "replica=2"], "replica"),
        (&["--set", "image.name=x"], "name"),
        (&["--set", "image.repository="], "repository"),
        (&["--set", "image.repository=r.example/o:tag"], "repository"),
        (&["--set-string", "image.tag=a b"], "tag"),
        (&["--set", "image.pullPolicy=Sometimes"], "pullPolicy"),
        (&["--set", &format!("image.digest={digest}")], "digest"),
        (&["--set", &format!("runtimeImage.digest={digest}")], "digest"),
        (
            &["--set", "imagePullSecrets={registry-login}"],
            "imagePullSecrets",
        ),
        (&["--set", "replicas=-1"], "replicas"),
        (&["--set-string", "replicas=two"], "replicas"),
        (&["--set", "crds.keep=perhaps"], "keep"),
        (&["--set", "watchNamespaces={Team_A}"], "watchNamespaces"),
        (&["--set", "watchNamespaces={a,a}"], "watchNamespaces"),
        (&["--set", "accelerators.extra[0].name=tpu"], "spec"),
        (
            &[
                "--set",
                "accelerators.extra[0].name=tpu,accelerators.extra[0].spec.resource.name=tpu",
            ],
            "resource",
        ),
        (
            &[
                "--set",
                "accelerators.extra[0].name=tpu,accelerators.extra[0].spec.sharing=Never",
            ],
            "sharing",
        ),
        (
            &[
                "--set",
                "accelerators.extra[0].name=tpu,accelerators.extra[0].spec.runtime.executionProvider=CUDA",
            ],
            "executionProvider",
        ),
        (
            &["--set", "leaderElection.leaseDurationSeconds=1"],
            "leaseDurationSeconds",
        ),
        (&["--set", "logFormat=xml"], "logFormat"),
        (&["--set", "logLevel="], "logLevel"),
        (&["--set", "otlpEndpoint=collector:4317"], "otlpEndpoint"),
        (&["--set", "resources.request.cpu=1"], "request"),
        (&["--set", "nodeSelector={linux}"], "nodeSelector"),
        (&["--set", "serviceMonitor.interval=often"], "interval"),
        (&["--set", "networkPolicy.apiServerPorts={0}"], "apiServerPorts"),
        (
            &["--set", "admissionPolicy.validationActions={Refuse}"],
            "validationActions",
        ),
        (
            &["--set", "test.modelImage=registry.example/model:latest"],
            "modelImage",
        ),
        // What a schema cannot say, the templates do.
        (
            &["--set", "replicas=2,leaderElection.enabled=false"],
            "leaderElection.enabled",
        ),
        (&["--set", "serviceAccount.create=false"], "serviceAccount.name"),
        (&["--set", "admissionPolicy.enabled=true"], "allowedModelImages"),
    ];
    for helm in Helm::BOTH {
        for (arguments, key) in table {
            match helm.template(arguments) {
                Ok(_) => panic!("{helm:?} accepts {arguments:?}"),
                Err(message) => assert!(
                    message.split_once("\n").unwrap().1.contains(key),
                    "{arguments:?}: {message}"
                ),
            }
        }
    }
}

/// An undocumented value is found by reading templates only; a value that the schema lacks is refused.
#[test]
fn every_value_is_in_the_schema_and_in_the_documented_defaults() {
    let schema: Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let values: Value = serde_saphyr::from_str(&read(&format!("{CHART}/values.yaml"))).unwrap();
    compare("", &schema, &values);
}

fn compare(path: &str, schema: &Value, values: &Value) {
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object()) else {
        return;
    };
    for (key, nested) in properties {
        // Helm's own; what is asked of resources is Kubernetes' business.
        if ["global", "claims"].contains(&key.as_str()) {
            continue;
        }
        assert!(values.contains_key(key), "values.yaml lacks {path}.{key}");
        compare(&format!("{path}.{key}"), nested, &values[key]);
    }
    for key in values.keys() {
        assert!(
            properties.contains_key(key),
            "values.schema.json lacks {path}.{key}"
        );
    }
    assert_eq!(schema["additionalProperties"], false, "{path} accepts any key");
}
