//! Devices: claims by Dynamic Resource Allocation, and the status of AcceleratorClasses.

use crate::fixture::{Operator, Place, World, condition, control_plane, eventually, service};
use k8s_openapi::api::{
    core::v1::{Node, Pod, ResourceQuota},
    resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use local_cluster::{ControlPlaneOptions, FakeNodes};
use modelservice_operator::crd::ModelService;
use serde_json::{Value, json};
use std::sync::Arc;

crate::tests!(
    devices_are_claimed_and_the_template_is_kept_and_goes_with_its_revision,
    a_claim_that_cannot_be_met_is_told,
    a_pod_that_gets_no_claim_is_told,
    a_selector_that_is_no_expression_is_told,
    an_edited_class_changes_no_claim_of_a_running_service,
    an_operator_for_one_namespace_writes_no_class_status,
    classes_say_which_nodes_have_them_and_how_many_devices_are_in_use,
    a_cluster_without_dra_is_told,
);

/// A driver that offers two devices on the first node, and its DeviceClass, both of this name.
async fn driver(place: &Place, name: &str) {
    let class = json!({"metadata": {"name": name}, "spec": {"selectors": [
        {"cel": {"expression": format!("device.driver == '{name}'")}}]}});
    let class: DeviceClass = serde_json::from_value(class).unwrap();
    let classes: Api<DeviceClass> = Api::all(place.client.clone());
    classes.create(&PostParams::default(), &class).await.unwrap();
    let device = |name: &str, size: &str| json!({"name": name, "attributes": {"size": {"string": size}}});
    let slice = json!({"metadata": {"name": name}, "spec": {"driver": name, "nodeName": "fake-0",
        "pool": {"name": "fake-0", "generation": 1, "resourceSliceCount": 1},
        "devices": [device("device-0", "large"), device("device-1", "small")]}});
    let slice: ResourceSlice = serde_json::from_value(slice).unwrap();
    let slices: Api<ResourceSlice> = Api::all(place.client.clone());
    slices.create(&PostParams::default(), &slice).await.unwrap();
}

fn exactly(driver: &str, count: i32) -> Value {
    json!({"deviceRequest": {"exactly": {"deviceClassName": driver, "count": count}}})
}

async fn templates(place: &Place) -> Vec<ResourceClaimTemplate> {
    place.children("photos").await
}

/// Without its template, a revision gets no further device: neither a second server nor one that is replaced.
async fn devices_are_claimed_and_the_template_is_kept_and_goes_with_its_revision(world: Arc<World>) {
    let (place, operator) = world.place().await;
    driver(&place, "kept.example.com").await;
    world
        .apply_class("kept", exactly("kept.example.com", 1))
        .await
        .unwrap();
    let photos = service("photos")
        .replicas(2)
        .with("accelerators", json!(["kept"]))
        .with("revisionHistoryLimit", 0.into());
    place.apply(&photos).await;
    place.serving("photos").await;
    let claims = place
        .api::<ResourceClaim>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert_eq!(claims.len(), 2);
    assert!(
        claims
            .iter()
            .all(|claim| claim.status.as_ref().unwrap().allocation.is_some()),
        "{claims:?}"
    );
    assert!(
        claims
            .iter()
            .all(|claim| claim.labels()["serving.modelservice.dev/service"] == "photos")
    );
    operator.writes_nothing_more(&place, "photos").await;

    let [template] = templates(&place).await.try_into().unwrap();
    assert_eq!(template.name_any(), place.deployment("photos").await.name_any());
    place.delete::<ResourceClaimTemplate>(&template.name_any()).await;
    let again = eventually("the template is there again", async || {
        let found = templates(&place).await.into_iter().next();
        found
            .filter(|found| found.uid() != template.uid())
            .ok_or("it is gone")
    })
    .await;
    assert_eq!(again.spec, template.spec);

    // On two devices, only this strategy makes room.
    let other = photos.model('b').with("rollout", json!({"strategy": "Recreate"}));
    place.apply(&other).await;
    place.serving("photos").await;
    eventually("the old template is gone", async || {
        let names: Vec<String> = templates(&place)
            .await
            .iter()
            .map(ResourceClaimTemplate::name_any)
            .collect();
        let newest = place.deployments("photos").await[0].name_any();
        if names == [newest] {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await;
    operator.writes_nothing_more(&place, "photos").await;
}

/// A count that no node has, a selector that matches nothing, a DeviceClass that does not exist.
async fn a_claim_that_cannot_be_met_is_told(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    driver(&place, "small.example.com").await;
    let mut nothing = exactly("small.example.com", 1);
    let huge = json!([{"cel": {"expression": "device.attributes['small.example.com'].size == 'huge'"}}]);
    nothing["deviceRequest"]["exactly"]["selectors"] = huge;
    let table = [
        (
            "too-many",
            exactly("small.example.com", 3),
            "cannot allocate all claims",
        ),
        ("nothing", nothing, "cannot allocate all claims"),
        ("no-class", exactly("none.example.com", 1), "none.example.com"),
    ];
    for (name, class, words) in table {
        world.apply_class(name, class).await.unwrap();
        place
            .apply(&service(name).with("accelerators", json!([name])))
            .await;
        let unready = place.wait_ready(name, "False", "Unschedulable").await;
        let message = condition(&unready, "Reconciling").unwrap().2;
        let class = format!("AcceleratorClass \"{name}\"");
        assert!(message.contains(words) && message.contains(&class), "{message}");
    }
}

/// The scheduler says nothing about such a pod.
async fn a_pod_that_gets_no_claim_is_told(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/resourceclaims.resource.k8s.io": "0"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    place.api().create(&PostParams::default(), &quota).await.unwrap();
    eventually("the quota is in force", async || {
        let quota = place.api::<ResourceQuota>().get("none").await.unwrap();
        quota.status.and_then(|status| status.hard).ok_or("not yet")
    })
    .await;
    driver(&place, "unclaimed.example.com").await;
    world
        .apply_class("unclaimed", exactly("unclaimed.example.com", 1))
        .await
        .unwrap();
    place
        .apply(&service("photos").with("accelerators", json!(["unclaimed"])))
        .await;
    let unready = place.wait_ready("photos", "False", "ResourceClaimMissing").await;
    let message = condition(&unready, "Reconciling").unwrap().2;
    assert!(message.contains("kubectl describe pods"), "{message}");
    place.delete::<ResourceQuota>("none").await;
    place.serving("photos").await;
}

async fn a_selector_that_is_no_expression_is_told(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let mut class = exactly("any.example.com", 1);
    class["deviceRequest"]["exactly"]["selectors"] = json!([{"cel": {"expression": "device.driver =="}}]);
    world.apply_class("no-expression", class).await.unwrap();
    place
        .apply(&service("photos").with("accelerators", json!(["no-expression"])))
        .await;
    let stalled = place.wait_ready("photos", "False", "InvalidSpec").await;
    let message = condition(&stalled, "Stalled").unwrap().2;
    assert!(
        message.contains("rejects the ResourceClaimTemplate") && message.contains("expression"),
        "{message}"
    );
    assert!(place.deployments("photos").await.is_empty());
}

async fn an_edited_class_changes_no_claim_of_a_running_service(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    driver(&place, "edited.example.com").await;
    world
        .apply_class("edited", exactly("edited.example.com", 1))
        .await
        .unwrap();
    place
        .apply(&service("photos").with("accelerators", json!(["edited"])))
        .await;
    place.serving("photos").await;
    let before = templates(&place).await;
    world
        .apply_class("edited", exactly("edited.example.com", 2))
        .await
        .unwrap();
    eventually("the edit is told", async || {
        condition(&place.service("photos").await, "RuntimeUpdateAvailable").ok_or("not yet")
    })
    .await;
    assert_eq!(templates(&place).await, before);
    world
        .classes()
        .delete("edited", &DeleteParams::default())
        .await
        .unwrap();
    place
        .merge::<Pod>(
            &place.pods("photos").await[0].name_any(),
            json!({"metadata": {"labels": {"touched": "yes"}}}),
        )
        .await;
    place.serving("photos").await;
}

/// Without the right to read nodes it would have to guess.
async fn an_operator_for_one_namespace_writes_no_class_status(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    operator.quiet().await;
    assert_eq!(world.classes().get("cpu").await.unwrap().status, None);
}

/// The first thing that an administrator looks at when a service does not get its device.
async fn classes_say_which_nodes_have_them_and_how_many_devices_are_in_use(_: Arc<World>) {
    let nodes = FakeNodes {
        resources: [("example.com/tpu".to_owned(), "2".to_owned())].into(),
        ..FakeNodes::new(2)
    };
    let options = ControlPlaneOptions {
        fake_nodes: Some(nodes),
        ..control_plane("inventory")
    };
    let world = tokio::task::spawn_blocking(|| World::with(options))
        .await
        .unwrap()
        .unwrap();
    let place = world.namespace().await;
    let operator = Operator::start(&world.plane.kubeconfig_path(), &[]);
    let tpu = |more: Value| {
        let mut class = json!({"resource": {"name": "example.com/tpu"}, "sharing": "Exclusive"});
        class
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        class
    };
    world.apply_class("tpu", tpu(json!({}))).await.unwrap();
    world
        .apply_class("elsewhere", tpu(json!({"nodeSelector": {"pool": "none"}})))
        .await
        .unwrap();
    world
        .apply_class("misspelt", json!({"resource": {"name": "example.com/tpuu"}}))
        .await
        .unwrap();
    world
        .apply_class(
            "too-large",
            json!({"resource": {"name": "example.com/tpu", "count": 3}}),
        )
        .await
        .unwrap();
    world
        .apply_class("by-dra", exactly("inventory.example.com", 1))
        .await
        .unwrap();
    world.class_says("cpu", "NodesFound").await;
    world.class_says("tpu", "NodesFound").await;
    world.class_says("elsewhere", "NoNodes").await;
    world.class_says("misspelt", "NoNodes").await;
    let message = world.class_says("too-large", "NoNodes").await;
    assert!(message.contains("the most is 2"), "{message}");
    world.class_says("by-dra", "DeviceClassNotFound").await;
    assert_eq!(counts(&world, "tpu").await, (Some(2), Some(4), Some(0)));

    place
        .apply(&service("photos").replicas(3).with("accelerators", json!(["tpu"])))
        .await;
    place
        .apply(&service("lost").with("accelerators", json!(["misspelt"])))
        .await;
    eventually("three devices are in use", async || {
        let counts = counts(&world, "tpu").await;
        if counts == (Some(2), Some(4), Some(3)) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
    // The service says what its class does.
    eventually("the service says that no node has the device", async || {
        let message = condition(&place.service("lost").await, "Ready")
            .unwrap_or_default()
            .2;
        if message.contains("device plug-in runs") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;

    let fake: Api<Node> = Api::all(place.client.clone());
    let gone = json!({"status": {"allocatable": {"example.com/tpu": "0"}}});
    fake.patch_status("fake-1", &PatchParams::default(), &Patch::Merge(gone))
        .await
        .unwrap();
    eventually("one node is left", async || {
        let counts = counts(&world, "tpu").await;
        if counts.0 == Some(1) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;

    driver(&place, "inventory.example.com").await;
    world.class_says("by-dra", "DeviceClassFound").await;
    let offer = json!({"spec": {"extendedResourceName": "example.com/tpuu"}});
    let classes: Api<DeviceClass> = Api::all(place.client.clone());
    classes
        .patch(
            "inventory.example.com",
            &PatchParams::default(),
            &Patch::Merge(offer),
        )
        .await
        .unwrap();
    world.class_says("misspelt", "DeviceClassFound").await;
    place.serving("lost").await;
    eventually("its device is in use", async || {
        let counts = counts(&world, "misspelt").await;
        if counts == (Some(0), Some(0), Some(1)) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;

    place.serving("photos").await;
    operator.quiet().await;
    let writes = operator.writes().await;
    place
        .merge::<ModelService>("photos", json!({"metadata": {"labels": {"touched": "yes"}}}))
        .await;
    operator.quiet().await;
    assert_eq!(
        operator.writes().await,
        writes,
        "a status that stays is not written"
    );
    drop(operator);
    tokio::task::spawn_blocking(move || drop(world)).await.unwrap();
}

/// Otherwise its pods wait for ever, and nothing says for what.
async fn a_cluster_without_dra_is_told(_: Arc<World>) {
    // In newer versions it cannot be switched off any more, and in this one image volumes are off.
    let world = tokio::task::spawn_blocking(|| {
        let flags = [
            "--emulated-version=1.34",
            "--feature-gates=DynamicResourceAllocation=false,DRAAdminAccess=false,DRAPrioritizedList=false,\
             DRASchedulerFilterTimeout=false,ImageVolume=true",
            "--runtime-config=resource.k8s.io/v1=false",
        ];
        let flagged = |plane: ControlPlaneOptions, flag: &str| plane.flag("kube-apiserver", flag);
        World::with(flags.into_iter().fold(control_plane("no-dra"), flagged))
    });
    let world = world.await.unwrap().unwrap();
    let place = world.namespace().await;
    let operator = Operator::start(&world.plane.kubeconfig_path(), &[]);
    world
        .apply_class("claimed", exactly("gpu.example.com", 1))
        .await
        .unwrap();
    world.class_says("claimed", "UnsupportedCluster").await;
    place
        .apply(&service("photos").with("accelerators", json!(["claimed"])))
        .await;
    let stalled = place.wait_ready("photos", "False", "UnsupportedCluster").await;
    let message = condition(&stalled, "Stalled").unwrap().2;
    assert!(
        message.contains("Dynamic Resource Allocation") && message.contains("claimed"),
        "{message}"
    );
    assert!(place.deployments("photos").await.is_empty());
    drop(operator);
    tokio::task::spawn_blocking(move || drop(world)).await.unwrap();
}

/// Nodes, allocatable devices and devices in use of a class.
async fn counts(world: &World, class: &str) -> (Option<i32>, Option<i64>, Option<i64>) {
    let status = world
        .classes()
        .get(class)
        .await
        .unwrap()
        .status
        .unwrap_or_default();
    (status.nodes, status.allocatable, status.in_use)
}
