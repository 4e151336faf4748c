//! Children are created, repaired and pruned; objects of others are not touched.

use crate::fixture::{World, condition, eventually, service};
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, PropagationPolicy},
};
use modelservice_operator::crd::ModelService;
use serde_json::json;
use std::sync::Arc;

crate::tests!(
    a_service_gets_its_children_and_says_where_it_is,
    drift_in_any_child_is_repaired,
    a_service_from_before_grpc_gets_its_port_in_place,
    what_is_no_longer_wanted_goes,
    objects_of_others_stay_byte_identical,
    children_of_a_deleted_namesake_are_waited_for,
    orphans_are_taken_back_by_the_command_that_is_told,
    a_restored_status_does_not_stay,
    a_deleted_service_leaves_nothing,
);

async fn a_service_gets_its_children_and_says_where_it_is(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").autoscaled(2, 5)).await;
    let status = place.serving("photos").await.status.unwrap();
    assert_eq!(status.url.unwrap(), format!("http://photos.{}.svc", place.name));
    assert_eq!((status.replicas, status.ready_replicas), (2, 2));
    assert_eq!(status.accelerator.unwrap().class, "cpu");
    let deployment = place.deployment("photos").await;
    assert_eq!(
        status.current_revision.as_deref(),
        deployment
            .labels()
            .get("serving.modelservice.dev/revision")
            .map(String::as_str)
    );

    let endpoint: Service = place.api().get("photos").await.unwrap();
    let ports = endpoint.spec.as_ref().unwrap().ports.as_ref().unwrap();
    let ports: Vec<_> = ports
        .iter()
        .map(|port| {
            (
                port.name.as_deref().unwrap(),
                port.app_protocol.as_deref().unwrap(),
                port.port,
            )
        })
        .collect();
    assert_eq!(ports, [("http", "http", 80), ("grpc", "kubernetes.io/h2c", 8001)]);
    let autoscaler: HorizontalPodAutoscaler = place.api().get("photos").await.unwrap();
    assert_eq!(
        autoscaler.spec.scale_target_ref.kind, "Deployment",
        "not the ModelService: its scale is the user's"
    );
    assert_eq!(autoscaler.spec.scale_target_ref.name, deployment.name_any());
    let budget: PodDisruptionBudget = place.api().get("photos").await.unwrap();
    assert_eq!(
        budget.spec.unwrap().unhealthy_pod_eviction_policy.as_deref(),
        Some("AlwaysAllow")
    );
    // `kubectl get pods -l` with the scale subresource's selector finds the servers.
    let selector = kube::api::ListParams::default().labels(&status.selector.unwrap());
    let pods: Api<k8s_openapi::api::core::v1::Pod> = place.api();
    assert_eq!(pods.list(&selector).await.unwrap().items.len(), 2);
}

async fn drift_in_any_child_is_repaired(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("fixed").replicas(2)).await;
    place.apply(&service("auto").autoscaled(1, 4)).await;
    place.serving("fixed").await;
    place.serving("auto").await;
    operator.quiet().await;
    let name = place.deployment("fixed").await.name_any();
    let original: Deployment = place.api().get(&name).await.unwrap();

    place
        .merge::<Deployment>(&name, json!({"spec": {"replicas": 5}}))
        .await;
    eventually("replicas are repaired", async || {
        let live: Deployment = place.api().get(&name).await.unwrap();
        if live.spec.replicas == Some(2) {
            Ok(())
        } else {
            Err(format!("{:?}", live.spec.replicas))
        }
    })
    .await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil.example/x"}]}}}});
    place
        .api::<Deployment>()
        .patch(&name, &PatchParams::default(), &Patch::Strategic(image))
        .await
        .unwrap();
    eventually("the template is repaired", async || {
        let live: Deployment = place.api().get(&name).await.unwrap();
        if live.spec.template == original.spec.template {
            Ok(())
        } else {
            Err(format!("{:?}", live.spec.template))
        }
    })
    .await;
    place
        .merge::<Service>("fixed", json!({"spec": {"selector": {"further": "key"}}}))
        .await;
    eventually("the selector is repaired", async || {
        let live: Service = place.api().get("fixed").await.unwrap();
        let selector = live.spec.unwrap().selector.unwrap();
        if selector.contains_key("further") {
            Err(format!("{selector:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    place
        .merge::<HorizontalPodAutoscaler>("auto", json!({"spec": {"maxReplicas": 40}}))
        .await;
    eventually("the autoscaler is repaired", async || {
        let live: HorizontalPodAutoscaler = place.api().get("auto").await.unwrap();
        if live.spec.max_replicas == 4 {
            Ok(())
        } else {
            Err(live.spec.max_replicas)
        }
    })
    .await;
    // Without its label, the watch no longer sees it.
    place
        .merge::<Service>(
            "auto",
            json!({"metadata": {"labels": {"serving.modelservice.dev/service": null}}}),
        )
        .await;
    eventually("the label is repaired", async || {
        let live: Service = place.api().get("auto").await.unwrap();
        if live.labels().contains_key("serving.modelservice.dev/service") {
            Ok(())
        } else {
            Err("no label")
        }
    })
    .await;
    place.delete::<PodDisruptionBudget>("fixed").await;
    eventually("the budget is back", async || {
        place
            .api::<PodDisruptionBudget>()
            .get_opt("fixed")
            .await
            .unwrap()
            .ok_or("none")
    })
    .await;
}

/// A recreated Service has another address, and every client loses its connections.
async fn a_service_from_before_grpc_gets_its_port_in_place(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    operator.quiet().await;
    operator.stop().await;
    let only_http = json!({"spec": {"ports": [{"name": "http", "appProtocol": "http", "port": 80, "targetPort": "http"}]}});
    let older = place.merge::<Service>("photos", only_http).await;

    let _newer = place.operator(&[]);
    let newer = eventually("the port is there", async || {
        let now: Service = place.api().get("photos").await.unwrap();
        let ports = now.spec.clone().unwrap().ports.unwrap();
        if ports.len() == 2 {
            Ok(now)
        } else {
            Err(format!("{ports:?}"))
        }
    })
    .await;
    assert_eq!(newer.uid(), older.uid());
    let address = |service: &Service| service.spec.as_ref().unwrap().cluster_ip.clone();
    assert_eq!(address(&newer), address(&older));
    let status = place.serving("photos").await.status.unwrap();
    assert_eq!(status.url.unwrap(), format!("http://photos.{}.svc", place.name));
}

async fn what_is_no_longer_wanted_goes(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").autoscaled(2, 4)).await;
    place.serving("photos").await;
    place.apply(&service("photos").replicas(1)).await;
    eventually("autoscaler and budget are gone", async || {
        let hpa = place
            .api::<HorizontalPodAutoscaler>()
            .get_opt("photos")
            .await
            .unwrap();
        let pdb = place
            .api::<PodDisruptionBudget>()
            .get_opt("photos")
            .await
            .unwrap();
        if hpa.is_none() && pdb.is_none() {
            Ok(())
        } else {
            Err(format!("{} {}", hpa.is_some(), pdb.is_some()))
        }
    })
    .await;
    // A field that is no longer wanted is removed, not left behind.
    let behavior = json!({"maxReplicas": 4, "target": {"cpuUtilization": 70}, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 7}}});
    place
        .apply(&service("photos").with("autoscaling", behavior))
        .await;
    let window = async || {
        let live = place
            .api::<HorizontalPodAutoscaler>()
            .get_opt("photos")
            .await
            .unwrap()?;
        live.spec.behavior?.scale_down?.stabilization_window_seconds
    };
    eventually("the behaviour is there", async || {
        if window().await == Some(7) {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    place.apply(&service("photos").autoscaled(1, 4)).await;
    eventually("the behaviour is gone", async || {
        if window().await == Some(7) {
            Err("still")
        } else {
            Ok(())
        }
    })
    .await;
}

/// The operator never touches an object that it did not create.
async fn objects_of_others_stay_byte_identical(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let foreign = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "photos", "labels": {"serving.modelservice.dev/service": "photos"}},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "other"}}});
    let foreign: Service = serde_json::from_value(foreign).unwrap();
    let before = place
        .api::<Service>()
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
    place.apply(&service("photos")).await;
    let stalled = place.wait_ready("photos", "False", "NameConflict").await;
    let (_, _, message) = condition(&stalled, "Stalled").unwrap();
    assert!(
        message.contains("Service \"photos\"") && message.contains("was not changed"),
        "{message}"
    );
    operator.quiet().await;
    let after = place.api::<Service>().get("photos").await.unwrap();
    assert_eq!(
        serde_json::to_string(&before).unwrap(),
        serde_json::to_string(&after).unwrap()
    );
    place.delete::<Service>("photos").await;
    place.serving("photos").await;
}

/// A service that is deleted and immediately recreated must not adopt children that the garbage collector is about to
/// remove.
async fn children_of_a_deleted_namesake_are_waited_for(world: Arc<World>) {
    let place = world.namespace().await;
    let old = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "photos", "finalizers": ["example.com/hold"],
            "labels": {"serving.modelservice.dev/service": "photos"},
            "ownerReferences": [{"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService",
                "name": "photos", "uid": "0c3a7f0e-0000-4000-8000-000000000000", "controller": true}]},
        "spec": {"ports": [{"port": 80}]}});
    place
        .api::<Service>()
        .create(&PostParams::default(), &serde_json::from_value(old).unwrap())
        .await
        .unwrap();
    let _operator = place.operator(&[]);
    place.apply(&service("photos")).await;
    let waiting = place.wait_ready("photos", "False", "WaitingForDeletion").await;
    assert!(condition(&waiting, "Reconciling").is_some(), "it ends by itself");
    place
        .merge::<Service>("photos", json!({"metadata": {"finalizers": null}}))
        .await;
    place.serving("photos").await;
}

/// This is how to replace a ModelService without an outage. The test runs the command that the message prints.
async fn orphans_are_taken_back_by_the_command_that_is_told(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let spec = service("photos").autoscaled(2, 3);
    place.apply(&spec).await;
    place.serving("photos").await;
    let names = async || -> Vec<String> {
        let mut names: Vec<_> = place
            .pods("photos")
            .await
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        names.sort();
        names
    };
    let pods = names().await;
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    place
        .api::<ModelService>()
        .delete("photos", &orphan)
        .await
        .unwrap();
    eventually("it is gone", async || {
        let left = place.api::<ModelService>().get_opt("photos").await.unwrap();
        left.map_or(Ok(()), |_| Err("still there"))
    })
    .await;

    place.apply(&spec).await;
    let stalled = place.wait_ready("photos", "False", "NameConflict").await;
    let (_, _, message) = condition(&stalled, "Stalled").unwrap();
    let (_, command) = message.split_once("run: ").unwrap();
    let kubectl = local_cluster::tool("kubectl").unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .env("PATH", format!("{}:{path}", kubectl.parent().unwrap().display()))
        .env("KUBECONFIG", world.plane.kubeconfig_path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");

    place.serving("photos").await;
    operator.quiet().await;
    assert_eq!(names().await, pods, "no server was replaced");
    let uid = place.service("photos").await.uid();
    let owners = |metadata: &ObjectMeta| -> Vec<_> {
        let owners = metadata.owner_references.iter().flatten();
        owners.map(|owner| owner.uid.clone()).collect()
    };
    let [deployment, endpoint, autoscaler, budget] = [
        owners(&place.deployment("photos").await.metadata),
        owners(&place.api::<Service>().get("photos").await.unwrap().metadata),
        owners(
            &place
                .api::<HorizontalPodAutoscaler>()
                .get("photos")
                .await
                .unwrap()
                .metadata,
        ),
        owners(
            &place
                .api::<PodDisruptionBudget>()
                .get("photos")
                .await
                .unwrap()
                .metadata,
        ),
    ];
    for owners in [deployment, endpoint, autoscaler, budget] {
        assert_eq!(owners, Vec::from_iter(uid.clone()));
    }
}

/// A backup tool writes an old status with its own field manager, whose fields server-side apply would leave alone.
async fn a_restored_status_does_not_stay(world: Arc<World>) {
    let place = world.namespace().await;
    place.apply(&service("photos")).await;
    let condition_of = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "Then", "message": "then", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = [
        "Ready",
        "Stalled",
        "RuntimeUpdateAvailable",
        "example.com/Checked",
    ]
    .map(condition_of);
    let restored = json!({"status": {
        "observedGeneration": 1, "url": "http://elsewhere", "targetRevision": "then",
        "model": {"revision": "then", "digest": "sha256:00", "signature": {"opset": 1, "inputs": [], "outputs": []}},
        "conditions": conditions,
    }});
    let manager = PatchParams {
        field_manager: Some("backup".to_owned()),
        ..PatchParams::default()
    };
    let api = place.api::<ModelService>();
    api.patch_status("photos", &manager, &Patch::Merge(restored))
        .await
        .unwrap();

    let operator = place.operator(&[]);
    let served = place.serving("photos").await;
    operator.quiet().await;
    let ready = served.status.as_ref().unwrap().conditions.iter();
    let ready = ready
        .clone()
        .find(|condition| condition.type_ == "Ready")
        .unwrap();
    assert!(
        ready.last_transition_time.0.to_string().as_str() > "2026-02",
        "it was not ready before it existed"
    );
    let status = place.service("photos").await.status.unwrap();
    let mut types: Vec<_> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, ["Available", "Ready", "example.com/Checked"]);
    assert!(status.model.is_none(), "no server reported a model");
    assert_ne!(status.url.as_deref(), Some("http://elsewhere"));
    assert_ne!(status.target_revision.as_deref(), Some("then"));

    // The same while it is running: a person, or a tool that writes whole statuses.
    let stalled =
        json!({"status": {"conditions": [condition_of("Stalled"), condition_of("example.com/Checked")]}});
    api.patch_status("photos", &manager, &Patch::Merge(stalled))
        .await
        .unwrap();
    let back = place.serving("photos").await;
    assert!(condition(&back, "Stalled").is_none());
    operator.quiet().await;
}

async fn a_deleted_service_leaves_nothing(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").autoscaled(2, 3)).await;
    place.serving("photos").await;
    place.delete::<ModelService>("photos").await;
    eventually("everything is gone", async || {
        let left = place.versions().await;
        let pods = place.pods("photos").await.len();
        if left.is_empty() && pods == 0 {
            Ok(())
        } else {
            Err(format!("{left:?}, {pods} pods"))
        }
    })
    .await;
    operator.quiet().await;
    assert_eq!(
        place.versions().await,
        Vec::<String>::new(),
        "nothing was recreated"
    );
}
