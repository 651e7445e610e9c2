//! The ClusterTracing that a person wrote, from its text, and what is wrong with it: at which line, and what would be right. Pure.

use std::fmt;

use serde_json::Value;

use super::schema::unknown_field;
use crate::api::{ClusterTracing, GROUP, State, VERSION};
use crate::cli::explain::suggestion;
use crate::manifest::position::{Position, position};
use crate::plan::validate::{Installation, Validated, validate};

/// Why a text is no ClusterTracing that can be used.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    position: Option<Position>,
    problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}:")?;
        }
        write!(f, " {}", self.problem)
    }
}

const KIND: &str = "ClusterTracing";

/// Reads and checks the one resource of `text`, as the API server and the controller would.
pub(super) fn read(text: &str) -> Result<Validated, Mistake> {
    let at = |path: &str, problem: String| Mistake { position: position(text, path), problem };
    let value: Value = serde_yaml::from_str(text).map_err(|error| match error.location() {
        // an error of no place is one of the whole text
        None if serde_yaml::Deserializer::from_str(text).take(2).count() > 1 => {
            Mistake { position: None, problem: format!("holds more than one document: give the {KIND} alone") }
        }
        _ => unreadable(&error),
    })?;
    if !value.is_object() {
        return Err(at("", format!("is no resource: a {KIND} begins with apiVersion: {GROUP}/{VERSION}")));
    }
    for (field, expected) in [("apiVersion", format!("{GROUP}/{VERSION}")), ("kind", KIND.to_owned())] {
        match value.get(field) {
            Some(found) if found.as_str() == Some(&expected) => {}
            Some(found) => return Err(at(field, format!("{field} is {found}, and has to be {expected}"))),
            None => return Err(at("", format!("{field} is missing, and has to be {expected}"))),
        }
    }
    if let Some(unknown) = unknown_field(&value) {
        let parent = unknown.path.strip_suffix(&unknown.name).unwrap_or_default().trim_end_matches('.');
        let place = if parent.is_empty() { String::new() } else { format!(" of {parent}") };
        return Err(at(
            &unknown.path,
            format!("unknown field {:?}{place}{}", unknown.name, suggestion(unknown.nearest.as_deref()).unwrap_or_default()),
        ));
    }
    let resource: ClusterTracing = serde_yaml::from_str(text).map_err(|error| unreadable(&error))?;
    // first what the controller says, which names the field and what would be right; then the definition's own rules
    let validated = validate(&resource, &installation()).map_err(|invalid| at(&format!("spec.{}", invalid.field), invalid.to_string()))?;
    resource.validate_cel().map_err(|errors| match errors.as_slice().first() {
        // the one rule of the whole resource is about its name
        Some(error) if error.field_path.is_empty() => at("metadata.name", error.message.clone()),
        Some(error) => at(&error.field_path, format!("{}: {}", error.field_path, error.message)),
        None => at("", errors.to_string()),
    })?;
    Ok(validated)
}

/// An error of the parser, whose own words for the place go: it stands before them.
fn unreadable(error: &serde_yaml::Error) -> Mistake {
    // a type's name in the words of the definition
    let problem = error.to_string().replace("expected i32", "expected a whole number");
    let Some(location) = error.location() else { return Mistake { position: None, problem } };
    let position = Position { line: location.line(), column: location.column() };
    let place = format!(" at line {} column {}", position.line, position.column);
    Mistake { position: Some(position), problem: problem.replacen(&place, "", 1) }
}

/// Where the operator runs makes no difference to what nodes get.
fn installation() -> Installation {
    Installation {
        namespace: "clustertracing-system".to_owned(),
        collector_image: "collector".to_owned(),
        canary: State::Enabled,
        probe: State::Enabled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: clustertracing.dev/v1alpha1\nkind: ClusterTracing\nmetadata: {name: cluster}\n";

    fn mistake(text: &str) -> String {
        read(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_told_with_its_place_and_what_would_be_right() {
        for (text, expected) in [
            ("", " is no resource: a ClusterTracing begins with apiVersion: clustertracing.dev/v1alpha1"),
            ("kind: a\n---\nkind: b\n", " holds more than one document"),
            ("- a\n", "1:1: is no resource"),
            ("kind: ClusterTracing\n", "1:1: apiVersion is missing, and has to be clustertracing.dev/v1alpha1"),
            ("apiVersion: v1\nkind: ClusterTracing\n", "1:1: apiVersion is \"v1\", and has to be clustertracing.dev/v1alpha1"),
            ("apiVersion: clustertracing.dev/v1alpha1\nkind: NodeTracing\n", "2:1: kind is \"NodeTracing\", and has to be ClusterTracing"),
        ] {
            assert!(mistake(text).starts_with(expected), "{text:?}: {}", mistake(text));
        }
        for (spec, expected) in [
            ("spec:\n  samplingRate: 1\n", "5:3: unknown field \"samplingRate\" of spec: did you mean \"samplingRatePerMillion\"?"),
            ("spec:\n  samplingRatePerMillion: 2000000\n", "5:3: spec.samplingRatePerMillion: 2000000 is not between 0 and 1000000"),
            ("spec:\n  samplingRatePerMillion: many\n", "5:27: spec.samplingRatePerMillion: invalid type"),
            ("spec:\n  etcd: {state: On}\n", "spec.etcd"),
            ("spec:\n  collector: {mode: External}\n", "5:3: spec.collector.endpoint"),
            ("spec: [\n", "5:1: "),
        ] {
            let mistake = mistake(&format!("{HEAD}{spec}"));
            assert!(mistake.contains(expected), "{spec}: {mistake}");
        }
    }

    #[test]
    fn a_resource_of_another_name_is_refused_by_the_definitions_own_rule() {
        let mistake = mistake(&format!("{}spec: {{}}\n", HEAD.replace("name: cluster", "name: other")));
        assert!(mistake.contains("the only name allowed is \"cluster\""), "{mistake}");
    }

    #[test]
    fn the_samples_are_good() {
        for sample in [
            include_str!("../../../config/samples/clustertracing.yaml"),
            include_str!("../../../config/samples/clustertracing-minimal.yaml"),
            include_str!("../../../config/samples/clustertracing-production.yaml"),
        ] {
            assert_eq!(read(sample).map(|_| ()), Ok(()), "{sample}");
        }
    }
}
