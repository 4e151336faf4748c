//! What the API server itself refuses, by the CRDs' schema and CEL rules, and what it says then.

use crate::fixture::{Spec, World, model, service};
use kube::api::{Patch, PatchParams};
use modelservice_operator::crd::{AcceleratorClass, ModelService};
use serde_json::{Value, json};
use std::sync::Arc;

crate::tests!(
    bad_services_are_refused_with_a_message_that_helps,
    bad_classes_are_refused,
    defaults_are_visible,
    scaling_an_autoscaled_service_says_what_to_do
);

fn table() -> Vec<(&'static str, Spec, &'static str)> {
    let base = || service("photos");
    let auto = |value: Value| base().with("autoscaling", value);
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
            "a wrong digest",
            base().with("model.digest", "sha256:1".into()),
            "as sha256sum model.onnx prints them",
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
            "spec.autoscaling.maxReplicas: Required value",
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
            "two classes",
            base().with("accelerators", json!(["cpu", "tpu"])),
            "must have at most 1 item",
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
            "tokens in what is no Secret",
            base().with("server.auth", json!({"tokenSecretName": "To kens"})),
            "as kubectl get secrets shows it",
        ),
        (
            "a cache without its claim's name",
            base().with("server.cache", json!({"volumeClaim": {}})),
            "spec.server.cache.volumeClaim.name: Required value",
        ),
        (
            "a cache on what is no claim",
            base().with("server.cache", json!({"volumeClaim": {"name": "/graphs"}})),
            "as kubectl get pvc shows it",
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
            "a name that is no Service's",
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

/// Otherwise a user's mistake comes back hours later, or not at all.
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

async fn bad_classes_are_refused(world: Arc<World>) {
    let table = [
        (
            json!({"resource": {"name": "gpu", "count": 1}}),
            "extended resource such as",
        ),
        (
            json!({"resource": {"name": "example.com/tpu", "count": 0}}),
            "should be greater than or equal to 1",
        ),
        (json!({"runtime": {"executionProvider": "cuda"}}), "should match"),
        (json!({"sharing": "Sometimes"}), "Unsupported value"),
    ];
    for (spec, expected) in table {
        let class = json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "AcceleratorClass",
            "metadata": {"name": "bad"}, "spec": spec});
        let parameters = PatchParams::apply("kubectl").force();
        let error = world
            .classes()
            .patch("bad", &parameters, &Patch::Apply(&class))
            .await
            .expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let _: AcceleratorClass = world.classes().get("cpu").await.unwrap();
}

/// Three lines of intent are a whole service.
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

/// docs/autoscaling.md quotes what the API server says.
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
