//! Asking: one request to a server for its report.

use crate::{cache::pod::Pod, cluster::inference_server};
use http_body_util::Full;
use hyper::Request;
use modelservice_contract::{MANAGEMENT_PORT, REPORT_PATH, Report};
use std::{net::IpAddr, time::Duration};
use tokio::{net::TcpStream, sync::Semaphore};

/// How many servers are asked at the same time, for each purpose.
pub(super) const PARALLEL: usize = 32;
/// Time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest report that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// Where a server's pod can be asked.
pub(super) fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.pod_ip.as_deref()?.parse().ok()
}

/// The report of the server at this address, once there is a permit.
///
/// # Errors
/// What happened instead, for people.
pub(super) async fn report(permits: &Semaphore, address: IpAddr) -> Result<Report, String> {
    // It is never closed.
    let _permit = permits.acquire().await;
    match tokio::time::timeout(TIMEOUT, fetch(address)).await {
        Ok(Ok(report)) if report.models.is_empty() => Err("its report names no model".to_owned()),
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

async fn fetch(address: IpAddr) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((address, MANAGEMENT_PORT)).await?;
    let request = Request::get(REPORT_PATH).body(Full::default())?;
    let (body, _) = inference_server::send(stream, request, MAX_BYTES).await?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
pub(super) mod fixtures;
