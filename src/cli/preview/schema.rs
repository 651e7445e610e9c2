//! Fields that the resource's definition does not know: `kubectl apply` refuses them, or drops them without a word. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::api::ClusterTracing;
use crate::cli::explain::nearest;

/// A field that is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Its path: `spec.collector.exporters[0].nmae`.
    pub(super) path: String,
    /// Its name.
    pub(super) name: String,
    /// The field of the same parent that was probably meant.
    pub(super) nearest: Option<String>,
}

/// The first field of a ClusterTracing that its definition does not know.
pub(super) fn unknown_field(resource: &Value) -> Option<Unknown> {
    let definition = serde_json::to_value(ClusterTracing::crd()).unwrap_or_default();
    let mut schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default();
    // what the API server adds to every definition
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".to_owned(), Value::default());
        properties.insert("kind".to_owned(), Value::default());
        properties.insert("metadata".to_owned(), schemars::schema_for!(ObjectMeta).to_value());
    }
    look("", resource, &schema)
}

fn look(path: &str, value: &Value, schema: &Value) -> Option<Unknown> {
    match value {
        Value::Array(items) => {
            let schema = schema.get("items")?;
            items.iter().enumerate().find_map(|(i, item)| look(&format!("{path}[{i}]"), item, schema))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let properties = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties").filter(|others| !others.is_boolean());
            if let Some(known) = properties.and_then(|properties| properties.get(name)).or(others) {
                return look(&path, value, known);
            }
            // a schema that names no fields takes any
            let known = properties?.keys().map(String::as_str);
            Some(Unknown { path, name: name.clone(), nearest: nearest(name, known) })
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(resource: &Value) -> Option<(String, Option<String>)> {
        unknown_field(resource).map(|unknown| (unknown.path, unknown.nearest))
    }

    #[test]
    fn a_misspelt_field_is_found_wherever_it_stands_and_the_right_one_named() {
        for (resource, path, nearest) in [
            (json!({"sepc": {}}), "sepc", Some("spec")),
            (json!({"metadata": {"nmae": "cluster"}}), "metadata.nmae", Some("name")),
            (json!({"spec": {"samplingRate": 1}}), "spec.samplingRate", Some("samplingRatePerMillion")),
            (json!({"spec": {"kubeApiServer": {}}}), "spec.kubeApiServer", Some("kubeAPIServer")),
            (
                json!({"spec": {"collector": {"exporters": [{"name": "a"}, {"nmae": "b"}]}}}),
                "spec.collector.exporters[1].nmae",
                Some("name"),
            ),
            (json!({"spec": {"zzz": 1}}), "spec.zzz", None),
        ] {
            assert_eq!(found(&resource), Some((path.to_owned(), nearest.map(str::to_owned))), "{resource}");
        }
    }

    #[test]
    fn what_takes_any_name_is_not_looked_into() {
        let resource = json!({
            "apiVersion": "x", "kind": "y",
            "metadata": {"name": "cluster", "labels": {"any": "thing"}, "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            "spec": {"rollout": {"nodeSelector": {"any": "thing"}}, "collector": {"extraConfig": {"processors": {"any": {"thing": 1}}}}},
            "status": {"conditions": [{"type": "Ready"}]},
        });
        assert_eq!(found(&resource), None);
    }
}
