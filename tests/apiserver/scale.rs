//! Who owns `spec.replicas`, and that its value never blips while its owner changes.

use crate::fixture::{Place, World, condition, eventually, service};
use futures::StreamExt as _;
use k8s_openapi::{
    api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
};
use modelservice_operator::crd::ModelService;
use serde_json::json;
use std::sync::{Arc, Mutex};

crate::tests!(
    replicas_never_blip_between_fixed_and_autoscaled,
    a_new_autoscaled_service_starts_at_its_minimum,
    the_autoscalers_size_is_left_alone,
    an_autoscaler_that_does_not_act_is_told_in_its_own_words,
    kubectl_scale_sets_a_fixed_size,
    an_autoscaler_of_ones_own_works_once_the_size_is_set,
    a_suspended_service_keeps_its_url_and_comes_back,
    a_paused_service_is_left_alone,
);

/// Every size that a Deployment ever had, from a separate watch.
async fn sizes(place: &Place, name: &str) -> Arc<Mutex<Vec<i32>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (api, sink) = (place.api::<Deployment>(), seen.clone());
    let parameters = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut watch = api.watch(&parameters, "0").await.unwrap().boxed();
    tokio::spawn(async move {
        while let Some(Ok(event)) = watch.next().await {
            if let WatchEvent::Added(deployment) | WatchEvent::Modified(deployment) = event {
                let size = deployment.spec.replicas.unwrap_or(1);
                let mut seen: std::sync::MutexGuard<'_, Vec<i32>> = sink.lock().unwrap();
                if seen.last() != Some(&size) {
                    seen.push(size);
                }
            }
        }
    });
    seen
}

fn managers_of_replicas(deployment: &Deployment) -> Vec<String> {
    let owns = |fields: &serde_json::Value| fields["f:spec"].get("f:replicas").is_some();
    let entries = deployment.managed_fields().iter();
    let owners = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)));
    owners.filter_map(|entry| entry.manager.clone()).collect()
}

/// A blip to one server drops the load of all others.
async fn replicas_never_blip_between_fixed_and_autoscaled(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").replicas(4)).await;
    place.serving("photos").await;
    let name = place.deployment("photos").await.name_any();
    let seen = sizes(&place, &name).await;
    for round in 0..3 {
        place.apply(&service("photos").autoscaled(2, 6)).await;
        eventually("the autoscaler may write", async || {
            let live: Deployment = place.api().get(&name).await.unwrap();
            let owners = managers_of_replicas(&live);
            if owners.contains(&"modelservice-operator".to_owned()) {
                Err(format!("{owners:?}"))
            } else {
                Ok(())
            }
        })
        .await;
        operator.quiet().await;
        let live: Deployment = place.api().get(&name).await.unwrap();
        assert_eq!(live.spec.replicas, Some(4), "round {round}");
        place.apply(&service("photos").replicas(4)).await;
        eventually("we own the size", async || {
            let live: Deployment = place.api().get(&name).await.unwrap();
            let owners = managers_of_replicas(&live);
            if owners.contains(&"modelservice-operator".to_owned()) {
                Ok(())
            } else {
                Err(format!("{owners:?}"))
            }
        })
        .await;
    }
    assert_eq!(*seen.lock().unwrap(), [4], "there was never another size");
}

async fn a_new_autoscaled_service_starts_at_its_minimum(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").autoscaled(3, 6)).await;
    let deployment = eventually("the Deployment", async || {
        place.deployments("photos").await.pop().ok_or("none yet")
    })
    .await;
    let seen = sizes(&place, &deployment.name_any()).await;
    place.serving("photos").await;
    operator.quiet().await;
    assert_eq!(*seen.lock().unwrap(), [3]);
    let live = place.deployment("photos").await;
    assert!(!managers_of_replicas(&live).contains(&"modelservice-operator".to_owned()));
}

async fn the_autoscalers_size_is_left_alone(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").autoscaled(1, 6)).await;
    place.serving("photos").await;
    let name = place.deployment("photos").await.name_any();
    place.scale_as_the_autoscaler(&name, 5).await;
    eventually("five servers", async || {
        let ready = place.service("photos").await.status.unwrap().ready_replicas;
        if ready == 5 { Ok(()) } else { Err(ready) }
    })
    .await;
    place.apply(&service("photos").autoscaled(1, 7)).await;
    place.serving("photos").await;
    operator.quiet().await;
    assert_eq!(place.deployment("photos").await.spec.replicas, Some(5));
    let hpa: HorizontalPodAutoscaler = place.api().get("photos").await.unwrap();
    assert_eq!(hpa.spec.max_replicas, 7);
}

/// There are no metrics here, so no autoscaler acts; that it has been so for long is written into its status.
async fn an_autoscaler_that_does_not_act_is_told_in_its_own_words(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").autoscaled(1, 4)).await;
    place.serving("photos").await;
    let api = place.api::<HorizontalPodAutoscaler>();
    let (words, mut conditions) = eventually("the autoscaler complains", async || {
        let live = api.get("photos").await.unwrap();
        let conditions = live
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let inactive = conditions
            .iter()
            .find(|c| c.type_ == "ScalingActive" && c.status == "False");
        match inactive.and_then(|inactive| inactive.message.clone()) {
            Some(words) => Ok((words, conditions)),
            None => Err(format!("{conditions:?}")),
        }
    })
    .await;
    operator.quiet().await;
    assert!(condition(&place.service("photos").await, "AutoscalerActive").is_none());

    let long_ago = Timestamp::now() - SignedDuration::from_mins(6);
    for condition in &mut conditions {
        condition.last_transition_time = Some(Time(long_ago));
    }
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    api.patch_status("photos", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let told = eventually("it is told", async || {
        let service = place.service("photos").await;
        condition(&service, "AutoscalerActive").ok_or("not yet")
    })
    .await;
    assert_eq!(
        (told.0.as_str(), told.1.as_str()),
        ("False", "AutoscalerInactive")
    );
    assert!(told.2.contains(&words), "{}", told.2);
    assert_eq!(
        condition(&place.serving("photos").await, "Ready").unwrap().0,
        "True"
    );
    operator.quiet().await;
    let writes = operator.writes().await;
    let labels = json!({"metadata": {"labels": {"touched": "yes"}}});
    place.merge::<ModelService>("photos", labels).await;
    operator.quiet().await;
    assert_eq!(operator.writes().await, writes, "it is told once");

    place.apply(&service("photos").replicas(1)).await;
    eventually("it is told no longer", async || {
        let service = place.serving("photos").await;
        condition(&service, "AutoscalerActive").map_or(Ok(()), |(_, _, message)| Err(message))
    })
    .await;
}

async fn kubectl_scale_sets_a_fixed_size(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    let scale = json!({"spec": {"replicas": 3}});
    place
        .api::<ModelService>()
        .patch_scale("photos", &PatchParams::default(), &Patch::Merge(&scale))
        .await
        .unwrap();
    let service = eventually("three servers", async || {
        let service = place.serving("photos").await;
        if service.status.as_ref().unwrap().ready_replicas == 3 {
            Ok(service)
        } else {
            Err("not yet")
        }
    })
    .await;
    assert_eq!(service.status.unwrap().replicas, 3);
    place
        .api::<ModelService>()
        .patch_scale(
            "photos",
            &PatchParams::default(),
            &Patch::Merge(&json!({"spec": {"replicas": 0}})),
        )
        .await
        .unwrap();
    let zero = place.wait_ready("photos", "True", "ScaledToZero").await;
    assert_eq!(crate::fixture::condition(&zero, "Available").unwrap().0, "False");
}

async fn a_suspended_service_keeps_its_url_and_comes_back(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let spec = service("photos").autoscaled(2, 4);
    place.apply(&spec).await;
    let before = place.serving("photos").await.status.unwrap();
    place.apply(&spec.clone().with("suspend", true.into())).await;
    let suspended = place.wait_ready("photos", "True", "Suspended").await;
    let status = suspended.status.clone().unwrap();
    assert_eq!((status.url, status.replicas), (before.url, 0));
    assert_eq!(
        crate::fixture::condition(&suspended, "Available").unwrap().0,
        "False"
    );
    eventually("no pods", async || {
        if place.pods("photos").await.is_empty() {
            Ok(())
        } else {
            Err("some")
        }
    })
    .await;
    assert!(
        place
            .api::<HorizontalPodAutoscaler>()
            .get_opt("photos")
            .await
            .unwrap()
            .is_none()
    );
    place.apply(&spec).await;
    let back = place.serving("photos").await.status.unwrap();
    assert_eq!(
        (back.ready_replicas, back.current_revision),
        (2, before.current_revision)
    );
}

/// This is what docs/gitops.md advises.
async fn an_autoscaler_of_ones_own_works_once_the_size_is_set(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    // Says nothing about the size, like a manifest in Git.
    let manifest = || {
        let mut spec = service("photos");
        spec.spec.as_object_mut().unwrap().remove("replicas");
        spec
    };
    place.apply(&manifest()).await;
    place.serving("photos").await;
    let api = place.api::<ModelService>();
    let error = api.get_scale("photos").await.unwrap_err().to_string();
    assert!(error.contains("replicas"), "{error}");

    place
        .merge::<ModelService>("photos", json!({"spec": {"replicas": 1}}))
        .await;
    let scale = api.get_scale("photos").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    api.patch_scale("photos", &PatchParams::default(), &patch)
        .await
        .unwrap();
    place.apply(&manifest()).await;
    eventually("three servers", async || {
        let scale = api.get_scale("photos").await.unwrap();
        let ready = scale.status.map(|status| status.replicas);
        if ready == Some(3) {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    })
    .await;
}

async fn a_paused_service_is_left_alone(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    place
        .merge::<ModelService>(
            "photos",
            json!({"metadata": {"annotations": {"serving.modelservice.dev/paused": "true"}}}),
        )
        .await;
    place.apply(&service("photos").replicas(3)).await;
    operator.quiet().await;
    assert_eq!(place.deployment("photos").await.spec.replicas, Some(1));
    place
        .merge::<ModelService>(
            "photos",
            json!({"metadata": {"annotations": {"serving.modelservice.dev/paused": null}}}),
        )
        .await;
    place.sized("photos", 3).await;
}
