//! docs/api.md from the CRDs: one table per object, with types, defaults, bounds and rules.

use serde_json::Value;
use std::fmt::Write as _;

pub(crate) fn render(definitions: &[String]) -> String {
    let mut page = String::from(
        "# API reference\n\nGenerated from `crds/*.yaml` by `UPDATE_GENERATED=1 cargo test --test chart`; do \
         not edit. The same is shown by `kubectl explain modelservice.spec --recursive`.\n",
    );
    for definition in definitions {
        let definition: Value = serde_saphyr::from_str(definition).unwrap();
        let names = &definition["spec"]["names"];
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        let _ = write!(
            page,
            "\n## {}\n\n{}\n\n`apiVersion: {}/{}`, {}; short name `{}`.\n",
            text(names, "kind"),
            prose(schema),
            text(&definition["spec"], "group"),
            text(version, "name"),
            text(&definition["spec"], "scope").to_lowercase(),
            names["shortNames"][0].as_str().unwrap(),
        );
        rules(&mut page, schema);
        for part in ["spec", "status"] {
            if let Some(object) = schema["properties"].get(part) {
                table(&mut page, &format!("{}.{part}", text(names, "kind")), object);
            }
        }
    }
    page
}

/// A table for an object, then tables for the objects in it that are described here.
fn table(page: &mut String, path: &str, object: &Value) {
    let _ = write!(
        page,
        "\n### `{path}`\n\n{}\n\n| Field | Type | Default | Description |\n|---|---|---|---|\n",
        prose(object)
    );
    let required: Vec<&str> = object["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = object["properties"].as_object().unwrap();
    for (name, field) in properties {
        let default = field
            .get("default")
            .map(|value| format!("`{value}`"))
            .unwrap_or_default();
        let mark = if required.contains(&name.as_str()) {
            " (required)"
        } else {
            ""
        };
        let _ = writeln!(
            page,
            "| `{name}`{mark} | {} | {} | {} |",
            type_of(field),
            cell(&default),
            cell(&described(field))
        );
    }
    rules(page, object);
    for (name, field) in properties {
        if let Some(nested) = ours(field) {
            let suffix = if field["type"] == "array" { "[]" } else { "" };
            table(page, &format!("{path}.{name}{suffix}"), nested);
        }
    }
}

/// One of our own objects, whose fields are described here. Kubernetes describes its own types.
fn ours(field: &Value) -> Option<&Value> {
    let object = if field["type"] == "array" {
        &field["items"]
    } else {
        field
    };
    let first = object["properties"].as_object()?.values().next()?;
    first.get("description").map(|_| object)
}

fn type_of(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some("object") => match field.get("additionalProperties") {
            Some(values) => format!("map to {}", type_of(values)),
            None => "object".to_owned(),
        },
        Some(other) => other.to_owned(),
        None if field["x-kubernetes-int-or-string"] == true => "quantity".to_owned(),
        None => "any".to_owned(),
    }
}

/// The description and the bounds.
fn described(field: &Value) -> String {
    let number = |key: &str| {
        field
            .get(key)
            .and_then(Value::as_f64)
            .map(|value| format!("{value}"))
    };
    let mut all = vec![prose(field)];
    match (number("minimum"), number("maximum")) {
        (Some(least), Some(most)) => all.push(format!("{least} to {most}.")),
        (Some(least), None) => all.push(format!("At least {least}.")),
        (None, Some(most)) => all.push(format!("At most {most}.")),
        (None, None) => {}
    }
    for (key, what) in [
        ("maxLength", "characters"),
        ("maxItems", "items"),
        ("maxProperties", "entries"),
    ] {
        all.extend(number(key).map(|most| format!("At most {most} {what}.")));
    }
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .map(|value| format!("`{}`", value.as_str().unwrap_or_default()))
            .collect();
        all.push(format!("One of {}.", values.join(", ")));
    }
    all.extend(
        field["pattern"]
            .as_str()
            .map(|pattern| format!("Matches `{pattern}`.")),
    );
    for rule in validations(field).filter(|_| ours(field).is_none()) {
        all.push(format!("Rule: {rule}."));
    }
    all.retain(|part| !part.is_empty());
    all.join(" ")
}

fn rules(page: &mut String, object: &Value) {
    let rules: Vec<String> = validations(object).map(|rule| format!("- {rule}")).collect();
    if !rules.is_empty() {
        let _ = write!(page, "\nRules:\n\n{}\n", rules.join("\n"));
    }
}

fn validations(object: &Value) -> impl Iterator<Item = &str> {
    object["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["message"].as_str())
}

fn prose(object: &Value) -> String {
    object["description"]
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Placeholders such as `<64 hex>` would be tags, and bars would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap()
}
