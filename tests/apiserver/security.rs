//! What neither editors of ModelServices nor editors of Deployments can make the operator run. docs/security.md says
//! the same.

use crate::fixture::{World, eventually, service};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use modelservice_operator::crd::{is_refused_annotation, is_refused_variable};
use serde_json::{Value, json};
use std::sync::Arc;

crate::tests!(
    variables_that_load_libraries_or_give_devices_are_refused,
    secrets_do_not_reach_what_the_server_repeats,
    annotations_that_weaken_a_pod_are_refused,
    the_longest_lists_are_taken,
    a_template_that_somebody_else_wrote_is_never_applied,
);

const TEMPLATE: &str = "serving.modelservice.dev/pod-template";

/// Only their names matter, wherever their values come from.
async fn variables_that_load_libraries_or_give_devices_are_refused(world: Arc<World>) {
    let place = world.namespace().await;
    let names = [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "LD_DEBUG",
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "LOCPATH",
        "NLSPATH",
        "RES_OPTIONS",
        "MALLOC_TRACE",
        "MALLOC_CONF",
        "ORT_DYLIB_PATH",
        "ORT_LOAD_CONFIG_FROM_MODEL",
        "ORT_TENSORRT_ENGINE_CACHE_PATH",
        "OPENSSL_CONF",
        "OMP_TOOL_LIBRARIES",
        "CUDA_INJECTION64_PATH",
        "NVTX_INJECTION64_PATH",
        "HSA_TOOLS_LIB",
        "ROCP_TOOL_LIB",
        "OCL_ICD_FILENAMES",
        "VK_ICD_FILENAMES",
        "ZE_ENABLE_ALT_DRIVERS",
        "ADSP_LIBRARY_PATH",
        "ASCEND_OPP_PATH",
        "TPU_LIBRARY_PATH",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "HABANA_VISIBLE_DEVICES",
        "MODELSERVICE_HTTP_PORT",
    ];
    let sources = [
        json!({"value": "/mnt/model/library.so"}),
        json!({"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}),
        json!({"valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}),
        json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}}),
    ];
    for name in names {
        assert!(is_refused_variable(name), "{name}: by the operator");
        for source in &sources {
            let mut variable = source.clone();
            variable["name"] = name.into();
            let spec = service("photos").with("pod.env", json!([{"name": "TZ", "value": "UTC"}, variable]));
            let error = place.try_apply(&spec).await.expect_err(name).to_string();
            let is_told = error.contains("this environment variable is refused")
                || error.contains("are set by the operator");
            assert!(is_told && error.contains("spec.pod.env[1]"), "{name}: {error}");
        }
    }
    let from = service("photos").with("pod.envFrom", json!([{"secretRef": {"name": "a"}}]));
    let error = place.try_apply(&from).await.unwrap_err().to_string();
    assert!(error.contains("field not declared in schema"), "{error}");
}

/// Otherwise anyone who may write ModelServices can read every Secret of the namespace: in the status, or at a
/// collector.
async fn secrets_do_not_reach_what_the_server_repeats(world: Arc<World>) {
    let place = world.namespace().await;
    let secret = |name: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}});
    let text = |name: &str, value: &str| json!({"name": name, "value": value});
    let field = json!({"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let refused = [
        (
            json!([secret("LOG_FORMAT")]),
            "must not take a value from a Secret",
        ),
        (
            json!([secret("OTEL_RESOURCE_ATTRIBUTES")]),
            "must not take a value from a Secret",
        ),
        (
            json!([{"name": "LOG_LEVEL", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]),
            "must not take a value from a Secret",
        ),
        (
            json!([secret("TOKEN"), text("OTEL_SERVICE_NAME", "x$(TOKEN)")]),
            "must not refer to other variables",
        ),
        (
            json!([
                secret("TOKEN"),
                text("COPY", "$(TOKEN)"),
                text("LOG_FORMAT", "$(COPY)")
            ]),
            "must not refer to other variables",
        ),
    ];
    for (env, expected) in refused {
        let spec = service("photos").with("pod.env", env.clone());
        let error = place.try_apply(&spec).await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{env}: {error}");
    }
    for env in [
        json!([
            secret("TOKEN"),
            text("LOG_LEVEL", "debug"),
            text("COPY", "$(TOKEN)")
        ]),
        json!([field, text("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=$(POD)")]),
        json!([
            text("MALLOC_ARENA_MAX", "2"),
            text("CUDA_CACHE_DISABLE", "1"),
            text("LDAP_HOST", "x"),
            text("OMP_NUM_THREADS", "2")
        ]),
    ] {
        place.apply(&service("photos").with("pod.env", env)).await;
    }
}

async fn annotations_that_weaken_a_pod_are_refused(world: Arc<World>) {
    let place = world.namespace().await;
    for key in [
        "container.apparmor.security.beta.kubernetes.io/server",
        "container.seccomp.security.alpha.kubernetes.io/server",
        "seccomp.security.alpha.kubernetes.io/pod",
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "cdi.k8s.io/everything",
        "devices.nri.io/container.server",
        "mounts.nri.containerd.io/container.server",
        "devices.noderesource.dev/container.server",
        "io.kubernetes.cri-o.userns-mode",
        "io.kubernetes.cri-o.Devices",
        "seccomp-profile.kubernetes.cri-o.io/server",
        "cpu-quota.crio.io",
        "io.katacontainers.config.hypervisor.path",
        "dev.gvisor.spec.mount.model.source",
        "run.oci.keep_original_groups",
        "org.systemd.property.CPUQuota",
    ] {
        assert!(is_refused_annotation(key), "{key}: by the operator");
        let spec = service("photos").with("pod.annotations", json!({"a": "b", key: "unconfined"}));
        let error = place.try_apply(&spec).await.expect_err(key).to_string();
        assert!(error.contains("confines a pod"), "{key}: {error}");
    }
    let harmless = json!({"prometheus.io/scrape": "true", "sidecar.istio.io/inject": "false", "senri.io/x": "y",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "k8s.v1.cni.cncf.io/networks": "fast"});
    place
        .apply(&service("photos").with("pod.annotations", harmless))
        .await;
}

/// A rule that costs too much would reject what is allowed.
async fn the_longest_lists_are_taken(world: Arc<World>) {
    let place = world.namespace().await;
    let variables: Vec<Value> = (0..64)
        .map(|n| json!({"name": format!("OTEL_{n:0>251}"), "value": "x".repeat(4096)}))
        .collect();
    let annotations: Value = (0..64)
        .map(|n| {
            (
                format!("{}.example/{n:0>63}", "a".repeat(63)),
                json!("x".repeat(512)),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let pod = json!({"env": variables, "annotations": annotations});
    place.apply(&service("photos").with("pod", pod)).await;
}

/// Someone who may edit Deployments must not be able to borrow the operator's rights or hide behind it.
async fn a_template_that_somebody_else_wrote_is_never_applied(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    operator.quiet().await;
    let original = place.deployment("photos").await;
    let name = original.name_any();
    let mut template: Value = serde_json::from_str(&original.annotations()[TEMPLATE]).unwrap();
    template["spec"]["hostPID"] = true.into();
    template["spec"]["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "host", "hostPath": {"path": "/"}}));
    template["spec"]["containers"][0]["securityContext"]["privileged"] = true.into();
    let copy = json!({"metadata": {"annotations": {TEMPLATE: template.to_string()}}});

    place.merge::<Deployment>(&name, copy.clone()).await;
    eventually("the copy is made anew", async || {
        let live = place.deployment("photos").await;
        let copy = live.annotations()[TEMPLATE].clone();
        if copy.contains("hostPID") {
            Err(copy)
        } else {
            Ok(())
        }
    })
    .await;
    operator.quiet().await;
    let live = place.deployment("photos").await;
    assert_eq!(live.spec.template, original.spec.template);
    place.serving("photos").await;

    let mut both = copy;
    both["spec"] = json!({"template": {"spec": {"hostPID": true}}});
    place.merge::<Deployment>(&name, both).await;
    let told = place.wait_ready("photos", "False", "TemplateChanged").await;
    let message = serde_json::to_string(&told.status.unwrap().conditions).unwrap();
    assert!(
        message.contains(&name) && message.contains("spec.hostPID"),
        "{message}"
    );
    operator.quiet().await;
    let live = place.deployment("photos").await.spec.template.spec.unwrap();
    assert_eq!(live.volumes.unwrap().len(), 2, "no hostPath");
    assert_eq!(
        live.containers[0].security_context.as_ref().unwrap().privileged,
        None
    );

    place.delete::<Deployment>(&name).await;
    place.serving("photos").await;
    let anew = place.deployment("photos").await;
    assert_eq!(anew.spec.template, original.spec.template);
}
