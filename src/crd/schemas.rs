//! Schemas of Kubernetes' own types inside ours: like those of the API server, but without nested descriptions (a CRD
//! stays below 100 KB), and with limits where a CEL rule reads them.

use super::{constraints, refusals};
use k8s_openapi::{
    api::{autoscaling::v2, core::v1},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

pub(super) fn behavior(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = stripped::<v2::HorizontalPodAutoscalerBehavior>(generator);
    constrain(
        &mut schema,
        json!({
            "policies": {"maxItems": 16},
            "type": {"enum": ["Pods", "Percent"]},
            "value": {"minimum": 1},
            "periodSeconds": {"minimum": 1, "maximum": 1800},
            "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
            "stabilizationWindowSeconds": {"minimum": 0, "maximum": 3600},
            "tolerance": {"maxLength": 32, "x-kubernetes-validations": [constraints::quantity()]},
        }),
    );
    schema
}

pub(super) fn env(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<v1::EnvVar>(generator, 64);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["name"]));
    constrain(
        &mut schema,
        json!({
            // Also the names of ConfigMaps and Secrets that are referred to.
            "name": {"minLength": 1, "maxLength": 256, "pattern": "^[-._A-Za-z0-9]+$"},
            "key": {"minLength": 1, "maxLength": 253, "pattern": "^[-._A-Za-z0-9]+$"},
            // Linux does not start a program with a longer value.
            "value": {"maxLength": 131_072},
            "fieldPath": {"pattern": r"^(metadata\.(name|namespace|uid|(labels|annotations)\['.+'\])|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?))$"},
            "resource": {"pattern": r"^(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-.+)$"},
            "divisor": {"maxLength": 32, "x-kubernetes-validations": [constraints::quantity()]},
        }),
    );
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        let both = Rule::new("!has(self.value) || self.value == '' || !has(self.valueFrom)")
            .message("set either value or valueFrom, not both");
        let rules: Vec<Rule> = [both].into_iter().chain(refusals::variable()).collect();
        items.insert("x-kubernetes-validations".into(), json!(rules));
    }
    schema
}

pub(super) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<v1::Toleration>(generator, 32);
    constrain(
        &mut schema,
        json!({
            "key": key(),
            "value": value(),
            "operator": {"enum": ["", "Exists", "Equal", "Lt", "Gt"]},
            "effect": {"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]},
        }),
    );
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        let rules = [
            (
                "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
                "without a key, operator must be Exists, which tolerates every taint",
            ),
            (
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "operator Exists takes no value",
            ),
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds needs effect NoExecute",
            ),
        ];
        items.insert("x-kubernetes-validations".into(), json!(rules.map(Rule::from)));
    }
    schema
}

pub(super) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = stripped::<v1::Affinity>(generator);
    constrain(&mut schema, scheduling());
    selectors(&mut schema);
    schema
}

/// Each term is combined with each of a ModelService, so there are few.
pub(super) fn node_affinity(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = stripped::<v1::NodeAffinity>(generator);
    constrain(&mut schema, scheduling());
    let few = json!({"maxItems": 16});
    constrain(
        &mut schema,
        json!({"nodeSelectorTerms": few, "preferredDuringSchedulingIgnoredDuringExecution": few}),
    );
    schema
}

pub(super) fn topology_spread(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<v1::TopologySpreadConstraint>(generator, 8);
    constrain(&mut schema, scheduling());
    selectors(&mut schema);
    schema
}

pub(super) fn image_pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<v1::LocalObjectReference>(generator, 8);
    constrain(&mut schema, json!({"name": name()}));
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("required".into(), json!(["name"]));
    }
    schema
}

/// Options of an execution provider.
pub(super) fn strings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096}
    })
}

/// Labels and node selectors.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "maxLength": constraints::MAX_VALUE_LENGTH,
            "x-kubernetes-validations": [constraints::label_value()],
        },
        "x-kubernetes-validations": [constraints::label_keys()],
    })
}

pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [constraints::annotation_keys()],
    })
}

/// What affinities and spread constraints have in common. Operators as patterns, which take a line where a list takes six.
fn scheduling() -> Value {
    json!({
        "key": key(),
        "topologyKey": key(),
        "operator": pattern("^(In|NotIn|Exists|DoesNotExist|Gt|Lt)$"),
        "values": {"items": pattern(constraints::NODE_VALUE_PATTERN)},
        "weight": {"minimum": 1, "maximum": 100},
        "namespaces": {"items": name()},
        "matchLabelKeys": {"items": key()},
        "mismatchLabelKeys": {"items": key()},
        "maxSkew": {"minimum": 1},
        "minDomains": {"minimum": 1},
        "whenUnsatisfiable": {"enum": ["DoNotSchedule", "ScheduleAnyway"]},
        "nodeAffinityPolicy": {"enum": ["Honor", "Ignore"]},
        "nodeTaintsPolicy": {"enum": ["Honor", "Ignore"]},
    })
}

/// Label selectors cannot compare numbers.
fn selectors(schema: &mut Schema) {
    let narrower = json!({
        "operator": pattern("^(In|NotIn|Exists|DoesNotExist)$"),
        "values": {"items": value()},
        "matchLabels": {"additionalProperties": value()},
    });
    for selector in ["labelSelector", "namespaceSelector"] {
        each(schema.as_object_mut(), selector, &mut |found| {
            extend_each(found, &narrower);
        });
    }
}

fn key() -> Value {
    pattern(constraints::KEY_PATTERN)
}

fn value() -> Value {
    pattern(constraints::VALUE_PATTERN)
}

fn name() -> Value {
    pattern(constraints::NAME_PATTERN)
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

/// Adds to the properties of these names, wherever they are.
fn constrain(schema: &mut Schema, additions: Value) {
    if let Some(schema) = schema.as_object_mut() {
        extend_each(schema, &additions);
    }
}

fn extend_each(schema: &mut Map<String, Value>, additions: &Value) {
    for (name, addition) in additions.as_object().into_iter().flatten() {
        each(Some(&mut *schema), name, &mut |found| {
            found.extend(addition.as_object().cloned().unwrap_or_default());
        });
    }
}

/// Visits the property of this name, wherever it is.
fn each(schema: Option<&mut Map<String, Value>>, name: &str, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    for (key, nested) in schema.into_iter().flatten() {
        if key == "properties"
            && let Some(found) = nested.get_mut(name).and_then(Value::as_object_mut)
        {
            visit(found);
        }
        each(nested.as_object_mut(), name, visit);
    }
}

pub(super) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = list::<Condition>(generator, 32);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
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

/// Removes descriptions, but not a property named `description`.
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
