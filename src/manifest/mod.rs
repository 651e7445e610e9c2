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
//!
//! | To change | go to |
//! | --- | --- |
//! | which YAML is read at all | `tree` |
//! | which container is the component's, which pods are refused | `pod` |
//! | how flags are read | `args` |
//! | what an edit adds, and in which order | `addition` |
//! | what the annotation says, and how it is undone | `added`, `removal` |
//! | how kubeadm's own configuration is edited | [`config`] |
//! | how new lines look (indentation, quotes, JSON) | `layout`, `scalar`, `splice` |
//! | what is proved | `proof` |
//! | where a field stands, for messages | [`position`] |
//! | how kubeadm's own hand is known | [`rendered`] |
//! | whether an edit is there already, wherever it stands | [`same`] |

mod added;
mod addition;
mod args;
pub mod config;
mod layout;
mod pod;
pub mod position;
mod proof;
mod removal;
pub mod rendered;
pub mod same;
mod scalar;
mod splice;
mod tree;

use added::Added;
use pod::Pod;
use tree::{Node, shape};

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

/// What a manifest says of the one container that runs the component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pod_name: String,
    namespace: String,
    image: String,
    argv: Vec<String>,
    flags: Vec<args::Flag>,
    env_names: Vec<String>,
    volume_names: Vec<String>,
    probes: Vec<Probe>,
    is_ours: bool,
}

impl Manifest {
    /// Parses `text`. `None` when it is a good manifest of some pod, none of whose containers runs `program`.
    ///
    /// A container runs `program` when the first word of its command (or, without one, of its args) has that base name;
    /// a container that has neither (the image's entrypoint decides) runs it when the container's name is `program`.
    /// A container of that name that starts something else first, such as a shell, is refused.
    pub fn parse(text: &str, program: &str) -> Result<Option<Self>, Unsupported> {
        let root = tree::parse(text)?;
        let Some(pod) = Pod::find(&root, program)? else { return Ok(None) };
        let image = pod.container.get("image").and_then(Node::string);
        let names = |parent: &Node, list: &str| -> Vec<String> {
            let items = parent.get(list).map(Node::items).unwrap_or_default();
            items.iter().filter_map(|item| item.get("name")?.scalar()).map(str::to_owned).collect()
        };
        Ok(Some(Self {
            pod_name: pod.name()?.to_owned(),
            namespace: pod.metadata.get("namespace").and_then(Node::string).unwrap_or("default").to_owned(),
            image: image.ok_or_else(|| shape(pod.container.line, "the container has no image"))?.to_owned(),
            argv: pod.words.iter().map(|word| word.text.to_owned()).collect(),
            flags: pod.flags(),
            env_names: names(pod.container, added::ENV),
            volume_names: names(pod.spec, added::VOLUMES),
            probes: pod.probes()?,
            is_ours: pod.added().is_some(),
        }))
    }

    /// The pod's name.
    pub fn pod_name(&self) -> &str {
        &self.pod_name
    }

    /// The pod's namespace, `default` where the manifest names none, as the kubelet has it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The container's image.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Command and args in one: what the process's argv will be, but for `$(NAME)` references, which the kubelet expands.
    pub fn argv(&self) -> Vec<String> {
        self.argv.clone()
    }

    /// The flag's values in order, in whatever form they are written, `true` for a flag without a value; empty when it is not set.
    pub fn flag(&self, name: &str) -> Vec<String> {
        self.flags.iter().filter(|flag| flag.name == name).map(|flag| flag.value.clone().unwrap_or_else(|| "true".into())).collect()
    }

    /// Names of all flags that are set, without dashes.
    pub fn flag_names(&self) -> Vec<String> {
        self.flags.iter().map(|flag| flag.name.clone()).collect()
    }

    /// Names of the container's environment variables.
    pub fn env_names(&self) -> Vec<String> {
        self.env_names.clone()
    }

    /// Names of the pod's volumes.
    pub fn volume_names(&self) -> Vec<String> {
        self.volume_names.clone()
    }

    /// The container's HTTP probes (liveness, readiness), with named ports resolved, host defaulted to 127.0.0.1.
    pub fn probes(&self) -> Vec<Probe> {
        self.probes.clone()
    }

    /// Whether the pod carries a note of what was added to it: our annotation, or the variable that stands for it.
    pub fn is_ours(&self) -> bool {
        self.is_ours
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

/// Adds `edit` to a manifest that carries nothing of ours, and proves the result.
///
/// What the manifest has already (an environment variable of that name, a feature gate set the same way) is left as it is;
/// when it has everything, the text is given back unchanged, without an annotation.
pub fn apply(text: &str, program: &str, edit: &Edit) -> Result<String, Unsupported> {
    check(edit)?;
    let root = tree::parse(text)?;
    let pod = component(&root, program)?;
    if let Some(annotation) = pod.added() {
        return Err(shape(annotation.line, format!("the note {} says that it is edited already", crate::api::ANNOTATION_ADDED)));
    }
    let addition = addition::plan(&pod, edit)?;
    if addition.added == Added::default() {
        return Ok(text.to_owned());
    }
    let after = addition.write(text, program)?;
    proof::added(text, &after, pod.index, &addition)?;
    if revert(&after, program)? != text {
        return Err(Unsupported::Unproven("taking the edit back does not give the same bytes".into()));
    }
    Ok(after)
}

/// Takes out what [`apply`] added, and proves that nothing else went; a text without our note is given back as it is.
///
/// The note is an annotation. In a manifest that kubeadm made from its own configuration, which knows no annotations, it is a variable of
/// the container ([`crate::api::VARIABLE_ADDED`]).
pub fn revert(text: &str, program: &str) -> Result<String, Unsupported> {
    if !text.contains(crate::api::ANNOTATION_ADDED) && !text.contains(crate::api::VARIABLE_ADDED) {
        return Ok(text.to_owned());
    }
    let root = tree::parse(text)?;
    let annotated = root.get("metadata").and_then(|metadata| metadata.get(added::ANNOTATIONS)?.get(crate::api::ANNOTATION_ADDED)).is_some();
    if !annotated && !text.contains(crate::api::VARIABLE_ADDED) {
        return Ok(text.to_owned());
    }
    let pod = component(&root, program)?;
    let Some(note) = pod.added() else { return Ok(text.to_owned()) };
    let words = note.scalar().ok_or_else(|| shape(note.line, format!("the note of what was added is {}", note.describe())))?;
    take_out(text, program, &pod, words, note.line)
}

/// Takes out what `note` names, from a text that carries no note itself.
pub fn remove(text: &str, program: &str, note: &str) -> Result<String, Unsupported> {
    let root = tree::parse(text)?;
    let pod = component(&root, program)?;
    take_out(text, program, &pod, note, pod.container.line)
}

fn take_out(text: &str, program: &str, pod: &Pod<'_>, note: &str, line: usize) -> Result<String, Unsupported> {
    let added = Added::parse(note, line)?;
    let before = removal::write(text, program, &added)?;
    proof::removed(text, &before, pod.index, &added)?;
    Ok(before)
}

fn component<'t>(root: &'t Node, program: &str) -> Result<Pod<'t>, Unsupported> {
    Pod::find(root, program)?.ok_or_else(|| shape(root.line, format!("no container of the pod runs {program}")))
}

/// One step of an edit: reads what the step before it left.
fn step<T>(text: &str, program: &str, step: impl FnOnce(&Pod<'_>) -> Result<T, Unsupported>) -> Result<T, Unsupported> {
    let root = tree::parse(text)?;
    step(&component(&root, program)?)
}

/// Edits come from typed settings, so a refusal here is a mistake in a component's table. It is refused all the same:
/// this is the last place before a process of the control plane is given these words.
fn check(edit: &Edit) -> Result<(), Unsupported> {
    let refuse = |what: &str, value: &str, why: &str| Err(Unsupported::Shape(format!("{what} {value:?} {why}")));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let names = (edit.flags.iter().map(|(name, _)| ("flag", name)))
        .chain(edit.feature_gates.iter().map(|(name, _)| ("feature gate", name)))
        .chain(edit.files.iter().map(|file| ("volume", &file.volume)))
        .chain(edit.env.iter().map(|(name, _)| ("environment variable", name)));
    let mut seen = std::collections::HashSet::new();
    for (what, name) in names {
        if !is_name(name) {
            return refuse(what, name, "is no name");
        }
        if !seen.insert((what, name)) {
            return refuse(what, name, "is asked for twice");
        }
        if what == "flag" && name == args::FEATURE_GATES {
            return refuse(what, name, "takes feature gates one by one");
        }
    }
    let values = (edit.flags.iter().map(|(_, value)| ("flag value", value)))
        .chain(edit.files.iter().map(|file| ("path", &file.path)))
        .chain(edit.env.iter().map(|(_, value)| ("value", value)));
    for (what, value) in values {
        if value.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')) {
            return refuse(what, value, "has a control character");
        }
        if value.contains('$') {
            return refuse(what, value, "has a `$`, which the kubelet may expand");
        }
    }
    match edit.files.iter().find(|file| !file.path.starts_with('/')) {
        Some(file) => refuse("path", &file.path, "is not absolute"),
        None => Ok(()),
    }
}
