//! A whole cluster on this machine: real kubelets, containers, Services, DNS, images and metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use local_cluster::{Cluster, ClusterOptions, Device, wait_until};

/// Serves a file that comes from an image volume; one pod per node, by the spread. Each pod has a device of both kinds.
fn web(image: &str) -> String {
    format!(
        r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {{name: stones, namespace: default}}
spec: {{spec: {{devices: {{requests: [{{name: stone, exactly: {{deviceClassName: gpu.example.com}}}}]}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: plums, namespace: default}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: plums}}}}
  template:
    metadata: {{labels: {{app: plums}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: plums}}}}}}
      containers:
      - name: c
        image: {image}
        command: [busybox, httpd, -f, -p, "8080", -h, /content]
        readinessProbe: {{httpGet: {{path: /bin/busybox, port: 8080}}, periodSeconds: 1}}
        volumeMounts: [{{name: content, mountPath: /content, readOnly: true}}]
        resources: {{requests: {{cpu: 10m, memory: 16Mi}}, limits: {{example.com/pips: 1}}, claims: [{{name: stone}}]}}
      resourceClaims: [{{name: stone, resourceClaimTemplateName: stones}}]
      volumes: [{{name: content, image: {{reference: "{image}"}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: plums, namespace: default}}
spec: {{selector: {{app: plums}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

// If any of this did not work, an end-to-end test would prove nothing about a real cluster.
#[test]
fn two_nodes_run_pods_with_images_services_names_devices_and_metrics_and_leave_nothing_behind() {
    let started = Instant::now();
    let cluster = Cluster::start(ClusterOptions {
        nodes: 2,
        device: Some(Device {
            resource: "example.com/pips".to_owned(),
            count: 1,
        }),
        dra_devices: 1,
        ..ClusterOptions::named("test-orchard")
    })
    .expect("start");
    eprintln!("two nodes ready after {:.1?}", started.elapsed());

    let image = cluster.push("localhost/busybox:1", "fruit/busybox:1");
    let image = image
        .or_else(|_| cluster.push(&busybox_archive(), "fruit/busybox:1"))
        .expect("push");
    assert!(
        image.starts_with("registry.test:5000/fruit/busybox@sha256:"),
        "{image}"
    );
    cluster.apply(&web(&image)).expect("apply");
    let rolled_out = cluster.kubectl(&["rollout", "status", "deployment/plums", "--timeout=60s"]);
    let pods = cluster.kubectl(&["get", "pods", "-o", "wide"]).expect("pods");
    rolled_out.unwrap_or_else(|error| {
        panic!(
            "{error:#}\n{pods}\n{}",
            cluster.kubectl(&["describe", "pods"]).unwrap()
        )
    });
    assert!(pods.contains("node-1") && pods.contains("node-2"), "{pods}");

    for index in 0..2 {
        wait_until("the Service answers by its name", Duration::from_secs(10), || {
            let mut curl = cluster.node(index).command("curl")?;
            let answer = curl
                .args([
                    "-sSf",
                    "-m",
                    "2",
                    "-o",
                    "/dev/null",
                    "http://plums.default/bin/busybox",
                ])
                .output()?;
            anyhow::ensure!(
                answer.status.success(),
                "{}",
                String::from_utf8_lossy(&answer.stderr)
            );
            Ok(true)
        })
        .expect("answer");
    }
    let inside = [
        "exec",
        "deployment/plums",
        "--",
        "wget",
        "-q",
        "-O",
        "/dev/null",
        "http://plums/bin/busybox",
    ];
    cluster
        .kubectl(&inside)
        .expect("a pod reaches the Service by its short name");

    let first = cluster.node(0);
    first.break_device(0).expect("break");
    wait_until("one device is unhealthy", Duration::from_secs(30), || {
        Ok(health(&cluster)? == ["Healthy", "Unhealthy"])
    })
    .expect("the kubelet tells it in the pod's status");
    first.repair_device(0).expect("repair");
    wait_until("both devices are healthy", Duration::from_secs(30), || {
        Ok(health(&cluster)? == ["Healthy", "Healthy"])
    })
    .expect("the kubelet tells it in the pod's status");

    wait_until("metrics of pods are there", Duration::from_secs(60), || {
        Ok(cluster.kubectl(&["top", "pods", "--no-headers"])?.lines().count() == 2)
    })
    .expect("kubectl top");

    let check = cluster.leftovers_check();
    let ending = Instant::now();
    drop(cluster);
    eprintln!("removed after {:.1?}", ending.elapsed());
    assert_eq!(check().expect("look for leftovers"), Vec::<String>::new());
}

/// What the pods' status says of the devices of the device plug-in, in the order of the alphabet.
fn health(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let devices = ".allocatedResourcesStatus[?(@.name=='example.com/pips')].resources[*].health";
    let path = format!("jsonpath={{.items[*].status.containerStatuses[*]{devices}}}");
    let told = cluster.kubectl(&["get", "pods", "-o", &path])?;
    let mut all: Vec<String> = told.split_whitespace().map(str::to_owned).collect();
    all.sort_unstable();
    Ok(all)
}

fn busybox_archive() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/images/busybox.tar").to_owned()
}
