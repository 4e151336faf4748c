//! Revisions: how a new one takes over, what a broken one must not do, and what an upgrade leaves alone.

use crate::fixture::{Place, World, condition, eventually, service};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Pod, ResourceQuota, Service},
};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

crate::tests!(
    a_new_revision_starts_at_the_old_ones_size_and_takes_over,
    a_broken_revision_never_replaces_a_working_one,
    a_revision_that_cannot_take_over_leaves_the_quota_to_the_one_that_serves,
    the_same_in_other_words_makes_no_revision,
    going_back_reuses_the_old_revision,
    old_revisions_beyond_the_limit_go,
    recreate_ends_the_old_revision_first,
    an_exclusive_device_without_a_spare_is_named,
    an_operator_with_another_runtime_restarts_no_pod,
    a_template_that_an_older_operator_made_stays,
    an_edited_class_affects_new_revisions_only,
    a_lost_service_is_made_anew_for_the_revision_that_works,
);

const REVISION: &str = "serving.modelservice.dev/revision";

async fn traffic(place: &Place, name: &str) -> String {
    let endpoint: Service = place.api().get(name).await.unwrap();
    endpoint.spec.unwrap().selector.unwrap()[REVISION].clone()
}

async fn pod_uids(place: &Place, name: &str) -> BTreeSet<String> {
    place
        .pods(name)
        .await
        .iter()
        .filter_map(|pod: &Pod| pod.uid())
        .collect()
}

async fn a_new_revision_starts_at_the_old_ones_size_and_takes_over(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").autoscaled(1, 6)).await;
    let first = place.serving_revision("photos").await;
    let old = place.deployment("photos").await.name_any();
    place.scale_as_the_autoscaler(&old, 3).await;
    eventually("three servers", async || {
        let ready = place.service("photos").await.status.unwrap().ready_replicas;
        if ready == 3 { Ok(()) } else { Err(ready) }
    })
    .await;

    place.apply(&service("photos").autoscaled(1, 6).model('b')).await;
    let second = eventually("the traffic moves", async || {
        let now = traffic(&place, "photos").await;
        if now == first { Err("not yet") } else { Ok(now) }
    })
    .await;
    let [new, was] = place.deployments("photos").await.try_into().unwrap();
    assert_eq!(new.labels()[REVISION], second);
    assert_eq!(new.spec.replicas, Some(3), "as many servers as carried the load");
    assert_eq!(
        new.status.unwrap().available_replicas,
        Some(3),
        "all were available before the traffic moved"
    );
    assert_eq!(was.spec.replicas, Some(3), "the old one drains at its size");
    let status = place.serving("photos").await.status.unwrap();
    assert_eq!(status.current_revision.as_ref(), Some(&second));
    let hpa: HorizontalPodAutoscaler = place.api().get("photos").await.unwrap();
    assert_eq!(hpa.spec.scale_target_ref.name, new.metadata.name.unwrap());
    eventually("the old one goes to zero", async || {
        let old: Deployment = place.api().get(&old).await.unwrap();
        if old.spec.replicas == Some(0) {
            Ok(())
        } else {
            Err(format!("{:?}", old.spec.replicas))
        }
    })
    .await;
}

async fn a_broken_revision_never_replaces_a_working_one(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").replicas(2)).await;
    let good = place.serving_revision("photos").await;
    let broken = service("photos")
        .replicas(2)
        .model('b')
        .unschedulable()
        .with("rollout.progressDeadlineSeconds", 10.into());
    place.apply(&broken).await;
    let unready = place.wait_ready("photos", "False", "Unschedulable").await;
    assert_eq!(condition(&unready, "Available").unwrap().0, "True");
    let stalled = eventually("it is Stalled after its deadline", async || {
        let service = place.service("photos").await;
        condition(&service, "Stalled").ok_or_else(|| format!("{:?}", service.status))
    })
    .await;
    assert!(
        stalled.2.contains(&format!("revision {good} keeps serving")),
        "{}",
        stalled.2
    );
    operator.quiet().await;
    assert_eq!(traffic(&place, "photos").await, good);
    place.apply(&service("photos").replicas(2)).await;
    let repaired = place.serving("photos").await;
    assert_eq!(repaired.status.clone().unwrap().current_revision.unwrap(), good);
    assert!(condition(&repaired, "Stalled").is_none());
}

/// Otherwise two servers of no use keep the others from growing with the load.
async fn a_revision_that_cannot_take_over_leaves_the_quota_to_the_one_that_serves(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let pods = |count: &str| json!({"metadata": {"name": "small"}, "spec": {"hard": {"pods": count}}});
    let quota: ResourceQuota = serde_json::from_value(pods("8")).unwrap();
    place.api().create(&PostParams::default(), &quota).await.unwrap();
    let spec = service("photos").autoscaled(6, 8);
    place.apply(&spec).await;
    let good = place.serving_revision("photos").await;
    let old = place.deployment("photos").await.name_any();
    let servers = async |of_old: i32, of_new: i32| {
        eventually(&format!("{of_old} and {of_new} servers"), async || {
            let [new, old] = place.deployments("photos").await.try_into().unwrap();
            let counts = |of: &Deployment| {
                let status = of.status.clone().unwrap_or_default();
                (
                    status.replicas.unwrap_or(0),
                    status.available_replicas.unwrap_or(0),
                )
            };
            if (counts(&old), counts(&new).0) == ((of_old, of_old), of_new) {
                Ok(())
            } else {
                Err(format!("{:?} and {:?}", counts(&old), counts(&new)))
            }
        })
        .await;
    };

    place.apply(&spec.clone().model('b').unschedulable()).await;
    servers(6, 2).await;
    place.scale_as_the_autoscaler(&old, 7).await;
    servers(7, 1).await;
    let unready = place.wait_ready("photos", "False", "Unschedulable").await;
    let message = condition(&unready, "Ready").unwrap().2;
    assert!(
        message.contains(&format!(
            "{good} keeps serving; there is no room for all servers of both"
        )),
        "{message}"
    );
    place.scale_as_the_autoscaler(&old, 8).await;
    servers(8, 0).await;
    place.wait_ready("photos", "False", "QuotaExceeded").await;
    operator.quiet().await;
    servers(8, 0).await;
    place.scale_as_the_autoscaler(&old, 6).await;
    servers(6, 1).await;
    operator.quiet().await;
    servers(6, 1).await;

    // A healthy one takes over once there is room, with as many servers as the old one has.
    place.apply(&spec.clone().model('c')).await;
    place.merge::<ResourceQuota>("small", pods("12")).await;
    let new = eventually("the traffic moves", async || {
        let now = traffic(&place, "photos").await;
        if now == good { Err("not yet") } else { Ok(now) }
    })
    .await;
    let [newest, ..] = &place.deployments("photos").await[..] else {
        panic!("none")
    };
    assert_eq!(
        (newest.labels()[REVISION].as_str(), newest.spec.replicas),
        (new.as_str(), Some(6))
    );
}

/// Another tool's notation must not restart a fleet. The API server stores what was written, not its canonical value.
async fn the_same_in_other_words_makes_no_revision(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let said = |requests: Value, limits: Value, pod: Value| {
        let resources = json!({"requests": requests, "limits": limits});
        service("photos").with("resources", resources).with("pod", pod)
    };
    let first = said(
        json!({"cpu": "500m", "memory": "1Gi"}),
        json!({"cpu": "1", "memory": "1Gi", "ephemeral-storage": "5120Mi"}),
        json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "tolerations": [{"key": "a"}, {"operator": "Exists"}]}),
    );
    let again = said(
        json!({"cpu": "0.5"}),
        json!({"cpu": 1, "memory": 1_073_741_824, "ephemeral-storage": "5Gi"}),
        json!({"env": [{"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1000m"}}}, {"name": "A", "value": "1"}],
            "tolerations": [{"operator": "Exists"}, {"key": "a", "operator": "Equal"}], "schedulerName": "default-scheduler"}),
    );
    place.apply(&first).await;
    let revision = place.serving_revision("photos").await;
    let pods = pod_uids(&place, "photos").await;
    place.apply(&again).await;
    let status = place.serving("photos").await.status.unwrap();
    assert_eq!(status.target_revision, Some(revision));
    assert_eq!(place.deployments("photos").await.len(), 1);
    assert_eq!(pod_uids(&place, "photos").await, pods);
}

async fn going_back_reuses_the_old_revision(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos")).await;
    let first = place.serving("photos").await.status.unwrap().current_revision;
    place.apply(&service("photos").model('b')).await;
    eventually("the second serves", async || {
        let status = place.serving("photos").await.status.unwrap();
        if status.current_revision == first {
            Err("not yet")
        } else {
            Ok(())
        }
    })
    .await;
    place.apply(&service("photos")).await;
    eventually("the first serves again", async || {
        let status = place.serving("photos").await.status.unwrap();
        if status.current_revision == first {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    assert_eq!(place.deployments("photos").await.len(), 2);
}

async fn old_revisions_beyond_the_limit_go(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    for letter in ['a', 'b', 'c', 'd'] {
        // With Recreate, there is no drain to wait for.
        let spec = service("photos")
            .model(letter)
            .with("revisionHistoryLimit", 1.into());
        place
            .apply(&spec.with("rollout.strategy", "Recreate".into()))
            .await;
        place.serving("photos").await;
    }
    eventually("one old revision is left", async || {
        let revisions = place.service("photos").await.status.unwrap().revisions;
        let numbers: Vec<_> = revisions.iter().map(|revision| revision.number).collect();
        if numbers == [4, 3] {
            Ok(())
        } else {
            Err(format!("{numbers:?}"))
        }
    })
    .await;
    assert_eq!(place.deployments("photos").await.len(), 2);
}

async fn recreate_ends_the_old_revision_first(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let spec = service("photos")
        .replicas(2)
        .with("rollout.strategy", "Recreate".into());
    place.apply(&spec).await;
    place.serving("photos").await;
    let old = pod_uids(&place, "photos").await;
    place.apply(&spec.model('b')).await;
    eventually("the new pods", async || {
        let now = pod_uids(&place, "photos").await;
        let (kept, new) = (now.intersection(&old).count(), now.difference(&old).count());
        assert!(kept == 0 || new == 0, "old and new side by side: {now:?}");
        if new == 2 {
            Ok(())
        } else {
            Err(format!("{kept} old, {new} new"))
        }
    })
    .await;
    place.serving("photos").await;
}

async fn an_exclusive_device_without_a_spare_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let class = json!({"resource": {"name": "example.com/lone", "count": 1}, "sharing": "Exclusive"});
    world.apply_class("lone-tpu", class).await.unwrap();
    let device =
        json!({"status": {"capacity": {"example.com/lone": "1"}, "allocatable": {"example.com/lone": "1"}}});
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(place.client.clone());
    nodes
        .patch_status("fake-0", &PatchParams::default(), &Patch::Merge(&device))
        .await
        .unwrap();
    let spec = service("photos").with("accelerators", json!(["lone-tpu"]));
    place.apply(&spec).await;
    place.serving("photos").await;
    place.apply(&spec.clone().model('b')).await;
    let unready = place.wait_ready("photos", "False", "Unschedulable").await;
    let message = condition(&unready, "Ready").unwrap().2;
    assert!(
        message.contains("example.com/lone") && message.contains("Recreate"),
        "{message}"
    );
    assert_eq!(condition(&unready, "Available").unwrap().0, "True");
    place
        .apply(&spec.model('b').with("rollout.strategy", "Recreate".into()))
        .await;
    place.serving("photos").await;
}

/// An operator upgrade must not restart every model of every team.
async fn an_operator_with_another_runtime_restarts_no_pod(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    place.apply(&service("photos").replicas(2)).await;
    place.serving("photos").await;
    operator.quiet().await;
    operator.stop().await;
    let (pods, versions) = (pod_uids(&place, "photos").await, place.versions().await);

    let newer = place.operator(&["--runtime-image", "runtime.example/server:2"]);
    let announced = eventually("the update is announced", async || {
        let service = place.service("photos").await;
        condition(&service, "RuntimeUpdateAvailable").ok_or_else(|| format!("{:?}", service.status))
    })
    .await;
    assert!(
        announced.2.contains("runtime.example/server:2"),
        "{}",
        announced.2
    );
    newer.quiet().await;
    assert_eq!(pod_uids(&place, "photos").await, pods);
    let children = |versions: Vec<String>| {
        versions
            .into_iter()
            .filter(|v| !v.starts_with("ModelService/"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        children(place.versions().await),
        children(versions),
        "only the status was written"
    );

    place
        .apply(&service("photos").replicas(2).with("adoptRuntime", "2".into()))
        .await;
    eventually("the new runtime serves", async || {
        let service = place.serving("photos").await;
        let [newest, ..] = &place.deployments("photos").await[..] else {
            return Err("none".to_owned());
        };
        let image = newest.spec.template.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap();
        let done =
            image == "runtime.example/server:2" && condition(&service, "RuntimeUpdateAvailable").is_none();
        if done { Ok(()) } else { Err(image) }
    })
    .await;
}

/// For example, the pod template of an operator without caches.
async fn a_template_that_an_older_operator_made_stays(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    operator.quiet().await;
    operator.stop().await;
    let mut older = place.deployment("photos").await;
    let pod = older.spec.template.spec.as_mut().unwrap();
    pod.volumes
        .as_mut()
        .unwrap()
        .retain(|volume| volume.name == "model");
    let mounts = pod.containers[0].volume_mounts.as_mut().unwrap();
    mounts.retain(|mount| mount.name == "model");
    let template = serde_json::to_value(&older.spec.template).unwrap().to_string();
    older
        .annotations_mut()
        .insert("serving.modelservice.dev/pod-template".into(), template);
    older.metadata.managed_fields = None;
    let (name, parameters) = (older.name_any(), Default::default());
    let older = place
        .api::<Deployment>()
        .replace(&name, &parameters, &older)
        .await
        .unwrap();
    let pods = eventually("its pods are those of the older template", async || {
        let pods = place.pods("photos").await;
        let volumes = |pod: &Pod| pod.spec.as_ref().unwrap().volumes.clone().unwrap_or_default();
        match &pods[..] {
            [pod] if volumes(pod).len() == 1 => Ok(pod_uids(&place, "photos").await),
            _ => Err(format!("{} pods", pods.len())),
        }
    })
    .await;

    let newer = place.operator(&[]);
    let announced = eventually("the update is announced", async || {
        let service = place.service("photos").await;
        condition(&service, "RuntimeUpdateAvailable").ok_or_else(|| format!("{:?}", service.status))
    })
    .await;
    assert!(
        announced.2.contains("the pod template made by"),
        "{}",
        announced.2
    );
    newer.quiet().await;
    assert_eq!(pod_uids(&place, "photos").await, pods);
    let live = place.deployment("photos").await;
    assert_eq!(live.spec.template, older.spec.template);
}

async fn an_edited_class_affects_new_revisions_only(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let apply = async |image: &str| {
        let class = json!({"runtime": {"image": image}});
        world.apply_class("editable", class).await.unwrap();
    };
    apply("runtime.example/special:1").await;
    let spec = service("photos").with("accelerators", json!(["editable"]));
    place.apply(&spec).await;
    place.serving("photos").await;
    let pods = pod_uids(&place, "photos").await;
    apply("runtime.example/special:2").await;
    eventually("the edit is announced", async || {
        condition(&place.service("photos").await, "RuntimeUpdateAvailable").ok_or("not yet")
    })
    .await;
    operator.quiet().await;
    assert_eq!(pod_uids(&place, "photos").await, pods);
    place.apply(&spec.model('b')).await;
    eventually("a new revision has it", async || {
        let images: Vec<_> = place.deployments("photos").await.iter().map(image).collect();
        if images == ["runtime.example/special:2", "runtime.example/special:1"] {
            Ok(())
        } else {
            Err(format!("{images:?}"))
        }
    })
    .await;
}

fn image(deployment: &Deployment) -> String {
    deployment.spec.template.spec.as_ref().unwrap().containers[0]
        .image
        .clone()
        .unwrap()
}

/// No single object holds the truth: a deleted Service comes back for the revision that works.
async fn a_lost_service_is_made_anew_for_the_revision_that_works(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos")).await;
    let good = place.serving_revision("photos").await;
    place.apply(&service("photos").model('b').unschedulable()).await;
    place.wait_ready("photos", "False", "Unschedulable").await;
    place.delete::<Service>("photos").await;
    eventually("the Service is back", async || {
        let back = place
            .api::<Service>()
            .get_opt("photos")
            .await
            .unwrap()
            .ok_or("none")?;
        if back.spec.unwrap().selector.unwrap()[REVISION] == good {
            Ok(())
        } else {
            Err("for the broken one")
        }
    })
    .await;
}
