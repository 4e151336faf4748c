//! What the API server itself rejects, by the CRDs' schema and CEL rules, and its messages.

use crate::fixture::{Spec, World, model, service};
use kube::api::{Patch, PatchParams};
use modelservice_operator::crd::{AcceleratorClass, ModelService};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
};

crate::tests!(
    bad_services_are_refused_with_a_message_that_helps,
    nonsense_about_pods_and_scaling_is_refused,
    nonsense_about_autoscaling_is_refused,
    what_kubernetes_takes_is_taken,
    sources_of_every_kind_are_taken,
    bad_classes_are_refused,
    defaults_are_visible,
    a_new_object_is_in_progress,
    scaling_an_autoscaled_service_says_what_to_do
);

fn table() -> Vec<(&'static str, Spec, &'static str)> {
    let base = || service("photos");
    let auto = |value: Value| base().with("autoscaling", value);
    let no_image = |model: Value| base().with("model", model);
    let of_uri = |uri: &str| no_image(json!({"uri": uri}));
    vec![
        (
            "a tag",
            base().with("model.image", "r.example/m:1".into()),
            "must be pinned by digest",
        ),
        (
            "no model",
            Spec {
                name: "photos".into(),
                spec: json!({}),
            },
            "spec.model: Required value",
        ),
        (
            "no source",
            no_image(json!({})),
            "set exactly one of image, uri and volumeClaim",
        ),
        (
            "two sources",
            base().with("model.uri", "s3://models/net.onnx".into()),
            "set exactly one of image, uri and volumeClaim",
        ),
        (
            "an unknown scheme",
            of_uri("ftp://host/net.onnx"),
            "must be s3://BUCKET/KEY",
        ),
        (
            "plain HTTP",
            of_uri("http://host/net.onnx"),
            "must be s3://BUCKET/KEY",
        ),
        ("a whole bucket", of_uri("s3://models"), "must be s3://BUCKET/KEY"),
        (
            "nothing in a bucket",
            of_uri("s3://models/"),
            "must be s3://BUCKET/KEY",
        ),
        (
            "a password",
            of_uri("https://me:secret@host/net.onnx"),
            "credentials belong in spec.fetch",
        ),
        (
            "a query in a key",
            of_uri("s3://models/net.onnx?versionId=1"),
            "must be s3://BUCKET/KEY",
        ),
        (
            "a fragment",
            of_uri("https://host/net.onnx#part"),
            "must be s3://BUCKET/KEY",
        ),
        (
            "a space",
            of_uri("s3://models/my net.onnx"),
            "must be s3://BUCKET/KEY",
        ),
        (
            "a line feed",
            of_uri("s3://models/net\n.onnx"),
            "must be s3://BUCKET/KEY",
        ),
        (
            "a way up",
            of_uri("https://host/models/../secret/net.onnx"),
            "must not have '.', '..'",
        ),
        (
            "a way up at the end",
            of_uri("s3://models/net/.."),
            "must not have '.', '..'",
        ),
        (
            "a hidden way up",
            of_uri("https://host/models/%2E%2e/net.onnx"),
            "must not have '.', '..'",
        ),
        (
            "a backslash",
            of_uri("https://host/models\\..\\net.onnx"),
            "must not have '.', '..'",
        ),
        (
            "two slashes",
            of_uri("s3://models//net.onnx"),
            "must not have '.', '..'",
        ),
        (
            "a folder on the web",
            of_uri("https://host/models/"),
            "with https, the path must end with",
        ),
        (
            "another file on the web",
            of_uri("https://host/net.pt"),
            "with https, the path must end with",
        ),
        (
            "a Hub's repository without a revision",
            of_uri("hf://org/net"),
            "must be hf://ORG/REPO@REVISION",
        ),
        (
            "a long URI",
            of_uri(&format!("s3://models/{}", "x".repeat(1024))),
            "Too long",
        ),
        (
            "an endpoint for a volume",
            base()
                .with("model", json!({"volumeClaim": {"name": "models"}}))
                .with("model.endpoint", "http://minio:9000".into()),
            "endpoint needs an image, or a uri",
        ),
        (
            "an endpoint for the web",
            of_uri("https://host/net.onnx").with("model.endpoint", "http://minio:9000".into()),
            "endpoint needs an image, or a uri",
        ),
        (
            "an endpoint with a path",
            of_uri("s3://models/net.onnx").with("model.endpoint", "http://minio:9000/models".into()),
            "must be http://HOST:PORT or https://HOST:PORT of the store",
        ),
        (
            "an endpoint with a password",
            of_uri("s3://models/net.onnx").with("model.endpoint", "http://me:secret@minio:9000".into()),
            "must be http://HOST:PORT or https://HOST:PORT of the store",
        ),
        (
            "a delivery of what is no image",
            of_uri("s3://models/net.onnx").with("model.delivery", "Fetch".into()),
            "delivery belongs to image",
        ),
        (
            "an unknown delivery",
            base().with("model.delivery", "Copy".into()),
            "Unsupported value",
        ),
        (
            "a new look at a digest",
            base().with("model.refresh", "2".into()),
            "there is nothing to refresh",
        ),
        (
            "a private key",
            base().with(
                "model.verification",
                json!({"publicKey": "-----BEGIN PRIVATE KEY-----\nMFkw\n-----END PRIVATE KEY-----"}),
            ),
            "never a private key",
        ),
        (
            "a signature that binds nothing",
            no_image(json!({"volumeClaim": {"name": "models"},
                "verification": {"publicKey": "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----"}})),
            "verification of a volumeClaim needs digest",
        ),
        (
            "a way out of a volume",
            no_image(json!({"volumeClaim": {"name": "models", "path": "../other"}})),
            "must be a folder of the volume",
        ),
        (
            "an absolute path",
            no_image(json!({"volumeClaim": {"name": "models", "path": "/net"}})),
            "must be a folder of the volume",
        ),
        (
            "a claim without its name",
            no_image(json!({"volumeClaim": {"path": "net"}})),
            "spec.model.volumeClaim.name: Required value",
        ),
        (
            "credentials without a Secret",
            base().with("fetch.credentials", json!({})),
            "spec.fetch.credentials.secretName: Required value",
        ),
        (
            "root that fetches",
            base().with("fetch.runAsUser", 0.into()),
            "should be greater than or equal to 1",
        ),
        (
            "a device for what fetches",
            base().with("fetch.resources", json!({"limits": {"nvidia.com/gpu": 1}})),
            "keys must be cpu, memory or ephemeral-storage",
        ),
        (
            "memory that is no quantity",
            base().with("fetch.resources", json!({"limits": {"memory": "much"}})),
            "should match",
        ),
        (
            "a volume without a size",
            base().with("fetch.volume", json!({"storageClassName": "fast"})),
            "spec.fetch.volume.size: Required value",
        ),
        (
            "a cache without a claim",
            base().with("fetch.cache", json!({"maximumSize": "1Gi"})),
            "spec.fetch.cache.volumeClaim: Required value",
        ),
        (
            "no time to fetch",
            base().with("rollout.fetchDeadlineSeconds", 0.into()),
            "should be greater than or equal to 10",
        ),
        (
            "a wrong digest",
            base().with("model.digest", "sha256:1".into()),
            "as sha256sum model.onnx or modelservice-server digest prints them",
        ),
        (
            "both sizes",
            base().replicas(2).autoscaled(1, 3),
            "set either spec.replicas",
        ),
        (
            "min over max",
            base().autoscaled(4, 3),
            "minReplicas must not be larger",
        ),
        (
            "zero by load",
            base().autoscaled(0, 3),
            "should be greater than or equal to 1",
        ),
        (
            "no maximum",
            auto(json!({"minReplicas": 1})),
            "maxReplicas is required",
        ),
        (
            "CPU target without a request",
            base().autoscaled(1, 3).with(
                "resources",
                json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
            ),
            "set spec.resources.requests.cpu",
        ),
        (
            "no quantity",
            base().with("resources.requests.cpu", "many".into()),
            "must be a quantity",
        ),
        (
            "a negative quantity",
            base().with("resources.limits.memory", "-1Gi".into()),
            "must be a quantity",
        ),
        (
            "no class",
            base().with("accelerators", json!([])),
            "should have at least 1 items",
        ),
        (
            "five classes",
            base().with("accelerators", json!(["a", "b", "c", "d", "e"])),
            "must have at most 4 items",
        ),
        (
            "a class twice",
            base().with("accelerators", json!(["tpu", "cpu", "tpu"])),
            "names an AcceleratorClass twice",
        ),
        (
            "a time without a unit",
            base().with("fallbackAfter", "10".into()),
            "must be a duration from 1s to 168h",
        ),
        (
            "no time",
            base().with("fallbackAfter", "0s".into()),
            "must be a duration from 1s to 168h",
        ),
        (
            "half a year",
            base().with("fallbackAfter", "4320h".into()),
            "must be a duration from 1s to 168h",
        ),
        (
            "our label",
            base().with("pod.labels", json!({"app.kubernetes.io/name": "x"})),
            "are set by the operator",
        ),
        (
            "our annotation",
            base().with("pod.annotations", json!({"serving.modelservice.dev/x": "x"})),
            "are set by the operator",
        ),
        (
            "our variable",
            base().with("pod.env", json!([{"name": "MODELSERVICE_CONFIG", "value": "x"}])),
            "are set by the operator",
        ),
        (
            "a library to load first",
            base().with("pod.env", json!([{"name": "LD_PRELOAD", "value": "x"}])),
            "this environment variable is refused",
        ),
        (
            "no time for connections",
            base().with("server.connections", json!({"idleSeconds": 0})),
            "should be greater than or equal to 1",
        ),
        (
            "more than every request in the log",
            base().with("server.accessLog", json!({"sampleRatio": 2})),
            "should be less than or equal to 1",
        ),
        (
            "a collector without its scheme",
            base().with("server.tracing", json!({"endpoint": "collector:4317"})),
            "must be http://HOST:PORT of a collector",
        ),
        (
            "tokens in an invalid Secret name",
            base().with("server.auth", json!({"tokenSecretName": "To kens"})),
            "must be the name of a Secret",
        ),
        (
            "a cache without its claim's name",
            base().with("server.cache", json!({"volumeClaim": {}})),
            "spec.server.cache.volumeClaim.name: Required value",
        ),
        (
            "a cache on an invalid claim name",
            base().with("server.cache", json!({"volumeClaim": {"name": "/graphs"}})),
            "must be the name of a PersistentVolumeClaim",
        ),
        (
            "a repository in capitals",
            base().with("model.image", model('a').replace("net", "Net").into()),
            "the repository in lower case",
        ),
        (
            "an invalid class name",
            base().with("accelerators", json!(["Bad Name"])),
            "must be the name of an AcceleratorClass",
        ),
        (
            "an invalid resource name",
            base().with("resources", json!({"requests": {"cpu": "1", "a/b/c d": "1"}})),
            "keys must be cpu, memory",
        ),
        (
            "a misspelt resource",
            base().with("resources", json!({"requests": {"cpu": "1", "memroy": "1Gi"}})),
            "keys must be cpu, memory",
        ),
        (
            "a collector without its port",
            base().with("server.tracing", json!({"endpoint": "http://collector"})),
            "must be http://HOST:PORT of a collector",
        ),
        (
            "a negative size",
            base().replicas(-1),
            "should be greater than or equal to 0",
        ),
        (
            "an unknown strategy",
            base().with("rollout.strategy", "Canary".into()),
            "Unsupported value",
        ),
        (
            "an impatient deadline",
            base().with("rollout.progressDeadlineSeconds", 1.into()),
            "should be greater than or equal to 10",
        ),
        (
            "a typo",
            base().with("replica", 2.into()),
            "field not declared in schema",
        ),
        (
            "no ports in pods",
            base().with("pod.ports", json!([])),
            "field not declared in schema",
        ),
        (
            "a long name",
            Spec {
                name: "x".repeat(53),
                ..base()
            },
            "at most 52 characters",
        ),
        (
            "a name that a Service cannot have",
            Spec {
                name: "1photos".into(),
                ..base()
            },
            "begin with a letter",
        ),
        (
            "a dot in the name",
            Spec {
                name: "a.b".into(),
                ..base()
            },
            "at most 52 characters",
        ),
    ]
}

/// Settings of pods in Kubernetes' own types: mistakes must be rejected when they are written, not when a pod is
/// created.
fn pod_table() -> Vec<(Value, &'static str)> {
    let affinity = |value: Value| json!({"affinity": value});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let spread = |key: &str, value: Value| {
        let mut constraint =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        constraint[key] = value;
        json!({"topologySpreadConstraints": [constraint]})
    };
    let variable = |value: Value| json!({"env": [value]});
    vec![
        (json!({"labels": {"a b": "c"}}), "keys must be label keys"),
        (json!({"labels": {"a": "b c"}}), "must be a label value"),
        (json!({"labels": {"a": "x".repeat(64)}}), "63"),
        (
            json!({"annotations": {"a/b/c": "d"}}),
            "keys must be annotation keys",
        ),
        (json!({"nodeSelector": {"a/b/c": "d"}}), "keys must be label keys"),
        (json!({"nodeSelector": {"zone": "-"}}), "must be a label value"),
        (
            json!({"tolerations": [{"key": "a b", "operator": "Exists"}]}),
            "should match",
        ),
        (
            json!({"tolerations": [{"key": "a", "value": "b c"}]}),
            "should match",
        ),
        (
            json!({"tolerations": [{"key": "a", "operator": "Is"}]}),
            "Unsupported value",
        ),
        (
            json!({"tolerations": [{"key": "a", "effect": "NoStart"}]}),
            "Unsupported value",
        ),
        (
            json!({"tolerations": [{"effect": "NoSchedule"}]}),
            "without a key, operator must be Exists",
        ),
        (
            json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
            "operator Exists takes no value",
        ),
        (
            json!({"tolerations": [{"key": "a", "tolerationSeconds": 3}]}),
            "tolerationSeconds needs effect NoExecute",
        ),
        (
            affinity(json!({"nodeAffinity": {required: {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Has"}]}]}}})),
            "should match",
        ),
        (
            affinity(json!({"nodeAffinity": {required: {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}]}}})),
            "should match",
        ),
        (
            affinity(json!({"podAntiAffinity": {required: [{"topologyKey": ""}]}})),
            "should match",
        ),
        (
            affinity(json!({"podAffinity": {required: [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b c"}}}]}})),
            "should match",
        ),
        (
            affinity(json!({"podAffinity": {required: [{"topologyKey": "zone",
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}]}})),
            "should match",
        ),
        (
            affinity(json!({"podAffinity": {required: [{"topologyKey": "zone", "namespaces": ["Team A"]}]}})),
            "should match",
        ),
        (
            spread("maxSkew", json!(0)),
            "should be greater than or equal to 1",
        ),
        (spread("topologyKey", json!("a b")), "should match"),
        (spread("whenUnsatisfiable", json!("Never")), "Unsupported value"),
        (
            json!({"priorityClassName": "Very High"}),
            "must be the name of a PriorityClass",
        ),
        (
            json!({"schedulerName": "My Scheduler"}),
            "must be the name of a scheduler",
        ),
        (
            json!({"serviceAccountName": "a..b"}),
            "must be the name of a service account",
        ),
        (
            json!({"imagePullSecrets": [{"name": "Registry Login"}]}),
            "should match",
        ),
        (json!({"imagePullSecrets": [{}]}), "Required value"),
        (variable(json!({"name": "A B", "value": "c"})), "should match"),
        (
            variable(
                json!({"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
            ),
            "set either value or valueFrom",
        ),
        (
            variable(json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "b", "key": "c d"}}})),
            "should match",
        ),
        (
            variable(json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.everything"}}})),
            "should match",
        ),
    ]
}

/// What contradicts itself, or could never be met, with the message that says so.
fn autoscaling_table() -> Vec<(Value, &'static str)> {
    let schedule = |part: &str, value: Value| {
        let mut schedule = json!({"cron": "0 8 * * 1-5", "minReplicas": 2, "for": "10h"});
        schedule[part] = value;
        json!({"maxReplicas": 3, "schedules": [schedule]})
    };
    let target = |target: Value| json!({"maxReplicas": 3, "target": target});
    vec![
        (target(json!({})), "set exactly one of utilization"),
        (
            target(json!({"utilization": 70, "cpuUtilization": 70})),
            "set exactly one of utilization",
        ),
        (
            target(json!({"concurrency": 4, "external": {}})),
            "set exactly one of utilization",
        ),
        (
            target(json!({"utilization": 0})),
            "should be greater than or equal to 1",
        ),
        (
            target(json!({"utilization": 101})),
            "should be less than or equal to 100",
        ),
        (
            target(json!({"concurrency": 0})),
            "should be greater than or equal to 1",
        ),
        (target(json!({"external": {}})), "remove minReplicas, maxReplicas"),
        (
            json!({"target": {"external": {}}}),
            "target.external needs spec.replicas",
        ),
        (
            json!({"maxReplicas": 3, "target": {"cpuUtilization": 70}, "scaleUp": {"windowSeconds": 10}}),
            "with target.cpuUtilization, set behavior",
        ),
        (
            json!({"maxReplicas": 3, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}),
            "belongs to target.cpuUtilization",
        ),
        (
            json!({"maxReplicas": 3, "scaleUp": {"windowSeconds": 4}}),
            "should be greater than or equal to 5",
        ),
        (
            json!({"maxReplicas": 3, "scaleDown": {"windowSeconds": 61}}),
            "should be less than or equal to 60",
        ),
        (
            json!({"maxReplicas": 3, "scaleDown": {"delaySeconds": -1}}),
            "should be greater than or equal to 0",
        ),
        (
            schedule("minReplicas", json!(4)),
            "minReplicas of a schedule must not be larger than maxReplicas",
        ),
        (
            schedule("minReplicas", json!(0)),
            "should be greater than or equal to 1",
        ),
        (schedule("for", json!("ten hours")), "should match"),
        (schedule("for", json!(10)), "expected string"),
        (
            schedule("cron", json!("daily")),
            "should be at least 9 chars long",
        ),
    ]
}

async fn nonsense_about_autoscaling_is_refused(world: Arc<World>) {
    let place = world.namespace().await;
    for (autoscaling, expected) in autoscaling_table() {
        let spec = service("photos").with("autoscaling", autoscaling.clone());
        let error = place.try_apply(&spec).await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{autoscaling}: {error}");
    }
}

async fn nonsense_about_pods_and_scaling_is_refused(world: Arc<World>) {
    let place = world.namespace().await;
    let scaling = |behavior: Value| {
        let target = json!({"cpuUtilization": 70});
        let range = json!({"maxReplicas": 3, "target": target, "behavior": {"scaleDown": behavior}});
        service("photos").with("autoscaling", range)
    };
    let policy = |kind: &str, value: i32, seconds: i32| {
        scaling(json!({"policies": [{"type": kind, "value": value, "periodSeconds": seconds}]}))
    };
    let mut all: Vec<(Spec, &str)> = pod_table()
        .into_iter()
        .map(|(pod, expected)| (service("photos").with("pod", pod), expected))
        .collect();
    all.extend([
        (policy("Nodes", 1, 10), "Unsupported value"),
        (policy("Pods", 0, 10), "should be greater than or equal to 1"),
        (policy("Pods", 1, 3600), "should be less than or equal to 1800"),
        (scaling(json!({"selectPolicy": "Best"})), "Unsupported value"),
        (
            scaling(json!({"stabilizationWindowSeconds": -1})),
            "should be greater than or equal to 0",
        ),
        (scaling(json!({"tolerance": "much"})), "must be a quantity"),
    ]);
    for (spec, expected) in all {
        let what = format!("{:?}", spec.spec);
        let error = place.try_apply(&spec).await.expect_err(&what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

/// Otherwise only users would find rules that are too strict.
async fn what_kubernetes_takes_is_taken(world: Arc<World>) {
    let place = world.namespace().await;
    let spec = json!({
        "model": {"image": format!("localhost:5000/a_b/c--d.e:v1@sha256:{}", "a".repeat(64))},
        "accelerators": ["nvidia-l4.eu"],
        "autoscaling": {"maxReplicas": 3, "target": {"cpuUtilization": 70}, "behavior": {"scaleDown": {"tolerance": "0.05", "selectPolicy": "Disabled",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}},
        "resources": {
            "requests": {"cpu": "0.5", "memory": 1_000_000_000, "ephemeral-storage": "0", "example.com/nic": 1},
            "limits": {"memory": "1e9", "hugepages-2Mi": "4Mi", "example.com/nic": 1}},
        "server": {"auth": {"tokenSecretName": "a.b"}, "tracing": {"endpoint": "http://[::1]:4317"},
            "cache": {"volumeClaim": {"name": "graphs.v1"}}},
        "pod": {
            "labels": {"team": "", "Example_1.x": "A_b.c-1"}, "annotations": {"Example.com/Owner": "anything at all"},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"operator": "Exists"}, {"key": "a", "effect": ""},
                {"key": "a/b", "operator": "Equal", "value": "c", "effect": "NoExecute", "tolerationSeconds": 30}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{
                    "matchExpressions": [{"key": "example.com/cores", "operator": "Gt", "values": ["4"]}],
                    "matchFields": [{"key": "metadata.name", "operator": "In", "values": [format!("{}.example", "n".repeat(63))]}]}]}},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm":
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}, "namespaces": ["team-a"]}}]}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
                "minDomains": 2, "nodeTaintsPolicy": "Honor", "matchLabelKeys": ["team"]}],
            "priorityClassName": "system-cluster-critical", "schedulerName": "default-scheduler",
            "serviceAccountName": "a.b", "imagePullSecrets": [{"name": "registry.login"}], "fsGroup": 1,
            "env": [{"name": "A.b-C_1", "value": ""}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}},
                {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "a.b_c-d", "optional": true}}}]},
    });
    place
        .apply(&Spec {
            name: "photos".into(),
            spec,
        })
        .await;
}

/// Otherwise users learn of their mistake hours later, or never.
async fn bad_services_are_refused_with_a_message_that_helps(world: Arc<World>) {
    let place = world.namespace().await;
    for (what, spec, expected) in table() {
        let error = place.try_apply(&spec).await.expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    place
        .apply(&Spec {
            name: "x".repeat(52),
            ..service("")
        })
        .await;
}

/// What contradicts itself about devices and nodes, with the message that says so.
fn device_table() -> Vec<(Value, &'static str)> {
    let request = |request: Value| json!({"deviceRequest": request});
    let exactly = |key: &str, value: Value| {
        let mut devices = json!({"deviceClassName": "gpu.example.com"});
        devices[key] = value;
        request(json!({"exactly": devices}))
    };
    let alternative = |name: &str| json!({"name": name, "deviceClassName": "gpu.example.com"});
    let mut both = exactly("count", json!(1));
    both["resource"] = json!({"name": "example.com/gpu"});
    vec![
        (both, "set either resource"),
        (request(json!({})), "set exactly one of exactly"),
        (
            request(json!({"exactly": {"deviceClassName": "a"}, "firstAvailable": [alternative("b")]})),
            "set exactly one of exactly",
        ),
        (request(json!({"firstAvailable": []})), "at least 1 items"),
        (
            request(json!({"firstAvailable": [alternative("a"), alternative("a")]})),
            "each alternative needs a name of its own",
        ),
        (
            request(json!({"firstAvailable": [alternative("A b")]})),
            "must be at most 63 of a-z",
        ),
        (
            exactly("deviceClassName", json!("A b")),
            "must be the name of a DeviceClass",
        ),
        (exactly("count", json!(0)), "should be greater than or equal to 1"),
        (exactly("count", json!(33)), "should be less than or equal to 32"),
        (
            exactly("selectors", json!([{"cel": {"expression": ""}}])),
            "at least 1 chars",
        ),
        (
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Has"}]}]}}}),
            "should match",
        ),
        (json!({"env": [{"name": "A B"}]}), "should match"),
        (
            json!({"env": [{"name": "A"}, {"name": "A"}]}),
            "duplicate entries",
        ),
        (
            json!({"env": [{"name": "LD_LIBRARY_PATH", "value": "/opt"}]}),
            "belong to the runtime image",
        ),
        (
            json!({"env": [{"name": "MODELSERVICE_CONFIG", "value": "x"}]}),
            "are set by the operator",
        ),
    ]
}

/// The same about what drives the device.
fn runtime_table() -> Vec<(Value, &'static str)> {
    let runtime = |key: &str, value: Value| {
        let mut runtime = json!({"executionProvider": "GpuExecutionProvider"});
        runtime[key] = value;
        json!({"runtime": runtime})
    };
    let library = |path: &str| runtime("plugin", json!({"library": path}));
    vec![
        (
            runtime("imagePullPolicy", json!("Sometimes")),
            "Unsupported value",
        ),
        (
            runtime("runners", json!(0)),
            "should be greater than or equal to 1",
        ),
        (runtime("runners", json!(9)), "should be less than or equal to 8"),
        (runtime("memoryLimit", json!("much")), "at least 1Mi"),
        (runtime("memoryLimit", json!("1Ki")), "at least 1Mi"),
        (
            runtime("allowCpuShare", json!(101)),
            "should be less than or equal to 100",
        ),
        (json!({"runtime": {"runners": 2}}), "are for devices"),
        (json!({"runtime": {"allowCpuShare": 5}}), "are for devices"),
        (
            json!({"runtime": {"plugin": {"library": "/opt/provider.so"}}}),
            "set executionProvider to the name",
        ),
        (library("provider.so"), "must be the absolute path"),
        (library("/mnt/model/provider.so"), "must be the absolute path"),
        (
            library("/var/cache/modelservice/p.so"),
            "must be the absolute path",
        ),
        (library("/opt/../mnt/model/p.so"), "must be the absolute path"),
        (runtime("plugin", json!({})), "Required value"),
        (
            runtime("plugin", json!({"library": "/opt/p.so", "deviceType": "TPU"})),
            "Unsupported value",
        ),
    ]
}

async fn bad_classes_are_refused(world: Arc<World>) {
    let resource = |name: &str| json!({"resource": {"name": name}});
    let table = [
        (
            json!({"resource": {"name": "gpu", "count": 1}}),
            "extended resource such as",
        ),
        (
            json!({"resource": {"name": "example.com/tpu", "count": 0}}),
            "should be greater than or equal to 1",
        ),
        (
            json!({"runtime": {"executionProvider": "cuda"}}),
            "one of ONNX Runtime's own",
        ),
        (
            json!({"runtime": {"executionProvider": "CUDA provider"}}),
            "should match",
        ),
        (json!({"sharing": "Sometimes"}), "Unsupported value"),
        (resource("a/b/c d"), "extended resource such as"),
        (resource("kubernetes.io/gpu"), "extended resource such as"),
        (resource("requests.example.com/gpu"), "extended resource such as"),
        (
            json!({"runtimeClassName": "Bad Name"}),
            "must be the name of a RuntimeClass",
        ),
        (json!({"runtimeClassName": ""}), "at least 1 char"),
        (json!({"runtime": {"image": "No Image"}}), "must be an image"),
        (
            json!({"runtime": {"image": "r.example/Server:1"}}),
            "the repository in lower case",
        ),
        (json!({"nodeSelector": {"a/b/c": "d"}}), "keys must be label keys"),
        (json!({"nodeSelector": {"a": "b c"}}), "must be a label value"),
        (
            json!({"tolerations": [{"key": "a", "operator": "Is"}]}),
            "Unsupported value",
        ),
        (
            json!({"tolerations": [{"effect": "NoSchedule"}]}),
            "without a key",
        ),
    ];
    for (spec, expected) in table.into_iter().chain(device_table()).chain(runtime_table()) {
        let error = world.apply_class("bad", spec).await.expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let _: AcceleratorClass = world.classes().get("cpu").await.unwrap();
    let long = AcceleratorClass::new(&"x".repeat(64), Default::default());
    let error = world
        .classes()
        .create(&Default::default(), &long)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("at most 63 characters"), "{error}");
    let good = json!({"resource": {"name": "nvidia.com/mig-1g.5gb"}, "runtimeClassName": "nvidia.v1",
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "tolerations": [{"operator": "Exists"}],
        "runtime": {"image": "r.example:5000/server@sha256:".to_owned() + &"a".repeat(64),
            "options": {"device id": "any / thing"}}});
    world.apply_class("nvidia-l4.eu", good).await.unwrap();
    let selector = json!({"cel": {"expression": "device.driver == 'gpu.example.com'"}});
    let good = json!({"deviceRequest": {"firstAvailable": [
            {"name": "large", "deviceClassName": "gpu.example.com", "count": 1, "selectors": [selector]},
            {"name": "small", "deviceClassName": "gpu.example.com", "count": 32}]},
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "example.com/cores", "operator": "Gt", "values": ["4"]}]}]}},
        "env": [{"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"}, {"name": "EMPTY"}],
        "runtime": {"executionProvider": "gpu-1.0", "imagePullPolicy": "Always", "runners": 2,
            "memoryLimit": 1_073_741_824, "allowCpuShare": 5, "plugin": {"library": "/opt/gpu/provider.so",
                "registrationName": "gpu", "deviceVendor": "Example, Inc.", "deviceType": "NPU"}}});
    world.apply_class("nvidia-l4.eu", json!({})).await.unwrap();
    world.apply_class("nvidia-l4.eu", good).await.unwrap();
    world
        .classes()
        .delete("nvidia-l4.eu", &Default::default())
        .await
        .unwrap();
}

/// Three lines of spec are a complete service.
/// A rule that is too strict keeps people from their models.
async fn sources_of_every_kind_are_taken(world: Arc<World>) {
    let place = world.namespace().await;
    let digest = "a".repeat(64);
    let uris = [
        "s3://models/net.onnx".to_owned(),
        "s3://models/nets/resnet-50_v1.5/".to_owned(),
        "s3://models/größe/$net=1,2+3.tar.gz".to_owned(),
        "gs://models/net.tar".to_owned(),
        "az://models/net.zip".to_owned(),
        "https://models.example:8443/a/net.tar.zst".to_owned(),
        "https://host/net.onnx?sv=2024&sig=a%2Fb".to_owned(),
        "hf://org/net.v1@main".to_owned(),
        "hf://org/net@feature%2Fx/onnx/".to_owned(),
        "oci://localhost:5000/a_b/net:v1".to_owned(),
        format!("oci://r.example/net:v1@sha256:{digest}"),
    ];
    let models = uris.into_iter().map(|uri| json!({"uri": uri})).chain([
        json!({"uri": "s3://models/net.onnx", "endpoint": "http://minio.storage:9000", "refresh": "2026-01-31"}),
        json!({"uri": "gs://models/net.onnx", "endpoint": "https://[fd00::1]:4443"}),
        json!({"image": format!("registry:5000/net@sha256:{}", "a".repeat(64)), "endpoint": "http://registry:5000"}),
        json!({"uri": "hf://org/net@main", "endpoint": "https://hub.example"}),
        json!({"image": model('a'), "delivery": "Fetch"}),
        json!({"image": model('a'), "delivery": "ImageVolume",
            "verification": {"publicKey": "-----BEGIN PUBLIC KEY-----\nMFkwEw+/=\n-----END PUBLIC KEY-----\n"}}),
        json!({"volumeClaim": {"name": "models"}, "refresh": "1"}),
        json!({"volumeClaim": {"name": "models"}, "digest": format!("sha256:{}", "c".repeat(64)),
            "verification": {"publicKey": "-----BEGIN PUBLIC KEY-----\nMFkwEw+/=\n-----END PUBLIC KEY-----\n"}}),
        json!({"volumeClaim": {"name": "models", "path": "nets/..one"}}),
    ]);
    let fetch = json!({"credentials": {"secretName": "a.b"}, "identity": "Pod", "runAsUser": 1337,
        "resources": {"requests": {"cpu": "0.5", "memory": 67_108_864}, "limits": {"memory": "128Mi", "ephemeral-storage": "1G"}},
        "volume": {"size": "2Gi"}, "cache": {"volumeClaim": {"name": "shared"}, "maximumSize": 1_000_000_000}});
    for (number, model) in models.enumerate() {
        let spec = json!({"model": model, "fetch": fetch, "rollout": {"fetchDeadlineSeconds": 86_400}});
        let name = format!("photos-{number}");
        place.apply(&Spec { name, spec }).await;
    }
}

async fn defaults_are_visible(world: Arc<World>) {
    let place = world.namespace().await;
    let stored = place.apply(&service("photos")).await;
    let spec = serde_json::to_value(&stored.spec).unwrap();
    assert_eq!(spec["model"]["image"], model('a'));
    assert_eq!(spec["accelerators"], json!(["cpu"]));
    assert_eq!(spec["resources"]["requests"]["cpu"], "500m");
    assert_eq!(spec["rollout"]["strategy"], "BlueGreen");
    assert_eq!(spec["revisionHistoryLimit"], 3);
    assert_eq!(
        stored.spec.replicas, None,
        "a default would fight with kubectl scale and autoscaling"
    );
}

/// docs/autoscaling.md quotes the API server's message.
async fn scaling_an_autoscaled_service_says_what_to_do(world: Arc<World>) {
    let place = world.namespace().await;
    place.apply(&service("photos").autoscaled(1, 3)).await;
    let scale = json!({"spec": {"replicas": 2}});
    let services = place.api::<ModelService>();
    let error = services
        .patch_scale("photos", &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("change spec.autoscaling.minReplicas or maxReplicas"),
        "{error}"
    );
}

/// Otherwise Flux calls a broken model ready until the operator has seen it.
async fn a_new_object_is_in_progress(world: Arc<World>) {
    let place = world.namespace().await;
    let created = place.apply(&service("photos")).await;
    for object in [created, place.service("photos").await] {
        assert_eq!(object.status.as_ref().unwrap().observed_generation, Some(-1));
        let verdict = kstatus(&serde_json::to_value(&object).unwrap());
        assert_eq!(verdict["status"], "InProgress", "{verdict}");
    }
}

/// The verdict on an object by kstatus, the library with which Flux judges readiness.
fn kstatus(object: &Value) -> Value {
    let mut child = Command::new(local_cluster::tool("kstatus").unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(object.to_string().as_bytes()).unwrap();
    drop(input);
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}
