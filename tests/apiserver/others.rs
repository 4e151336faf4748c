//! Others that write to a service's children: named, answered ever more slowly, and seen in what `Available` says.

use crate::fixture::{Place, World, condition, eventually, service};
use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding},
        apps::v1::Deployment,
        core::v1::Service,
        discovery::v1::EndpointSlice,
        events::v1::Event,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use modelservice_operator::crd::ModelService;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

crate::tests!(
    a_controller_that_puts_its_value_back_is_named_and_answered_ever_more_slowly,
    a_child_that_is_deleted_each_time_is_made_ever_more_slowly,
    a_downscaler_of_an_autoscaled_service_is_answered_ever_more_slowly,
    a_policy_that_adds_a_key_to_selectors_is_told_as_unavailable,
    a_policy_that_caps_the_size_is_named_and_costs_no_further_write,
    a_service_through_which_no_request_arrives_is_unavailable,
    a_headless_service_is_unavailable,
    somebody_who_keeps_the_old_revision_is_named,
);

/// Somebody who answers each change of an object's spec at once.
struct Opponent {
    task: JoinHandle<()>,
    acts: Arc<Mutex<Vec<Instant>>>,
}

impl Drop for Opponent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Opponent {
    /// Merges `patch` as the field manager `tuner`, or deletes the object if there is none, whenever it `provokes`.
    async fn new<K>(place: &Place, name: &str, provokes: fn(&K) -> bool, patch: Option<Value>) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let acts = Arc::new(Mutex::new(Vec::new()));
        let (api, seen, name) = (place.api::<K>(), acts.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let only = WatchParams::default().fields(&format!("metadata.name={name}"));
            let mut answered = None;
            loop {
                let mut watch = api.watch(&only, "0").await.unwrap().boxed();
                while let Some(Ok(event)) = watch.next().await {
                    let object = match event {
                        WatchEvent::Added(object) => object,
                        WatchEvent::Modified(object) if patch.is_some() => object,
                        _ => continue,
                    };
                    let spec = (object.uid(), object.meta().generation);
                    // A change of the status alone shows a spec that has been answered.
                    if provokes(&object) && (spec.1.is_none() || answered.as_ref() != Some(&spec)) {
                        answered = Some(spec);
                        seen.lock().unwrap().push(Instant::now());
                        act(&api, &name, patch.as_ref()).await;
                    }
                }
            }
        });
        Self { task, acts }
    }

    /// Waits until it has acted this many times; returns the times between them.
    async fn waits(&self, count: usize) -> Vec<Duration> {
        let acts = eventually(&format!("{count} acts"), async || {
            let acts = self.acts.lock().unwrap().clone();
            if acts.len() >= count {
                Ok(acts)
            } else {
                Err(acts.len())
            }
        })
        .await;
        acts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

async fn act<K>(api: &Api<K>, name: &str, patch: Option<&Value>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let tuner = PatchParams {
        field_manager: Some("tuner".to_owned()),
        ..PatchParams::default()
    };
    // The object may be gone by now, or be changed by the operator at the same time.
    let _ = match patch {
        Some(patch) => api.patch(name, &tuner, &Patch::Merge(patch)).await.map(drop),
        None => api.delete(name, &DeleteParams::background()).await.map(drop),
    };
}

/// Waits until a condition is False with all these words in its message.
async fn told(place: &Place, name: &str, type_: &str, words: &[&str]) -> ModelService {
    eventually(&format!("{type_} tells {words:?}"), async || {
        let service = place.service(name).await;
        let found = condition(&service, type_);
        let fits = found.as_ref().is_some_and(|(status, _, message)| {
            status == "False" && words.iter().all(|word| message.contains(word))
        });
        if fits {
            Ok(service)
        } else {
            Err(format!("{:#?}", service.status))
        }
    })
    .await
}

/// Waits until nobody is reported as overriding a field.
async fn undisputed(place: &Place, name: &str) {
    eventually("nothing is disputed", async || {
        let service = place.serving(name).await;
        condition(&service, "Synced").map_or(Ok(()), |(_, _, message)| Err(message))
    })
    .await;
}

/// The third correction comes after two seconds, the fourth after four. Half of that is enough to pass, for slow machines.
fn assert_ever_more_slowly(waits: &[Duration]) {
    let [.., third, fourth] = waits else {
        panic!("{waits:?}")
    };
    assert!(
        third.as_secs_f64() > 1.0 && fourth.as_secs_f64() > 3.0,
        "{waits:?}"
    );
}

async fn a_controller_that_puts_its_value_back_is_named_and_answered_ever_more_slowly(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").replicas(2)).await;
    place.serving("photos").await;
    let name = place.deployment("photos").await.name_any();
    let is_two = |live: &Deployment| live.spec.replicas == Some(2);
    let opponent = Opponent::new(&place, &name, is_two, Some(json!({"spec": {"replicas": 1}}))).await;
    let words = [name.as_str(), "\"tuner\" changes spec.replicas each time"];
    let told = told(&place, "photos", "Synced", &words).await;
    assert_eq!(condition(&told, "Synced").unwrap().1, "FieldOverridden");
    assert_ever_more_slowly(&opponent.waits(5).await);
    // Another field of the same object is still repaired.
    place
        .merge::<Deployment>(&name, json!({"spec": {"progressDeadlineSeconds": 77}}))
        .await;
    eventually("the deadline is repaired", async || {
        let deadline = place.deployment("photos").await.spec.progress_deadline_seconds;
        if deadline == Some(600) {
            Ok(())
        } else {
            Err(format!("{deadline:?}"))
        }
    })
    .await;
    let events = place.api::<Event>().list(&ListParams::default()).await.unwrap();
    let events = events
        .items
        .iter()
        .filter(|event| event.reason.as_deref() == Some("FieldOverridden"));
    assert_eq!(events.count(), 1);

    drop(opponent);
    // What a person changes does not wait.
    place.apply(&service("photos").replicas(3)).await;
    place.sized("photos", 3).await;
    undisputed(&place, "photos").await;
}

async fn a_child_that_is_deleted_each_time_is_made_ever_more_slowly(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").replicas(2)).await;
    place.serving("photos").await;
    let opponent = Opponent::new(&place, "photos", |_: &PodDisruptionBudget| true, None).await;
    let words = ["PodDisruptionBudget photos: somebody deletes it"];
    let told = told(&place, "photos", "Synced", &words).await;
    assert_eq!(condition(&told, "Available").unwrap().0, "True");
    assert_ever_more_slowly(&opponent.waits(5).await);
}

/// Tools that scale everything to zero at night do this.
async fn a_downscaler_of_an_autoscaled_service_is_answered_ever_more_slowly(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").autoscaled(1, 3)).await;
    place.serving("photos").await;
    let name = place.deployment("photos").await.name_any();
    let is_up = |live: &Deployment| live.spec.replicas != Some(0);
    let opponent = Opponent::new(&place, &name, is_up, Some(json!({"spec": {"replicas": 0}}))).await;
    told(&place, "photos", "Synced", &["\"tuner\" changes spec.replicas"]).await;
    assert_ever_more_slowly(&opponent.waits(5).await);
}

/// A policy that changes objects of this namespace when they are made or changed.
async fn policy(place: &Place, resource: (&str, &str), operations: &[&str], mutation: &str) {
    let rules = json!([{"apiGroups": [resource.0], "apiVersions": ["v1"], "operations": operations,
        "resources": [resource.1]}]);
    let policy = json!({"metadata": {"name": place.name}, "spec": {
        "matchConstraints": {"resourceRules": rules}, "reinvocationPolicy": "Never", "failurePolicy": "Fail",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation}}]}});
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.name}}});
    let binding =
        json!({"metadata": {"name": place.name}, "spec": {"policyName": place.name, "matchResources": here}});
    let policy: MutatingAdmissionPolicy = serde_json::from_value(policy).unwrap();
    let binding: MutatingAdmissionPolicyBinding = serde_json::from_value(binding).unwrap();
    let parameters = PostParams::default();
    Api::all(place.client.clone())
        .create(&parameters, &policy)
        .await
        .unwrap();
    Api::all(place.client.clone())
        .create(&parameters, &binding)
        .await
        .unwrap();
}

/// Waits until the API server changes such an object as `is_changed` says.
async fn in_force<K>(place: &Place, object: Value, is_changed: fn(&K) -> bool)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the policy is in force", async || {
        match place.api::<K>().create(&dry_run, &object).await {
            Ok(made) if is_changed(&made) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn any_service() -> Value {
    json!({"metadata": {"name": "try"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 1}]}})
}

async fn a_policy_that_adds_a_key_to_selectors_is_told_as_unavailable(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let adds = r#"[JSONPatch{op: "add", path: "/spec/selector/" + jsonpatch.escapeKey("example.com/mesh"), value: "on"}]"#;
    policy(&place, ("", "services"), &["CREATE", "UPDATE"], adds).await;
    let is_changed = |service: &Service| service.spec.as_ref().unwrap().selector.as_ref().unwrap().len() == 2;
    in_force::<Service>(&place, any_service(), is_changed).await;

    place.apply(&service("photos")).await;
    let unready = place.wait_ready("photos", "False", "EndpointChanged").await;
    let (status, reason, message) = condition(&unready, "Available").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "EndpointChanged"));
    for words in [
        "example.com/mesh=on",
        "an admission policy or webhook changes spec.selector",
    ] {
        assert!(message.contains(words), "{message}");
    }
    assert!(condition(&unready, "Stalled").is_some());
    let selector = ListParams::default().labels("kubernetes.io/service-name=photos");
    let slices = place.api::<EndpointSlice>().list(&selector).await.unwrap();
    assert!(
        slices
            .items
            .iter()
            .all(|slice| slice.endpoints.iter().flatten().next().is_none()),
        "it is so"
    );
    operator.quiet().await;
    let writes = operator.writes().await;
    for round in 0..5 {
        let labels = json!({"metadata": {"labels": {"round": round.to_string()}}});
        place.merge::<ModelService>("photos", labels).await;
        operator.quiet().await;
    }
    assert_eq!(operator.writes().await, writes);

    // Pods that carry the key are found.
    let carried = service("photos").with("pod.labels", json!({"example.com/mesh": "on"}));
    place.apply(&carried).await;
    let serving = place.serving("photos").await;
    assert_eq!(condition(&serving, "Available").unwrap().0, "True");
    assert!(
        condition(&serving, "Synced").is_some(),
        "the selector is not as applied"
    );

    let gone = DeleteParams::default();
    Api::<MutatingAdmissionPolicyBinding>::all(place.client.clone())
        .delete(&place.name, &gone)
        .await
        .unwrap();
    let is_changed = |service: &Service| service.spec.as_ref().unwrap().selector.as_ref().unwrap().len() == 1;
    in_force::<Service>(&place, any_service(), is_changed).await;
    place.apply(&service("photos")).await;
    undisputed(&place, "photos").await;
}

async fn a_policy_that_caps_the_size_is_named_and_costs_no_further_write(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let caps = r#"[JSONPatch{op: "replace", path: "/spec/replicas", value: 1}]"#;
    policy(&place, ("apps", "deployments"), &["CREATE", "UPDATE"], caps).await;
    let any = json!({"metadata": {"name": "try"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    in_force::<Deployment>(&place, any, |made| made.spec.replicas == Some(1)).await;
    place.apply(&service("photos").replicas(2)).await;
    let words = ["an admission policy or webhook changes spec.replicas"];
    told(&place, "photos", "Synced", &words).await;
    let capped = place.wait_ready("photos", "True", "Serving").await;
    let (_, _, message) = condition(&capped, "Reconciling").unwrap();
    assert!(message.contains("1 of 2 servers"), "{message}");
    operator.writes_nothing_more(&place, "photos").await;
}

/// Each of these leaves the Deployment as it is, with all of its servers ready.
async fn a_service_through_which_no_request_arrives_is_unavailable(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    // A field that we do not set belongs to whoever sets it.
    let elsewhere = json!({"spec": {"type": "ExternalName", "externalName": "elsewhere.example"}});
    place.merge::<Service>("photos", elsewhere).await;
    told(&place, "photos", "Available", &["its type is ExternalName"]).await;
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    place.merge::<Service>("photos", back).await;
    place.serving("photos").await;

    type Row = (fn(&Service) -> bool, Value, [&'static str; 2]);
    let table: [Row; 3] = [
        (
            |live| live.spec.as_ref().unwrap().selector.is_some(),
            json!({"spec": {"selector": null}}),
            // Nobody owns a field that is not there.
            ["it has no selector", "somebody changes spec.selector"],
        ),
        (
            |live| {
                live.spec
                    .as_ref()
                    .unwrap()
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.len() == 2)
            },
            json!({"spec": {"selector": {"app": "other"}}}),
            [
                "its selector asks for app=other",
                "\"tuner\" changes spec.selector",
            ],
        ),
        (
            |live| live.spec.as_ref().unwrap().ports.as_ref().unwrap().len() == 2,
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9}]}}),
            [
                "its port 80 (http) does not lead to the servers",
                "\"tuner\" changes spec.ports",
            ],
        ),
    ];
    for (row, (provokes, patch, words)) in table.into_iter().enumerate() {
        let opponent = Opponent::new(&place, "photos", provokes, Some(patch)).await;
        let unready = told(&place, "photos", "Available", &words).await;
        assert_eq!(condition(&unready, "Ready").unwrap().1, "EndpointChanged");
        drop(opponent);
        // A changed spec is carried out at once.
        let touched = service("photos").with("revisionHistoryLimit", (row + 4).into());
        place.apply(&touched).await;
        place.serving("photos").await;
    }
}

/// Headless: a name that leads to the pods, but not from port 80 to theirs.
async fn a_headless_service_is_unavailable(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    let headless = r#"[JSONPatch{op: "add", path: "/spec/clusterIP", value: "None"}]"#;
    policy(&place, ("", "services"), &["CREATE"], headless).await;
    let is_changed = |service: &Service| service.spec.as_ref().unwrap().cluster_ip.as_deref() == Some("None");
    in_force::<Service>(&place, any_service(), is_changed).await;
    place.apply(&service("photos")).await;
    told(&place, "photos", "Available", &["headless"]).await;
}

/// The old revision answers, which is not what the spec asks for. Neither side writes without end.
async fn somebody_who_keeps_the_old_revision_is_named(world: Arc<World>) {
    let (place, _operator) = world.place().await;
    place.apply(&service("photos").model('a')).await;
    let old = place.serving_revision("photos").await;
    // It has seen the old revision, so it knows its name.
    let keep = json!({"spec": {"selector": {"serving.modelservice.dev/revision": old}},
        "metadata": {"annotations": {"kept": old}}});
    place.merge::<Service>("photos", keep.clone()).await;
    let provokes = |live: &Service| {
        let selector = live.spec.as_ref().unwrap().selector.as_ref().unwrap();
        selector.get("serving.modelservice.dev/revision") != live.annotations().get("kept")
    };
    let opponent = Opponent::new(&place, "photos", provokes, Some(keep)).await;
    place.apply(&service("photos").model('b')).await;
    let words = [old.as_str(), "\"tuner\" changes spec.selector"];
    let unready = told(&place, "photos", "Ready", &words).await;
    assert_eq!(condition(&unready, "Ready").unwrap().1, "EndpointChanged");
    assert_eq!(condition(&unready, "Available").unwrap().0, "True");
    assert_eq!(
        unready.status.unwrap().current_revision.as_deref(),
        Some(old.as_str())
    );
    assert_ever_more_slowly(&opponent.waits(4).await);
    drop(opponent);
    let touched = service("photos")
        .model('b')
        .with("revisionHistoryLimit", 4.into());
    place.apply(&touched).await;
    assert_ne!(place.serving_revision("photos").await, old);
}
