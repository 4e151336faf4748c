//! The operator's rights are exactly the minimal set. A new right is a decision: it has to be listed here too.

use crate::helm::{CHART, Helm, NAMESPACE, RELEASE, arguments, objects, of_kind, reference, value_sets};
use crate::read;
use serde_json::Value;
use std::collections::BTreeSet;

/// (where, API group, resource, verb); where is a namespace or `*` for the whole cluster.
type Right = (String, String, String, String);

const CHILD: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// What the operator may do in the namespaces that it serves.
const IN_SERVED_NAMESPACES: &[(&str, &str, &[&str])] = &[
    ("serving.modelservice.dev", "modelservices", &["list", "watch"]),
    ("serving.modelservice.dev", "modelservices/status", &["patch"]),
    (
        "serving.modelservice.dev",
        "modelservices/finalizers",
        &["update"],
    ),
    ("apps", "deployments", CHILD),
    ("", "services", CHILD),
    ("autoscaling", "horizontalpodautoscalers", CHILD),
    ("policy", "poddisruptionbudgets", CHILD),
    ("resource.k8s.io", "resourceclaimtemplates", CHILD),
    ("resource.k8s.io", "resourceclaims", &["get"]),
    ("", "pods", &["list", "watch", "create", "delete"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

/// It must not touch any other Lease of the namespace.
const LEASES: &[(&str, &str, &[&str])] = &[
    ("coordination.k8s.io", "leases", &["create"]),
    (
        "coordination.k8s.io",
        "leases named serving-modelservice-operator",
        &["get", "update"],
    ),
];

/// What it needs to say where the devices of AcceleratorClasses are.
const INVENTORY: &[(&str, &str, &[&str])] = &[
    (
        "serving.modelservice.dev",
        "acceleratorclasses/status",
        &["patch"],
    ),
    ("", "nodes", &["list", "watch"]),
    ("resource.k8s.io", "deviceclasses", &["list", "watch"]),
];

const CLASSES: (&str, &str) = ("serving.modelservice.dev", "acceleratorclasses");

fn rights(place: &str, list: &[(&str, &str, &[&str])]) -> BTreeSet<Right> {
    list.iter()
        .flat_map(|(group, resource, verbs)| {
            verbs
                .iter()
                .map(move |verb| (place.into(), (*group).into(), (*resource).into(), (*verb).into()))
        })
        .collect()
}

/// All rights that bindings give to a service account.
fn rights_of(objects: &[Value], account: &str) -> BTreeSet<Right> {
    let mut found = BTreeSet::new();
    for binding in objects
        .iter()
        .filter(|o| ["RoleBinding", "ClusterRoleBinding"].contains(&o["kind"].as_str().unwrap()))
    {
        let bound = binding["subjects"]
            .as_array()
            .unwrap()
            .iter()
            .any(|subject| subject["name"] == account);
        if !bound {
            continue;
        }
        let place = binding["metadata"]["namespace"].as_str().unwrap_or("*");
        let role = objects
            .iter()
            .find(|role| {
                role["kind"] == binding["roleRef"]["kind"]
                    && role["metadata"]["name"] == binding["roleRef"]["name"]
                    && role["metadata"]["namespace"]
                        == if role["kind"] == "Role" {
                            place.into()
                        } else {
                            Value::Null
                        }
            })
            .unwrap_or_else(|| panic!("{} binds no role of this chart", reference(binding)));
        for rule in role["rules"].as_array().unwrap() {
            let texts = |key: &str| {
                rule[key]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|text| text.as_str().unwrap())
                    .collect::<Vec<_>>()
            };
            assert!(rule.get("nonResourceURLs").is_none());
            let names = rule
                .get("resourceNames")
                .map(|names| format!(" named {}", names[0].as_str().unwrap()));
            for group in texts("apiGroups") {
                for resource in texts("resources") {
                    let resource = format!("{resource}{}", names.clone().unwrap_or_default());
                    for verb in texts("verbs") {
                        found.insert((place.into(), group.into(), resource.clone(), verb.into()));
                    }
                }
            }
        }
    }
    found
}

fn rendered(arguments: &[&str]) -> Vec<Value> {
    objects(&Helm::Four.template(arguments).unwrap())
}

const ACCOUNT: &str = "serving-modelservice-operator";

/// A platform team must not have to grant more than this.
#[test]
fn cluster_wide_rights_are_the_least_set() {
    let wanted: BTreeSet<Right> = [
        rights("*", IN_SERVED_NAMESPACES),
        rights("*", &[(CLASSES.0, CLASSES.1, &["list", "watch", "create"])]),
        rights("*", INVENTORY),
        rights(NAMESPACE, LEASES),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(rights_of(&rendered(&[]), ACCOUNT), wanted);
}

#[test]
fn namespaced_rights_are_the_least_set_and_one_cluster_role_reads_classes() {
    let both = || {
        rights("team-a", IN_SERVED_NAMESPACES)
            .into_iter()
            .chain(rights("team-b", IN_SERVED_NAMESPACES))
    };
    let own = rights(NAMESPACE, LEASES);
    let reads = rights("*", &[(CLASSES.0, CLASSES.1, &["list", "watch"])]);

    let namespaced = rendered(&["--set", "watchNamespaces={team-a,team-b}"]);
    let wanted: BTreeSet<Right> = both().chain(own.clone()).chain(reads).collect();
    assert_eq!(rights_of(&namespaced, ACCOUNT), wanted);

    let none = rendered(&[
        "--set",
        "watchNamespaces={team-a,team-b},accelerators.clusterRole.enabled=false",
    ]);
    let wanted: BTreeSet<Right> = both().chain(own).collect();
    assert_eq!(rights_of(&none, ACCOUNT), wanted);
}

/// Without leader election there is no Lease to write.
#[test]
fn no_lease_rights_without_leader_election() {
    let rights = rights_of(&rendered(&["--set", "leaderElection.enabled=false"]), ACCOUNT);
    assert!(!rights.iter().any(|(_, group, ..)| group == "coordination.k8s.io"));
}

/// With any values: reviewers first look for the right to read every Secret of a cluster.
#[test]
fn no_role_names_secrets_or_a_wildcard() {
    for set in value_sets() {
        let rendered = rendered(&arguments(&set));
        let roles: Vec<&Value> = of_kind(&rendered, "ClusterRole")
            .chain(of_kind(&rendered, "Role"))
            .collect();
        assert!(!roles.is_empty());
        for role in roles {
            let rules = role["rules"].to_string();
            for forbidden in [
                "\"*\"",
                "secrets",
                "pods/log",
                "pods/exec",
                "impersonate",
                "escalate",
                "\"bind\"",
                "\"roles\"",
            ] {
                assert!(
                    !rules.contains(forbidden),
                    "{} has {forbidden}: {rules}",
                    reference(role)
                );
            }
        }
    }
}

/// If a right is missing, RBAC refuses when a namespace's admin installs the chart; a superfluous right would be an
/// unneeded grant.
#[test]
fn the_installers_role_is_what_the_charts_roles_have_beyond_kubernetes_own() {
    let namespaced = rendered(&["--values", &format!("{CHART}/ci/namespaced-values.yaml")]);
    let beyond = |right: &&Right| {
        right.0 == "team-a" && ["serving.modelservice.dev", "events.k8s.io"].contains(&&*right.1)
    };
    let self_test = rights_of(&namespaced, &format!("{ACCOUNT}-self-test"));
    let wanted: BTreeSet<Right> = rights_of(&namespaced, ACCOUNT)
        .union(&self_test)
        .filter(beyond)
        .cloned()
        .collect();
    let role = &objects(&read("charts/installer-role.yaml"))[0];
    let binding = serde_json::json!({
        "kind": "RoleBinding", "metadata": {"namespace": "team-a"},
        "roleRef": {"kind": "ClusterRole", "name": role["metadata"]["name"]}, "subjects": [{"name": "installer"}],
    });
    assert_eq!(rights_of(&[role.clone(), binding], "installer"), wanted);
}

/// No other account gets rights, and the test's account gets none that outlive the test.
#[test]
fn only_the_operator_and_the_self_test_are_bound() {
    for set in value_sets() {
        let rendered = rendered(&arguments(&set));
        let accounts: BTreeSet<&str> = of_kind(&rendered, "ServiceAccount")
            .map(|a| a["metadata"]["name"].as_str().unwrap())
            .collect();
        for binding in rendered
            .iter()
            .filter(|o| o["kind"].as_str().unwrap().ends_with("RoleBinding"))
        {
            for subject in binding["subjects"].as_array().unwrap() {
                assert_eq!(subject["kind"], "ServiceAccount");
                assert!(
                    accounts.contains(subject["name"].as_str().unwrap()),
                    "{}",
                    reference(binding)
                );
            }
        }
        for object in rendered
            .iter()
            .filter(|o| o["metadata"]["name"].as_str().unwrap().ends_with("-self-test"))
        {
            let annotations = &object["metadata"]["annotations"];
            assert_eq!(annotations["helm.sh/hook"], "test", "{}", reference(object));
            if object["kind"] != "Pod" {
                let policy = annotations["helm.sh/hook-delete-policy"].as_str().unwrap();
                assert!(policy.contains("hook-succeeded"), "{}", reference(object));
            }
        }
    }
    let test = rights_of(
        &rendered(&[]),
        &format!("{RELEASE}-modelservice-operator-self-test"),
    );
    let wanted = [(
        "serving.modelservice.dev",
        "modelservices",
        &["get", "list", "watch", "create", "patch", "delete"][..],
    )];
    assert_eq!(test, rights(NAMESPACE, &wanted));
}

/// Otherwise the running operator has no rights.
#[test]
fn the_operators_pod_uses_the_bound_account() {
    for set in value_sets() {
        let rendered = rendered(&arguments(&set));
        let pod = &of_kind(&rendered, "Deployment").next().unwrap()["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().unwrap();
        assert!(
            !rights_of(&rendered, account).is_empty(),
            "{CHART}: {account} has no rights"
        );
        assert!(of_kind(&rendered, "ServiceAccount").any(|a| a["metadata"]["name"] == account));
    }
}
