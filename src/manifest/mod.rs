//! Edits the text of a static pod's manifest, and proves each edit.
//!
//! The text is what people wrote: comments, order, quoting, line ends and fields that this project has never heard of stay.
//! So nothing is ever parsed and printed again: an [`Edit`] is spliced in as text, then both texts are parsed, and exactly the
//! intended difference must be found, and [`revert`] of the result must give the first text back to the byte.
//! Otherwise the edit is refused as [`Unsupported`], with the reason.
//!
//! What was added is named in one annotation of the pod ([`crate::api::ANNOTATION_ADDED`]), so that `revert` needs nothing but the text,
//! even when a person or `kubeadm` has changed other parts since.
//!
//! Pure: no clock, no file, no network. Called by `crate::component` only.

/// What one component gets. All of it is added; nothing that somebody else wrote is changed, but the value of an existing `--feature-gates`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Flags without their dashes, with values: `("tracing-config-file", "/etc/…")`. Appended as `--name=value` to the list that holds the program's flags.
    pub flags: Vec<(String, String)>,
    /// Feature gates to merge into `--feature-gates`, which is added where there is none.
    pub feature_gates: Vec<(String, bool)>,
    /// Files of the node that the container needs to read.
    pub files: Vec<FileMount>,
    /// Environment variables. One that the container has already is left as it is.
    pub env: Vec<(String, String)>,
}

/// A file of the node that is mounted read-only at its own path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMount {
    /// Name of the volume.
    pub volume: String,
    /// Absolute path, the same on the node and in the container.
    pub path: String,
}

/// Why a manifest cannot be edited. The message says what was found, and where (line).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Not YAML or JSON, or more than one document, or larger or deeper than a static pod's manifest may be.
    #[error("the manifest cannot be read: {0}")]
    Unreadable(String),
    /// It is a shape that this editor does not edit.
    #[error("the manifest has a shape that is not edited: {0}")]
    Shape(String),
    /// The edit was made, and proved to be something else than intended. Nothing was written.
    #[error("the edit could not be proved: {0}")]
    Unproven(String),
}

/// A manifest that has been parsed, with the one container that runs the component.
#[derive(Clone, Debug)]
pub struct Manifest {
    // private fields: text, positioned tree, the container
}

impl Manifest {
    /// Parses `text`. `None` when it is a good manifest of some pod, none of whose containers runs `program`.
    ///
    /// A container runs `program` when the first word of its command (or, without one, of its args) has that base name;
    /// a container that has neither (the image's entrypoint decides) runs it when the container's name is `program`.
    pub fn parse(text: &str, program: &str) -> Result<Option<Self>, Unsupported> {
        let _ = (text, program);
        todo!()
    }
    /// The pod's name, namespace.
    pub fn pod_name(&self) -> &str {
        todo!()
    }
    /// The container's image.
    pub fn image(&self) -> &str {
        todo!()
    }
    /// Command and args in one: what the process's argv will be.
    pub fn argv(&self) -> Vec<String> {
        todo!()
    }
    /// The flag's values in order, in whatever form they are written; empty when it is not set.
    pub fn flag(&self, name: &str) -> Vec<String> {
        let _ = name;
        todo!()
    }
    /// Names of all flags that are set, without dashes.
    pub fn flag_names(&self) -> Vec<String> {
        todo!()
    }
    /// Names of the container's environment variables.
    pub fn env_names(&self) -> Vec<String> {
        todo!()
    }
    /// The container's HTTP probes (liveness, readiness), with named ports resolved, host defaulted to 127.0.0.1.
    pub fn probes(&self) -> Vec<Probe> {
        todo!()
    }
    /// Whether the pod carries our annotation.
    pub fn is_ours(&self) -> bool {
        todo!()
    }
}

/// An HTTP probe of the component, as its manifest states it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Probe {
    /// `https` or `http`.
    pub scheme: String,
    /// Address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path, with a leading slash.
    pub path: String,
}

/// Adds `edit` to a manifest that carries nothing of ours.
pub fn apply(text: &str, program: &str, edit: &Edit) -> Result<String, Unsupported> {
    let _ = (text, program, edit);
    todo!()
}

/// Takes out what [`apply`] added; a text without our annotation is given back as it is.
pub fn revert(text: &str, program: &str) -> Result<String, Unsupported> {
    let _ = (text, program);
    todo!()
}
