//! Who owns `spec.replicas`, and that its value never blips while its owner changes.

use crate::{
    fixture::{Place, World, condition, eventually, eventually_within, service},
    servers::IdleServers,
};
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
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

crate::tests!(
    replicas_never_blip_between_fixed_and_autoscaled,
    replicas_never_blip_from_one_target_to_another,
    a_service_whose_load_is_not_known_keeps_its_size_and_says_so,
    what_was_stored_with_the_old_default_keeps_its_autoscaler,
    a_schedule_raises_the_minimum_and_gives_it_back,
    servers_of_a_schedule_that_has_ended_go,
    autoscaling_that_cannot_be_met_is_told,
    a_new_autoscaled_service_starts_at_its_minimum,
    the_autoscalers_size_is_left_alone,
    an_autoscaler_that_does_not_act_is_told_in_its_own_words,
    kubectl_scale_sets_a_fixed_size,
    an_autoscaler_of_ones_own_works_once_the_size_is_set,
    a_suspended_service_keeps_its_url_and_comes_back,
    a_paused_service_is_left_alone,
);

/// Time in which a schedule of two minutes that has begun ends, and what follows is done.
const WITHIN_A_SCHEDULE: Duration = Duration::from_mins(3);

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

/// The servers cannot be asked about their load here, so whoever decides keeps four.
async fn replicas_never_blip_from_one_target_to_another(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let external = || {
        let target = json!({"target": {"external": {}}});
        service("photos").replicas(4).with("autoscaling", target)
    };
    let fixed = || service("photos").replicas(4);
    let by_cpu = || service("photos").autoscaled(2, 6);
    let by_load = || service("photos").by_load(2, 6);
    let (main, second) = ("modelservice-operator", "modelservice-operator-scale");
    place.apply(&fixed()).await;
    place.serving("photos").await;
    let name = place.deployment("photos").await.name_any();
    let seen = sizes(&place, &name).await;
    let steps = [
        ("fixed to load", by_load(), second, false, "NoData"),
        ("load to CPU", by_cpu(), second, true, "HorizontalPodAutoscaler"),
        ("CPU to load", by_load(), second, false, "NoData"),
        ("load to external", external(), main, false, "External"),
        (
            "external to CPU",
            by_cpu(),
            second,
            true,
            "HorizontalPodAutoscaler",
        ),
        ("CPU to external", external(), main, false, "External"),
        ("external to load", by_load(), second, false, "NoData"),
        ("load to fixed", fixed(), main, false, ""),
        ("fixed to external", external(), main, false, "External"),
        ("external to fixed", fixed(), main, false, ""),
    ];
    for (step, spec, owner, has_autoscaler, decided_by) in steps {
        place.apply(&spec).await;
        eventually(step, async || {
            let live: Deployment = place.api().get(&name).await.unwrap();
            let owners = managers_of_replicas(&live);
            let autoscalers = place.api::<HorizontalPodAutoscaler>();
            let autoscaler = autoscalers.get_opt("photos").await.unwrap().is_some();
            let status = place.service("photos").await.status.unwrap().autoscaling;
            let decided = status.map(|status| status.decided_by).unwrap_or_default();
            // The second field manager stays an owner beside the main one, at the same value.
            let is_owner = owners.contains(&main.to_owned()) == (owner == main);
            let is_so = is_owner && autoscaler == has_autoscaler && decided == decided_by;
            if is_so {
                Ok(())
            } else {
                Err(format!("{owners:?} {autoscaler} {decided}"))
            }
        })
        .await;
        operator.quiet().await;
    }
    assert_eq!(*seen.lock().unwrap(), [4], "there was never another size");
}

async fn a_service_whose_load_is_not_known_keeps_its_size_and_says_so(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("photos").by_load(3, 6)).await;
    let told = eventually("it is told", async || {
        condition(&place.service("photos").await, "AutoscalerActive").ok_or("not yet")
    })
    .await;
    assert_eq!(
        (told.0.as_str(), told.1.as_str()),
        ("False", "AutoscalerInactive")
    );
    assert!(told.2.contains("meanwhile no server is removed"), "{}", told.2);
    let service = place.serving("photos").await;
    assert_eq!(condition(&service, "Ready").unwrap().0, "True");
    assert_eq!(place.deployment("photos").await.spec.replicas, Some(3));
    operator.writes_nothing_more(&place, "photos").await;
    // Within its range the size changes at once, whatever is known of the load.
    place
        .apply(&crate::fixture::service("photos").by_load(4, 6))
        .await;
    place.sized("photos", 4).await;
}

/// docs/autoscaling.md says how a service is moved.
async fn what_was_stored_with_the_old_default_keeps_its_autoscaler(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let bare = || service("photos").with("autoscaling", json!({"maxReplicas": 4}));
    place.apply(&service("photos").autoscaled(1, 4)).await;
    let target = async || {
        let stored = place.service("photos").await.spec.autoscaling.unwrap();
        (stored.target.utilization, stored.target.cpu_utilization)
    };
    // As the old definition's default stored it: nobody applied it.
    let parameters = PatchParams::apply("nobody").force();
    let api = place.api::<ModelService>();
    let stored = json!({"apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService",
        "metadata": {"name": "photos"}, "spec": {"model": {"image": crate::fixture::model('a')},
        "autoscaling": {"maxReplicas": 4, "target": {"cpuUtilization": 70}}}});
    api.patch("photos", &parameters, &Patch::Apply(&stored))
        .await
        .unwrap();
    place.apply(&bare()).await;
    assert_eq!(
        target().await,
        (None, Some(70)),
        "a manifest without a target changes nothing"
    );
    let moved = json!({"spec": {"autoscaling": {"target": {"cpuUtilization": null, "utilization": 70}}}});
    place.merge::<ModelService>("photos", moved).await;
    assert_eq!(target().await, (Some(70), None));
    eventually("the autoscaler is gone", async || {
        match place
            .api::<HorizontalPodAutoscaler>()
            .get_opt("photos")
            .await
            .unwrap()
        {
            None => Ok(()),
            Some(_) => Err("still there"),
        }
    })
    .await;
    place
        .apply(&crate::fixture::service("created").with("autoscaling", json!({"maxReplicas": 4})))
        .await;
    let created = place.service("created").await.spec.autoscaling.unwrap();
    assert_eq!(created.target.utilization, Some(70));
}

/// A schedule for three servers that began a minute ago.
fn begun_schedule(duration: &str) -> Value {
    let now = Timestamp::now().to_zoned(k8s_openapi::jiff::tz::TimeZone::UTC);
    let begun = now.checked_sub(SignedDuration::from_mins(1)).unwrap();
    let cron = format!("{} {} * * *", begun.minute(), begun.hour());
    json!([{"cron": cron, "minReplicas": 3, "for": duration}])
}

/// By CPU and by load.
async fn a_schedule_raises_the_minimum_and_gives_it_back(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let by_load = service("photos").by_load(1, 6);
    place
        .apply(&by_load.with("autoscaling.schedules", begun_schedule("1h")))
        .await;
    place.serving("photos").await;
    place.sized("photos", 3).await;
    let minimum_is = async |minimum: i32| {
        let autoscaler = place.api::<HorizontalPodAutoscaler>().get_opt("orchids").await;
        match autoscaler.unwrap().and_then(|found| found.spec.min_replicas) {
            Some(found) if found == minimum => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    let by_cpu = |duration| {
        service("orchids")
            .autoscaled(1, 6)
            .with("autoscaling.schedules", begun_schedule(duration))
    };
    place.apply(&by_cpu("1h")).await;
    eventually("the autoscaler has the schedule's minimum", async || {
        minimum_is(3).await
    })
    .await;
    place.apply(&by_cpu("2m")).await;
    eventually_within(
        WITHIN_A_SCHEDULE,
        "the autoscaler has its own minimum",
        async || minimum_is(1).await,
    )
    .await;
}

/// The servers have no requests, so only the schedule keeps them.
async fn servers_of_a_schedule_that_has_ended_go(world: Arc<World>) {
    let place = world.namespace().await;
    let _servers = IdleServers::start(&world.plane);
    let _operator = place.operator_among_pods(&world.plane);
    let at_once = json!({"windowSeconds": 5, "delaySeconds": 5});
    place
        .apply(
            &service("photos")
                .by_load(1, 6)
                .with("autoscaling.scaleDown", at_once)
                .with("autoscaling.schedules", begun_schedule("2m")),
        )
        .await;
    let decided = async |by: &str, wanted: i32| {
        let autoscaling = place
            .service("photos")
            .await
            .status
            .and_then(|status| status.autoscaling);
        match autoscaling {
            Some(found) if found.decided_by == by && found.wanted == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("the schedule decides", async || decided("Schedule", 3).await).await;
    place.sized("photos", 3).await;
    eventually_within(WITHIN_A_SCHEDULE, "the load decides", async || {
        decided("Load", 1).await
    })
    .await;
    place.sized("photos", 1).await;
}

async fn autoscaling_that_cannot_be_met_is_told(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let schedule = |cron: &str, zone: &str| json!({"maxReplicas": 3, "schedules": [{"cron": cron, "timeZone": zone, "minReplicas": 2, "for": "10h"}]});
    let long =
        json!({"maxReplicas": 3, "schedules": [{"cron": "0 8 * * 1", "minReplicas": 2, "for": "200h"}]});
    let crowded = json!({"maxReplicas": 3, "target": {"concurrency": 130}});
    for (name, autoscaling, words) in [
        (
            "nonsense",
            schedule("every morning at 8", "Etc/UTC"),
            "schedules[0]",
        ),
        ("never", schedule("0 8 30 2 *", "Etc/UTC"), "schedules[0]"),
        (
            "mars",
            schedule("0 8 * * 1-5", "Mars/Olympus"),
            "\"Mars/Olympus\"",
        ),
        ("long", long, "7 days"),
        ("crowded", crowded, "beyond 129 (1 that run"),
    ] {
        place.apply(&service(name).with("autoscaling", autoscaling)).await;
        let told = place.wait_ready(name, "False", "InvalidSpec").await;
        let (_, _, message) = condition(&told, "Ready").unwrap();
        assert!(message.contains(words), "{name}: {message}");
        assert!(place.deployments(name).await.is_empty(), "{name}");
    }
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
    operator.writes_nothing_more(&place, "photos").await;

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
