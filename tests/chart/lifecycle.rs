//! The chart on a real API server: installed on an empty cluster, upgraded, uninstalled.

use crate::{
    helm::{CHART, Helm, NAMESPACE, RELEASE, arguments, fed, objects, output, value_sets},
    read, repository,
};
use local_cluster::{ControlPlane, ControlPlaneOptions, wait_until};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const SERVICE: &str = r#"
apiVersion: serving.modelservice.dev/v1alpha1
kind: ModelService
metadata: {name: orchids, namespace: team-a}
spec:
  model: {image: "registry.example/models/orchids@sha256:3333333333333333333333333333333333333333333333333333333333333333"}
"#;

fn plane(name: &str) -> ControlPlane {
    ControlPlane::start(ControlPlaneOptions::named(name)).expect("start a control plane")
}

impl Helm {
    /// Runs Helm against a cluster.
    pub(crate) fn run(self, plane: &ControlPlane, arguments: &[&str]) -> String {
        let mut command = self.command(Some(&plane.kubeconfig_path()));
        output(command.args(arguments)).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }

    /// Helm's message when it fails.
    fn fails(self, plane: &ControlPlane, arguments: &[&str]) -> String {
        let mut command = self.command(Some(&plane.kubeconfig_path()));
        output(command.args(arguments)).expect_err("Helm was not refused")
    }

    pub(crate) fn install(self, plane: &ControlPlane, chart: &Path, set: &[&str]) -> String {
        let chart = chart.to_str().unwrap();
        let arguments = [
            "install",
            RELEASE,
            chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ];
        self.run(plane, &[&arguments, set].concat())
    }

    pub(crate) fn upgrade(self, plane: &ControlPlane, chart: &Path, set: &[&str]) -> String {
        let arguments = [
            "upgrade",
            RELEASE,
            chart.to_str().unwrap(),
            "--namespace",
            NAMESPACE,
        ];
        self.run(plane, &[&arguments, set].concat())
    }

    fn uninstall(self, plane: &ControlPlane) -> String {
        self.run(plane, &["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"])
    }
}

/// A part of an object, by JSONPath.
pub(crate) fn get(plane: &ControlPlane, object: &[&str], path: &str) -> String {
    let output = format!("jsonpath={{{path}}}");
    plane
        .kubectl(&[&["get"], object, &["--output", &output]].concat())
        .unwrap()
}

/// Dry-runs objects with strict validation; a warning, such as one from Pod Security, is an `Err` too.
fn validate(plane: &ControlPlane, manifest: &str, extra: &[&str]) -> Result<String, String> {
    let mut command = plane.kubectl_command().unwrap();
    command
        .args([
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ])
        .args(extra);
    let output = fed(&mut command, manifest);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && !errors.contains("Warning") {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(errors)
    }
}

/// A newer chart, whose CRD has one more printer column.
fn newer_chart(folder: &Path) {
    let copied = std::process::Command::new("cp")
        .args(["-r"])
        .arg(repository(CHART))
        .arg(folder)
        .status()
        .unwrap();
    assert!(copied.success());
    let path = folder.join("files/crds/modelservices.yaml");
    let old = std::fs::read_to_string(&path).unwrap();
    let column = "  - additionalPrinterColumns:\n";
    let new = old.replace(column, &format!("{column}    - jsonPath: .spec.model.image\n      name: Image\n      priority: 1\n      type: string\n"));
    assert_ne!(old, new);
    std::fs::write(path, new).unwrap();
    let path = folder.join("Chart.yaml");
    let chart = std::fs::read_to_string(&path)
        .unwrap()
        .replace("version: 0.1.0", "version: 0.2.0");
    std::fs::write(path, chart).unwrap();
}

/// The worst thing a chart can do is to delete users' models in an upgrade or an uninstallation.
fn keeps_the_users_services(helm: Helm, name: &str) {
    let plane = plane(name);
    let chart = repository(CHART);
    let installed = helm.install(&plane, &chart, &[]);
    assert!(installed.contains("kubectl get modelservices"), "{installed}");
    plane.wait_established().unwrap();
    plane.kubectl(&["create", "namespace", "team-a"]).unwrap();
    plane.apply(SERVICE).unwrap();
    let service = ["modelservice", "orchids", "--namespace", "team-a"];
    let identity = || {
        (
            get(&plane, &service, ".metadata.uid"),
            get(&plane, &service, ".metadata.generation"),
        )
    };
    let before = identity();

    helm.upgrade(&plane, &chart, &["--set", "logLevel=debug"]);
    let operator = [
        "deployment",
        "serving-modelservice-operator",
        "--namespace",
        NAMESPACE,
    ];
    assert!(get(&plane, &operator, ".spec.template.spec.containers[0].args").contains("--log-level=debug"));
    assert_eq!(identity(), before);

    // Upgrading to the same version restarts nothing.
    let generation = get(&plane, &operator, ".metadata.generation");
    helm.upgrade(&plane, &chart, &["--set", "logLevel=debug"]);
    assert_eq!(get(&plane, &operator, ".metadata.generation"), generation);

    // A newer chart brings its newer CRD, which Helm's own `crds` folder would not.
    let newer = plane.folder().join("newer-chart");
    newer_chart(&newer);
    helm.upgrade(&plane, &newer, &[]);
    let definition = ["crd", "modelservices.serving.modelservice.dev"];
    let columns = get(
        &plane,
        &definition,
        ".spec.versions[0].additionalPrinterColumns[*].name",
    );
    assert!(columns.contains("Image"), "{columns}");
    assert_eq!(identity(), before);

    helm.uninstall(&plane);
    assert_eq!(identity(), before);
    for kind in [
        "deployments,services,configmaps,serviceaccounts,roles,rolebindings",
        "clusterroles,clusterrolebindings",
    ] {
        let selector = "app.kubernetes.io/instance=serving";
        let left = plane
            .kubectl(&[
                "get",
                kind,
                "--namespace",
                NAMESPACE,
                "--selector",
                selector,
                "--output=name",
            ])
            .unwrap();
        assert_eq!(left.trim(), "");
    }

    // When the release is installed again, it adopts the definitions that it left behind.
    helm.install(&plane, &chart, &[]);
    assert_eq!(identity(), before);
    let columns = get(
        &plane,
        &definition,
        ".spec.versions[0].additionalPrinterColumns[*].name",
    );
    assert!(!columns.contains("Image"), "{columns}");

    // The definitions are removed only on request.
    helm.upgrade(&plane, &chart, &["--set", "crds.keep=false"]);
    helm.uninstall(&plane);
    wait_until("the definitions are gone", Duration::from_secs(30), || {
        Ok(plane.kubectl(&["get", "crd", "--output=name"])?.trim().is_empty())
    })
    .unwrap();
}

#[test]
fn helm_3_keeps_the_users_services() {
    keeps_the_users_services(Helm::Three, "chart-helm3");
}

#[test]
fn helm_4_keeps_the_users_services() {
    keeps_the_users_services(Helm::Four, "chart-helm4");
}

/// Everything that needs a cluster with the definitions: one control plane for all, since each takes seconds to
/// start.
#[test]
fn the_api_server_accepts_chart_manifests_and_examples_strictly() {
    let plane = plane("chart-strict");
    plane.apply(&read("crds/modelservices.yaml")).unwrap();
    plane.apply(&read("crds/acceleratorclasses.yaml")).unwrap();
    for definition in crate::definitions::foreign() {
        plane.apply(&definition).unwrap();
    }
    for namespace in [NAMESPACE, "team-a", "team-b", "flux-system", "monitoring"] {
        plane.kubectl(&["create", "namespace", namespace]).unwrap();
        // A pod or template that is not restricted is rejected or causes a warning.
        let labels = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
        plane
            .kubectl(&["label", "namespace", namespace, &labels[0], &labels[1]])
            .unwrap();
        // Pods are only admitted for accounts that exist.
        let account = "serving-modelservice-operator-self-test";
        plane
            .kubectl(&["--namespace", namespace, "create", "serviceaccount", account])
            .unwrap();
    }
    plane.wait_established().unwrap();

    for set in value_sets() {
        for helm in Helm::BOTH {
            let rendered = helm.template(&arguments(&set)).unwrap();
            let accepted = validate(&plane, &rendered, &["--force-conflicts"])
                .unwrap_or_else(|error| panic!("{helm:?} {set:?}: {error}"));
            assert_eq!(accepted.lines().count(), objects(&rendered).len(), "{accepted}");
        }
    }
    for path in ["charts/install.yaml", "charts/installer-role.yaml"] {
        validate(&plane, &read(path), &[]).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let examples: Vec<_> = ["examples", "examples/sources"]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(repository(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert!(examples.len() >= 10, "{examples:?}");
    for example in examples {
        validate(&plane, &std::fs::read_to_string(&example).unwrap(), &[])
            .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
    }
    for (place, manifest) in crate::docs::manifests() {
        validate(&plane, &manifest, &[]).unwrap_or_else(|error| panic!("{place}: {error}\n{manifest}"));
    }
    // People type `modelservice`, so that must not also be the name of a category.
    plane.apply(SERVICE).unwrap();
    for name in ["modelservice", "modelservices", "msvc"] {
        let found = plane
            .kubectl(&["--namespace", "team-a", "get", name, "orchids", "--output=name"])
            .unwrap();
        assert_eq!(found.trim(), "modelservice.serving.modelservice.dev/orchids");
    }
    let both = plane
        .kubectl(&["--namespace", "team-a", "get", "modelserving", "--output=name"])
        .unwrap();
    assert!(both.contains("orchids"), "{both}");

    // docs/autoscaling.md quotes what `kubectl scale` says about an autoscaled service.
    plane
        .apply(&SERVICE.replace("spec:\n", "spec:\n  autoscaling: {maxReplicas: 3}\n"))
        .unwrap();
    let scale = [
        "--namespace",
        "team-a",
        "scale",
        "modelservice",
        "orchids",
        "--replicas=2",
    ];
    let refusal = plane
        .kubectl(&scale)
        .expect_err("an autoscaled service was scaled")
        .to_string();
    let said = refusal
        .split_once("): ")
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap()
        .replace("orchids", "photos");
    assert!(
        read("docs/autoscaling.md").lines().any(|line| line == said),
        "docs/autoscaling.md does not quote: {said}"
    );

    let typo = SERVICE.replace("model:", "modle:");
    assert!(
        validate(&plane, &typo, &[]).is_err(),
        "strict validation lets everything through"
    );
}

/// Only people who may edit a namespace may serve models in it.
#[test]
fn kubernetes_own_roles_and_the_admission_policy_apply_to_model_services() {
    let plane = plane("chart-roles");
    let set = [
        "--set",
        "admissionPolicy.enabled=true",
        "--set",
        "admissionPolicy.allowedModelImages={registry.example/models/}",
    ];
    Helm::Four.install(&plane, &repository(CHART), &set);
    plane.wait_established().unwrap();
    plane.kubectl(&["create", "namespace", "team-a"]).unwrap();
    for role in ["view", "edit", "admin"] {
        let arguments = ["--namespace", "team-a", "create", "rolebinding", role];
        plane
            .kubectl(
                &[
                    &arguments[..],
                    &[&format!("--clusterrole={role}"), &format!("--user={role}er")],
                ]
                .concat(),
            )
            .unwrap();
    }
    let may_sub = |user: &str, verb: &str, subresource: &str, namespace: &str| {
        let (user, subresource) = (format!("--as={user}"), format!("--subresource={subresource}"));
        let arguments = [
            "auth",
            "can-i",
            verb,
            "modelservices",
            "--namespace",
            namespace,
            &user,
            &subresource,
        ];
        // It exits with 1 for "no".
        plane
            .kubectl(&arguments)
            .is_ok_and(|answer| answer.trim() == "yes")
    };
    let may = |user: &str, verb: &str, namespace: &str| may_sub(user, verb, "", namespace);
    // Roles are aggregated by a controller.
    wait_until("admin has the rights of edit", Duration::from_secs(30), || {
        Ok(may("adminer", "create", "team-a"))
    })
    .unwrap();
    for (user, may_write) in [("viewer", false), ("editer", true), ("adminer", true)] {
        assert!(may(user, "get", "team-a"), "{user}");
        assert!(may_sub(user, "get", "status", "team-a"), "{user}");
        for verb in ["create", "patch", "delete"] {
            assert_eq!(may(user, verb, "team-a"), may_write, "{user} {verb}");
        }
        assert_eq!(may_sub(user, "patch", "scale", "team-a"), may_write, "{user}");
        assert!(
            !may_sub(user, "patch", "status", "team-a"),
            "{user} writes what the operator says"
        );
        assert!(!may(user, "get", "default"), "{user} reads another namespace");
    }

    let elsewhere = SERVICE.replace("registry.example/models/", "elsewhere.example/");
    wait_until("the policy is in force", Duration::from_secs(30), || {
        Ok(validate(&plane, &elsewhere, &[]).is_err())
    })
    .unwrap();
    let refusal = validate(&plane, &elsewhere, &[]).unwrap_err();
    assert!(
        refusal.contains("must begin with oci://registry.example/models/"),
        "{refusal}"
    );
    validate(&plane, SERVICE, &[]).unwrap();
    // What was admitted before the rule changed can still be labelled.
    plane.apply(SERVICE).unwrap();
    let stricter = [
        "--set",
        "admissionPolicy.enabled=true",
        "--set",
        "admissionPolicy.allowedModelImages={other.example/}",
    ];
    Helm::Four.upgrade(&plane, &repository(CHART), &stricter);
    let another = SERVICE.replace("name: orchids", "name: tulips");
    wait_until("the stricter rule is in force", Duration::from_secs(30), || {
        Ok(validate(&plane, &another, &[]).is_err())
    })
    .unwrap();
    plane
        .kubectl(&[
            "--namespace",
            "team-a",
            "label",
            "modelservice",
            "orchids",
            "colour=blue",
        ])
        .unwrap();
}

/// Who may write ModelServices must not get at Secrets, accounts or models by them that are not theirs.
#[test]
fn the_admission_policy_covers_every_source_secret_and_account() {
    let plane = plane("chart-policy");
    let set = [
        "--set",
        "admissionPolicy.enabled=true",
        "--set",
        "admissionPolicy.allowedModelImages={registry.example/models/}",
        "--set",
        "admissionPolicy.allowedModelSources={s3://models/,https://minio.storage:9000/models/,volume://shared/,hf://our-org/,https://ours.blob.core.windows.net/models/}",
        "--set",
        "admissionPolicy.checkReferences=true",
    ];
    Helm::Four.install(&plane, &repository(CHART), &set);
    plane.wait_established().unwrap();
    plane.kubectl(&["create", "namespace", "team-a"]).unwrap();
    let bind = [
        "--namespace",
        "team-a",
        "create",
        "rolebinding",
        "edit",
        "--clusterrole=edit",
        "--user=editor",
    ];
    plane.kubectl(&bind).unwrap();
    // Of everybody's Secrets and accounts, somebody else may use one.
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let known = |resource: &str, verb: &str| {
        let mut rule = rule("", resource, &[verb]);
        rule["resourceNames"] = json!(["known"]);
        rule
    };
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "narrow", "namespace": "team-a"}, "rules": [
            rule("serving.modelservice.dev", "modelservices", &["get", "create", "patch"]),
            known("secrets", "get"), known("serviceaccounts", "impersonate")]});
    plane.apply(&role.to_string()).unwrap();
    let bind = [
        "--namespace",
        "team-a",
        "create",
        "rolebinding",
        "narrow",
        "--role=narrow",
        "--user=narrow",
    ];
    plane.kubectl(&bind).unwrap();
    let manifest = |spec: &Value| {
        json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService",
            "metadata": {"name": "orchids", "namespace": "team-a"}, "spec": spec})
        .to_string()
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let image = |name: &str| json!({"model": {"image": format!("{name}@{digest}")}});
    let uri = |uri: &str| json!({"model": {"uri": uri}});
    wait_until("the policy is in force", Duration::from_secs(30), || {
        Ok(validate(&plane, &manifest(&uri("s3://elsewhere/net.onnx")), &[]).is_err())
    })
    .unwrap();
    let with_endpoint =
        |endpoint: &str| json!({"model": {"uri": "s3://models/net.onnx", "endpoint": endpoint}});
    let of_azure = |endpoint: &str| json!({"model": {"uri": "az://models/net.onnx", "endpoint": endpoint}});
    let claim = |name: &str| json!({"model": {"volumeClaim": {"name": name, "path": "net"}}});
    let sources = [
        (image("registry.example/models/net"), true),
        (image("registry.example/other/net"), false),
        (uri(&format!("oci://registry.example/models/net@{digest}")), true),
        (uri("oci://registry.example.elsewhere.net/models/net:v1"), false),
        (uri("s3://models/net.onnx"), true),
        (uri("s3://models-of-others/net.onnx"), false),
        (with_endpoint("https://minio.storage:9000"), true),
        // Whoever chooses the server chooses what is in the bucket.
        (with_endpoint("https://elsewhere.example"), false),
        (uri("gs://models/net.onnx"), false),
        // Whose account it is stands in the Secret.
        (uri("az://models/net.onnx"), false),
        (of_azure("https://ours.blob.core.windows.net"), true),
        (of_azure("https://theirs.blob.core.windows.net"), false),
        (uri("hf://our-org/net@main"), true),
        (uri("hf://their-org/net@main"), false),
        (claim("shared"), true),
        (claim("private"), false),
    ];
    for (spec, is_allowed) in sources {
        let answer = validate(&plane, &manifest(&spec), &[]);
        assert_eq!(answer.is_ok(), is_allowed, "{spec}: {answer:?}");
        if let Err(refusal) = answer {
            assert!(
                refusal.contains("is not allowed on this cluster"),
                "{spec}: {refusal}"
            );
        }
    }
    let with = |field: &str, value: Value| {
        let mut spec = uri("s3://models/net.onnx");
        spec[field] = value;
        spec
    };
    let references = |name: &str| {
        [
            with("fetch", json!({"credentials": {"secretName": name}})),
            with("server", json!({"auth": {"tokenSecretName": name}})),
            with("pod", json!({"imagePullSecrets": [{"name": name}]})),
            with(
                "pod",
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}}]}),
            ),
            with("pod", json!({"serviceAccountName": name})),
        ]
    };
    let narrow = ["--as=narrow"];
    for spec in references("known") {
        validate(&plane, &manifest(&spec), &narrow).unwrap();
    }
    let account = with("fetch", json!({"identity": "Pod"}));
    for spec in references("other").iter().chain([&account]) {
        let refusal = validate(&plane, &manifest(spec), &narrow).unwrap_err();
        assert!(
            refusal.contains("may get a Secret") || refusal.contains("may impersonate"),
            "{spec}: {refusal}"
        );
        // Kubernetes' own role may read Secrets and impersonate accounts.
        validate(&plane, &manifest(spec), &["--as=editor"]).unwrap();
    }
    // What was admitted can still be changed by somebody who may not name it.
    plane.apply(&manifest(&references("other")[0])).unwrap();
    let mut scaled = references("other")[0].clone();
    scaled["replicas"] = 3.into();
    validate(&plane, &manifest(&scaled), &["--as=narrow", "--force-conflicts"]).unwrap();
    // But not for another use: what fetches a model shows it to nobody.
    let mut exposed = scaled.clone();
    exposed["pod"] = references("other")[3]["pod"].clone();
    let mut identified = references("other")[4].clone();
    plane
        .apply(&manifest(&identified).replace("orchids", "tulips"))
        .unwrap();
    identified["fetch"] = account["fetch"].clone();
    for (spec, name, words) in [
        (exposed, "orchids", "may get a Secret"),
        (identified, "tulips", "may impersonate"),
    ] {
        let manifest = manifest(&spec).replace("orchids", name);
        let refusal = validate(&plane, &manifest, &["--as=narrow", "--force-conflicts"]).unwrap_err();
        assert!(refusal.contains(words), "{spec}: {refusal}");
        assert!(
            !refusal.contains("other/"),
            "its use is no part of its name: {refusal}"
        );
    }

    let key = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n";
    let signed = [
        &set[..4],
        &[
            "--set",
            "admissionPolicy.requireVerification=true",
            "--set",
            "admissionPolicy.allowedPublicKeys={-----BEGIN PUBLIC KEY----- MF kw -----END PUBLIC KEY-----}",
        ],
    ]
    .concat();
    Helm::Four.upgrade(&plane, &repository(CHART), &signed);
    let unsigned = image("registry.example/models/net");
    let mut with_key = unsigned.clone();
    with_key["model"]["verification"] = json!({"publicKey": key});
    wait_until("the stricter rule is in force", Duration::from_secs(30), || {
        Ok(validate(&plane, &manifest(&unsigned), &[]).is_err())
    })
    .unwrap();
    validate(&plane, &manifest(&with_key), &["--force-conflicts"]).unwrap();
    // Anybody can make a key.
    with_key["model"]["verification"] = json!({"publicKey": key.replace("MFkw", "MFkx")});
    let refusal = validate(&plane, &manifest(&with_key), &["--force-conflicts"]).unwrap_err();
    assert!(
        refusal.contains("is not one of the keys whose signatures count on this cluster"),
        "{refusal}"
    );
}

/// The rows of docs/install.md: the message if another tool has changed an object, and what helps.
#[test]
fn what_another_hand_has_changed_is_taken_back_as_documented() {
    let page = read("docs/install.md");
    let documented = |said: &str, quoted: &str| {
        assert!(said.contains(quoted), "{said}");
        assert!(
            page.contains(&format!("`{quoted}`")),
            "docs/install.md does not quote: {quoted}"
        );
    };
    helm_4_forces(&plane("chart-hands-4"), &documented);
    helm_4_after_helm_3_forces_on_the_server(&plane("chart-hands-3"), &documented);
    definitions_pass_from_hand_to_hand(&plane("chart-hands-crds"), &documented);
}

const UPGRADE: [&str; 5] = ["upgrade", RELEASE, CHART, "--namespace", NAMESPACE];

fn set_image(plane: &ControlPlane) {
    let image = "operator=registry.example/other:1";
    let deployment = "deployment/serving-modelservice-operator";
    let arguments = ["--namespace", NAMESPACE, "set", "image", deployment, image];
    plane.kubectl(&arguments).unwrap();
}

fn has_the_charts_image(plane: &ControlPlane) -> bool {
    let operator = [
        "deployment",
        "serving-modelservice-operator",
        "--namespace",
        NAMESPACE,
    ];
    get(plane, &operator, ".spec.template.spec.containers[0].image") == "modelservice-operator:0.1.0"
}

fn helm_4_forces(plane: &ControlPlane, documented: &dyn Fn(&str, &str)) {
    Helm::Four.install(plane, &repository(CHART), &[]);
    set_image(plane);
    documented(
        &Helm::Four.fails(plane, &UPGRADE),
        "conflict with \"kubectl-set\"",
    );
    Helm::Four.run(plane, &[&UPGRADE[..], &["--force-conflicts"]].concat());
    assert!(has_the_charts_image(plane));
}

fn helm_4_after_helm_3_forces_on_the_server(plane: &ControlPlane, documented: &dyn Fn(&str, &str)) {
    Helm::Three.install(plane, &repository(CHART), &[]);
    set_image(plane);
    let force = [&UPGRADE[..], &["--force-conflicts"]].concat();
    let quoted = "forceConflicts enabled when serverSideApply disabled";
    documented(&Helm::Four.fails(plane, &force), quoted);
    Helm::Four.run(plane, &[&force[..], &["--server-side=true"]].concat());
    assert!(has_the_charts_image(plane));
}

fn definitions_pass_from_hand_to_hand(plane: &ControlPlane, documented: &dyn Fn(&str, &str)) {
    let folder = repository("crds");
    let apply = ["apply", "--server-side", "--filename", folder.to_str().unwrap()];
    plane.kubectl(&apply).unwrap();
    plane.wait_established().unwrap();
    plane.kubectl(&["create", "namespace", "team-a"]).unwrap();
    plane.apply(SERVICE).unwrap();
    let service = ["modelservice", "orchids", "--namespace", "team-a"];
    let uid = get(plane, &service, ".metadata.uid");

    // From kubectl to a release of either Helm.
    let install = [
        "install",
        RELEASE,
        CHART,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
    ];
    for (helm, force) in [(Helm::Three, &[][..]), (Helm::Four, &["--force-conflicts"][..])] {
        documented(&helm.fails(plane, &install), "invalid ownership metadata");
        helm.run(plane, &[&install[..], &["--take-ownership"], force].concat());
        if helm == Helm::Three {
            helm.uninstall(plane);
            for name in ["modelservices", "acceleratorclasses"] {
                let definition = format!("crd/{name}.serving.modelservice.dev");
                // As if the release had never existed.
                let label = ["label", &definition, "app.kubernetes.io/managed-by-"];
                plane.kubectl(&label).unwrap();
            }
        }
    }

    // And back to kubectl, with another version.
    let newer = plane.folder().join("newer-chart");
    newer_chart(&newer);
    let newer = newer.join("files/crds");
    let apply = ["apply", "--server-side", "--filename", newer.to_str().unwrap()];
    let refusal = plane
        .kubectl(&apply)
        .expect_err("two hands, no conflict")
        .to_string();
    documented(&refusal, "conflict with \"helm\"");
    assert!(refusal.contains(".spec.versions"), "{refusal}");
    let without = [&UPGRADE[..], &["--set", "crds.enabled=false"]].concat();
    Helm::Four.run(plane, &without);
    plane
        .kubectl(&[&apply[..], &["--force-conflicts"]].concat())
        .unwrap();
    Helm::Four.run(plane, &without);
    assert_eq!(get(plane, &service, ".metadata.uid"), uid);
}

/// RBAC does not let anyone grant a right that they do not have: without the documented grant, a team could not
/// install the chart.
#[test]
fn a_namespaces_admin_installs_the_chart_for_it_with_the_documented_grant() {
    let plane = plane("chart-admin");
    for definition in ["crds/modelservices.yaml", "crds/acceleratorclasses.yaml"] {
        plane.apply(&read(definition)).unwrap();
    }
    plane.wait_established().unwrap();
    plane.kubectl(&["create", "namespace", "team-a"]).unwrap();
    let bind = |role: &str| {
        let arguments = ["--namespace", "team-a", "create", "rolebinding", role];
        let to = [format!("--clusterrole={role}"), "--user=jane".to_owned()];
        plane
            .kubectl(&[&arguments[..], &[&to[0], &to[1]]].concat())
            .unwrap();
    };
    bind("admin");
    let values = plane.folder().join("values.yaml");
    let (_, documented) = crate::docs::blocks("docs/install.md", "yaml")
        .into_iter()
        .find(|(_, text)| text.contains("watchNamespaces: [team-a]"))
        .unwrap();
    std::fs::write(&values, documented).unwrap();
    let as_jane = ["--namespace", "team-a", "--kube-as-user", "jane"];
    for (helm, release) in [(Helm::Four, "four"), (Helm::Three, "three")] {
        let install = ["install", release, CHART, "--values", values.to_str().unwrap()];
        let install = [&install[..], &as_jane].concat();
        if helm == Helm::Four {
            wait_until("admin has its rights", Duration::from_secs(30), || {
                Ok(plane
                    .kubectl(&[
                        "auth",
                        "can-i",
                        "create",
                        "roles",
                        "--namespace=team-a",
                        "--as=jane",
                    ])
                    .is_ok())
            })
            .unwrap();
            let refusal = helm.fails(&plane, &install);
            assert!(
                refusal.contains("attempting to grant RBAC permissions not currently held"),
                "{refusal}"
            );
            helm.run(&plane, &[&["uninstall", release], &as_jane[..]].concat());
            plane.apply(&read("charts/installer-role.yaml")).unwrap();
            bind("modelservice-operator-installer");
        }
        helm.run(&plane, &install);
        // No node runs the test's pod, but it is created, with the roles that it needs.
        let said = helm.fails(
            &plane,
            &[&["test", release, "--timeout=3s"], &as_jane[..]].concat(),
        );
        assert!(!said.contains("forbidden"), "{said}");
        let pod = format!("{release}-modelservice-operator-self-test");
        plane
            .kubectl(&["--namespace", "team-a", "get", "pod", &pod])
            .unwrap();
        helm.run(&plane, &[&["uninstall", release], &as_jane[..]].concat());
    }
}
