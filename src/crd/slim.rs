//! Slim: leaves out of the definitions what changes nothing for the API server. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Slims the schemas of a definition.
pub(super) fn slim(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let versions = definition.spec.versions.iter_mut();
    versions
        .filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
        .for_each(schema);
    definition
}

fn schema(props: &mut JSONSchemaProps) {
    // Without it, the API server drops a null, which then means the same as an absent field.
    props.nullable = None;
    // The bounds are narrower than the format's.
    if props.minimum.is_some() && props.maximum.is_some() {
        props.format = None;
    }
    // It is implied.
    if props.x_kubernetes_int_or_string == Some(true) {
        props.any_of = None;
    }
    props
        .properties
        .iter_mut()
        .flat_map(|fields| fields.values_mut())
        .for_each(schema);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut props.items {
        schema(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut props.additional_properties {
        schema(values);
    }
}
