//! Schemas of quantities: CPU, memory and space.

use super::constraints;
use schemars::{Schema, SchemaGenerator, json_schema};

/// `resources.requests` and `.limits`: resource name to quantity.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "x-kubernetes-validations": [constraints::quantity()],
        },
        "x-kubernetes-validations": [constraints::resource_names()],
    })
}

/// The same for the resources that every container has.
pub(super) fn few_quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 3,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": QUANTITY,
        },
        "x-kubernetes-validations": [constraints::own_resource_names()],
    })
}

/// Space on a volume.
pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true, "pattern": QUANTITY})
}

/// A positive quantity in the usual notations.
const QUANTITY: &str = "^[0-9.]{1,20}(m|k|[KMGT]i?)?$";

/// Memory of a device.
pub(super) fn memory(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 32,
        "x-kubernetes-validations": [constraints::memory()],
    })
}
