//! Routing: whether the Service, as it is now, sends requests to the servers. Pure.

use crate::{
    apply::Applied,
    crd::{ModelServiceStatus, REVISION_LABEL},
    observe::Observed,
    plan::ports,
    reason::Reason,
    revision::{pod_labels, revision_of},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Service, ServicePort, ServiceSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt as _;
use modelservice_contract::HTTP_PORT;
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Whether requests sent now are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// They are.
    Yes,
    /// No server could answer them.
    NoServer,
    /// Servers could, but the Service does not send requests to them; the reason, for a person.
    Astray(String),
}

impl Answers {
    /// Why requests do not reach the servers.
    pub(super) fn astray(&self) -> Option<&str> {
        match self {
            Self::Astray(why) => Some(why),
            Self::Yes | Self::NoServer => None,
        }
    }
}

/// Whether requests are answered by the revision that has the traffic, if servers of it are available.
pub(super) fn answers(
    observed: &Observed,
    applied: &Applied,
    previous: &ModelServiceStatus,
    serving: Option<&Deployment>,
) -> Answers {
    let Some(serving) = serving else {
        return Answers::NoServer;
    };
    let astray = match applied.endpoint() {
        Some(endpoint) => astray(observed, endpoint, serving),
        // Whatever prevents its creation is reported as a problem.
        None if applied.problem().is_some() => return Answers::NoServer,
        None => Some("it does not exist".to_owned()),
    };
    let told = astray.map(|why| {
        let name = observed.service.name_any();
        format!(
            "requests do not reach the servers because of Service {name}: {why}{}",
            who(applied)
        )
    });
    told.or_else(|| still_disputed(applied, previous, "Available"))
        .map_or(Answers::Yes, Answers::Astray)
}

/// Why requests are answered by another revision than the plan says, if they are.
pub(super) fn answered_by_another(
    applied: &Applied,
    previous: &ModelServiceStatus,
    planned: &str,
) -> Option<String> {
    let traffic = applied.traffic().filter(|traffic| *traffic != planned);
    let told = traffic.map(|traffic| {
        format!(
            "the Service sends requests to revision {traffic} instead of {planned}{}",
            who(applied)
        )
    });
    told.or_else(|| still_disputed(applied, previous, "Ready"))
}

/// What was reported about the Service, if it was corrected a moment ago and may soon be changed again: otherwise the
/// condition would flap with each correction.
fn still_disputed(applied: &Applied, previous: &ModelServiceStatus, type_: &str) -> Option<String> {
    let mut conditions = previous.conditions.iter();
    let told = conditions.find(|condition| condition.type_ == type_)?;
    let mut overrides = applied.overrides().iter();
    let is_disputed = overrides.any(|other| other.kind == "Service" && other.is_corrected);
    let was_told = told.status == "False" && told.reason == Reason::EndpointChanged.as_str();
    (was_told && is_disputed).then(|| told.message.clone())
}

/// Who changed the Service, if that is known.
fn who(applied: &Applied) -> String {
    let overrides = applied.overrides().iter();
    let of_service = overrides.filter(|other| other.kind == "Service");
    of_service.map(|other| format!(" ({other})")).collect()
}

fn astray(observed: &Observed, endpoint: &Service, serving: &Deployment) -> Option<String> {
    let spec = endpoint.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some("its type is ExternalName; set it to ClusterIP".to_owned());
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Some(
            "it is headless (spec.clusterIP is None), so that its ports are not mapped to those of the servers; delete it, and it is made anew"
                .to_owned(),
        );
    }
    selects_no_server(observed, spec, serving).or_else(|| leads_to_no_port(spec))
}

/// Why the selector takes none of a revision's ready servers.
fn selects_no_server(observed: &Observed, spec: &ServiceSpec, serving: &Deployment) -> Option<String> {
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return Some("it has no selector".to_owned());
    };
    let ready = observed
        .pods_of(revision_of(serving)?)
        .filter(|pod| pod.is_ready());
    let mut labels: Vec<&Labels> = ready.map(|pod| pod.labels()).collect();
    if labels.is_empty() {
        // The cache is behind what the Deployment says.
        labels.push(serving.labels());
    }
    let lacking = labels.iter().map(|labels| lacking(selector, labels, serving));
    // One selected server is enough.
    let (key, value) = lacking.collect::<Option<Vec<_>>>()?.into_iter().next()?;
    Some(if key == REVISION_LABEL {
        format!("its selector asks for revision {value}, which does not exist")
    } else {
        format!("its selector asks for {key}={value}, which the servers' pods do not carry")
    })
}

/// What a selector demands that a pod lacks. The cache keeps only some of a pod's labels; the others are those of its
/// template.
fn lacking<'a>(
    selector: &'a Labels,
    labels: &Labels,
    serving: &Deployment,
) -> Option<(&'a String, &'a String)> {
    let mut pairs = selector
        .iter()
        .filter(|(key, value)| labels.get(*key) != Some(value))
        .peekable();
    pairs.peek()?;
    let made_with = pod_labels(serving);
    pairs.find(|(key, value)| labels.contains_key(*key) || made_with.get(*key) != Some(value))
}

/// Which port is missing or leads elsewhere. A Service that is as planned is kept without its ports.
fn leads_to_no_port(spec: &ServiceSpec) -> Option<String> {
    let live = spec.ports.as_ref()?;
    let leads = |wanted: &ServicePort| {
        live.iter().any(|port| {
            port.port == wanted.port
                && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
                && (port.target_port == wanted.target_port
                    || port.target_port == Some(IntOrString::Int(HTTP_PORT.into())))
        })
    };
    let wanted = ports().into_iter().find(|wanted| !leads(wanted))?;
    Some(format!(
        "its port {} ({}) does not lead to the servers",
        wanted.port,
        wanted.name.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{cache::retention::Retention as _, fixtures::observed, plan::Plan};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// One server of one revision, which is ready and carries `labels` beside those of its template.
    fn served(labels: Value) -> (Observed, Plan) {
        let plan = observed(json!({})).planned();
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let mut served = observed(json!({}))
            .running(&plan, 1, 1)
            .routed(&plan)
            .pod(&plan, ready);
        let pod = Arc::make_mut(&mut served.pods[0]);
        let injected: Labels = serde_json::from_value(labels).unwrap();
        pod.metadata.labels.as_mut().unwrap().extend(injected);
        pod.trim();
        (served, plan)
    }

    /// What is reported if the Service is like this, before and after the cache has settled it.
    fn told(labels: Value, patch: Value) -> [Option<String>; 2] {
        let (mut served, plan) = served(labels);
        let mut endpoint = serde_json::to_value(served.endpoint.as_deref().unwrap()).unwrap();
        json_patch(&mut endpoint["spec"], patch);
        let mut endpoint: Service = serde_json::from_value(endpoint).unwrap();
        endpoint.trim();
        [false, true].map(|is_settled| {
            let mut endpoint = endpoint.clone();
            if is_settled {
                endpoint.settle();
            }
            served.endpoint = Some(Arc::new(endpoint));
            let applied = Applied::as_observed(plan.rollout.clone(), None, &served);
            let serving = served.deployments[0].as_ref();
            let answers = answers(&served, &applied, &ModelServiceStatus::default(), Some(serving));
            answers.astray().map(str::to_owned)
        })
    }

    fn json_patch(value: &mut Value, patch: Value) {
        for (key, field) in patch.as_object().unwrap() {
            value[key] = field.clone();
        }
    }

    fn selector(key: &str, value: &str) -> Value {
        let (_, plan) = served(json!({}));
        let mut selector = plan.endpoint.spec.unwrap().selector.unwrap();
        selector.insert(key.to_owned(), value.to_owned());
        json!({"selector": selector})
    }

    /// Otherwise no request is answered while the status says that all are.
    #[test]
    fn a_service_that_does_not_lead_to_the_servers_is_seen() {
        let ports = |http: Value| json!({"ports": [{"name": "x", "port": 80, "targetPort": http}, {"port": 8001, "targetPort": "http"}]});
        let mesh = || json!({"example.com/mesh": "on"});
        let table = [
            (json!({}), json!({}), None),
            (
                json!({}),
                selector("example.com/mesh", "on"),
                Some("asks for example.com/mesh=on, which"),
            ),
            (mesh(), selector("example.com/mesh", "on"), None),
            (
                mesh(),
                selector("example.com/mesh", "off"),
                Some("asks for example.com/mesh=off, which"),
            ),
            (
                json!({}),
                selector("app.kubernetes.io/name", "modelservice"),
                None,
            ),
            (
                json!({}),
                selector("app.kubernetes.io/name", "x"),
                Some("asks for app.kubernetes.io/name=x"),
            ),
            (
                json!({}),
                selector(REVISION_LABEL, "gone"),
                Some("asks for revision gone, which does not exist"),
            ),
            (json!({}), json!({"selector": {}}), Some("it has no selector")),
            (
                json!({}),
                json!({"type": "ExternalName"}),
                Some("its type is ExternalName"),
            ),
            (json!({}), json!({"clusterIP": "None"}), Some("it is headless")),
            (
                json!({}),
                json!({"type": "LoadBalancer", "clusterIP": "10.0.0.9"}),
                None,
            ),
        ];
        for (labels, patch, words) in table {
            for told in told(labels.clone(), patch.clone()) {
                let fits = match (words, &told) {
                    (Some(words), Some(told)) => told.contains(words),
                    (words, told) => words.is_none() && told.is_none(),
                };
                assert!(fits, "{labels} {patch}: {told:?}");
            }
        }
        for (target, words) in [
            (json!("http"), None),
            (json!(8080), None),
            (json!(9), Some("its port 80 (http)")),
            (json!("management"), Some("its port 80 (http)")),
        ] {
            let [told, _] = told(json!({}), ports(target.clone()));
            assert_eq!(told.is_some(), words.is_some(), "{target}: {told:?}");
            assert!(told.is_none_or(|told| told.contains(words.unwrap())));
        }
        let only = json!({"ports": [{"port": 80, "targetPort": "http"}]});
        assert!(
            told(json!({}), only)[0]
                .as_ref()
                .unwrap()
                .contains("its port 8001 (grpc)")
        );
    }

    /// One ready server that is selected answers; the cache may also be behind and show none.
    #[test]
    fn one_server_that_is_selected_is_enough() {
        let (served, plan) = served(json!({"example.com/mesh": "on"}));
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let mut served = served.pod(&plan, ready);
        let asked = selector("example.com/mesh", "on");
        let mut endpoint = plan.endpoint.clone();
        endpoint.spec.as_mut().unwrap().selector = serde_json::from_value(asked["selector"].clone()).unwrap();
        let deployment = served.deployments[0].clone();
        assert_eq!(astray(&served, &endpoint, &deployment), None);
        served.pods.remove(0);
        assert!(astray(&served, &endpoint, &deployment).is_some());
        served.pods.clear();
        assert!(astray(&served, &endpoint, &deployment).is_some());
        assert_eq!(astray(&served, &plan.endpoint, &deployment), None);
    }
}
