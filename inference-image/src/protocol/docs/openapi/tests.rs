#![allow(clippy::unwrap_used)]

use super::DESCRIPTION;
use crate::protocol::routing::table::routes;
use std::collections::{BTreeMap, BTreeSet};

type Methods = BTreeSet<String>;

/// The path as the router writes it: there, a parameter extends to the next slash, so `:classify` belongs to it, and
/// a parameter may stand for the rest of a path.
fn route(path: &str) -> String {
    let path = match path.rsplit_once(':') {
        Some((path, verb)) if !verb.contains('/') => path,
        _ => path,
    };
    path.replace("{path}", "{*path}")
}

fn described() -> BTreeMap<String, Methods> {
    let document = DESCRIPTION.clone().unwrap();
    let mut described = BTreeMap::<_, Methods>::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters");
        let methods = methods.map(|method| method.to_uppercase());
        described.entry(route(path)).or_default().extend(methods);
    }
    described
}

/// Finds routes that are not described, and described routes that do not exist.
#[test]
fn what_is_described_is_what_is_routed() {
    let described = described();
    let mut routed = BTreeMap::<_, Methods>::new();
    for route in routes().known() {
        let methods = routed.entry(route.path.clone()).or_default();
        match &route.method {
            Some(method) => methods.extend([method.to_string()]),
            // The methods that clients use are described.
            None => methods.extend(described.get(&route.path).into_iter().flatten().cloned()),
        }
    }
    assert_eq!(
        described, routed,
        "left is described in openapi.yaml, right is routed in routing/table.rs"
    );
}
