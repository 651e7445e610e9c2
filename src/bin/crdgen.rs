//! Writes the custom resource definitions (`crds/` for `kubectl apply`, `config/crd/` for kustomize, and the chart's templates), and the
//! references for people (`docs/reasons.md`, `docs/versions.md`, `docs/platforms.md`, `docs/redaction.md`, `docs/kubectl-tracing.md`,
//! `docs/checks.md`), and the schemas of what the plugin prints for programs (`docs/schema/`).
//!
//! `make generate` runs it, `make verify-generated` proves that nothing was edited by hand or forgotten.
//! One argument may name another root folder than this package's.

use std::error::Error;
use std::path::{Path, PathBuf};

use clustertracing::api::{ClusterTracing, NodeTracing, condition};
use clustertracing::plan::collector::redaction;
use clustertracing::{cli, component};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

const HEADER: &str = "# Generated from src/api by `make generate`: do not edit.\n";

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    for crd in [ClusterTracing::crd(), NodeTracing::crd()] {
        let file = format!("clustertracing.dev_{}.yaml", crd.spec.names.plural);
        let text = render(&crd)?;
        write(&root.join("crds").join(&file), &text)?;
        write(&root.join("config/crd").join(&file), &text)?;
        write(&root.join("charts/clustertracing/templates/crds").join(&file), &chart_template(&text))?;
    }
    write(&root.join("docs/reasons.md"), &condition::reference())?;
    write(&root.join("docs/versions.md"), &component::reference())?;
    write(&root.join("docs/redaction.md"), &redaction::reference())?;
    write(&root.join("docs/platforms.md"), &component::owner::platforms())?;
    write(&root.join("docs/kubectl-tracing.md"), &cli::reference())?;
    write(&root.join("docs/checks.md"), &cli::checks_reference())?;
    for (file, schema) in cli::schemas() {
        write(&root.join("docs/schema").join(file), &schema)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Box<dyn Error>> {
    std::fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()).into())
}

/// The definition as YAML, with schemas that say nothing twice.
fn render(crd: &CustomResourceDefinition) -> Result<String, Box<dyn Error>> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                slim(schema);
            }
        }
    }
    Ok(format!("{HEADER}{}", serde_yaml::to_string(&value)?))
}

/// Removes from a schema, and from those in it, what Rust's types add and the API must not have: `nullable`, which lets an explicit null through
/// where a field is only optional (and which server-side apply and merge patches cannot express), and `title`, the Rust type's name.
fn slim(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    object.remove("title");
    for (keyword, inner) in object.iter_mut() {
        match keyword.as_str() {
            // Names of fields, whatever they are called.
            "properties" => inner.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()).for_each(slim),
            "items" | "additionalProperties" | "not" => slim(inner),
            "allOf" | "anyOf" | "oneOf" => inner.as_array_mut().into_iter().flatten().for_each(slim),
            _ => {}
        }
    }
}

/// The same as a template of the chart: switched by `crds.enabled`, kept at an uninstall by `crds.keep`.
fn chart_template(crd: &str) -> String {
    // The text is data to the template engine: what looks like an action must come out as it is.
    let literal = crd.replace("{{", "{{ \"{{\" }}");
    let metadata = "metadata:\n  \
        labels:\n    {{- include \"clustertracing.labels\" . | nindent 4 }}\n  \
        {{- if .Values.crds.keep }}\n  \
        annotations:\n    helm.sh/resource-policy: keep\n  \
        {{- end }}\n";
    format!("{{{{- if .Values.crds.enabled }}}}\n{}{{{{- end }}}}\n", literal.replacen("metadata:\n", metadata, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slim_removes_keywords_and_keeps_fields_of_the_same_name() {
        let mut schema = json!({
            "title": "Spec", "nullable": true, "type": "object",
            "properties": {
                "title": {"type": "string", "nullable": true, "description": "A field that is called title."},
                "list": {"type": "array", "items": {"title": "Item", "anyOf": [{"nullable": true, "type": "integer"}]}},
                "map": {"type": "object", "additionalProperties": {"title": "Value", "type": "string"}}
            }
        });
        slim(&mut schema);
        let expected = json!({
            "type": "object",
            "properties": {
                "title": {"type": "string", "description": "A field that is called title."},
                "list": {"type": "array", "items": {"anyOf": [{"type": "integer"}]}},
                "map": {"type": "object", "additionalProperties": {"type": "string"}}
            }
        });
        assert_eq!(schema, expected);
    }

    #[test]
    fn enum_values_stay_as_they_are() {
        let mut schema = json!({"enum": ["title", {"nullable": true}], "default": {"title": "x"}});
        let before = schema.clone();
        slim(&mut schema);
        assert_eq!(schema, before);
    }

    #[test]
    fn chart_template_hides_template_syntax_in_descriptions() {
        let text = chart_template("metadata:\n  name: x\nspec:\n  description: a {{ b }}\n");
        assert!(text.contains("description: a {{ \"{{\" }} b }}\n"), "{text}");
        assert_eq!(text.matches("crds.enabled").count(), 1);
    }
}
