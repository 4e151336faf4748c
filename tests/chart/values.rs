//! values.schema.json: which values are accepted, and which are rejected before anything is installed.

use crate::{
    helm::{CHART, Helm, output},
    read,
};
use serde_json::Value;

/// A typo that is silently accepted would be found only in production.
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
                "accelerators.extra[0].name=tpu,accelerators.extra[0].spec.runtime.executionProvider=a b",
            ],
            "executionProvider",
        ),
        (&["--set", "accelerators.openvino.image=No Image"], "openvino"),
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
        // The templates check what a schema cannot.
        (
            &["--set", "replicas=2,leaderElection.enabled=false"],
            "leaderElection.enabled",
        ),
        (&["--set", "serviceAccount.create=false"], "serviceAccount.name"),
        (&["--set", "admissionPolicy.enabled=true"], "allowedModelImages"),
        (
            &[
                "--set",
                "admissionPolicy.enabled=true,admissionPolicy.checkReferences=true",
                "--set",
                "admissionPolicy.allowedPublicKeys={-----BEGIN PUBLIC KEY-----MFkw-----END PUBLIC KEY-----}",
            ],
            "needs requireVerification",
        ),
        (
            &[
                "--set",
                "admissionPolicy.enabled=true,admissionPolicy.allowedModelSources={az://models/}",
            ],
            "list https://ACCOUNT.blob.core.windows.net/models/",
        ),
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

/// Values as YAML, which `--set` cannot express, each with what the message must name.
const NONSENSE: &[(&str, &str)] = &[
    ("fullnameOverride: Bad_Name", "fullnameOverride"),
    ("fullnameOverride: 1st", "fullnameOverride"),
    ("nameOverride: a.b", "nameOverride"),
    ("nameOverride: ends-", "nameOverride"),
    ("image: {repository: r.example/Upper}", "repository"),
    ("image: {repository: r.example//o}", "repository"),
    ("image: {tag: -begins}", "tag"),
    ("runtimeImage: {repository: 'r.example/s:1'}", "repository"),
    ("imagePullSecrets: [{name: Registry Login}]", "imagePullSecrets"),
    ("watchNamespaces: [a.b]", "watchNamespaces"),
    ("logLevel: loud", "logLevel"),
    ("logLevel: info,kube", "logLevel"),
    ("logLevel: kube=loud", "logLevel"),
    ("otlpEndpoint: 'http://col lector:4317'", "otlpEndpoint"),
    ("otlpEndpoint: 'http://:4317'", "otlpEndpoint"),
    ("resources: {requests: {cpu: lots}}", "resources/requests/cpu"),
    ("resources: {limits: {memory: -1}}", "resources/limits/memory"),
    ("resources: {limits: {memory: 1GiB}}", "resources/limits/memory"),
    ("resources: {requests: {procesors: 1}}", "'procesors'"),
    ("resources: {claims: [{}]}", "resources/claims"),
    ("nodeSelector: {'a/b/c': d}", "nodeSelector"),
    ("nodeSelector: {disk: ssd drive}", "nodeSelector/disk"),
    ("nodeSelector: {gpu: true}", "nodeSelector/gpu"),
    ("tolerations: [{key: a b, operator: Exists}]", "tolerations/0/key"),
    ("tolerations: [{key: a, operator: Is}]", "tolerations/0/operator"),
    (
        "tolerations: [{key: a, operator: Exists, value: b}]",
        "tolerations/0/value",
    ),
    ("tolerations: [{operator: Equal, value: b}]", "key"),
    ("tolerations: [{key: a, effect: NoStart}]", "tolerations/0/effect"),
    ("tolerations: [{key: a, tolerationSeconds: 3}]", "effect"),
    ("tolerations: [{keys: a}]", "keys"),
    ("affinity: {node: {}}", "node"),
    (
        "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Has}]}]}}}",
        "operator",
    ),
    (
        "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}}]}}",
        "topologyKey",
    ),
    (
        "affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, podAffinityTerm: {topologyKey: zone}}]}}",
        "weight",
    ),
    (
        "topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]",
        "maxSkew",
    ),
    (
        "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Never}]",
        "whenUnsatisfiable",
    ),
    ("priorityClassName: Very High", "priorityClassName"),
    ("podAnnotations: {a b: c}", "podAnnotations"),
    ("podAnnotations: {a: 1}", "podAnnotations"),
    (
        "podAnnotations: {checksum/accelerator-classes: x}",
        "podAnnotations",
    ),
    ("podLabels: {a: b c}", "podLabels/a"),
    ("podLabels: {app.kubernetes.io/name: other}", "podLabels"),
    ("podLabels: {app.kubernetes.io/instance: other}", "podLabels"),
    ("podLabels: {app.kubernetes.io/component: other}", "podLabels"),
    ("serviceAccount: {name: My Account}", "serviceAccount/name"),
    (
        "serviceAccount: {annotations: {a b: c}}",
        "serviceAccount/annotations",
    ),
    ("serviceMonitor: {interval: 1s1h}", "interval"),
    ("serviceMonitor: {interval: ''}", "interval"),
    (
        "serviceMonitor: {labels: {app.kubernetes.io/name: other}}",
        "serviceMonitor/labels",
    ),
    ("networkPolicy: {apiServerPorts: [443, 443]}", "apiServerPorts"),
    ("networkPolicy: {metricsFrom: [{}]}", "metricsFrom"),
    (
        "networkPolicy: {metricsFrom: [{ipBlock: {cidr: everywhere}}]}",
        "cidr",
    ),
    (
        "networkPolicy: {metricsFrom: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}",
        "metricsFrom",
    ),
    (
        "networkPolicy: {metricsFrom: [{podSelector: {matchLabels: {a: b c}}}]}",
        "matchLabels",
    ),
    // Without a slash, it would also allow registry.example.elsewhere.net.
    (
        "admissionPolicy: {allowedModelImages: [registry.example]}",
        "allowedModelImages",
    ),
    (
        "admissionPolicy: {allowedModelImages: [\"r.example/' + 'x\"]}",
        "allowedModelImages",
    ),
    // The same, and what a policy's expression would take for its end.
    (
        "admissionPolicy: {allowedModelSources: [\"s3://models\"]}",
        "allowedModelSources",
    ),
    (
        "admissionPolicy: {allowedModelSources: [\"s3://models/' + 'x\"]}",
        "allowedModelSources",
    ),
    (
        "admissionPolicy: {allowedModelSources: [models/]}",
        "allowedModelSources",
    ),
    (
        "admissionPolicy: {requireVerification: yes please}",
        "requireVerification",
    ),
    (
        "admissionPolicy: {allowedPublicKeys: [\"-----BEGIN PRIVATE KEY-----MFkw-----END PRIVATE KEY-----\"]}",
        "allowedPublicKeys",
    ),
    (
        "admissionPolicy: {namespaceSelector: {matchLabel: {a: b}}}",
        "namespaceSelector",
    ),
    (
        "admissionPolicy: {validationActions: [Deny, Warn]}",
        "validationActions",
    ),
    (
        "accelerators: {extra: [{name: Bad Name, spec: {}}]}",
        "extra/0/name",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {resource: {name: a/b/c d}}}]}",
        "resource/name",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {resource: {name: kubernetes.io/a}}}]}",
        "resource/name",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtimeClassName: Bad Name}}]}",
        "runtimeClassName",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {image: 'No Image'}}}]}",
        "runtime/image",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {nodeSelector: {a: b c}}}]}",
        "nodeSelector",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {tolerations: [{operator: Is}]}}]}",
        "tolerations",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {deviceRequest: {exactly: {deviceClassName: A b}}}}]}",
        "deviceClassName",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {deviceRequest: {exactly: {deviceClassName: a, count: 0}}}}]}",
        "count",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {deviceRequest: {firstAvailable: []}}}]}",
        "firstAvailable",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {deviceRequest: {firstAvailable: [{name: b, deviceClassName: c, selectors: [{cel: {expression: ''}}]}]}}}]}",
        "expression",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {nodeAffinity: {preferred: []}}}]}",
        "preferred",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {env: [{name: LD_PRELOAD}]}}]}",
        "env/0/name",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {imagePullPolicy: Sometimes}}}]}",
        "imagePullPolicy",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {plugin: {library: p.so}}}}]}",
        "library",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {plugin: {library: /p.so, deviceType: TPU}}}}]}",
        "deviceType",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {runners: 0}}}]}",
        "runners",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {memoryLimit: much}}}]}",
        "memoryLimit",
    ),
    (
        "accelerators: {extra: [{name: a, spec: {runtime: {allowCpuShare: 101}}}]}",
        "allowCpuShare",
    ),
    (
        "test: {modelImage: 'no image@sha256:2222222222222222222222222222222222222222222222222222222222222222'}",
        "modelImage",
    ),
];

/// Otherwise the API server would reject these object by object during the installation, or not at all.
#[test]
fn names_quantities_labels_and_peers_are_checked_before_anything_is_installed() {
    for (number, (values, key)) in NONSENSE.iter().enumerate() {
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nonsense-{number}.yaml"));
        std::fs::write(&file, values).unwrap();
        // Helm 4 has the same validator.
        match Helm::Three.template(&["--values", file.to_str().unwrap()]) {
            Ok(_) => panic!("accepted: {values}"),
            Err(message) => assert!(message.contains(key), "{values}: {message}"),
        }
    }
}

/// Values that people really write.
#[test]
fn sensible_values_are_accepted() {
    let values = r#"
fullnameOverride: models
image: {repository: "localhost:5000/a_b/c--d.e", tag: v1.2_x}
runtimeImage: {repository: "[::1]:5000/serving"}
logLevel: "warn,modelservice_operator::apply=trace,kube[request{verb=GET}]=debug"
otlpEndpoint: https://otlp.example.com
resources: {requests: {cpu: 0.5, memory: 1e8, example.com/nic: 1}, limits: {memory: null, hugepages-2Mi: 4Mi}}
nodeSelector: {kubernetes.io/os: linux, empty: ""}
tolerations: [{operator: Exists}, {key: a, value: b, effect: NoExecute, tolerationSeconds: 30}]
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
      - matchExpressions: [{key: example.com/cores, operator: Gt, values: ["4"]}]
        matchFields: [{key: metadata.name, operator: In, values: [node.example]}]
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {a: b}}, namespaces: [team-a]}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Honor}]
podAnnotations: {sidecar.istio.io/inject: "false", Example.com/Owner: anything at all}
podLabels: {team: platform}
serviceMonitor: {interval: 1m30s}
networkPolicy:
  enabled: true
  metricsFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: "fd00::/8"}}, {podSelector: {}}]
admissionPolicy: {enabled: true, allowedModelImages: ["registry.example:5000/", registry.example/models/a], allowedModelSources: ["gs://models/", "http://minio.storage:9000/models/", "hf://our-org/", "https://account.blob.core.windows.net/models/a"], requireVerification: true, allowedPublicKeys: ["-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"]}
"#;
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("sensible.yaml");
    std::fs::write(&file, values).unwrap();
    for helm in Helm::BOTH {
        let rendered = helm.template(&["--values", file.to_str().unwrap()]).unwrap();
        assert!(
            rendered.contains("port: 443\n      protocol: TCP"),
            "the collector's port: {rendered}"
        );
        assert!(!rendered.contains("memory: null"));
    }
}

/// A release may have a name that a Service cannot have.
#[test]
fn a_release_whose_name_no_service_can_have_is_told_so() {
    for (release, set, accepted) in [
        ("a.b", "replicas=1", false),
        ("1st", "replicas=1", false),
        ("1st", "fullnameOverride=first", true),
        ("first", "replicas=1", true),
    ] {
        let mut command = Helm::Four.command(None);
        command.args([
            "template",
            release,
            CHART,
            "--kube-version",
            "1.37.0",
            "--set",
            set,
        ]);
        match output(&mut command) {
            Ok(_) => assert!(accepted, "{release}"),
            Err(message) => assert!(!accepted && message.contains("set fullnameOverride"), "{message}"),
        }
    }
}

/// If the schema gave only a type, any nonsense of that type would be accepted.
#[test]
fn the_schema_leaves_no_value_open() {
    let schema: Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let mut open = Vec::new();
    find_open("", &schema, &mut open);
    let meant = [
        r"/definitions/annotations/patternProperties/^([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        "/definitions/toleration/properties/tolerationSeconds",
        "/properties/accelerators/properties/extra/items/properties/spec/properties/env/items/properties/value",
        "/properties/accelerators/properties/extra/items/properties/spec/properties/runtime/properties/options/additionalProperties",
        "/properties/global",
        "/properties/resources/properties/claims/items/properties/request",
    ];
    open.sort();
    assert_eq!(open, meant);
}

fn find_open(path: &str, schema: &Value, open: &mut Vec<String>) {
    let Some(map) = schema.as_object() else { return };
    let says = |keys: &[&str]| keys.iter().any(|key| map.contains_key(*key));
    let closed = match map.get("type").and_then(Value::as_str) {
        Some("string") => says(&["pattern", "enum", "const"]),
        Some("integer" | "number") => says(&["minimum"]),
        Some("array") => says(&["items"]),
        Some("object") => says(&["properties", "additionalProperties"]),
        _ => true,
    };
    if !closed {
        open.push(path.to_owned());
    }
    for (key, nested) in map {
        let path = format!("{path}/{key}");
        match nested {
            Value::Object(_) => find_open(&path, nested, open),
            Value::Array(items) => items.iter().for_each(|item| find_open(&path, item, open)),
            _ => {}
        }
    }
}

/// An undocumented value can be found only in the templates, and a value that is missing from the schema is rejected.
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
        // Helm's own value, and one that Kubernetes defines.
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
