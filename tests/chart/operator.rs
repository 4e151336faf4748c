//! The operator itself, as a process with the flags, the configuration and exactly the rights that the chart gives
//! it, on a control plane with nodes simulated by kwok, whose pods are ready at once.

use crate::{
    gitops::{argo_cd, kstatus},
    helm::{Helm, NAMESPACE},
    lifecycle::get,
    repository,
};
use local_cluster::{ControlPlane, ControlPlaneOptions, FakeNodes, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

const ACCOUNT: &str = "serving-modelservice-operator";
const PATIENCE: Duration = Duration::from_secs(60);

/// The operator's process; ended when dropped.
struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    /// Runs what the release's Deployment would run.
    fn start(plane: &ControlPlane, run: &str) -> Self {
        let deployment = json_of(plane, &["deployment", ACCOUNT, "--namespace", NAMESPACE]);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let classes = plane.folder().join("classes.yaml");
        let configured = json_of(
            plane,
            &[
                "configmap",
                "serving-modelservice-operator-accelerator-classes",
                "--namespace",
                NAMESPACE,
            ],
        );
        std::fs::write(&classes, configured["data"]["classes.yaml"].as_str().unwrap()).unwrap();
        let arguments = container["args"].as_array().unwrap().iter().map(|argument| {
            // The ConfigMap's mount.
            argument.as_str().unwrap().replace(
                "/etc/modelservice-operator/classes.yaml",
                classes.to_str().unwrap(),
            )
        });
        let log = plane.folder().join(format!("operator-{run}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_modelservice-operator"))
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .env_clear()
            .env("KUBECONFIG", kubeconfig(plane))
            .env("POD_NAMESPACE", NAMESPACE)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Asks it to stop, as the kubelet does.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        wait_until("the operator has ended", Duration::from_secs(30), || {
            Ok(self.child.try_wait()?.is_some())
        })
        .unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the operator's log:\n{}", self.log());
        }
    }
}

fn json_of(plane: &ControlPlane, object: &[&str]) -> Value {
    let text = plane
        .kubectl(&[&["get"], object, &["--output=json"]].concat())
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A kubeconfig with the operator's own service account instead of the administrator.
fn kubeconfig(plane: &ControlPlane) -> PathBuf {
    let token = plane
        .kubectl(&[
            "--namespace",
            NAMESPACE,
            "create",
            "token",
            ACCOUNT,
            "--duration=1h",
        ])
        .unwrap();
    let text = plane
        .kubectl(&["config", "view", "--raw", "--output=json"])
        .unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({"token": token.trim()});
    }
    let path = plane.folder().join("operator.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn service(name: &str, namespace: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: serving.modelservice.dev/v1alpha1
kind: ModelService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  model: {{image: "registry.example/models/orchids@sha256:{}"}}
{more}
"#,
        "4".repeat(64)
    )
}

fn read_service(plane: &ControlPlane, name: &str, namespace: &str) -> Value {
    json_of(plane, &["modelservice", name, "--namespace", namespace])
}

fn reason(service: &Value) -> &str {
    let conditions = service["status"]["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let current = service["status"]["observedGeneration"] == service["metadata"]["generation"];
    ready
        .filter(|_| current)
        .and_then(|ready| ready["reason"].as_str())
        .unwrap_or("none yet")
}

fn wait_for(plane: &ControlPlane, name: &str, namespace: &str, wanted: &str) -> Value {
    let mut last = Value::Null;
    let waited = wait_until(&format!("{name} says {wanted}"), PATIENCE, || {
        last = read_service(plane, name, namespace);
        Ok(reason(&last) == wanted)
    });
    waited.unwrap_or_else(|error| panic!("{error:#}\n{last:#}"));
    last
}

fn install(plane: &ControlPlane, command: &str, set: &[&str]) {
    let chart = repository(crate::helm::CHART);
    match command {
        "install" => Helm::Four.install(plane, &chart, set),
        _ => Helm::Four.upgrade(plane, &chart, set),
    };
}

/// This finds missing rights, flags that do not exist, and statuses that GitOps tools misread.
#[test]
fn the_operator_runs_as_the_chart_says_with_its_rights_and_never_over_an_edit() {
    let options = ControlPlaneOptions {
        fake_nodes: Some(FakeNodes::new(1)),
        ..ControlPlaneOptions::named("chart-operator")
    };
    let plane = ControlPlane::start(options).unwrap();
    let tpu =
        "accelerators.extra[0].name=example-tpu,accelerators.extra[0].spec.resource.name=example.com/tpu";
    install(&plane, "install", &["--set", tpu, "--set", "logLevel=debug"]);
    for namespace in ["team-a", "team-b"] {
        plane.kubectl(&["create", "namespace", namespace]).unwrap();
    }
    plane
        .apply(&service(
            "orchids",
            "team-a",
            "  autoscaling: {minReplicas: 2, maxReplicas: 3, target: {cpuUtilization: 70}}",
        ))
        .unwrap();
    plane
        .apply(&service("tulips", "team-a", "  accelerators: [missing]"))
        .unwrap();
    plane
        .apply(&service("roses", "team-a", "  suspend: true"))
        .unwrap();

    let operator = Operator::start(&plane, "first");
    every_status_is_judged_as_documented(&plane);
    let budget = get(
        &plane,
        &["pdb", "orchids", "--namespace", "team-a"],
        ".spec.maxUnavailable",
    );
    assert_eq!(budget, "1");
    assert_eq!(
        get(
            &plane,
            &["hpa", "orchids", "--namespace", "team-a"],
            ".spec.minReplicas"
        ),
        "2"
    );

    a_pod_that_finds_a_model_comes_and_goes(&plane);
    wait_for_class(&plane, "cpu", "NodesFound");
    wait_for_class(&plane, "example-tpu", "NoNodes");

    // Somebody edits a default class and removes another.
    assert_eq!(
        get(
            &plane,
            &["acceleratorclass", "example-tpu"],
            ".spec.resource.name"
        ),
        "example.com/tpu"
    );
    let edit = r#"{"spec":{"nodeSelector":{"example.com/pool":"models"}}}"#;
    plane
        .kubectl(&[
            "patch",
            "acceleratorclass",
            "cpu",
            "--type=merge",
            "--patch",
            edit,
        ])
        .unwrap();
    plane
        .kubectl(&["delete", "acceleratorclass", "example-tpu"])
        .unwrap();
    // The status of the class is the operator's; the generation counts changes of its spec.
    let generation = get(&plane, &["acceleratorclass", "cpu"], ".metadata.generation");
    wait_for_class(&plane, "cpu", "NoNodes");
    let log = operator.stop();
    assert!(!log.contains("forbidden"), "the operator lacks a right: {log}");

    let operator = Operator::start(&plane, "second");
    wait_until("the absent class is made again", PATIENCE, || {
        Ok(plane.kubectl(&["get", "acceleratorclass", "example-tpu"]).is_ok())
    })
    .unwrap();
    assert_eq!(
        get(&plane, &["acceleratorclass", "cpu"], ".metadata.generation"),
        generation,
        "the edit was overwritten"
    );
    let log = operator.stop();
    assert!(!log.contains("forbidden"), "the operator lacks a right: {log}");

    single_namespaces_need_no_cluster_role(&plane);
    an_uninstalled_operator_ends_well_and_leaves_no_lease(&plane);
}

/// Needs the rights to read nodes and to write the statuses of classes.
fn wait_for_class(plane: &ControlPlane, name: &str, reason: &str) {
    wait_until(
        &format!("AcceleratorClass {name} says {reason}"),
        PATIENCE,
        || Ok(get(plane, &["acceleratorclass", name], ".status.conditions[0].reason") == reason),
    )
    .unwrap();
}

/// Needs the rights to create and to delete pods, and no other right on them.
fn a_pod_that_finds_a_model_comes_and_goes(plane: &ControlPlane) {
    let violets = |model: &Value| {
        let service = json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService",
            "metadata": {"name": "violets", "namespace": "team-a"}, "spec": {"model": model}});
        plane.apply(&service.to_string()).unwrap();
    };
    let count = || {
        let selector = "--selector=app.kubernetes.io/component=resolver";
        let pods = ["get", "pods", "--namespace", "team-a", "--output=name", selector];
        plane.kubectl(&pods).unwrap().lines().count()
    };
    violets(&json!({"uri": "s3://models/violets/"}));
    wait_until("a pod looks for the model", PATIENCE, || Ok(count() == 1)).unwrap();
    let image = format!("registry.example/violets@sha256:{}", "4".repeat(64));
    violets(&json!({"image": image}));
    wait_until("nobody looks any more", PATIENCE, || Ok(count() == 0)).unwrap();
    wait_for(plane, "violets", "team-a", "Serving");
}

fn every_status_is_judged_as_documented(plane: &ControlPlane) {
    let table = [
        ("orchids", "Serving", "Current", "Healthy"),
        ("tulips", "AcceleratorClassNotFound", "Failed", "Degraded"),
        ("roses", "Suspended", "Current", "Suspended"),
    ];
    for (name, reason, flux, argo) in table {
        let mut object = wait_for(plane, name, "team-a", reason);
        // One server is enough for Ready; the tools wait for all.
        wait_until(&format!("{name} is settled"), PATIENCE, || {
            object = read_service(plane, name, "team-a");
            Ok(kstatus(&object)["status"] != "InProgress")
        })
        .unwrap();
        assert_eq!(self::reason(&object), reason, "{object:#}");
        assert_eq!(kstatus(&object)["status"], flux, "{object:#}");
        assert_eq!(argo_cd(&object)["status"], argo, "{object:#}");
    }
}

/// With a Role in team-a, one for the Lease, and nothing else.
fn single_namespaces_need_no_cluster_role(plane: &ControlPlane) {
    let set = [
        "--set",
        "watchNamespaces={team-a},accelerators.clusterRole.enabled=false,logLevel=debug",
    ];
    install(plane, "upgrade", &set);
    let roles = plane
        .kubectl(&[
            "get",
            "clusterrolebindings",
            "--selector=app.kubernetes.io/instance=serving",
            "--output=name",
        ])
        .unwrap();
    assert_eq!(roles.trim(), "");
    let operator = Operator::start(plane, "namespaced");
    plane.apply(&service("lilies", "team-b", "")).unwrap();
    plane
        .apply(&service("lilies", "team-a", "  replicas: 2"))
        .unwrap();
    let object = wait_for(plane, "lilies", "team-a", "Serving");
    // The class in the ConfigMap, not the edited one in the cluster, which this operator may not read.
    let name = format!("lilies-{}", object["status"]["currentRevision"].as_str().unwrap());
    let selector = get(
        plane,
        &["deployment", &name, "--namespace", "team-a"],
        ".spec.template.spec.nodeSelector",
    );
    assert_eq!(selector, "");
    let unseen = read_service(plane, "lilies", "team-b");
    assert_eq!(unseen["status"]["observedGeneration"], -1);
    operator.stop();
}

/// Helm removes the operator's rights, then the kubelet stops it. A pod in `Error` would look like a bug of the
/// operator; a Lease without an owner would stay for ever.
fn an_uninstalled_operator_ends_well_and_leaves_no_lease(plane: &ControlPlane) {
    let lease = ["lease", ACCOUNT, "--namespace", NAMESPACE];
    let operator = Operator::start(plane, "uninstalled");
    wait_until("the operator leads", PATIENCE, || {
        Ok(operator.log().contains("\"leading\""))
    })
    .unwrap();
    assert!(!get(plane, &lease, ".spec.holderIdentity").is_empty());
    // Without waiting: the kubelet does not wait either, and a lease that cannot be renewed is lost after a few
    // seconds.
    Helm::Four.run(plane, &["uninstall", "serving", "--namespace", NAMESPACE]);
    operator.stop();
    wait_until("the Lease is gone", PATIENCE, || {
        let found = [&["get"], &lease[..], &["--ignore-not-found", "--output=name"]].concat();
        Ok(plane.kubectl(&found)?.trim().is_empty())
    })
    .unwrap();
}
