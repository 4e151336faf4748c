//! Reports: asks a ready server of the revision that has the traffic what it serves, in the background. A server
//! that cannot be asked delays nothing: its service is Ready without `status.model`, and it is asked again later.

use crate::{
    cache::pod::Pod,
    cluster::inference_server,
    crd::{ModelService, ModelServiceStatus},
    observe::Observed,
};
use http_body_util::Full;
use hyper::Request;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use modelservice_contract::{MANAGEMENT_PORT, REPORT_PATH, Report};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc::UnboundedSender},
};

const WAITS: Waits = Waits {
    attempts: [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(10)],
    again: Duration::from_secs(5 * 60),
};
/// Time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How many servers are asked at the same time.
const PARALLEL: usize = 8;
/// Longest report that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;

type ByRevision = BTreeMap<String, Arc<Report>>;

#[derive(Clone, Copy)]
struct Waits {
    /// How long to wait before each attempt.
    attempts: [Duration; 3],
    /// How long after the last attempt the pod may be asked again, if it is still there.
    again: Duration,
}

/// What servers reported about themselves and the status does not say yet.
pub struct Reports {
    known: Arc<Mutex<HashMap<String, ByRevision>>>,
    asked: Arc<Mutex<HashSet<String>>>,
    waits: Waits,
    permits: Arc<Semaphore>,
    wake: UnboundedSender<ObjectRef<ModelService>>,
}

impl Reports {
    /// Each report that arrives sends its service to `wake`, and so does the time to ask again.
    #[must_use]
    pub fn new(wake: UnboundedSender<ObjectRef<ModelService>>) -> Self {
        Self {
            known: Arc::default(),
            asked: Arc::default(),
            waits: WAITS,
            permits: Arc::new(Semaphore::new(PARALLEL)),
            wake,
        }
    }

    /// Reports of a service's revisions.
    #[must_use]
    pub fn of(&self, service: &ModelService) -> ByRevision {
        self.known
            .lock()
            .get(service.metadata.uid.as_deref().unwrap_or_default())
            .cloned()
            .unwrap_or_default()
    }

    /// Asks a server if the status does not say yet what the revision that has the traffic serves; forgets the
    /// reports once it does.
    pub fn ask(&self, observed: &Observed, status: &ModelServiceStatus) {
        let Some(revision) = status.current_revision.as_deref() else {
            return;
        };
        let uid = observed.service.uid().unwrap_or_default();
        if status
            .model
            .as_ref()
            .is_some_and(|model| model.revision == revision)
        {
            self.known.lock().remove(&uid);
            return;
        }
        let Some(pod) = observed.pods_of(revision).find(|pod| pod.is_ready()) else {
            return;
        };
        let Some(address) = address(pod) else { return };
        let pod = pod.uid().unwrap_or_default();
        if !self.asked.lock().insert(pod.clone()) {
            return;
        }
        let (asked, waits) = (self.asked.clone(), self.waits);
        let (known, permits, wake) = (self.known.clone(), self.permits.clone(), self.wake.clone());
        let (revision, service) = (
            revision.to_owned(),
            ObjectRef::from_obj(observed.service.as_ref()),
        );
        tokio::spawn(async move {
            for wait in waits.attempts {
                tokio::time::sleep(wait).await;
                let Ok(_permit) = permits.acquire().await else {
                    return;
                };
                match tokio::time::timeout(TIMEOUT, fetch(address)).await {
                    Ok(Ok(report)) => {
                        known
                            .lock()
                            .entry(uid)
                            .or_default()
                            .insert(revision, Arc::new(report));
                        // Fails only when the operator is shutting down.
                        let _ = wake.send(service);
                        return;
                    }
                    Ok(Err(error)) => tracing::debug!(%service, %address, %error, "no report"),
                    Err(_) => tracing::debug!(%service, %address, "no report in time"),
                }
            }
            tracing::warn!(
                %service, %address, port = MANAGEMENT_PORT,
                "status.model stays unknown: the server cannot be asked; let the operator reach this port"
            );
            tokio::time::sleep(waits.again).await;
            asked.lock().remove(&pod);
            let _ = wake.send(service);
        });
    }
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.pod_ip.as_deref()?.parse().ok()
}

async fn fetch(address: IpAddr) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((address, MANAGEMENT_PORT)).await?;
    let request = Request::get(REPORT_PATH).body(Full::default())?;
    let body = inference_server::send(stream, request, MAX_BYTES).await?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::observed;
    use serde_json::json;
    use tokio::sync::mpsc::unbounded_channel;

    /// Otherwise `status.model` never comes once a NetworkPolicy that was in the way is mended.
    #[tokio::test]
    async fn a_server_that_could_not_be_asked_is_asked_again() {
        let plan = observed(json!({})).planned();
        // Nothing listens at this address.
        let ready = json!({"phase": "Running", "podIP": "127.0.0.99",
            "conditions": [{"type": "Ready", "status": "True"}]});
        let observed = observed(json!({}))
            .running(&plan, 1, 1)
            .routed(&plan)
            .pod(&plan, ready);
        let status = ModelServiceStatus {
            current_revision: Some(plan.rollout.target.clone()),
            ..Default::default()
        };
        let (wake, mut woken) = unbounded_channel();
        let reports = Reports {
            waits: Waits {
                attempts: [Duration::ZERO; 3],
                again: Duration::ZERO,
            },
            ..Reports::new(wake)
        };
        for _ in 0..2 {
            reports.ask(&observed, &status);
            let again = tokio::time::timeout(Duration::from_secs(20), woken.recv()).await;
            assert!(again.is_ok_and(|service| service.is_some()));
        }
    }
}
