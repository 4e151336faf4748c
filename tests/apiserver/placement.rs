//! Devices that are not there or not to spare: a list of classes falls back, and a rolling update replaces servers on
//! the devices that there are.

use crate::fixture::{Place, Spec, World, condition, eventually, service};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Service},
    events::v1::Event,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

crate::tests!(
    a_list_falls_back_stays_there_and_returns_by_a_new_revision,
    a_list_does_not_fall_back_while_another_revision_holds_the_devices,
    a_partly_placed_list_keeps_its_class,
    a_rolling_update_on_as_many_devices_as_servers_never_has_one_pod_more,
    a_rolling_update_that_fails_gives_the_device_back_and_goes_on_with_the_next_spec,
    a_rolling_update_of_the_only_server_is_announced,
    a_pod_whose_device_turns_unhealthy_is_replaced,
);

const PLACEMENT: &str = "serving.modelservice.dev/placement";

/// A class whose device is `example.com/<name>`, of which the first node has this many.
async fn class(world: &World, place: &Place, name: &str, devices: u32) {
    let spec =
        json!({"resource": {"name": format!("example.com/{name}"), "count": 1}, "sharing": "Exclusive"});
    world.apply_class(name, spec).await.unwrap();
    give(place, name, devices).await;
}

async fn give(place: &Place, name: &str, devices: u32) {
    let key = format!("example.com/{name}");
    let quantity = json!({key: devices.to_string()});
    let status = json!({"status": {"capacity": quantity, "allocatable": quantity}});
    let nodes: Api<Node> = Api::all(place.client.clone());
    let patch = Patch::Merge(&status);
    nodes
        .patch_status("fake-0", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn listed(class: &str, after: &str) -> Spec {
    service("photos")
        .with("accelerators", json!([class, "cpu"]))
        .with("fallbackAfter", after.into())
}

/// Waits until the service serves on this class, at its full size.
async fn serves_on(place: &Place, class: &str) {
    eventually(&format!("it serves on {class}"), async || {
        let status = place.serving("photos").await.status.unwrap();
        let told = status.accelerator.map(|accelerator| accelerator.class);
        let running = running(place).await;
        if told.as_deref() == Some(class) && running.iter().all(|live| live.ends_with(class)) {
            Ok(())
        } else {
            Err(format!("{told:?}, {running:?}"))
        }
    })
    .await;
    let endpoint: Service = place.api().get("photos").await.unwrap();
    assert_eq!(endpoint.spec.unwrap().selector.unwrap()[PLACEMENT], class);
}

/// Names of Deployments that are to have servers.
async fn running(place: &Place) -> BTreeSet<String> {
    let all = place.deployments("photos").await;
    let running = all.iter().filter(|live| live.spec.replicas != Some(0));
    running.map(|live| live.name_any()).collect()
}

/// Waits until a pod has had no node for this long.
async fn unscheduled_for(place: &Place, seconds: i64) {
    eventually("a pod has waited", async || {
        let pods = place.pods("photos").await;
        let since = pods.iter().filter_map(|pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let scheduled = conditions
                .iter()
                .find(|condition| condition.type_ == "PodScheduled")?;
            let is_waiting = scheduled.status == "False";
            scheduled.last_transition_time.clone().filter(|_| is_waiting)
        });
        let waited = since.map(|since| Timestamp::now().duration_since(since.0)).max();
        if waited > Some(SignedDuration::from_secs(seconds)) {
            Ok(())
        } else {
            Err(format!("{waited:?}"))
        }
    })
    .await;
}

/// Otherwise `[tpu, cpu]` serves nothing where there is no TPU, or leaves the CPU whenever one appears.
async fn a_list_falls_back_stays_there_and_returns_by_a_new_revision(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    class(&world, &place, "absent", 0).await;
    place.apply(&listed("absent", "2s").replicas(2)).await;
    serves_on(&place, "cpu").await;
    let deployment = eventually("the first class is gone", async || {
        let all = place.deployments("photos").await;
        <[Deployment; 1]>::try_from(all).map_err(|all| format!("{} Deployments", all.len()))
    })
    .await;
    let [deployment] = deployment;
    let budget: PodDisruptionBudget = place.api().get("photos").await.unwrap();
    let selector = budget.spec.unwrap().selector.unwrap().match_labels;
    assert_eq!(selector, deployment.spec.selector.match_labels);
    operator.writes_nothing_more(&place, "photos").await;

    let before = place.versions().await;
    operator.stop().await;
    give(&place, "absent", 2).await;
    let operator = place.operator(&[]);
    operator.quiet().await;
    assert_eq!(
        place.versions().await,
        before,
        "neither a restart nor a device changes it"
    );

    place.apply(&listed("absent", "1h").replicas(2).model('b')).await;
    serves_on(&place, "absent").await;
    operator.writes_nothing_more(&place, "photos").await;
}

/// Otherwise each rollout on a full cluster ends on the CPU for good.
async fn a_list_does_not_fall_back_while_another_revision_holds_the_devices(world: Arc<World>) {
    let (place, operator) = world.place().await;
    class(&world, &place, "taken", 1).await;
    place.apply(&listed("taken", "1s")).await;
    serves_on(&place, "taken").await;
    place.apply(&listed("taken", "1s").model('b')).await;
    place.wait_ready("photos", "False", "Unschedulable").await;
    unscheduled_for(&place, 4).await;
    operator.quiet().await;
    let running = running(&place).await;
    assert_eq!(running.len(), 2, "{running:?}");
    assert!(running.iter().all(|live| live.ends_with("-taken")), "{running:?}");
    let recreated = listed("taken", "1s")
        .model('b')
        .with("rollout.strategy", "Recreate".into());
    place.apply(&recreated).await;
    serves_on(&place, "taken").await;
}

/// Half of the servers on another device would be another service.
async fn a_partly_placed_list_keeps_its_class(world: Arc<World>) {
    let (place, operator) = world.place().await;
    class(&world, &place, "scarce", 2).await;
    place.apply(&listed("scarce", "1s").replicas(3)).await;
    let unready = eventually("two of three", async || {
        let service = place.wait_ready("photos", "False", "Unschedulable").await;
        let (_, _, message) = condition(&service, "Ready").unwrap();
        if message.contains("2 of 3 servers") {
            Ok(service)
        } else {
            Err(message)
        }
    })
    .await;
    assert_eq!(condition(&unready, "Available").unwrap().0, "True");
    unscheduled_for(&place, 4).await;
    operator.quiet().await;
    let running = running(&place).await;
    assert_eq!(running.len(), 1, "{running:?}");
    operator.writes_nothing_more(&place, "photos").await;
}

fn rolling(class: &str) -> Spec {
    service("photos")
        .with("accelerators", json!([class]))
        .with("rollout", json!({"strategy": "Rolling"}))
}

/// Pods that exist, also those that are ending; of which model they are.
async fn models(place: &Place) -> Vec<char> {
    let model = |pod: &Pod| {
        let volumes = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
        let image = volumes
            .iter()
            .find_map(|volume| volume.image.as_ref()?.reference.clone());
        image.unwrap().chars().next_back().unwrap()
    };
    let mut models: Vec<char> = place.pods("photos").await.iter().map(model).collect();
    models.sort_unstable();
    models
}

/// Otherwise a service on all devices of a cluster can only be updated with an outage.
async fn a_rolling_update_on_as_many_devices_as_servers_never_has_one_pod_more(world: Arc<World>) {
    let (place, operator) = world.place().await;
    class(&world, &place, "rolled", 2).await;
    let photos = rolling("rolled").replicas(2);
    place.apply(&photos).await;
    place.serving("photos").await;
    place.apply(&photos.model('b')).await;
    let mut seen = BTreeSet::new();
    eventually("all servers are new", async || {
        let models = models(&place).await;
        assert!(models.len() <= 2, "{models:?}");
        let service = place.service("photos").await;
        let available = condition(&service, "Available").unwrap();
        assert_eq!(available.0, "True", "{available:?}");
        seen.insert(models.clone());
        let is_settled = service.is_ready() && models == ['b', 'b'];
        if is_settled {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    assert!(seen.contains(&vec!['a', 'b']), "{seen:?}");
    let revision = place.serving_revision("photos").await;
    assert_eq!(
        place.deployments("photos").await[0].labels()["serving.modelservice.dev/revision"],
        revision
    );
    operator.writes_nothing_more(&place, "photos").await;
}

/// Otherwise a revision that does not work holds a device for ever, and the service is smaller than asked for.
async fn a_rolling_update_that_fails_gives_the_device_back_and_goes_on_with_the_next_spec(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    class(&world, &place, "returned", 2).await;
    let photos = rolling("returned").replicas(2);
    place.apply(&photos).await;
    place.serving("photos").await;
    let hasty = photos.clone().with("rollout.progressDeadlineSeconds", 10.into());
    place.apply(&hasty.model('b').unschedulable()).await;
    let failed = eventually("the old revision has both devices again", async || {
        let service = place.service("photos").await;
        let stalled = condition(&service, "Stalled").map(|(_, _, message)| message);
        let models = models(&place).await;
        match stalled {
            Some(message) if message.contains("gave its device back") && models == ['a', 'a'] => Ok(message),
            other => Err(format!("{other:?} {models:?}")),
        }
    })
    .await;
    assert!(failed.contains("keeps serving"), "{failed}");
    operator.quiet().await;
    operator.stop().await;
    let operator = place.operator(&[]);
    operator.writes_nothing_more(&place, "photos").await;
    assert_eq!(
        models(&place).await,
        ['a', 'a'],
        "it is not tried again by itself"
    );
    place.apply(&photos.model('c')).await;
    place.serving("photos").await;
    assert_eq!(models(&place).await, ['c', 'c']);
}

/// Whoever is on call sees why nobody answers.
async fn a_rolling_update_of_the_only_server_is_announced(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    class(&world, &place, "single", 1).await;
    place.apply(&rolling("single")).await;
    place.serving("photos").await;
    place.apply(&rolling("single").model('b')).await;
    eventually("the new server serves", async || {
        let models = models(&place).await;
        assert!(models.len() <= 1, "{models:?}");
        let is_new = models == ['b'] && place.service("photos").await.is_ready();
        if is_new {
            Ok(())
        } else {
            Err(format!("{models:?}"))
        }
    })
    .await;
    eventually("the event", async || {
        let events = place.api::<Event>().list(&ListParams::default()).await.unwrap();
        let mut reasons = events.items.into_iter().filter_map(|event| event.reason);
        reasons
            .find(|reason| reason == "ServiceInterrupted")
            .ok_or("none")
    })
    .await;
}

/// Otherwise a server with a broken device stays broken: a restarted container keeps its pod's device.
async fn a_pod_whose_device_turns_unhealthy_is_replaced(world: Arc<World>) {
    let (place, operator) = world.place().await;
    class(&world, &place, "fragile", 3).await;
    let photos = service("photos")
        .with("accelerators", json!(["fragile"]))
        .replicas(2);
    place.apply(&photos).await;
    place.serving("photos").await;
    operator.quiet().await;
    for pod in place.pods("photos").await {
        let mut container = json!(pod.status.unwrap().container_statuses.unwrap()[0]);
        container["allocatedResourcesStatus"] = json!([{"name": "example.com/fragile",
            "resources": [{"resourceID": "device-0", "health": "Unhealthy"}]}]);
        let status = json!({"status": {"containerStatuses": [container]}});
        place
            .api::<Pod>()
            .patch_status(
                &pod.metadata.name.unwrap(),
                &PatchParams::default(),
                &Patch::Strategic(&status),
            )
            .await
            .unwrap();
    }
    let is_unhealthy = |pod: &&Pod| {
        json!(pod.status)["containerStatuses"][0]["allocatedResourcesStatus"][0]["resources"][0]["health"]
            == "Unhealthy"
    };
    eventually("one pod is replaced", async || {
        let pods = place.pods("photos").await;
        let unhealthy = pods.iter().filter(is_unhealthy).count();
        if (pods.len(), unhealthy) == (2, 1) {
            Ok(())
        } else {
            Err(format!("{unhealthy} of {} are unhealthy", pods.len()))
        }
    })
    .await;
    operator.quiet().await;
    let pods = place.pods("photos").await;
    assert_eq!(
        pods.iter().filter(is_unhealthy).count(),
        1,
        "the other one a minute later"
    );
    let events = eventually("the event", async || {
        let events = place.api::<Event>().list(&ListParams::default()).await.unwrap();
        let lost = |event: &Event| event.reason.as_deref() == Some("DeviceLost");
        let lost: Vec<Event> = events.items.into_iter().filter(lost).collect();
        if lost.is_empty() { Err("none") } else { Ok(lost) }
    })
    .await;
    let note = events[0].note.clone().unwrap();
    assert!(
        events.len() == 1 && note.contains("example.com/fragile"),
        "{note}"
    );
}
