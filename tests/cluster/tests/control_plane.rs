//! A control plane without nodes, on this machine: real etcd, API server, controllers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use local_cluster::{ControlPlane, ControlPlaneOptions, FakeNodes, Signal, wait_until};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: pears, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: pears}}
  template:
    metadata: {labels: {app: pears}}
    spec: {containers: [{name: c, image: fake/image:1}]}
"#;

// If two could not run at the same time, tests would have to wait for each other.
#[test]
fn two_control_planes_run_at_once_and_leave_nothing_behind() {
    let start = |name: &'static str| {
        std::thread::spawn(move || {
            let started = Instant::now();
            let plane = ControlPlane::start(ControlPlaneOptions::named(name)).expect("start");
            eprintln!("{name} answered after {:.1?}", started.elapsed());
            plane
        })
    };
    let (first, second) = (start("test-plums"), start("test-figs"));
    let (first, second) = (first.join().unwrap(), second.join().unwrap());

    first
        .kubectl(&["create", "configmap", "only-here"])
        .expect("create");
    let elsewhere = second
        .kubectl(&["get", "configmaps", "--output=name"])
        .expect("list");
    assert!(!elsewhere.contains("only-here"), "{elsewhere}");

    let checks = [first.leftovers_check(), second.leftovers_check()];
    drop((first, second));
    for check in checks {
        assert_eq!(check().expect("look for leftovers"), Vec::<String>::new());
    }
}

// If fake nodes' pods did not get ready, tests and benchmarks of many services would need real machines.
#[test]
fn pods_on_fake_nodes_become_ready_and_controllers_can_be_frozen() {
    let options = ControlPlaneOptions {
        fake_nodes: Some(FakeNodes::new(2)),
        ..ControlPlaneOptions::named("test-pears")
    };
    let plane = ControlPlane::start(options).expect("start");
    plane.apply(DEPLOYMENT).expect("apply");
    plane
        .kubectl(&[
            "wait",
            "--for=jsonpath={.status.readyReplicas}=3",
            "deployment/pears",
            "--timeout=60s",
        ])
        .expect("three pods are ready");

    plane
        .signal("kube-controller-manager", Signal::STOP)
        .expect("freeze");
    plane
        .kubectl(&["scale", "deployment/pears", "--replicas=5"])
        .expect("scale");
    plane
        .signal("kube-controller-manager", Signal::CONT)
        .expect("go on");
    plane.restart("kube-apiserver").expect("restart");
    plane.wait_ready().expect("ready again");
    wait_until("five pods are ready", Duration::from_secs(60), || {
        Ok(plane.kubectl(&[
            "get",
            "deployment/pears",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ])? == "5")
    })
    .expect("five pods");
}

// If a crashed run's leftovers stayed, a CI machine would fill up, and the next run would find its ports taken.
#[test]
fn what_a_crashed_run_left_is_removed_by_the_next_start() {
    let crashing = "test-crashing";
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_local-cluster"))
        .args(["up", "--name", crashing, "--nodes", "0"])
        .spawn()
        .expect("run");
    let runs = |part: &str| {
        let found = local_cluster::clusters()
            .into_iter()
            .find(|cluster| cluster.name == crashing);
        found.is_some_and(|cluster| {
            cluster
                .parts
                .iter()
                .any(|known| known.name == part && known.pid.is_some())
        })
    };
    wait_until("the API server was started", Duration::from_secs(60), || {
        Ok(runs("kube-apiserver"))
    })
    .expect("start");
    run.kill().expect("kill");
    run.wait().expect("end");

    let next = ControlPlane::start(ControlPlaneOptions::named("test-next")).expect("start the next");
    let left: Vec<_> = local_cluster::clusters()
        .into_iter()
        .filter(|cluster| cluster.name == crashing)
        .collect();
    drop(next);
    assert!(left.is_empty(), "{left:?}");
    let namespace = std::path::Path::new("/run/netns").join(format!("msvc-{crashing}"));
    assert!(!namespace.exists(), "{}", namespace.display());
}
