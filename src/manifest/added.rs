//! What was added, as the one annotation names it: the note from which an edit is taken back.
//!
//! A comma-separated list such as `flag:tracing-config-file,volume:clustertracing,env:OTEL_BSP_MAX_QUEUE_SIZE,key:env`.
//! Everything is named, nothing is counted or placed, so the note holds whatever a person moves or adds around it.

use std::fmt;

use super::tree::shape;
use super::{Unsupported, args};

/// A collection that an edit may have to create.
pub(super) const ANNOTATIONS: &str = "annotations";
/// Likewise.
pub(super) const ENV: &str = "env";
/// Likewise.
pub(super) const VOLUME_MOUNTS: &str = "volumeMounts";
/// Likewise.
pub(super) const VOLUMES: &str = "volumes";

/// The names of all that was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    /// Flags of the container. `feature-gates` is among them when the whole flag was added, and not only gates to it.
    pub(super) flags: Vec<String>,
    /// Feature gates in `--feature-gates`.
    pub(super) gates: Vec<String>,
    /// Volumes of the pod, each with its mount in the container.
    pub(super) volumes: Vec<String>,
    /// Environment variables of the container.
    pub(super) env: Vec<String>,
    /// Collections that were not there before: an empty one goes again if we made it, and stays if it stood there (`volumes: []`).
    pub(super) keys: Vec<String>,
}

impl Added {
    pub(super) fn created(&self, key: &str) -> bool {
        self.keys.iter().any(|created| created == key)
    }

    /// Flags that are taken out as a whole; `--feature-gates` goes gate by gate, since people add theirs to it.
    pub(super) fn whole_flags(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str).filter(|flag| *flag != args::FEATURE_GATES)
    }

    /// Reads the annotation's value.
    pub(super) fn parse(value: &str, line: usize) -> Result<Self, Unsupported> {
        let mut added = Self::default();
        for word in value.split(',') {
            let (kind, name) = word.split_once(':').unwrap_or((word, ""));
            let names = match kind {
                "flag" => &mut added.flags,
                "gate" => &mut added.gates,
                "volume" => &mut added.volumes,
                "env" => &mut added.env,
                "key" => &mut added.keys,
                _ => return Err(shape(line, format!("{word:?} in the annotation {}", crate::api::ANNOTATION_ADDED))),
            };
            if name.is_empty() {
                return Err(shape(line, format!("{word:?} in the annotation {}", crate::api::ANNOTATION_ADDED)));
            }
            names.push(name.to_owned());
        }
        Ok(added)
    }
}

impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("flag", &self.flags), ("gate", &self.gates), ("volume", &self.volumes), ("env", &self.env), ("key", &self.keys)];
        let words = kinds.iter().flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind}:{name}")));
        f.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_reads_as_it_was_written() {
        let text = "flag:a,flag:feature-gates,gate:X,volume:clustertracing,env:B,key:env,key:annotations";
        assert_eq!(Added::parse(text, 1).map(|added| added.to_string()), Ok(text.to_owned()));
    }

    #[test]
    fn a_note_that_this_version_does_not_know_is_refused() {
        for text in ["", "flag", "flag:", "flag:a,", "port:1", "flag:a, gate:b"] {
            assert!(matches!(Added::parse(text, 7), Err(Unsupported::Shape(reason)) if reason.starts_with("line 7: ")), "{text:?}");
        }
    }
}
