//! A cluster for tests: carries out plans, and keeps Deployments, pods and devices as the controllers, the scheduler
//! and the kubelets do, one second at a time.
#![allow(clippy::panic, clippy::unwrap_used)]

use super::{Plan, PlannedRevision, rollout::Scale};
use crate::{
    cache::pod::Pod,
    crd::{CLASS_ANNOTATION, ModelService},
    fixtures::observed,
    observe::Observed,
    placement::split,
    revision::{is_made_by, revision_of, wanted_replicas},
};
use jiff::SignedDuration;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time as ApiTime};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// One service in its cluster.
pub(crate) struct Cluster {
    pub(crate) observed: Observed,
    /// Devices of each class; a class that is not here has as many as anybody wants.
    pub(crate) devices: BTreeMap<String, usize>,
    /// Why a pod that has a device is not scheduled all the same.
    pub(crate) otherwise: Option<&'static str>,
    /// The model whose servers end as soon as they start.
    pub(crate) broken: Option<&'static str>,
    /// Whether the store answers.
    pub(crate) is_store_up: bool,
    made: usize,
}

/// The last words of a broken server.
const ENDED: &str = r#"{"reason": "ModelInvalid", "message": "it is not a model"}"#;

/// Classes with a device of their own each, and `cpu`.
const CLASSES: [&str; 3] = ["gpu", "npu", "tpu"];

impl Cluster {
    /// A service that was just created.
    pub(crate) fn new(spec: Value) -> Self {
        let with_class = |observed: Observed, name: &str| {
            let resource = json!({"name": format!("example.com/{name}"), "count": 1});
            observed.class(name, json!({"resource": resource}))
        };
        Self {
            observed: CLASSES.into_iter().fold(observed(spec), with_class),
            devices: BTreeMap::new(),
            otherwise: None,
            broken: None,
            is_store_up: true,
            made: 0,
        }
    }

    pub(crate) fn has(mut self, class: &str, devices: usize) -> Self {
        self.devices.insert(class.to_owned(), devices);
        self
    }

    /// Changes the spec.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut service = serde_json::to_value(self.observed.service.as_ref()).unwrap();
        change(&mut service["spec"]);
        self.observed.service = Arc::new(serde_json::from_value::<ModelService>(service).unwrap());
    }

    /// Asks for another model.
    pub(crate) fn model(&mut self, letter: char) {
        let image = format!("models.example/net@sha256:{letter}");
        self.edit(|spec| spec["model"]["image"] = image.into());
    }

    /// A second passes: the operator plans and applies, then everybody else does one thing.
    pub(crate) fn second(&mut self) -> Plan {
        let plan = self.pass();
        self.go_on();
        plan
    }

    /// A pass of the operator, after which nobody else has done anything yet.
    pub(crate) fn pass(&mut self) -> Plan {
        let plan = self.observed.planned();
        self.apply(&plan);
        plan
    }

    /// The kubelet says this about the server of a pod.
    pub(crate) fn says(&mut self, pod: usize, container: &Value) {
        let mut container = container.clone();
        container["name"] = "server".into();
        let container = serde_json::from_value(container).unwrap();
        Arc::make_mut(&mut self.observed.pods[pod])
            .status
            .container_statuses = vec![container];
    }

    /// Somebody deletes a pod.
    pub(crate) fn delete(&mut self, pod: &str) {
        self.change(pod, |pod, now| pod.metadata.deletion_timestamp = Some(now));
    }

    /// What everybody else does in a second.
    pub(crate) fn go_on(&mut self) {
        self.run();
        self.observed.now += SignedDuration::from_secs(1);
    }

    /// Until this is so; returns the seconds that passed.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> usize {
        let passed = (0..5000).find(|_| {
            let so = is_so(self);
            if !so {
                self.second();
            }
            so
        });
        passed.unwrap_or_else(|| panic!("never: {what}; sizes {:?}", self.sizes()))
    }

    /// Seconds pass.
    pub(crate) fn wait(&mut self, seconds: usize) -> Plan {
        (0..seconds).map(|_| self.second()).last().unwrap()
    }

    fn all(&self) -> Vec<Arc<Deployment>> {
        let (used, beside) = (&self.observed.deployments, &self.observed.beside);
        used.iter().chain(beside).cloned().collect()
    }

    fn put(&mut self, mut all: Vec<Arc<Deployment>>) {
        all.sort_by_key(|live| (std::cmp::Reverse(crate::revision::number(live)), live.name_any()));
        let observed = &mut self.observed;
        (observed.deployments, observed.beside) = split(all, &observed.pods, observed.endpoint.as_deref());
    }

    fn apply(&mut self, plan: &Plan) {
        let mut all = self.all();
        for PlannedRevision {
            deployment, scale, ..
        } in &plan.revisions
        {
            let name = deployment.name_any();
            let at = all.iter().position(|live| live.name_any() == name);
            let live = at.map(|at| all.remove(at));
            let present = live.as_ref().map(|live| wanted_replicas(live));
            let mut applied = deployment.clone();
            applied.spec.replicas = Some(match scale {
                Scale::Fixed(size) | Scale::Held(size) => *size,
                Scale::Autoscaled { start } => present.filter(|size| *size > 0).unwrap_or((*start).max(1)),
                Scale::Unchanged => present.unwrap_or(1),
            });
            applied.metadata.generation = Some(1);
            applied.status = live.and_then(|live| live.status.clone());
            all.push(Arc::new(applied));
        }
        let is_retired =
            |live: &Deployment| plan.retired.iter().any(|gone| gone.name_any() == live.name_any());
        all.retain(|live| !is_retired(live));
        self.observed.endpoint = Some(Arc::new(plan.endpoint.clone()));
        self.observed.disruption_budget = plan.disruption_budget.clone().map(Arc::new);
        self.resolvers(plan);
        self.put(all);
    }

    /// Makes and removes the pods that look for models.
    fn resolvers(&mut self, plan: &Plan) {
        let retired = &plan.resolver.retired;
        let resolvers = &mut self.observed.resolvers;
        resolvers.retain(|pod| !retired.iter().any(|gone| gone.name_any() == pod.name_any()));
        if let Some(wanted) = &plan.resolver.wanted {
            let is_taken = resolvers.iter().any(|pod| pod.name_any() == wanted.name_any());
            assert!(!is_taken, "a pod {} exists", wanted.name_any());
            let mut pod: Pod = serde_json::from_value(json!({"metadata": wanted.metadata})).unwrap();
            pod.metadata.creation_timestamp = Some(ApiTime(self.observed.now));
            resolvers.push(Arc::new(pod));
        }
    }

    /// Each of these pods asks the store.
    fn ask(&mut self) {
        let (message, code) = match self.is_store_up {
            true => (crate::fixtures::found(false), 0),
            false => (
                r#"{"reason": "Unavailable", "message": "no answer"}"#.to_owned(),
                34,
            ),
        };
        let ended = json!({"containerStatuses": [{"name": "resolve", "state": {"terminated":
            {"exitCode": code, "message": message, "finishedAt": self.observed.now}}}]});
        let asking = self.observed.resolvers.iter_mut();
        for pod in asking.filter(|pod| pod.status.container_statuses.is_empty()) {
            Arc::make_mut(pod).status = serde_json::from_value(ended.clone()).unwrap();
        }
    }

    /// What the controllers, the scheduler and the kubelets do in a second.
    fn run(&mut self) {
        self.ask();
        let mut all = self.all();
        let has_owner = |pod: &Arc<Pod>| all.iter().any(|live| is_made_by(pod.as_ref(), &live.name_any()));
        self.observed
            .pods
            .retain(|pod| pod.metadata.deletion_timestamp.is_none());
        let now = self.observed.now;
        for pod in &mut self.observed.pods {
            if !has_owner(pod) {
                Arc::make_mut(pod).metadata.deletion_timestamp = Some(ApiTime(now));
            }
        }
        for live in &all {
            self.scale(live);
            self.start(live);
        }
        for live in &mut all {
            let pods = self.pods_of(live);
            let present = pods
                .iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let (count, ready) = (
                present.clone().count(),
                present.filter(|pod| pod.is_ready()).count(),
            );
            let status = json!({"observedGeneration": 1, "replicas": count, "updatedReplicas": count,
                "readyReplicas": ready, "availableReplicas": ready});
            Arc::make_mut(live).status = serde_json::from_value(status).unwrap();
        }
        self.put(all);
    }

    /// The ReplicaSet creates or deletes pods.
    fn scale(&mut self, live: &Deployment) {
        let pods = self.pods_of(live);
        let present: Vec<_> = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect();
        let wanted = usize::try_from(wanted_replicas(live)).unwrap();
        for pod in present.iter().skip(wanted) {
            self.change(&pod.name_any(), |pod, now| {
                pod.metadata.deletion_timestamp = Some(now)
            });
        }
        for _ in present.len()..wanted {
            self.made += 1;
            let labels = live.spec.template.metadata.clone().unwrap().labels;
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "uid": "set",
                "name": format!("{}-5d9c", live.name_any())});
            let pod = json!({"metadata": {"name": format!("pod-{:03}", self.made), "namespace": "team-a",
                "labels": labels, "creationTimestamp": self.observed.now, "ownerReferences": [owner]}});
            self.observed
                .pods
                .push(Arc::new(serde_json::from_value(pod).unwrap()));
        }
    }

    /// Its pods are scheduled, and servers start.
    fn start(&mut self, live: &Deployment) {
        let class = live.annotations()[CLASS_ANNOTATION].clone();
        let image = serde_json::to_string(&live.spec.template).unwrap();
        let is_broken = self.broken.is_some_and(|model| image.contains(model));
        for pod in self.pods_of(live) {
            if pod.metadata.deletion_timestamp.is_some() || !pod.status.container_statuses.is_empty() {
                continue;
            }
            let status = match pod.is_scheduled() {
                true if is_broken => json!({"containerStatuses": [{"name": "server",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 13, "message": ENDED}}}],
                    "conditions": [{"type": "PodScheduled", "status": "True"}]}),
                true => json!({"conditions": [{"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "True"}]}),
                false => self.scheduled(&class),
            };
            self.change(&pod.name_any(), |pod, _| {
                pod.status = serde_json::from_value(status).unwrap()
            });
        }
    }

    fn scheduled(&self, class: &str) -> Value {
        let held = self
            .all()
            .iter()
            .filter(|live| live.annotations()[CLASS_ANNOTATION] == class)
            .fold(0, |sum, live| {
                sum + self.pods_of(live).iter().filter(|pod| pod.is_scheduled()).count()
            });
        let why = match (self.otherwise, self.devices.get(class)) {
            (Some(why), _) => Some(why.to_owned()),
            (None, Some(devices)) if held >= *devices => Some(format!(
                "0/4 nodes are available: 4 Insufficient example.com/{class}."
            )),
            _ => None,
        };
        let status = if why.is_none() { "True" } else { "False" };
        json!({"conditions": [{"type": "PodScheduled", "status": status, "message": why}]})
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Pod, ApiTime)) {
        let now = ApiTime(self.observed.now);
        let pod = self
            .observed
            .pods
            .iter_mut()
            .find(|pod| pod.name_any() == name)
            .unwrap();
        change(Arc::make_mut(pod), now);
    }

    fn pods_of(&self, live: &Deployment) -> Vec<Arc<Pod>> {
        self.observed.remaining_pods_made_by(live).cloned().collect()
    }

    /// Class and size of every Deployment with servers, the newest revision and the one in use first.
    pub(crate) fn sizes(&self) -> Vec<(String, i32)> {
        let all = self.all().into_iter().filter(|live| wanted_replicas(live) > 0);
        all.map(|live| {
            (
                live.annotations()[CLASS_ANNOTATION].clone(),
                wanted_replicas(&live),
            )
        })
        .collect()
    }

    /// Servers of the newest revision and of all others.
    pub(crate) fn new_and_old(&self) -> (i32, i32) {
        let newest = self
            .observed
            .deployments
            .first()
            .and_then(|live| revision_of(live.as_ref()));
        let size = |is_new: bool| {
            let all = self.observed.deployments.iter();
            let fits = all.filter(|live| (revision_of(live.as_ref()) == newest) == is_new);
            fits.map(|live| wanted_replicas(live)).sum()
        };
        (size(true), size(false))
    }

    /// Ready servers that the Service selects.
    pub(crate) fn answering(&self) -> usize {
        let endpoint = self.observed.endpoint.as_ref();
        let selector = endpoint
            .and_then(|endpoint| endpoint.spec.as_ref()?.selector.clone())
            .unwrap_or_default();
        let is_selected = |pod: &&Arc<Pod>| {
            selector
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
        };
        self.observed
            .pods
            .iter()
            .filter(|pod| pod.is_ready())
            .filter(is_selected)
            .count()
    }
}
