//! The JSON Schema of `model.yaml`, with which editors complete it and show mistakes. A test makes it from the types.

/// The text of the schema (JSON Schema draft 7, which every editor understands).
pub const SCHEMA: &str = include_str!("../../../docs/schemas/model.schema.json");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::package::manifest::Manifest;
    use schemars::Schema;
    use schemars::generate::SchemaSettings;
    use schemars::transform::{RecursiveTransform, Transform as _};
    use std::path::Path;

    fn generated() -> String {
        let mut schema = SchemaSettings::draft07()
            .into_generator()
            .into_root_schema_for::<Manifest>();
        // JSON Schema does not define `uint32` and the like, and some editors warn about them.
        RecursiveTransform(|schema: &mut Schema| drop(schema.remove("format"))).transform(&mut schema);
        schema.insert("title".to_owned(), "model.yaml".into());
        serde_json::to_string_pretty(&schema).unwrap() + "\n"
    }

    /// Otherwise an editor would mark a key that the server understands, or offer one that it does not.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let generated = generated();
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/model.schema.json");
            return std::fs::write(path, generated).unwrap();
        }
        assert_eq!(
            generated, SCHEMA,
            "it is stale: run `UPDATE_GENERATED=1 cargo test -p modelservice-server --lib schema`"
        );
    }
}
