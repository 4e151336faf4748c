//! Bursts: when many services are created at once, all their Services are created before the first Deployment.
//!
//! An API server creates one Service at a time, which takes many times longer while the controllers work on
//! Deployments on the same cores. So the first pass of a new service creates its Service, and the second pass follows
//! once no other service is creating one. It follows after [`LONGEST`] at the latest, so that a slow or failing
//! Service does not delay other services for longer. Nothing here is a source of truth: after a restart, every
//! service is reconciled.

use crate::crd::ModelService;
use kube::runtime::reflector::ObjectRef;
use std::time::Duration;
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    time::timeout,
};

/// A service waits for others at most this long, in which an API server creates a thousand Services.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts the Services that are being created, and wakes the services that wait for them.
#[derive(Debug)]
pub struct Bursts {
    making: watch::Sender<usize>,
    longest: Duration,
    wake: UnboundedSender<ObjectRef<ModelService>>,
}

impl Bursts {
    /// `wake` receives the services that continue.
    #[must_use]
    pub fn new(wake: UnboundedSender<ObjectRef<ModelService>>) -> Self {
        Self {
            making: watch::Sender::new(0),
            longest: LONGEST,
            wake,
        }
    }

    /// Counts a Service as being created until the returned value is dropped.
    pub fn making(&self) -> Making<'_> {
        self.making.send_modify(|making| *making += 1);
        Making(self)
    }

    /// Continues with `service` once no Service is being created.
    pub fn follow(&self, service: ObjectRef<ModelService>) {
        let (mut making, longest, wake) = (self.making.subscribe(), self.longest, self.wake.clone());
        tokio::spawn(async move {
            // The service continues in any case: in time, late, or when the counter is gone.
            let _ = timeout(longest, making.wait_for(|making| *making == 0)).await;
            // Fails only when the operator is shutting down.
            let _ = wake.send(service);
        });
    }
}

/// A Service that is being created.
#[derive(Debug)]
pub struct Making<'a>(&'a Bursts);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.making.send_modify(|making| *making -= 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError, unbounded_channel};

    fn bursts() -> (Bursts, UnboundedReceiver<ObjectRef<ModelService>>) {
        let (wake, woken) = unbounded_channel();
        (Bursts::new(wake), woken)
    }

    /// Otherwise the first Deployments slow down all later Services.
    #[tokio::test]
    async fn services_go_on_when_the_last_service_has_been_made() {
        let (bursts, mut woken) = bursts();
        let (first, second) = (bursts.making(), bursts.making());
        bursts.follow(ObjectRef::new("orchids"));
        drop(first);
        tokio::task::yield_now().await;
        assert_eq!(woken.try_recv(), Err(TryRecvError::Empty));
        drop(second);
        assert_eq!(woken.recv().await.unwrap().name, "orchids");
    }

    /// A single new service does not wait, and a service whose Service was refused does not delay others.
    #[tokio::test]
    async fn a_service_alone_goes_on_at_once() {
        let (bursts, mut woken) = bursts();
        drop(bursts.making());
        bursts.follow(ObjectRef::new("orchids"));
        assert_eq!(woken.recv().await.unwrap().name, "orchids");
    }

    /// Otherwise a request that is never answered, or a steady stream of new services, delays others for ever.
    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let (mut bursts, mut woken) = bursts();
        bursts.longest = Duration::from_millis(1);
        let _never_made = bursts.making();
        bursts.follow(ObjectRef::new("orchids"));
        assert_eq!(woken.recv().await.unwrap().name, "orchids");
    }
}
