//! What the chart renders, without a cluster.

use crate::{
    helm::{CHART, Helm, NAMESPACE, arguments, objects, of_kind, reference, value_sets},
    read, repository,
};
use serde_json::{Value, json};

/// Otherwise users of the other Helm version get a different installation.
#[test]
fn both_helms_render_the_same_objects() {
    for set in value_sets() {
        let [three, four] = Helm::BOTH.map(|helm| {
            let mut objects = objects(&helm.template(&arguments(&set)).unwrap());
            objects.sort_by_key(reference);
            objects
        });
        assert!(!three.is_empty());
        assert_eq!(three, four, "{set:?}");
    }
}

/// Otherwise the chart's API differs from that of `kubectl apply -f crds/` and the operator's own types.
#[test]
fn the_charts_definitions_are_those_of_the_repository() {
    for name in ["modelservices", "acceleratorclasses"] {
        let copy = read(&format!("{CHART}/files/crds/{name}.yaml"));
        assert!(
            copy == read(&format!("crds/{name}.yaml")),
            "{name}: run `cp crds/*.yaml {CHART}/files/crds/`"
        );
    }
    assert_eq!(
        std::fs::read_dir(repository("crds")).unwrap().count(),
        std::fs::read_dir(repository(CHART).join("files/crds"))
            .unwrap()
            .count()
    );
    let rendered = objects(&Helm::Four.template(&[]).unwrap());
    let definitions: Vec<&Value> = of_kind(&rendered, "CustomResourceDefinition").collect();
    assert_eq!(definitions.len(), 2);
    for definition in definitions {
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
        let source = &objects(&read(&format!("crds/{plural}.yaml")))[0];
        assert_eq!(whole_numbers(&definition["spec"]), whole_numbers(&source["spec"]));
        assert_eq!(
            definition["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
    }
}

/// 3.0 and 3 are the same number to Kubernetes, but not to `serde_json`.
fn whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(whole_numbers).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), whole_numbers(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A team that brings its own CRDs, or wants them gone with the release, must be able to say so.
#[test]
fn definitions_can_be_left_out_or_be_removed_with_the_release() {
    let without = objects(&Helm::Four.template(&["--set", "crds.enabled=false"]).unwrap());
    assert_eq!(of_kind(&without, "CustomResourceDefinition").count(), 0);
    let removable = objects(&Helm::Four.template(&["--set", "crds.keep=false"]).unwrap());
    for definition in of_kind(&removable, "CustomResourceDefinition") {
        assert_eq!(
            definition["metadata"]["annotations"].get("helm.sh/resource-policy"),
            None
        );
    }
}

/// Otherwise the operator does not start in a namespace with restricted Pod Security.
#[test]
fn every_pod_is_restricted() {
    for set in value_sets() {
        let rendered = objects(&Helm::Four.template(&arguments(&set)).unwrap());
        let pods: Vec<&Value> = rendered
            .iter()
            .filter_map(|object| match object["kind"].as_str()? {
                "Deployment" => object.pointer("/spec/template/spec"),
                "Pod" => object.get("spec"),
                _ => None,
            })
            .collect();
        assert_eq!(pods.len(), 2, "the operator and the self-test");
        for pod in pods {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["runAsUser"], 65532);
            assert_eq!(pod["securityContext"]["runAsGroup"], 65532);
            // With thousands of Services, there would be more variables than a process can start with.
            assert_eq!(pod["enableServiceLinks"], false);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
                let resources = &container["resources"];
                assert!(resources["limits"]["memory"].is_string());
                for side in ["requests", "limits"] {
                    assert!(
                        resources[side]["ephemeral-storage"].is_string(),
                        "{side}: {resources}"
                    );
                }
            }
        }
    }
}

fn operator(arguments: &[&str]) -> Value {
    let rendered = objects(&Helm::Four.template(arguments).unwrap());
    of_kind(&rendered, "Deployment").next().unwrap().clone()
}

fn operator_arguments(deployment: &Value) -> Vec<&str> {
    let list = deployment
        .pointer("/spec/template/spec/containers/0/args")
        .unwrap()
        .as_array()
        .unwrap();
    list.iter().map(|argument| argument.as_str().unwrap()).collect()
}

/// If a digest is ignored, an image runs that was not reviewed.
#[test]
fn a_digest_wins_over_a_tag_and_the_tag_over_the_charts_version() {
    let image = |arguments: &[&str]| {
        operator(arguments)["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    assert_eq!(image(&[]), "modelservice-operator:0.1.0");
    assert_eq!(
        image(&["--set", "image.repository=r.example:5000/o,image.tag=t"]),
        "r.example:5000/o:t"
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    let with_digest = format!("image.tag=t,image.digest={digest}");
    assert_eq!(
        image(&["--set", &with_digest]),
        format!("modelservice-operator@{digest}")
    );
    let runtime = operator(&["--set", "runtimeImage.repository=r.example/s"]);
    assert!(operator_arguments(&runtime).contains(&"--runtime-image=r.example/s:0.1.0"));
}

/// Two operators on one node, or both evicted at once, would be no better than one.
#[test]
fn two_replicas_spread_and_have_a_disruption_budget() {
    let one = objects(&Helm::Four.template(&[]).unwrap());
    assert_eq!(of_kind(&one, "PodDisruptionBudget").count(), 0);
    assert_eq!(
        of_kind(&one, "Deployment").next().unwrap()["spec"]["template"]["spec"]
            .get("topologySpreadConstraints"),
        None
    );

    let two = objects(&Helm::Four.template(&["--set", "replicas=2"]).unwrap());
    let deployment = of_kind(&two, "Deployment").next().unwrap();
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let selects_the_operator = |selector: &Value| {
        let wanted = selector["matchLabels"].as_object().unwrap();
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
    };
    let spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        .as_array()
        .unwrap();
    assert_eq!(spread.len(), 2);
    assert!(
        spread
            .iter()
            .all(|constraint| selects_the_operator(&constraint["labelSelector"]))
    );
    let budget = of_kind(&two, "PodDisruptionBudget").next().unwrap();
    assert!(selects_the_operator(&budget["spec"]["selector"]));
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert!(operator_arguments(deployment).contains(&"--leader-elect"));
}

/// A newcomer's first model does not name a class, so `cpu` has to exist.
#[test]
fn the_default_classes_reach_the_operator() {
    let rendered = objects(
        &Helm::Four
            .template(&["--values", &format!("{CHART}/ci/everything-values.yaml")])
            .unwrap(),
    );
    let text = of_kind(&rendered, "ConfigMap").next().unwrap()["data"]["classes.yaml"]
        .as_str()
        .unwrap();
    let classes: Vec<modelservice_operator::crd::AcceleratorClass> = serde_saphyr::from_str(text).unwrap();
    let names: Vec<&str> = classes
        .iter()
        .map(|class| class.metadata.name.as_deref().unwrap())
        .collect();
    assert_eq!(
        names,
        ["cpu", "openvino", "nvidia-gpu", "example-tpu", "example-gpu"]
    );
    let resources = classes.iter().map(|class| {
        class
            .spec
            .resource
            .as_ref()
            .map(|resource| resource.name.as_str())
    });
    assert_eq!(
        resources.collect::<Vec<_>>(),
        [None, None, Some("nvidia.com/gpu"), Some("example.com/tpu"), None]
    );
    assert_eq!(classes[0].spec.runtime.execution_provider, "CPUExecutionProvider");
    assert_eq!(
        classes[1].spec.runtime.execution_provider,
        "OpenVINOExecutionProvider"
    );
    assert_eq!(
        classes[2].spec.runtime.image.as_deref(),
        Some("registry.example/modelservice-server-cuda:1")
    );
    let request = classes[4].spec.device_request.as_ref().unwrap();
    assert_eq!(request.first_available[1].count, 2);
    assert_eq!(classes[4].spec.runtime.allow_cpu_share, Some(5));
    let deployment = of_kind(&rendered, "Deployment").next().unwrap();
    assert!(
        operator_arguments(deployment)
            .contains(&"--accelerator-classes=/etc/modelservice-operator/classes.yaml")
    );
    let changed = operator(&[
        "--set",
        "accelerators.extra[0].name=a,accelerators.extra[0].spec.sharing=Shared",
    ]);
    let checksum = |deployment: &Value| {
        deployment["spec"]["template"]["metadata"]["annotations"]["checksum/accelerator-classes"].clone()
    };
    assert_ne!(
        checksum(&changed),
        checksum(&operator(&[])),
        "the operator does not restart for a new class"
    );

    let none = objects(&Helm::Four.template(&["--set", "accelerators.cpu=false"]).unwrap());
    assert_eq!(of_kind(&none, "ConfigMap").count(), 0);
}

/// The manifest without Helm is what Helm would install, without Helm's own labels and the test.
#[test]
fn the_manifest_for_plain_kubectl_is_up_to_date() {
    let rendered = Helm::Four
        .command(None)
        .args([
            "template",
            "modelservice-operator",
            CHART,
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "1.37.0",
        ])
        .args(["--no-hooks", "--set", "crds.enabled=false"])
        .output()
        .unwrap();
    let rendered = String::from_utf8(rendered.stdout).unwrap();
    let body: Vec<&str> = rendered
        .lines()
        .filter(|line| {
            !line.contains("helm.sh/chart:")
                && !line.contains("managed-by: Helm")
                && !line.starts_with("# Source:")
        })
        .collect();
    let header = "# The operator without Helm: see docs/install.md. Generated from the chart by\n\
                  # UPDATE_GENERATED=1 cargo test --test chart; do not edit.\n";
    let wanted = format!("{header}{}\n", body.join("\n").trim_end());
    let path = "charts/install.yaml";
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(repository(path), &wanted).unwrap();
    }
    assert!(
        std::fs::read_to_string(repository(path)).unwrap_or_default() == wanted,
        "{path} is stale: run `UPDATE_GENERATED=1 cargo test --test chart`"
    );
}

/// A metrics Service or policy that selects nothing would be worse than none.
#[test]
fn everything_that_selects_the_operator_selects_it() {
    let rendered = objects(
        &Helm::Four
            .template(&["--values", &format!("{CHART}/ci/everything-values.yaml")])
            .unwrap(),
    );
    let deployment = of_kind(&rendered, "Deployment").next().unwrap();
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let service = of_kind(&rendered, "Service").next().unwrap();
    let monitor = of_kind(&rendered, "ServiceMonitor").next().unwrap();
    let policy = of_kind(&rendered, "NetworkPolicy").next().unwrap();
    let selects = |selector: &Value, labels: &Value| {
        let wanted = selector.as_object().unwrap();
        assert!(!wanted.is_empty());
        wanted.iter().all(|(key, value)| labels[key] == *value)
    };
    assert!(selects(&service["spec"]["selector"], labels));
    assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels));
    assert!(selects(
        &monitor["spec"]["selector"]["matchLabels"],
        &service["metadata"]["labels"]
    ));
    assert_eq!(
        monitor["spec"]["namespaceSelector"]["matchNames"],
        json!([NAMESPACE])
    );
    assert_eq!(
        monitor["spec"]["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"]
    );
    let egress = serde_json::to_string(&policy["spec"]["egress"]).unwrap();
    assert!(
        egress.contains("4317"),
        "the port of the OTLP endpoint is closed: {egress}"
    );
}

/// `helm test --logs` looks for the pod in the release's namespace, and only there are its pull secrets.
#[test]
fn the_self_test_runs_in_the_releases_namespace_and_serves_in_a_watched_one() {
    let set = [
        "--set",
        "watchNamespaces={team-a,team-b},imagePullSecrets[0].name=registry-login",
    ];
    let rendered = objects(&Helm::Four.template(&set).unwrap());
    let pod = of_kind(&rendered, "Pod").next().unwrap();
    assert_eq!(pod["metadata"]["namespace"], NAMESPACE);
    assert_eq!(
        pod["spec"]["imagePullSecrets"],
        json!([{"name": "registry-login"}])
    );
    let arguments = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(
        arguments.contains(&json!("--self-test-namespace=team-a")),
        "{arguments:?}"
    );
    let name = &pod["spec"]["serviceAccountName"];
    let account = of_kind(&rendered, "ServiceAccount").find(|a| a["metadata"]["name"] == *name);
    assert_eq!(account.unwrap()["metadata"]["namespace"], NAMESPACE);
    let binding = of_kind(&rendered, "RoleBinding").find(|b| b["metadata"]["name"] == *name);
    assert_eq!(binding.unwrap()["metadata"]["namespace"], "team-a");
    assert_eq!(binding.unwrap()["subjects"][0]["namespace"], NAMESPACE);
}

/// The policy must open the collector's port: the one in its URL, or the default of the URL's scheme.
#[test]
fn the_network_policy_opens_the_collectors_port() {
    let egress = |endpoint: &str| {
        let set = format!("networkPolicy.enabled=true,otlpEndpoint={endpoint}");
        let rendered = objects(&Helm::Four.template(&["--set", &set]).unwrap());
        let policy = of_kind(&rendered, "NetworkPolicy").next().unwrap();
        policy["spec"]["egress"].as_array().unwrap().last().unwrap()["ports"][0]["port"].clone()
    };
    for (endpoint, port) in [
        ("http://collector.observability:4317", 4317),
        ("http://10.0.0.1", 80),
        ("https://otlp.example.com/", 443),
        ("http://[fd00::1]:4317", 4317),
    ] {
        assert_eq!(egress(endpoint), port, "{endpoint}");
    }
}

/// If a team that only has rights in its own namespaces installs the chart, a single cluster-wide object makes the
/// installation fail.
#[test]
fn the_namespaced_installation_renders_nothing_cluster_wide() {
    let namespaced = ["--values", &format!("{CHART}/ci/namespaced-values.yaml")];
    let rendered = objects(&Helm::Four.template(&namespaced).unwrap());
    for object in &rendered {
        assert!(
            object["metadata"]["namespace"].is_string(),
            "{} is cluster-wide",
            reference(object)
        );
    }
    let deployment = of_kind(&rendered, "Deployment").next().unwrap();
    assert!(operator_arguments(deployment).contains(&"--namespace=team-a,team-b"));
}
