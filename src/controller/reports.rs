//! Reports: asks a ready server of the revision that has the traffic what it serves, in the background. A server
//! that cannot be asked delays nothing: its service is Ready without `status.model`, says after a while that the server
//! cannot be asked, and it is asked again later.

use super::asking::{PARALLEL, address, report};
use crate::{
    cache::pod::Pod,
    crd::{ModelService, ModelServiceStatus},
    observe::{Observed, Reported, Unreachable},
};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use modelservice_contract::{MANAGEMENT_PORT, Report};
use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc::UnboundedSender};

/// Together two minutes: in a burst of new services the network may come later than the pods.
const WAITS: Waits = Waits {
    attempts: [
        Duration::ZERO,
        Duration::from_secs(2),
        Duration::from_secs(10),
        Duration::from_secs(30),
        Duration::from_secs(78),
    ],
    again: Duration::from_secs(5 * 60),
};

#[derive(Clone, Copy)]
struct Waits {
    /// How long to wait before each attempt, until the service says that the server cannot be asked.
    attempts: [Duration; 5],
    /// How long to wait before each further one.
    again: Duration,
}

/// What servers have reported about themselves and is not in the status yet.
pub struct Reports {
    waits: Waits,
    permits: Arc<Semaphore>,
    /// By UID of the service.
    services: Arc<Mutex<HashMap<String, Asked>>>,
    wake: UnboundedSender<ObjectRef<ModelService>>,
}

/// A service whose status does not say yet what it serves.
#[derive(Default)]
struct Asked {
    reported: Reported,
    /// UID of the pod that is being asked.
    pod: String,
}

impl Reports {
    /// Sends to `wake` each service whose server reported, or cannot be asked.
    #[must_use]
    pub fn new(wake: UnboundedSender<ObjectRef<ModelService>>) -> Self {
        Self {
            waits: WAITS,
            permits: Arc::new(Semaphore::new(PARALLEL)),
            services: Arc::default(),
            wake,
        }
    }

    /// What the servers of a service reported.
    #[must_use]
    pub fn of(&self, service: &ModelService) -> Reported {
        let services = self.services.lock();
        let asked = services.get(service.metadata.uid.as_deref().unwrap_or_default());
        asked.map(|asked| asked.reported.clone()).unwrap_or_default()
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, uid: &str) {
        self.services.lock().remove(uid);
    }

    /// Asks a server if the status does not say yet what the revision that has the traffic serves; forgets the
    /// service once it does, and while no server of it is ready.
    pub fn ask(&self, observed: &Observed, status: &ModelServiceStatus) {
        let service = observed.service.uid().unwrap_or_default();
        let revision = status.current_revision.as_deref().unwrap_or_default();
        let is_known = status
            .model
            .as_ref()
            .is_some_and(|model| model.revision == revision);
        let mut ready: Vec<(&Pod, IpAddr)> = observed
            .pods_of(revision)
            .filter(|pod| pod.is_ready())
            .filter_map(|pod| Some((pod.as_ref(), address(pod)?)))
            .collect();
        ready.sort_by_key(|(pod, _)| pod.name_any());
        let mut services = self.services.lock();
        let Some((pod, address)) = ready.first().filter(|_| !is_known) else {
            services.remove(&service);
            return;
        };
        let asked = services.entry(service.clone()).or_default();
        if ready
            .iter()
            .any(|(pod, _)| pod.uid().as_deref() == Some(&asked.pod))
        {
            return;
        }
        asked.pod = pod.uid().unwrap_or_default();
        let question = Question {
            waits: self.waits,
            permits: self.permits.clone(),
            services: self.services.clone(),
            service,
            reference: ObjectRef::from_obj(observed.service.as_ref()),
            revision: revision.to_owned(),
            pod: asked.pod.clone(),
            pod_name: pod.name_any(),
            address: *address,
        };
        let wake = self.wake.clone();
        tokio::spawn(async move { question.ask_until_answered(&wake).await });
    }
}

/// One pod that is being asked.
struct Question {
    waits: Waits,
    permits: Arc<Semaphore>,
    services: Arc<Mutex<HashMap<String, Asked>>>,
    service: String,
    reference: ObjectRef<ModelService>,
    revision: String,
    pod: String,
    pod_name: String,
    address: IpAddr,
}

impl Question {
    /// Asks until the pod answers, or nobody wants to know any more.
    async fn ask_until_answered(&self, wake: &UnboundedSender<ObjectRef<ModelService>>) {
        for attempt in 0_usize.. {
            let wait = self.waits.attempts.get(attempt).copied();
            tokio::time::sleep(wait.unwrap_or(self.waits.again)).await;
            if !self.is_open() {
                return;
            }
            let answer = report(&self.permits, self.address).await;
            let is_answered = answer.is_ok();
            let is_news = match answer {
                Err(error) if attempt + 1 < self.waits.attempts.len() => {
                    tracing::debug!(service = %self.reference, address = %self.address, error, "no report");
                    false
                }
                answer => self.tell(answer),
            };
            if is_news {
                // Fails only when the operator is shutting down.
                let _ = wake.send(self.reference.clone());
            }
            if is_answered {
                return;
            }
        }
    }

    /// Whether this pod is still the one to be asked.
    fn is_open(&self) -> bool {
        let services = self.services.lock();
        services
            .get(&self.service)
            .is_some_and(|asked| asked.pod == self.pod)
    }

    /// Remembers the answer; whether it is another than before.
    fn tell(&self, answer: Result<Report, String>) -> bool {
        let mut services = self.services.lock();
        let Some(asked) = services
            .get_mut(&self.service)
            .filter(|asked| asked.pod == self.pod)
        else {
            return false;
        };
        match answer {
            Ok(report) => {
                let report = (self.revision.clone(), Arc::new(report));
                asked.reported = Reported {
                    models: [report].into(),
                    unreachable: None,
                };
                true
            }
            Err(error) => {
                let unreachable = Some(Unreachable {
                    revision: self.revision.clone(),
                    pod: self.pod_name.clone(),
                    error,
                });
                let is_news = asked.reported.unreachable != unreachable;
                if is_news {
                    tracing::warn!(service = %self.reference, address = %self.address, port = MANAGEMENT_PORT, "the server cannot be asked what it serves");
                }
                asked.reported.unreachable = unreachable;
                is_news
            }
        }
    }
}

#[cfg(test)]
mod tests;
