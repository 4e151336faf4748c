//! Properties of revisions' names: specs that mean the same have the same name, and others have different names.
#![allow(clippy::unwrap_used)]
use super::{asked_for, name};
use crate::crd::{ModelService, ModelServiceSpec};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A spec whose model is fetched.
fn fetched() -> Value {
    json!({
        "model": {"uri": format!("oci://r.example:5000/net@{DIGEST}"), "digest": DIGEST},
        "fetch": {"credentials": {"secretName": "registry"}, "resources": {"limits": {"memory": "1Gi", "cpu": "1"}},
            "cache": {"volumeClaim": {"name": "models"}, "maximumSize": "2Gi"}},
    })
}

fn named(spec: &Value) -> String {
    name(&serde_json::from_value::<ModelServiceSpec>(spec.clone()).unwrap())
}

/// A spec that uses every field that has several notations for the same value.
fn spec() -> Value {
    json!({
        "model": {"image": format!("r.example:5000/net@{DIGEST}")},
        "resources": {"requests": {"cpu": "500m", "example.com/tpu": "1"}, "limits": {"cpu": "1", "memory": "1Gi", "example.com/tpu": "1"}},
        "server": {"tracing": {"endpoint": "http://collector:4317"}, "cache": {"volumeClaim": {"name": "graphs"}}},
        "pod": {
            "labels": {"team": "", "tier": "a"},
            "env": [
                {"name": "A", "value": ""},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}],
            "tolerations": [{"key": "a"}, {"operator": "Exists"}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x", "y"]}, {"key": "disk", "operator": "Exists"}]},
                    {"matchExpressions": [{"key": "spare", "operator": "Exists"}]}]}},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}}},
                    {"weight": 2, "podAffinityTerm": {"topologyKey": "node", "namespaces": ["q", "p"]}}]}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                {"maxSkew": 2, "topologyKey": "node", "whenUnsatisfiable": "ScheduleAnyway"}],
            "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
        },
    })
}

/// A change at a place in the spec, which is created if it does not exist: pointer and new value.
type Edit = (&'static str, Value);

/// Abbreviations for long paths in pointers.
const TERMS: (&str, &str) = (
    "TERMS",
    "/pod/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
);
const PREFERENCES: (&str, &str) = (
    "PREFERENCES",
    "/pod/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution",
);

/// Other notations for what [`spec`] says.
fn same() -> Vec<Edit> {
    vec![
        ("/model/image", json!(format!("r.example:5000/net:v1@{DIGEST}"))),
        ("/accelerators", json!(["cpu"])),
        ("/resources/requests/cpu", json!("0.5")),
        ("/resources/requests/cpu", json!("500000u")),
        ("/resources/limits/cpu", json!(1)),
        ("/resources/limits/cpu", json!("1000m")),
        ("/resources/limits/cpu", json!("1e0")),
        ("/resources/limits/memory", json!("1024Mi")),
        ("/resources/limits/memory", json!(1_073_741_824)),
        ("/resources/requests/memory", json!("1Gi")),
        ("/resources/requests/example.com~1tpu", json!(1)),
        ("/server/modelName", Value::Null),
        ("/server/maxBodyBytes", json!(67_108_864)),
        (
            "/server/connections",
            json!({"maxAgeSeconds": 300, "idleSeconds": 620}),
        ),
        ("/server/accessLog", json!({"failures": true, "sampleRatio": 0})),
        ("/server/tracing/sampleRatio", json!(0.01)),
        ("/pod/annotations", json!({})),
        ("/pod/nodeSelector", json!({})),
        ("/pod/env/0", json!({"name": "A"})),
        ("/pod/env/1/valueFrom/fieldRef/apiVersion", json!("v1")),
        ("/pod/env/2/valueFrom/resourceFieldRef/divisor", json!("0")),
        ("/pod/env/2/valueFrom/resourceFieldRef/divisor", json!("1000m")),
        (
            "/pod/env/2/valueFrom/resourceFieldRef/containerName",
            json!("server"),
        ),
        ("/pod/env/3/valueFrom/configMapKeyRef/optional", json!(false)),
        ("/pod/tolerations/0/operator", json!("Equal")),
        ("/pod/tolerations/1/effect", json!("")),
        ("/pod/schedulerName", json!("default-scheduler")),
        ("/pod/serviceAccountName", json!("default")),
        ("/pod/fsGroup", json!(65532)),
        ("/pod/affinity/podAffinity", json!({})),
        (
            "/pod/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution",
            json!([]),
        ),
        ("TERMS/0/matchFields", json!([])),
        ("TERMS/0/matchExpressions/0/values", json!(["y", "x", "y"])),
        ("PREFERENCES/1/podAffinityTerm/namespaces", json!(["p", "q"])),
        ("/pod/topologySpreadConstraints/0/minDomains", json!(1)),
        (
            "/pod/topologySpreadConstraints/1/nodeTaintsPolicy",
            json!("Ignore"),
        ),
        ("/replicas", json!(3)),
    ]
}

/// Changes that result in pods other than those of [`spec`].
fn different() -> Vec<Edit> {
    vec![
        ("/model/image", json!(format!("r.example:5001/net@{DIGEST}"))),
        (
            "/model/image",
            json!(format!("r.example:5000/net:v1@{}", DIGEST.replace('a', "b"))),
        ),
        ("/model/digest", json!(DIGEST)),
        ("/accelerators", json!(["tpu"])),
        ("/resources/requests/cpu", json!("501m")),
        ("/resources/requests/memory", json!("1G")),
        ("/resources/requests/memory", json!("0")),
        ("/resources/limits/memory", json!("1G")),
        ("/resources/limits/ephemeral-storage", json!("10Gi")),
        ("/server/modelName", json!("net")),
        ("/server/maxBodyBytes", json!(1024)),
        ("/server/connections", json!({"maxAgeSeconds": 0})),
        ("/server/accessLog", json!({"failures": false})),
        ("/server/tracing/sampleRatio", json!(0.0)),
        ("/server/tracing/endpoint", json!("http://collector:4318")),
        ("/server/cache/volumeClaim/name", json!("others")),
        ("/pod/labels/team", Value::Null),
        ("/pod/labels/tier", json!("b")),
        ("/pod/annotations", json!({"a": ""})),
        ("/pod/env/0", json!({"name": "A", "value": "1"})),
        ("/pod/env/2/valueFrom/resourceFieldRef/divisor", json!("1m")),
        ("/pod/env/3/valueFrom/configMapKeyRef/optional", json!(true)),
        ("/pod/tolerations/0/operator", json!("Exists")),
        ("/pod/tolerations/0/tolerationSeconds", json!(0)),
        ("/pod/schedulerName", json!("mine")),
        ("/pod/serviceAccountName", json!("models")),
        ("/pod/priorityClassName", json!("high")),
        ("/pod/fsGroup", json!(7)),
        // A missing selector selects nothing.
        ("PREFERENCES/0/podAffinityTerm/labelSelector", Value::Null),
        // Without namespaces it means its own namespace; with an empty selector it means all.
        ("PREFERENCES/0/podAffinityTerm/namespaceSelector", json!({})),
        ("PREFERENCES/1/weight", json!(1)),
        // Selects every pod, not only the service's own.
        ("/pod/topologySpreadConstraints/0/labelSelector", json!({})),
        ("/pod/topologySpreadConstraints/0/minDomains", json!(2)),
        (
            "/pod/topologySpreadConstraints/0/nodeTaintsPolicy",
            json!("Honor"),
        ),
        ("/pod/imagePullSecrets/0/name", json!("three")),
        ("/adoptRuntime", json!("0.2.0")),
    ]
}

/// Sets the value at a pointer; null removes it.
fn edit(spec: &mut Value, (pointer, value): &Edit) {
    let pointer = [TERMS, PREFERENCES]
        .into_iter()
        .fold((*pointer).to_owned(), |pointer, (short, long)| {
            pointer.replace(short, long)
        });
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut place = spec;
    for part in parent.split('/').skip(1) {
        place = match place {
            Value::Array(items) => &mut items[part.parse::<usize>().unwrap()],
            place => &mut place[part],
        };
    }
    let key = key.replace("~1", "/");
    match place {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
        place if value.is_null() => drop(place.as_object_mut().map(|fields| fields.remove(&key))),
        place => place[&key] = value.clone(),
    }
}

/// Shuffles every list whose order does not matter; none of the variables refers to another.
fn shuffle(random: &mut fastrand::Rng, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| shuffle(random, field)),
        Value::Array(items) => {
            random.shuffle(items);
            items.iter_mut().for_each(|item| shuffle(random, item));
        }
        _ => {}
    }
}

fn reworded(random: &mut fastrand::Rng) -> Value {
    let mut spec = spec();
    for other in same().iter().filter(|_| random.bool()) {
        edit(&mut spec, other);
    }
    spec
}

/// Otherwise a formatter, a GitOps tool or an export from another tool restarts every server.
#[test]
fn other_words_for_the_same_have_the_same_name() {
    let expected = named(&spec());
    assert_eq!(
        expected, "tadxwip6ep",
        "the name that this spec has had since the first release"
    );
    for one in same() {
        let mut other = spec();
        edit(&mut other, &one);
        assert_eq!(named(&other), expected, "{one:?}");
    }
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut other = reworded(&mut random);
        shuffle(&mut random, &mut other);
        assert_eq!(named(&other), expected, "seed {seed}: {other}");
    }
}

/// The same for what is fetched.
#[test]
fn other_words_for_the_same_way_to_fetch_have_the_same_name() {
    let same = [
        (
            "/model/uri",
            json!(format!("oci://r.example:5000/net:v1@{DIGEST}")),
        ),
        ("/fetch/identity", json!("None")),
        ("/fetch/resources/limits/memory", json!("1024Mi")),
        ("/fetch/resources/limits/cpu", json!(1)),
        ("/fetch/cache/maximumSize", json!("2048Mi")),
        ("/pod", json!({"fsGroup": 65532})),
        ("/rollout", json!({"fetchDeadlineSeconds": 60})),
    ];
    let different = [
        ("/model/uri", json!(format!("oci://r.example:5001/net@{DIGEST}"))),
        ("/model/uri", json!(format!("oci://r.example:5000/net:{}", "v1"))),
        ("/model/endpoint", json!("http://r.example:5000")),
        ("/model/refresh", json!("1")),
        ("/model/verification", json!({"publicKey": "k"})),
        ("/fetch/identity", json!("Pod")),
        ("/fetch/runAsUser", json!(7)),
        ("/fetch/credentials/secretName", json!("other")),
        ("/fetch/resources/limits/memory", json!("1G")),
        ("/fetch/cache/maximumSize", json!("2G")),
        ("/fetch/cache/volumeClaim/name", json!("other")),
    ];
    let expected = named(&fetched());
    for (edits, is_same) in [(&same[..], true), (&different[..], false)] {
        for one in edits {
            let mut other = fetched();
            edit(&mut other, one);
            assert_eq!(named(&other) == expected, is_same, "{one:?}");
        }
    }
    let claim = |path: &str| named(&json!({"model": {"volumeClaim": {"name": "models", "path": path}}}));
    assert_ne!(claim("a"), claim("b"));
}

/// Otherwise a change never reaches the servers.
#[test]
fn whatever_makes_other_pods_has_another_name() {
    for seed in 0..5 {
        let mut random = fastrand::Rng::with_seed(seed);
        let base = reworded(&mut random);
        for one in different() {
            let mut other = base.clone();
            edit(&mut other, &one);
            assert_ne!(named(&other), named(&base), "seed {seed}: {one:?}");
        }
    }
}

/// No two sizes share a name, and no size has two.
#[test]
fn a_size_has_one_name_in_every_notation() {
    let sized =
        |text: String| named(&json!({"model": {"image": "i"}, "resources": {"limits": {"memory": text}}}));
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..300 {
        let n = random.u64(1..1 << 40);
        let name = sized(n.to_string());
        let (kibi, rest) = (n / 1024, n % 1024);
        let notations = [
            format!("{n}000m"),
            format!("{n}.0"),
            format!("{n}e0"),
            format!("{n}000000u"),
            format!("0{n}"),
            format!("{}.{:03}k", n / 1000, n % 1000),
            // n/1024 has at most ten binary places, and so at most ten decimal places.
            format!("{kibi}.{:010}Ki", rest * 10_u64.pow(10) / 1024),
        ];
        for text in notations {
            assert_eq!(sized(text.clone()), name, "{text} is {n}");
        }
        assert_ne!(sized((n + 1).to_string()), name);
        assert_ne!(sized(format!("{n}001m")), name);
    }
    assert_eq!(sized("1Ei".into()), sized("1024Pi".into()));
    assert_eq!(sized("1E".into()), sized("1000P".into()));
}

/// `$(A)` means the variable A only after A.
#[test]
fn the_order_of_variables_counts_where_one_refers_to_another() {
    let with = |env: Value| named(&json!({"model": {"image": "i"}, "pod": {"env": env}}));
    let (a, b) = (
        json!({"name": "A", "value": "1"}),
        json!({"name": "B", "value": "$(A)"}),
    );
    assert_ne!(with(json!([a, b])), with(json!([b, a])));
    let b = json!({"name": "B", "value": "2"});
    assert_eq!(with(json!([a, b])), with(json!([b, a])));
}

/// Weights of equal preferences add up.
#[test]
fn a_preference_that_is_said_twice_counts_twice() {
    let with = |times: usize| {
        let term =
            json!({"weight": 3, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}});
        let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": vec![term; times]});
        named(&json!({"model": {"image": "i"}, "pod": {"affinity": {"nodeAffinity": preferred}}}))
    };
    assert_ne!(with(1), with(2));
}

#[test]
fn a_model_that_is_named_like_its_service_is_named_by_default() {
    let service = |server: Value| {
        let spec = serde_json::from_value(json!({"model": {"image": "i"}, "server": server})).unwrap();
        asked_for(&ModelService::new("photos", spec))
    };
    assert_eq!(service(json!({"modelName": "photos"})), service(json!({})));
    assert_ne!(service(json!({"modelName": "letters"})), service(json!({})));
}

/// The schema's default means the same as an absent field, in the operator too.
#[test]
fn resources_by_default_can_be_written_out() {
    let with = |resources: Value| named(&json!({"model": {"image": "i"}, "resources": resources}));
    let all = json!({"requests": {"cpu": "0.5", "memory": "256Mi", "ephemeral-storage": "65536Ki"},
        "limits": {"cpu": 1, "memory": "1024Mi", "ephemeral-storage": "10Gi"}});
    assert_eq!(with(all), named(&json!({"model": {"image": "i"}})));
}
