//! Devices: asks every ready server of the revision that has the traffic what runs its model, if that is on an
//! accelerator, in the background. Each server is asked once: what runs a model does not change while a server is ready.

use super::asking::{PARALLEL, address, report};
use crate::{
    cache::pod::Pod,
    crd::{CLAIM_ANNOTATION, CPU_PROVIDER, DEVICE_CLAIM, ModelService, ModelServiceStatus},
    observe::{Engaged, Observed},
};
use k8s_openapi::api::{apps::v1::Deployment, resource::v1::ResourceClaim};
use kube::{Api, Client, ResourceExt as _, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc::UnboundedSender};

/// How long to wait before each attempt.
const WAITS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// What runs the models of services on accelerators.
pub struct Devices {
    client: Client,
    permits: Arc<Semaphore>,
    services: Services,
    wake: UnboundedSender<ObjectRef<ModelService>>,
}

/// By UID of the service.
type Services = Arc<Mutex<HashMap<String, Answers>>>;
/// By UID of the pod.
type Answers = BTreeMap<String, Answer>;

/// What a server said.
#[derive(Clone, Debug)]
enum Answer {
    /// It is being asked.
    Pending,
    /// It says what runs its model, or cannot be asked, or does not say it.
    Given(Option<Arc<Engaged>>),
}

impl Devices {
    /// Sends to `wake` each service whose servers have all answered.
    #[must_use]
    pub fn new(client: Client, wake: UnboundedSender<ObjectRef<ModelService>>) -> Self {
        Self {
            client,
            permits: Arc::new(Semaphore::new(PARALLEL)),
            services: Arc::default(),
            wake,
        }
    }

    /// What is known of the servers of a service, by UID of the pod.
    #[must_use]
    pub fn of(&self, service: &ModelService) -> BTreeMap<String, Option<Arc<Engaged>>> {
        let services = self.services.lock();
        let answers = services.get(service.metadata.uid.as_deref().unwrap_or_default());
        let given = answers
            .into_iter()
            .flatten()
            .filter_map(|(pod, answer)| match answer {
                Answer::Pending => None,
                Answer::Given(engaged) => Some((pod.clone(), engaged.clone())),
            });
        given.collect()
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, uid: &str) {
        self.services.lock().remove(uid);
    }

    /// Asks the servers that have not been asked since they became ready.
    pub fn ask(&self, observed: &Observed, status: &ModelServiceStatus) {
        let service = observed.service.uid().unwrap_or_default();
        let mut services = self.services.lock();
        if !is_on_accelerator(status) {
            services.remove(&service);
            return;
        }
        let revision = status.current_revision.as_deref().unwrap_or_default();
        let ready = observed.pods_of(revision).filter(|pod| pod.is_ready());
        let ready: HashMap<String, (&Pod, IpAddr)> = ready
            .filter_map(|pod| Some((pod.uid()?, (pod.as_ref(), address(pod)?))))
            .collect();
        let answers = services.entry(service.clone()).or_default();
        answers.retain(|pod, _| ready.contains_key(pod));
        for (uid, (pod, address)) in ready {
            if answers.contains_key(&uid) {
                continue;
            }
            answers.insert(uid.clone(), Answer::Pending);
            let question = Question {
                client: self.client.clone(),
                permits: self.permits.clone(),
                services: self.services.clone(),
                service: service.clone(),
                reference: ObjectRef::from_obj(observed.service.as_ref()),
                claim: claim_with_alternatives(pod, observed.deployment(revision).map(AsRef::as_ref)),
                pod: uid,
                address,
            };
            let wake = self.wake.clone();
            tokio::spawn(async move { question.ask(&wake).await });
        }
    }
}

/// Whether a server has reported another execution provider than the CPU's.
fn is_on_accelerator(status: &ModelServiceStatus) -> bool {
    let accelerator = status.accelerator.as_ref();
    let provider = accelerator.and_then(|accelerator| accelerator.execution_provider.as_deref());
    provider.is_some_and(|provider| provider != CPU_PROVIDER)
}

/// The pod's claim of devices, if it says which of several alternatives the scheduler took.
fn claim_with_alternatives(pod: &Pod, deployment: Option<&Deployment>) -> Option<String> {
    let claim = deployment?.annotations().get(CLAIM_ANNOTATION)?;
    let made = pod.status.resource_claim_statuses.first()?;
    made.resource_claim_name
        .clone()
        .filter(|_| claim.contains("\"firstAvailable\""))
}

/// One pod that is being asked.
struct Question {
    client: Client,
    permits: Arc<Semaphore>,
    services: Services,
    service: String,
    reference: ObjectRef<ModelService>,
    claim: Option<String>,
    pod: String,
    address: IpAddr,
}

impl Question {
    async fn ask(&self, wake: &UnboundedSender<ObjectRef<ModelService>>) {
        let mut found = None;
        for wait in WAITS {
            tokio::time::sleep(wait).await;
            if !self.is_open() {
                return;
            }
            match report(&self.permits, self.address).await {
                Ok(report) => {
                    found = report.models.into_iter().find_map(|model| model.assignment);
                    break;
                }
                Err(error) => {
                    tracing::debug!(service = %self.reference, address = %self.address, error, "no report");
                }
            }
        }
        let engaged = match found {
            Some(assignment) => Some(Arc::new(Engaged {
                request: self.alternative().await,
                assignment,
            })),
            None => None,
        };
        if self.tell(engaged) {
            // Fails only when the operator is shutting down.
            let _ = wake.send(self.reference.clone());
        }
    }

    /// Whether the pod is still to be asked.
    fn is_open(&self) -> bool {
        let services = self.services.lock();
        let answers = services.get(&self.service);
        answers.is_some_and(|answers| answers.contains_key(&self.pod))
    }

    /// Which alternative of the class the scheduler took.
    async fn alternative(&self) -> Option<String> {
        let namespace = self.reference.namespace.as_deref().unwrap_or_default();
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace);
        match claims.get_opt(self.claim.as_ref()?).await {
            Ok(claim) => taken(&claim?),
            Err(error) => {
                tracing::debug!(service = %self.reference, %error, "cannot read a ResourceClaim");
                None
            }
        }
    }

    /// Remembers the answer; whether it was the last one of its service.
    fn tell(&self, engaged: Option<Arc<Engaged>>) -> bool {
        let mut services = self.services.lock();
        let Some(answers) = services.get_mut(&self.service) else {
            return false;
        };
        match answers.get_mut(&self.pod) {
            Some(answer) => *answer = Answer::Given(engaged),
            None => return false,
        }
        answers.values().all(|answer| matches!(answer, Answer::Given(_)))
    }
}

/// The alternative in the allocation's first result, which is `<request>/<alternative>`.
fn taken(claim: &ResourceClaim) -> Option<String> {
    let devices = claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref()?;
    let result = devices.results.as_ref()?.first()?;
    let alternative = result.request.strip_prefix(DEVICE_CLAIM)?.strip_prefix('/')?;
    Some(alternative.to_owned())
}

#[cfg(test)]
mod tests;
