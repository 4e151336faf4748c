//! The committed CRDs are what the Rust types say, and stay small.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use modelservice_operator::crd;

fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("crds")
        .join(name)
}

/// Otherwise `kubectl apply -f crds/` installs an API that differs from the operator's. `make crds` rewrites them.
#[test]
fn committed_definitions_equal_the_generated_ones() {
    for definition in crd::definitions() {
        let generated = serde_saphyr::to_string(&definition).unwrap();
        let path = path(&format!("{}.yaml", definition.spec.names.plural));
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "{} is stale: run `make crds`",
            path.display()
        );
    }
}

/// Larger ones slow down every API server and every `kubectl`. What is applied is the YAML; stored as JSON, it is half as
/// large.
#[test]
fn definitions_stay_below_100_kilobytes() {
    for definition in crd::definitions() {
        let size = serde_saphyr::to_string(&definition).unwrap().len();
        assert!(
            size < 100_000,
            "{} has {size} bytes",
            definition.spec.names.plural
        );
    }
}

/// `kubectl explain` is the first documentation that users see.
#[test]
fn every_field_of_ours_is_described() {
    for definition in crd::definitions() {
        let schema = definition.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .clone()
            .unwrap();
        for (field, property) in schema.properties.clone().unwrap() {
            if ["apiVersion", "kind", "metadata"].contains(&field.as_str()) {
                continue;
            }
            for (name, nested) in property.properties.clone().unwrap_or_default() {
                assert!(nested.description.is_some(), "{field}.{name} has no description");
            }
        }
    }
}
