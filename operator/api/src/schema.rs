//! Schemas that deriving does not give: Kubernetes types without their long descriptions, quantities, bounded maps. Pure.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// The schema of a Kubernetes type without its descriptions, which would make a CRD too large to apply from a client.
pub(crate) fn terse<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<T>();
    if let Some(object) = schema.as_object_mut() {
        object.values_mut().for_each(strip_descriptions);
        object.remove("description");
    }
    schema
}

fn strip_descriptions(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // A property may itself be called "description"; then its value is a schema, not a text.
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            object.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// A map from name to text with bounds, so that the cost of a rule over it can be estimated.
pub(crate) fn short_texts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 256 },
    })
}
