//! Schemas of Kubernetes' own types inside ours: as the API server has them, without their nested
//! descriptions (a CRD stays below 100 KB), and bounded where a CEL rule looks inside.

use k8s_openapi::api::{autoscaling::v2, core::v1};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

/// `resources.requests` and `.limits`: resource name to quantity.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self >= 0 : (isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0)",
                "message": "must be a quantity of at least zero, for example 500m, 2 or 1Gi"
            }]
        }
    })
}

pub(super) fn behavior(generator: &mut SchemaGenerator) -> Schema {
    stripped::<v2::HorizontalPodAutoscalerBehavior>(generator)
}

pub(super) fn env(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<v1::EnvVar>(generator, 64);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["name"]));
    if let Some(name) = schema
        .pointer_mut("/items/properties/name")
        .and_then(Value::as_object_mut)
    {
        name.insert("maxLength".into(), 256.into());
    }
    schema
}

pub(super) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    list::<v1::Toleration>(generator, 32)
}

pub(super) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    stripped::<v1::Affinity>(generator)
}

pub(super) fn topology_spread(generator: &mut SchemaGenerator) -> Schema {
    list::<v1::TopologySpreadConstraint>(generator, 8)
}

pub(super) fn image_pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    list::<v1::LocalObjectReference>(generator, 8)
}

/// Labels, annotations, node selectors and provider options.
pub(super) fn strings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096}
    })
}

pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>(generator, 32);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}

fn list<T: JsonSchema>(generator: &mut SchemaGenerator, max_items: u32) -> Schema {
    let items = stripped::<T>(generator).to_value();
    json_schema!({"type": "array", "maxItems": max_items, "items": items})
}

fn stripped<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut inline = generator.settings().clone();
    inline.inline_subschemas = true;
    let mut schema = inline.into_generator().into_root_schema_for::<T>();
    for key in ["$schema", "title", "description"] {
        schema.remove(key);
    }
    if let Some(object) = schema.as_object_mut() {
        strip(object);
    }
    schema
}

/// Removes descriptions, but not a property that is called `description`.
fn strip(schema: &mut Map<String, Value>) {
    schema.remove("description");
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties
                    .values_mut()
                    .filter_map(Value::as_object_mut)
                    .for_each(strip);
            }
            ("default" | "enum", _) => {}
            (_, Value::Object(object)) => strip(object),
            (_, Value::Array(items)) => {
                items.iter_mut().filter_map(Value::as_object_mut).for_each(strip);
            }
            _ => {}
        }
    }
}
