#![allow(clippy::unwrap_used)]
use super::*;
use crate::{crd::GIVES_WAY_ANNOTATION, fixtures::observed, reason::Problem};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

/// The status of a service with one server of one revision, whose pod has this status.
fn with_pod(pod: Value) -> ModelServiceStatus {
    let plan = observed(json!({})).planned();
    let observed = observed(json!({}))
        .running(&plan, 1, 0)
        .routed(&plan)
        .pod(&plan, pod);
    let applied = applied(&observed);
    assess(&observed, &applied)
}

fn applied(observed: &Observed) -> Applied {
    let plan = observed.planned();
    Applied::as_observed(plan.rollout, None, observed)
}

fn condition<'a>(status: &'a ModelServiceStatus, type_: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}}}]})
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({"containerStatuses": [{"name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}]})
}

fn words(reason: &str, message: &str) -> String {
    json!({"reason": reason, "message": message}).to_string()
}

/// docs/troubleshooting.md, row by row: what a pod's status says, and what the service's status must say.
#[test]
fn every_way_in_which_a_pod_fails_has_its_reason() {
    let model = "Back-off pulling image \"models.example/net@sha256:aa\": not found";
    let runtime = "Back-off pulling image \"runtime.example/server:1\": not found";
    let table = [
        (
            waiting("ImagePullBackOff", model),
            "ModelFetchFailed",
            "spec.model.image",
            true,
        ),
        (
            waiting("ErrImagePull", runtime),
            "ImagePullFailed",
            "runtime.example/server:1",
            true,
        ),
        (
            waiting("CreateContainerConfigError", "secret \"x\" not found"),
            "InvalidSpec",
            "secret \"x\" not found",
            true,
        ),
        (
            waiting("RunContainerError", "no such file"),
            "CrashLooping",
            "no such file",
            true,
        ),
        (
            ended(12, "Error", &words("ModelDigestMismatch", "another file")),
            "ModelDigestMismatch",
            "another file (exit code 12)",
            true,
        ),
        (
            ended(11, "Error", &words("ModelMissing", "no model.onnx")),
            "ModelInvalid",
            "no model.onnx (exit code 11)",
            true,
        ),
        (
            ended(13, "Error", &words("ModelInvalid", "not a model")),
            "ModelInvalid",
            "not a model",
            true,
        ),
        (
            ended(14, "Error", &words("AcceleratorUnavailable", "no CUDA")),
            "AcceleratorUnavailable",
            "no CUDA",
            true,
        ),
        (
            ended(
                14,
                "Error",
                &words(
                    "AcceleratorUnavailable",
                    "TpuExecutionProvider is not in this runtime",
                ),
            ),
            "AcceleratorUnavailable",
            "is not in this runtime (exit code 14)",
            true,
        ),
        (
            ended(
                14,
                "Error",
                &words("AcceleratorUnavailable", "unknown option \"devic_id\""),
            ),
            "AcceleratorUnavailable",
            "unknown option",
            true,
        ),
        (
            ended(
                14,
                "Error",
                &words("AcceleratorUnavailable", "/opt/provider.so: no such file"),
            ),
            "AcceleratorUnavailable",
            "no such file",
            true,
        ),
        (
            ended(
                15,
                "Error",
                &words("ExecutionProviderFallback", "7 nodes on the CPU"),
            ),
            "ExecutionProviderFallback",
            "7 nodes",
            true,
        ),
        (
            ended(10, "Error", &words("ConfigInvalid", "unknown key")),
            "InvalidSpec",
            "unknown key",
            true,
        ),
        (
            ended(16, "Error", &words("RuntimeUnavailable", "no library")),
            "CrashLooping",
            "no library",
            true,
        ),
        (
            ended(137, "OOMKilled", ""),
            "OutOfMemory",
            "spec.resources.limits.memory",
            true,
        ),
        (
            ended(13, "Error", "log lines, not JSON"),
            "ModelInvalid",
            "log lines, not JSON",
            true,
        ),
        (
            ended(136, "Error", ""),
            "CrashLooping",
            "exit code 136 (SIGFPE: arithmetic error)",
            true,
        ),
        (
            ended(139, "Error", "log lines"),
            "CrashLooping",
            "exit code 139 (SIGSEGV: bad memory access): log lines",
            true,
        ),
        (
            ended(101, "Error", "thread main panicked"),
            "CrashLooping",
            "thread main panicked",
            true,
        ),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
            "Unschedulable",
            "Insufficient cpu",
            false,
        ),
    ];
    for (pod, reason, message, stalled) in table {
        let status = with_pod(pod.clone());
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason),
            "{pod}"
        );
        assert!(ready.message.contains(message), "{message} in {}", ready.message);
        assert_eq!(condition(&status, "Stalled").is_some(), stalled, "{pod}");
        assert_eq!(condition(&status, "Reconciling").is_some(), !stalled, "{pod}");
        assert_eq!(condition(&status, "Available").unwrap().status, "False");
    }
}

/// A container's status as the kubelet reports it: running if `fails` is null.
fn container(name: &str, fails: &Value) -> Value {
    let (state, last) = match (fails.get("exitCode"), fails.get("reason")) {
        (Some(_), _) => (
            json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            json!({"terminated": fails}),
        ),
        (None, Some(_)) => (json!({"waiting": fails}), Value::Null),
        (None, None) => (json!({"running": {}}), Value::Null),
    };
    json!({"name": name, "ready": false, "state": state, "lastState": last})
}

fn ready(name: &str) -> Value {
    json!({"name": name, "ready": true, "state": {"running": {}}})
}

/// Meshes and agents are injected beside the server, with names before and after its own: none may hide it or be
/// mistaken for it.
#[test]
fn every_container_that_keeps_a_pod_from_being_ready_has_words_the_server_first() {
    let invalid = container(
        "server",
        &json!({"exitCode": 13, "reason": "Error", "message": words("ModelInvalid", "not a model")}),
    );
    let oom = json!({"exitCode": 137, "reason": "OOMKilled"});
    let crash = json!({"exitCode": 2, "reason": "Error", "message": "no certificate"});
    let no_image = json!({"reason": "ErrImagePull", "message": "proxy.example/p:1: not found"});
    let initializing = container("server", &json!({"reason": "PodInitializing"}));
    let done = json!({"name": "done", "ready": true, "state": {"terminated": {"exitCode": 0}}});
    let beside = |containers: Value| json!({"containerStatuses": containers});
    let table = [
        (
            beside(json!([ready("aaa-proxy"), invalid])),
            ("ModelInvalid", "not a model (exit code 13)"),
        ),
        (
            beside(json!([container("aaa-proxy", &oom), invalid])),
            (
                "ModelInvalid",
                "not a model (exit code 13); the injected container aaa-proxy was killed because it needed more memory than its own limit",
            ),
        ),
        (
            beside(json!([container("aaa-proxy", &oom), ready("server")])),
            (
                "InjectedContainerFailed",
                "the injected container aaa-proxy was killed",
            ),
        ),
        (
            beside(json!([
                ready("server"),
                container("zzz", &crash),
                container("yyy", &no_image)
            ])),
            (
                "InjectedContainerFailed",
                "the injected container yyy cannot start, because its image cannot be pulled \
                 (proxy.example/p:1: not found); fix it where it is injected; the injected container zzz \
                 terminates with exit code 2: no certificate",
            ),
        ),
        (
            beside(json!([
                ready("server"),
                container("agent", &json!({"exitCode": 0, "reason": "Completed"}))
            ])),
            (
                "InjectedContainerFailed",
                "the injected container agent terminates with exit code 0",
            ),
        ),
        (
            beside(json!([
                ready("server"),
                container(
                    "agent",
                    &json!({"reason": "CreateContainerConfigError", "message": "no secret"})
                )
            ])),
            (
                "InjectedContainerFailed",
                "the injected container agent cannot be started: no secret",
            ),
        ),
        (
            json!({"containerStatuses": [initializing], "initContainerStatuses": [done, container("istio-init", &crash)]}),
            (
                "InjectedContainerFailed",
                "the injected init container istio-init terminates with exit code 2: no certificate",
            ),
        ),
        (
            json!({"containerStatuses": [initializing], "initContainerStatuses": [container("istio-init", &no_image)]}),
            (
                "InjectedContainerFailed",
                "the injected init container istio-init cannot start, because its image cannot be pulled",
            ),
        ),
        (
            json!({"containerStatuses": [initializing], "initContainerStatuses": [done, container("hangs", &json!({}))]}),
            (
                "Progressing",
                "the injected init container hangs is not ready yet",
            ),
        ),
        (
            beside(json!([
                ready("server"),
                container("b", &json!({})),
                container("a", &json!({}))
            ])),
            (
                "Progressing",
                "the injected container a and the injected container b are not ready yet",
            ),
        ),
    ];
    for (pod, (reason, message)) in table {
        let status = with_pod(pod.clone());
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, reason, "{pod}");
        assert!(ready.message.contains(message), "{message} in {}", ready.message);
        assert!(!ready.message.contains("spec.resources"), "{}", ready.message);
    }
}

/// Otherwise last week's crash is reported when a container beside the server fails today.
#[test]
fn a_server_that_is_ready_has_nothing_to_say() {
    let mut server = ready("server");
    server["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let status = with_pod(json!({"containerStatuses": [server, container("agent", &json!({}))]}));
    assert_eq!(condition(&status, "Ready").unwrap().reason, "Progressing");
}

/// Otherwise last week's OOM kill explains a server that misses one probe today.
#[test]
fn an_earlier_end_speaks_until_the_container_has_run_for_ten_minutes() {
    let reason = |name: &str, started: bool, minutes: i64| {
        let at = observed(json!({})).now - SignedDuration::from_mins(minutes);
        let failed = json!({"name": name, "ready": false, "started": started,
            "state": {"running": {"startedAt": at}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
        let beside = if name == "server" {
            json!([failed])
        } else {
            json!([ready("server"), failed])
        };
        let status = with_pod(json!({"containerStatuses": beside}));
        condition(&status, "Ready").unwrap().reason.clone()
    };
    assert_eq!(reason("server", true, 9), "OutOfMemory");
    assert_eq!(reason("server", true, 10), "Progressing");
    assert_eq!(
        reason("server", false, 60),
        "OutOfMemory",
        "it still loads the model"
    );
    assert_eq!(reason("agent", true, 9), "InjectedContainerFailed");
    assert_eq!(reason("agent", true, 10), "Progressing");
}

/// A service mesh or a load balancer may hold pods back although all of their containers are ready.
#[test]
fn a_readiness_gate_that_is_closed_is_told_also_past_the_deadline() {
    let pod = json!({"containerStatuses": [ready("server")], "conditions": [{"type": "Ready", "status": "False",
        "reason": "ReadinessGatesNotReady",
        "message": "corresponding condition of pod readiness gate \"example.com/lb\" does not exist."}]});
    let status = with_pod(pod.clone());
    let told = condition(&status, "Reconciling").unwrap();
    assert!(
        told.message.contains("\"example.com/lb\" does not exist"),
        "{}",
        told.message
    );

    let plan = observed(json!({})).planned();
    let mut observed = observed(json!({}))
        .running(&plan, 1, 0)
        .routed(&plan)
        .pod(&plan, pod);
    let overdue = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
    let deployment = Arc::make_mut(&mut observed.deployments[0]);
    deployment.status.as_mut().unwrap().conditions = serde_json::from_value(overdue).unwrap();
    let status = assess(&observed, &applied(&observed));
    let told = condition(&status, "Stalled").unwrap();
    assert_eq!(told.reason, "ProgressDeadlineExceeded");
    assert!(told.message.contains("example.com/lb"), "{}", told.message);
}

/// A sidecar that is being restarted is for a moment neither running nor failing.
#[test]
fn an_injected_container_between_two_starts_is_told() {
    let ended = json!({"name": "agent", "ready": false, "state": {"terminated": {"exitCode": 0}}});
    let status = with_pod(json!({"containerStatuses": [ready("server"), ended]}));
    let message = &condition(&status, "Ready").unwrap().message;
    assert!(message.contains("container agent is not ready yet"), "{message}");
}

/// A condition's message has a limit, and so does people's patience.
#[test]
fn many_failing_containers_are_counted() {
    let crash = json!({"exitCode": 2, "reason": "Error", "message": "x".repeat(4000)});
    let names: Vec<String> = (0..100).map(|number| format!("proxy-{number:02}")).collect();
    let mut all: Vec<Value> = names.iter().map(|name| container(name, &crash)).collect();
    all.push(ready("server"));
    let status = with_pod(json!({"containerStatuses": all}));
    let message = &condition(&status, "Ready").unwrap().message;
    assert!(
        message.contains("proxy-07") && !message.contains("proxy-08"),
        "{message}"
    );
    assert!(
        message.ends_with("further failing injected containers: 92"),
        "{message}"
    );
    assert!(message.len() < 32768);
}

/// A failing sidecar of one pod must not hide the server of another.
#[test]
fn a_server_speaks_before_an_injected_container_of_another_pod() {
    let plan = observed(json!({"replicas": 2})).planned();
    let agent = json!({"containerStatuses": [ready("server"), container("agent", &json!({"exitCode": 1}))]});
    let observed = observed(json!({"replicas": 2}))
        .running(&plan, 2, 0)
        .routed(&plan)
        .pod(&plan, agent)
        .pod(&plan, ended(137, "OOMKilled", ""));
    let status = assess(&observed, &applied(&observed));
    assert_eq!(condition(&status, "Ready").unwrap().reason, "OutOfMemory");
}

/// Pods that their nodes ended stay for hours. They explain why a server is missing until another has taken its
/// place.
#[test]
fn a_failed_pod_speaks_until_something_newer_explains_more() {
    let evicted = || {
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
            "containerStatuses": [{"name": "server", "ready": false,
                "state": {"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": "2026-01-02T02:30:00Z"}}}]})
    };
    let rejected =
        |reason: &str, message: &str| json!({"phase": "Failed", "reason": reason, "message": message});
    let serving = || json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let unschedulable = || json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}]});
    let starting = || json!({"phase": "Pending"});
    /// A case; pods with their ages in seconds; reason and message.
    type Row = (&'static str, Vec<(i64, Value)>, &'static str, &'static str);
    let table: [Row; 10] = [
        (
            "its successor was deleted",
            vec![(7200, evicted()), (9, starting())],
            "Progressing",
            "are starting",
        ),
        (
            "alone",
            vec![(7200, evicted())],
            "PodFailed",
            "Evicted: The node was low on resource: memory.",
        ),
        (
            "its successor starts",
            vec![(7200, evicted()), (2040, starting())],
            "PodFailed",
            "Evicted: ",
        ),
        (
            "others that are older serve",
            vec![(7200, evicted()), (7100, serving()), (2040, starting())],
            "PodFailed",
            "Evicted: ",
        ),
        (
            "its successor says more",
            vec![(7200, evicted()), (9, unschedulable())],
            "Unschedulable",
            "Insufficient cpu",
        ),
        (
            "replaced, and scaled up",
            vec![(7200, evicted()), (1800, serving()), (9, starting())],
            "Progressing",
            "are starting",
        ),
        (
            "the node shuts down",
            vec![(9, rejected("NodeShutdown", "Pod was rejected"))],
            "PodFailed",
            "NodeShutdown: Pod was rejected",
        ),
        (
            "preempted",
            vec![(
                9,
                rejected("Preempting", "Preempted in order to admit critical pod"),
            )],
            "PodFailed",
            "Preempted in order",
        ),
        (
            "the newest of two",
            vec![
                (900, rejected("OutOfcpu", "")),
                (60, rejected("NodeShutdown", "")),
            ],
            "PodFailed",
            "NodeShutdown",
        ),
        (
            "done",
            vec![(9, json!({"phase": "Succeeded", "reason": "Completed"}))],
            "Progressing",
            "are starting",
        ),
    ];
    for (case, pods, reason, message) in table {
        let plan = observed(json!({"replicas": 3})).planned();
        let base = observed(json!({"replicas": 3}))
            .running(&plan, 3, 0)
            .routed(&plan);
        let observed = pods
            .into_iter()
            .fold(base, |observed, (age, pod)| observed.pod_made(&plan, age, pod));
        let status = assess(&observed, &applied(&observed));
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, reason, "{case}");
        assert!(ready.message.contains(message), "{case}: {}", ready.message);
        assert!(condition(&status, "Stalled").is_none(), "{case}");
    }
}

/// Otherwise a pod that never terminates is an outage without an explanation.
#[test]
fn a_rollout_that_waits_says_for_which_pod() {
    let spec = json!({"rollout": {"strategy": "Recreate"}});
    let old = observed(spec.clone()).planned();
    let mut new = spec;
    new["model"] = json!({"image": "models.example/net@sha256:bb"});
    let observed = observed(new)
        .running(&old, 0, 0)
        .routed(&old)
        .pod(&old, json!({}));
    let observed = observed.clone().running(&observed.planned(), 0, 0);
    let status = assess(&observed, &applied(&observed));
    let message = &condition(&status, "Reconciling").unwrap().message;
    assert!(message.ends_with("waiting for pod photos-0"), "{message}");
    assert!(!message.contains("keeps serving"), "{message}");

    let after = |seconds: i64| {
        let mut observed = observed.clone();
        Arc::make_mut(&mut observed.pods[0]).metadata.deletion_timestamp = Some(Time(observed.now));
        observed.now += SignedDuration::from_secs(seconds);
        let look_again = observed.planned().rollout.look_again;
        (assess(&observed, &applied(&observed)), look_again)
    };
    let (ending, look_again) = after(599);
    assert!(condition(&ending, "Reconciling").is_some());
    assert_eq!(look_again, Some(SignedDuration::from_millis(1100)));
    let (overdue, look_again) = after(600);
    let told = condition(&overdue, "Stalled").unwrap();
    assert_eq!(told.reason, "ProgressDeadlineExceeded");
    assert!(
        told.message
            .contains("waiting for pod photos-0, which does not terminate"),
        "{}",
        told.message
    );
    assert_eq!(look_again, None);
}

/// Flux and Argo CD give up on Stalled: a registry that restarts must not end their wait.
#[test]
fn an_image_that_cannot_be_pulled_is_stalled_after_a_minute() {
    let stalled = |reason: &str, seconds_ago: i64| {
        let plan = observed(json!({})).planned();
        let observed = observed(json!({})).running(&plan, 1, 0).routed(&plan).pod_made(
            &plan,
            seconds_ago,
            waiting(reason, "models.example/net@sha256:aa: no such host"),
        );
        let status = assess(&observed, &applied(&observed));
        assert_eq!(condition(&status, "Ready").unwrap().reason, "ModelFetchFailed");
        condition(&status, "Stalled").is_some()
    };
    assert!(!stalled("ErrImagePull", 2) && !stalled("ImagePullBackOff", 59));
    assert!(stalled("ErrImagePull", 60) && stalled("ImagePullBackOff", 60));
    assert!(stalled("InvalidImageName", 2), "no attempt can help");
}

/// Pulls of images of several gigabytes fail late for the first time. Nothing else happens while the kubelet waits
/// for its next attempt.
#[test]
fn a_pull_that_begins_to_fail_late_is_given_the_same_minute_and_looked_at_again() {
    let plan = observed(json!({})).planned();
    let pod = waiting("ImagePullBackOff", "models.example/net@sha256:aa: no such host");
    let mut observed = observed(json!({}))
        .running(&plan, 1, 0)
        .routed(&plan)
        .pod(&plan, pod);
    assert_eq!(look_again(&observed), None, "Stalled already");
    let began = observed.now;
    Arc::make_mut(&mut observed.pods[0]).pull_fails_since = Some(began);
    observed.now = began + SignedDuration::from_secs(59);
    assert!(condition(&assess(&observed, &applied(&observed)), "Stalled").is_none());
    assert_eq!(look_again(&observed), Some(SignedDuration::from_millis(1100)));
    observed.now = began + SignedDuration::from_secs(60);
    assert!(condition(&assess(&observed, &applied(&observed)), "Stalled").is_some());
    assert_eq!(look_again(&observed), None);
}

/// An older containerd complains about a folder; others blame an image that exists.
#[test]
fn a_node_without_image_volumes_is_told_what_it_needs() {
    let containerd = r#"failed to generate container "ab" spec: failed to generate spec: failed to mkdir "": mkdir : no such file or directory"#;
    for (reason, message) in [
        ("CreateContainerError", containerd),
        (
            "CreateContainerError",
            r#"failed to apply OCI options: failed to mkdir "": mkdir : no such file or directory"#,
        ),
        ("ErrImagePull", "image volume not supported"),
        (
            "CreateContainerError",
            "Image volumes are not supported by this runtime",
        ),
    ] {
        let status = with_pod(waiting(reason, message));
        let ready = condition(&status, "Ready").unwrap();
        assert_eq!(ready.reason, "UnsupportedCluster", "{message}");
        assert!(ready.message.contains("containerd 2.1") && ready.message.contains("CRI-O 1.31"));
        assert!(!ready.message.contains("runtime image"), "{}", ready.message);
    }
    let full = with_pod(waiting(
        "CreateContainerError",
        "failed to mkdir \"/x\": no space left on device",
    ));
    assert_eq!(condition(&full, "Ready").unwrap().reason, "CrashLooping");
}

/// Otherwise a status would be written each time the kubelet tries again.
#[test]
fn an_attempt_to_pull_and_its_back_off_say_the_same() {
    let attempt = "rpc error: models.example/net@sha256:aa: not found";
    let back_off =
        format!("Back-off pulling image \"models.example/net@sha256:aa\": ErrImagePull: {attempt}");
    assert_eq!(
        with_pod(waiting("ErrImagePull", attempt)),
        with_pod(waiting("ImagePullBackOff", &back_off))
    );
}

/// A pod that merely takes its time must not look broken, and the status must not change from pass to pass.
#[test]
fn a_pod_that_starts_is_progress() {
    for pod in [
        json!({}),
        waiting("ContainerCreating", ""),
        ended(0, "Completed", ""),
    ] {
        let status = with_pod(pod);
        assert_eq!(condition(&status, "Ready").unwrap().reason, "Progressing");
        assert!(condition(&status, "Reconciling").is_some());
    }
}

#[test]
fn a_working_service_is_ready_and_available() {
    let plan = observed(json!({"replicas": 2})).planned();
    let observed = observed(json!({"replicas": 2}))
        .running(&plan, 2, 2)
        .routed(&plan);
    let status = assess(&observed, &applied(&observed));
    assert_eq!(
        status.conditions.len(),
        2,
        "Reconciling and Stalled are there only while True"
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.status == "True" && c.reason == "Serving" && c.observed_generation == Some(4))
    );
    assert_eq!((status.replicas, status.ready_replicas), (2, 2));
    assert_eq!(status.url.as_deref(), Some("http://photos.team-a.svc"));
}

/// Otherwise Ready flaps with each step of an autoscaler, and alerts on it wake people for nothing.
#[test]
fn a_size_that_is_on_its_way_leaves_the_service_ready() {
    let autoscaled =
        || json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 8, "target": {"cpuUtilization": 70}}});
    /// A case; spec; size and available servers of the Deployment; how many statuses behind; expected message.
    type Row = (&'static str, Value, (i32, i32), i64, Option<&'static str>);
    let table: [Row; 8] = [
        ("as wanted", autoscaled(), (3, 3), 0, None),
        ("a step up", autoscaled(), (5, 3), 0, Some("3 of 5 servers")),
        (
            "a step up, not yet seen",
            autoscaled(),
            (5, 3),
            1,
            Some("3 of 5 servers"),
        ),
        ("a step down", autoscaled(), (2, 3), 0, None),
        ("a step down, not yet seen", autoscaled(), (2, 3), 1, None),
        (
            "below the minimum",
            autoscaled(),
            (2, 1),
            0,
            Some("1 of 2 servers"),
        ),
        (
            "a pod is replaced",
            json!({"replicas": 3}),
            (3, 2),
            0,
            Some("2 of 3 servers"),
        ),
        (
            "somebody caps the size",
            json!({"replicas": 2}),
            (1, 1),
            0,
            Some("spec.replicas of Deployment photos-"),
        ),
    ];
    for (case, spec, (size, available), behind, told) in table {
        let plan = observed(spec.clone()).planned();
        let mut observed = observed(spec).running(&plan, size, available).routed(&plan);
        Arc::make_mut(&mut observed.deployments[0]).metadata.generation = Some(1 + behind);
        let status = assess(&observed, &applied(&observed));
        assert_eq!(condition(&status, "Ready").unwrap().status, "True", "{case}");
        assert!(condition(&status, "Stalled").is_none(), "{case}");
        let reconciling = condition(&status, "Reconciling").map(|c| c.message.as_str());
        match told {
            Some(told) => assert!(reconciling.unwrap().contains(told), "{case}: {reconciling:?}"),
            None => assert_eq!(reconciling, None, "{case}"),
        }
    }
}

/// Missing servers get a reason, even if other servers answer.
#[test]
fn a_server_that_fails_beside_one_that_answers_is_told() {
    let plan = observed(json!({"replicas": 2})).planned();
    let observed = observed(json!({"replicas": 2}))
        .running(&plan, 2, 1)
        .routed(&plan)
        .pod(&plan, ended(137, "OOMKilled", ""));
    let status = assess(&observed, &applied(&observed));
    assert_eq!(condition(&status, "Ready").unwrap().reason, "Serving");
    let told = status
        .conditions
        .iter()
        .find(|c| c.reason == "OutOfMemory")
        .unwrap();
    assert!(told.message.starts_with("1 of 2 servers"), "{}", told.message);
}

/// Otherwise people leave a broken service alone.
#[test]
fn a_revision_keeps_serving_only_if_it_serves() {
    for (available, keeps) in [(1, true), (0, false)] {
        let old = observed(json!({})).planned();
        let new = observed(json!({"model": {"image": "models.example/net@sha256:bb"}}))
            .running(&old, 1, available)
            .routed(&old);
        let observed = new.clone().running(&new.planned(), 1, 0);
        let status = assess(&observed, &applied(&observed));
        let message = &condition(&status, "Ready").unwrap().message;
        assert_eq!(message.contains("keeps serving"), keeps, "{message}");
    }
}

/// Otherwise servers "are starting" that do not exist, and nobody learns that the quota is what is too small.
#[test]
fn a_revision_that_gives_way_says_so_and_why() {
    let spec = |image: &str| json!({"replicas": 7, "model": {"image": image}});
    let old = observed(spec("models.example/net@sha256:aa")).planned();
    let serving = observed(spec("models.example/net@sha256:bb"))
        .running(&old, 7, 6)
        .routed(&old);
    let new = serving.planned();
    let told = |gives_way: &str, size: i32, missing: i32| {
        let mut observed = serving.clone().running(&new, size, 0);
        let new_one = Arc::make_mut(&mut observed.deployments[0]);
        let annotations = new_one.metadata.annotations.as_mut().unwrap();
        annotations.insert(GIVES_WAY_ANNOTATION.to_owned(), gives_way.to_owned());
        let old_one = Arc::make_mut(&mut observed.deployments[1]);
        let status = old_one.status.as_mut().unwrap();
        status.replicas = Some(7 - missing);
        let refused =
            json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}]);
        status.conditions = serde_json::from_value(refused).unwrap();
        for _ in 0..size {
            let invalid = words("ModelInvalid", "not a model");
            observed = observed.pod(&new, ended(13, "Error", &invalid));
        }
        let status = assess(&observed, &applied(&observed));
        assert_eq!(condition(&status, "Available").unwrap().status, "True");
        let ready = condition(&status, "Ready").unwrap();
        (ready.reason.clone(), ready.message.clone())
    };
    let (was, is) = (&old.rollout.target, &new.rollout.target);
    let (reason, message) = told("tried", 1, 0);
    assert_eq!(reason, "ModelInvalid");
    assert_eq!(
        message,
        format!(
            "revision {is}: not a model (exit code 13); revision {was} keeps serving; there is no room for all servers of both, so revision {is} has 1 of 7"
        )
    );
    let (reason, message) = told("2026-01-02T03:04:00Z", 0, 1);
    assert_eq!(reason, "QuotaExceeded");
    assert_eq!(
        message,
        format!(
            "revision {is} has no server until revision {was}, which keeps serving, has room for all of its own: exceeded quota: small; raise the quota or lower spec.resources or the number of servers"
        )
    );
}

/// `Available` is about requests sent now, whatever the spec says.
#[test]
fn a_problem_beside_a_working_revision_leaves_it_available() {
    let plan = observed(json!({})).planned();
    let observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let refused = Applied::refused(Problem::AcceleratorClassNotFound("gpu".into()), &observed);
    let status = assess(&observed, &refused);
    assert_eq!(condition(&status, "Available").unwrap().status, "True");
    assert_eq!(
        condition(&status, "Ready").unwrap().reason,
        "AcceleratorClassNotFound"
    );
    assert!(
        condition(&status, "Stalled")
            .unwrap()
            .message
            .contains("have an administrator create it")
    );
    let busy = Problem::Api {
        verb: "patch",
        kind: "Service".into(),
        message: "timeout".into(),
    };
    let status = assess(&observed, &applied(&observed).stopped_by(busy));
    assert!(condition(&status, "Reconciling").is_some(), "it is tried again");
}

#[test]
fn last_transition_time_moves_only_on_a_flip() {
    let plan = observed(json!({})).planned();
    let mut observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let first = assess(&observed, &applied(&observed));
    Arc::make_mut(&mut observed.service).status = Some(first.clone());
    observed.now += jiff::SignedDuration::from_secs(60);
    assert_eq!(assess(&observed, &applied(&observed)), first);
    observed.deployments.clear();
    let fallen = observed.running(&plan, 1, 0);
    let second = assess(&fallen, &applied(&fallen));
    assert_ne!(
        condition(&second, "Ready").unwrap().last_transition_time,
        condition(&first, "Ready").unwrap().last_transition_time
    );
}

/// The signature survives a pass without a report, until another revision has the traffic.
#[test]
fn what_a_server_reported_stays_with_its_revision() {
    let plan = observed(json!({})).planned();
    let mut observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    let report = json!({"serverVersion": "1", "onnxRuntimeVersion": "2", "executionProvider": "CPUExecutionProvider",
        "models": [{"name": "photos", "digest": "sha256:ee", "opset": 17,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}]});
    observed.reported.models.insert(
        plan.rollout.target.clone(),
        Arc::new(serde_json::from_value(report).unwrap()),
    );
    let first = assess(&observed, &applied(&observed));
    assert_eq!(first.model.as_ref().unwrap().signature.opset, 17);
    assert_eq!(
        first.accelerator.as_ref().unwrap().execution_provider.as_deref(),
        Some("CPUExecutionProvider")
    );
    observed.reported.models.clear();
    Arc::make_mut(&mut observed.service).status = Some(first.clone());
    let second = assess(&observed, &applied(&observed));
    assert_eq!(
        (second.model, second.accelerator),
        (first.model, first.accelerator)
    );
}

/// Otherwise `status.model` does not come, and nothing says why.
#[test]
fn a_server_that_cannot_be_asked_is_told_until_it_reports() {
    let plan = observed(json!({})).planned();
    let mut observed = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    observed.reported.unreachable = Some(crate::observe::Unreachable {
        revision: plan.rollout.target.clone(),
        pod: "photos-1".into(),
        error: "Connection refused".into(),
    });
    let status = assess(&observed, &applied(&observed));
    let told = condition(&status, "ModelReported").unwrap();
    assert_eq!(
        (told.status.as_str(), told.reason.as_str()),
        ("False", "ServerUnreachable")
    );
    for words in ["photos-1", "port 8081", "Connection refused", "NetworkPolicies"] {
        assert!(told.message.contains(words), "{}", told.message);
    }
    assert_eq!(condition(&status, "Ready").unwrap().status, "True");
    observed.reported.unreachable.as_mut().unwrap().revision = "older".into();
    assert!(condition(&assess(&observed, &applied(&observed)), "ModelReported").is_none());
}

/// Otherwise the condition goes and comes back whenever a leader begins: two writes for each service.
#[test]
fn a_server_that_could_not_be_asked_is_told_until_it_is_asked_again() {
    let plan = observed(json!({})).planned();
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let mut observed = observed(json!({}))
        .running(&plan, 1, 1)
        .routed(&plan)
        .pod(&plan, ready);
    observed.reported.unreachable = Some(crate::observe::Unreachable {
        revision: plan.rollout.target.clone(),
        pod: "photos-0".into(),
        error: "Connection refused".into(),
    });
    let status = assess(&observed, &applied(&observed));
    observed.reported.unreachable = None;
    Arc::make_mut(&mut observed.service).status = Some(status.clone());
    assert_eq!(assess(&observed, &applied(&observed)), status);
    let mut gone = observed.clone();
    gone.pods.clear();
    assert!(condition(&assess(&gone, &applied(&gone)), "ModelReported").is_none());
}
