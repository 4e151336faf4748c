//! The API server's audit log: who requested what, when, and with what result.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    time::{Duration, Instant},
};

pub(crate) const OPERATOR: &str = "modelservice-operator/";
/// User agent of the client that creates the same objects without an operator.
pub(crate) const BARE: &str = "bare-client/";

/// One answered request.
pub(crate) struct Request {
    pub(crate) agent: String,
    pub(crate) verb: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) is_dry_run: bool,
    pub(crate) code: i64,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let subresource = text("/objectRef/subresource");
        let resource = text("/objectRef/resource");
        Some(Self {
            agent: text("/userAgent"),
            verb: text("/verb"),
            resource: if subresource.is_empty() {
                resource
            } else {
                format!("{resource}/{subresource}")
            },
            name: text("/objectRef/name"),
            is_dry_run: text("/requestURI").contains("dryRun="),
            code: event
                .pointer("/responseStatus/code")
                .and_then(Value::as_i64)
                .unwrap_or(0),
            began: text("/requestReceivedTimestamp").parse().ok()?,
            ended: text("/stageTimestamp").parse().ok()?,
        })
    }

    /// Anything that may change an object, except events and the lease. A review is a question: nothing is stored.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete")
            && !matches!(self.resource.as_str(), "leases" | "events" | "selfsubjectreviews")
            && !self.is_dry_run
    }

    pub(crate) fn is_other(&self) -> bool {
        !self.is_write() && self.verb != "watch" && self.resource != "leases"
    }
}

pub(crate) fn requests(log: &Path) -> Vec<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(Request::parse).collect()
}

pub(crate) fn operator_requests(log: &Path) -> Vec<Request> {
    requests(log)
        .into_iter()
        .filter(|request| request.agent.starts_with(OPERATOR))
        .collect()
}

pub(crate) fn seen(log: &Path, wanted: impl Fn(&Request) -> bool) -> bool {
    operator_requests(log).iter().any(wanted)
}

/// The operator's requests, once it has sent none for 20 s (longer than a revision drains) except for the lease.
pub(crate) async fn quiet(log: &Path) -> Vec<Request> {
    let mut last = (0, Instant::now());
    loop {
        let all = operator_requests(log);
        let count = all
            .iter()
            .filter(|r| r.resource != "leases" && r.verb != "watch")
            .count();
        if count != last.0 {
            last = (count, Instant::now());
        }
        if last.1.elapsed() > Duration::from_secs(20) {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Seconds from the creation of the first service to that of the last child that `agent` created.
pub(crate) fn children_exist_after(log: &Path, agent: &str) -> f64 {
    let all = requests(log);
    let first = all
        .iter()
        .filter(|r| r.verb == "create" && r.resource == "modelservices")
        .map(|r| r.began)
        .min()
        .unwrap();
    let mut made = HashMap::new();
    for request in all
        .iter()
        .filter(|r| r.agent.starts_with(agent) && r.is_write() && r.code == 201)
    {
        if matches!(
            request.resource.as_str(),
            "deployments" | "services" | "horizontalpodautoscalers"
        ) {
            made.entry((request.resource.clone(), request.name.clone()))
                .or_insert(request.ended);
        }
    }
    for resource in ["services", "deployments", "horizontalpodautoscalers"] {
        let last = made
            .iter()
            .filter(|((of, _), _)| of == resource)
            .map(|(_, at)| at);
        let after = last.max().unwrap().duration_since(first).as_secs_f64();
        println!("    {after:8.1}  s: the last of the {resource}");
    }
    made.values().max().unwrap().duration_since(first).as_secs_f64()
}

/// Times from the arrival of a changed spec to its new Deployment, in milliseconds.
pub(crate) fn deployment_delays(log: &Path) -> Vec<f64> {
    let all = requests(log);
    let changes = all
        .iter()
        .filter(|r| r.verb == "patch" && r.resource == "modelservices" && !r.agent.starts_with(OPERATOR));
    changes
        .map(|change| {
            let made = all.iter().find(|r| {
                r.resource == "deployments"
                    && r.code == 201
                    && r.ended > change.began
                    && r.name.starts_with(&format!("{}-", change.name))
            });
            made.unwrap().ended.duration_since(change.ended).as_secs_f64() * 1000.0
        })
        .collect()
}

/// Seconds from a moment until the operator had first changed the Deployment of each of these services; those that it
/// has not changed yet are missing.
pub(crate) fn resized_after(log: &Path, services: &[String], from: Timestamp) -> Vec<f64> {
    let all = operator_requests(log);
    let resized = |service: &String| {
        let deployment = format!("{service}-");
        let patches = all.iter().filter(|r| {
            (r.verb.as_str(), r.resource.as_str(), r.code) == ("patch", "deployments", 200)
                && r.name.starts_with(&deployment)
                && r.began >= from
        });
        let first = patches.map(|r| r.ended).min()?;
        Some(first.duration_since(from).as_secs_f64())
    };
    services.iter().filter_map(resized).collect()
}

/// Prints the requests per service, by kind.
pub(crate) fn explain(requests: &[Request], count: usize) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests
        .iter()
        .filter(|r| r.verb != "watch" && r.resource != "leases")
    {
        *kinds
            .entry(format!("{} {} {}", request.verb, request.resource, request.code))
            .or_default() += 1;
    }
    for (kind, n) in kinds {
        println!("    {:8.2}  {kind}", n as f64 / count as f64);
    }
}

/// Prints the requests of the whole cluster between two moments, per service and client, the most frequent first.
pub(crate) fn explain_all(log: &Path, from: Timestamp, to: Timestamp, count: usize) {
    let mut clients: HashMap<String, usize> = HashMap::new();
    for request in requests(log) {
        if request.verb != "watch" && request.began >= from && request.began <= to {
            let agent = request.agent.split('/').next().unwrap_or_default();
            *clients.entry(agent.to_owned()).or_default() += 1;
        }
    }
    let mut clients: Vec<_> = clients.into_iter().collect();
    clients.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (agent, n) in clients {
        println!("    {:8.2}  requests of {agent}", n as f64 / count as f64);
    }
}
