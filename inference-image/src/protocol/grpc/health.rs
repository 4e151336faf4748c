//! gRPC's health service: the status of the server as a whole and of each of its services follows the lifecycle
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use crate::process::lifecycle::{Lifecycle, Phase};
use crate::protocol::api::Api;
use crate::protocol::names::GRPC_SERVICE;
use axum::Router;
use axum::extract::Request as HttpRequest;
use futures::stream::{BoxStream, StreamExt, unfold};
use std::sync::Arc;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::ServiceExt;

pub(super) fn router(lifecycle: &Lifecycle) -> Router<Arc<Api>> {
    let service = HealthServer::new(OfLifecycle(lifecycle.clone()));
    let service = service.map_request(|request: HttpRequest| request.map(tonic::body::Body::new));
    let path = format!("/{}/{{*call}}", HealthServer::<OfLifecycle>::NAME);
    Router::new().route_service(&path, service)
}

struct OfLifecycle(Lifecycle);

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

const fn status(phase: Phase) -> ServingStatus {
    match phase {
        Phase::Ready => ServingStatus::Serving,
        Phase::Loading | Phase::Draining => ServingStatus::NotServing,
    }
}

/// The empty name is the server as a whole.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == GRPC_SERVICE
}

#[tonic::async_trait]
impl Health for OfLifecycle {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !is_known(service) {
            return Err(Status::not_found(format!("there is no service {service:?}")));
        }
        Ok(Response::new(answer(status(self.0.phase()))))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// The status now and after each change. The stream ends when the server shuts down, since it would otherwise
    /// prevent that.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = is_known(&request.get_ref().service);
        let watched = (self.0.clone(), None);
        let changes = unfold(
            watched,
            move |(lifecycle, told): (Lifecycle, Option<Phase>)| async move {
                let wanted = match told {
                    None => lifecycle.phase(),
                    Some(Phase::Loading) => Phase::Ready,
                    Some(Phase::Ready) => Phase::Draining,
                    Some(Phase::Draining) => return None,
                };
                lifecycle.reached(wanted).await;
                let phase = lifecycle.phase();
                let status = if known {
                    status(phase)
                } else {
                    ServingStatus::ServiceUnknown
                };
                Some((Ok(answer(status)), (lifecycle, Some(phase))))
            },
        );
        Ok(Response::new(changes.boxed()))
    }
}
