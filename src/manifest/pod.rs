//! Finds in a manifest's tree what the edits need: the pod, its one container that runs the component, that container's words.

use super::added::{ANNOTATIONS, ENV};
use super::args::{self, Flag};
use super::tree::{Node, shape};
use super::{Probe, Unsupported};
use crate::api::{ANNOTATION_ADDED, VARIABLE_ADDED};

/// A pod, seen from the container that runs the component.
#[derive(Debug)]
pub(super) struct Pod<'t> {
    pub(super) root: &'t Node,
    pub(super) metadata: &'t Node,
    pub(super) spec: &'t Node,
    pub(super) container: &'t Node,
    /// The container's place in `spec.containers`.
    pub(super) index: usize,
    /// Words of the argv, command first, then args.
    pub(super) words: Vec<Word<'t>>,
}

/// One element of `command` or `args`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'t> {
    pub(super) list: List,
    /// Its place in the list.
    pub(super) index: usize,
    pub(super) text: &'t str,
    pub(super) node: &'t Node,
}

impl AsRef<str> for Word<'_> {
    fn as_ref(&self) -> &str {
        self.text
    }
}

/// The two lists that make up an argv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Command,
    Args,
}

impl List {
    /// The field's name.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Args => "args",
        }
    }
}

impl<'t> Pod<'t> {
    /// The pod of a manifest, or nothing when none of its containers runs `program`.
    pub(super) fn find(root: &'t Node, program: &str) -> Result<Option<Self>, Unsupported> {
        let kind = root.get("kind").ok_or_else(|| shape(root.line, "there is no `kind: Pod`"))?;
        if kind.scalar() != Some("Pod") {
            return Err(shape(kind.line, format!("kind is {:?}, not \"Pod\"", kind.scalar().unwrap_or_default())));
        }
        let metadata = mapping(root, "metadata")?;
        let spec = mapping(root, "spec")?;
        let containers = list(spec, "containers")?.ok_or_else(|| shape(spec.line, "the pod has no `containers`"))?;
        let mut found: Option<Self> = None;
        for (index, container) in containers.items().iter().enumerate() {
            if !container.is_mapping() {
                return Err(shape(container.line, format!("a container that is {}", container.describe())));
            }
            if !runs(container, program)? {
                continue;
            }
            if let Some(first) = found {
                return Err(shape(container.line, format!("a second container that runs {program}, after line {}", first.container.line)));
            }
            let mut all = words(container, List::Command)?;
            all.extend(words(container, List::Args)?);
            if let Some(end) = all.iter().find(|word| word.text == "--") {
                return Err(shape(end.node.line, "`--` ends the flags"));
            }
            found = Some(Self { root, metadata, spec, container, index, words: all });
        }
        Ok(found)
    }

    /// The pod's name.
    pub(super) fn name(&self) -> Result<&'t str, Unsupported> {
        let name = self.metadata.get("name").ok_or_else(|| shape(self.metadata.line, "the pod has no name"))?;
        name.string().ok_or_else(|| shape(name.line, format!("the pod's name is {}", name.describe())))
    }

    /// The note of what was added: our annotation's value, or that of the variable that stands for it.
    pub(super) fn added(&self) -> Option<&'t Node> {
        let annotation = self.metadata.get(ANNOTATIONS).and_then(|annotations| annotations.get(ANNOTATION_ADDED));
        annotation.or_else(|| {
            let env = self.container.get(ENV)?;
            env.items().get(*named(env, VARIABLE_ADDED).first()?)?.get("value")
        })
    }

    /// All flags of the argv.
    pub(super) fn flags(&self) -> Vec<Flag> {
        args::flags(&self.words)
    }

    /// The one flag of that name. Which of two would count depends on the program, so two are refused.
    pub(super) fn flag(&self, name: &str) -> Result<Option<Flag>, Unsupported> {
        let mut flags = self.flags().into_iter().filter(|flag| flag.name == name);
        match (flags.next(), flags.next()) {
            (Some(first), Some(second)) => {
                Err(shape(self.line(&second), format!("flag --{name} again, which line {} has already", self.line(&first))))
            }
            (first, _) => Ok(first),
        }
    }

    /// Where the flag stands.
    pub(super) fn line(&self, flag: &Flag) -> usize {
        self.words.get(flag.words.start).map_or(self.container.line, |word| word.node.line)
    }

    /// The list that new flags are appended to.
    pub(super) fn flag_list(&self) -> Result<List, Unsupported> {
        let has = |list: List| self.words.iter().any(|word| word.list == list);
        let has_flags = |list: List| self.words.iter().any(|word| word.list == list && word.text.starts_with('-'));
        match () {
            () if has_flags(List::Args) => Ok(List::Args),
            () if has(List::Command) => Ok(List::Command),
            () if has(List::Args) => Ok(List::Args),
            () => Err(shape(self.container.line, "the container has no command and no args to add flags to")),
        }
    }

    /// The HTTP probes that say whether the container is well.
    pub(super) fn probes(&self) -> Result<Vec<Probe>, Unsupported> {
        let mut probes = Vec::new();
        for kind in ["livenessProbe", "readinessProbe"] {
            let Some(get) = self.container.get(kind).and_then(|probe| probe.get("httpGet")) else { continue };
            let text = |key: &str| get.get(key).and_then(Node::scalar).filter(|text| !text.is_empty());
            let path = text("path").unwrap_or("/");
            let probe = Probe {
                scheme: text("scheme").unwrap_or("HTTP").to_ascii_lowercase(),
                host: text("host").unwrap_or("127.0.0.1").to_owned(),
                port: self.port(text("port").unwrap_or_default(), get.line)?,
                path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            };
            if !probes.contains(&probe) {
                probes.push(probe);
            }
        }
        Ok(probes)
    }

    /// A probe's port, which may be the name of one of the container's ports.
    fn port(&self, port: &str, line: usize) -> Result<u16, Unsupported> {
        let named = || {
            let ports = self.container.get("ports")?.items();
            let named = ports.iter().find(|item| item.get("name").and_then(Node::scalar) == Some(port))?;
            named.get("containerPort")?.scalar()?.parse().ok()
        };
        port.parse().ok().or_else(named).ok_or_else(|| shape(line, format!("the probe's port {port:?} is no port of the container")))
    }
}

/// The list under `key`; nothing where the key is missing. A null is refused: it is there to be read by somebody, and cannot be added to.
pub(super) fn list<'t>(parent: &'t Node, key: &str) -> Result<Option<&'t Node>, Unsupported> {
    match parent.get(key) {
        Some(value) if !value.is_sequence() => Err(shape(value.line, format!("`{key}` is {}, not a list", value.describe()))),
        value => Ok(value),
    }
}

/// The mapping under `key`, likewise.
pub(super) fn optional_mapping<'t>(parent: &'t Node, key: &str) -> Result<Option<&'t Node>, Unsupported> {
    match parent.get(key) {
        Some(value) if !value.is_mapping() => Err(shape(value.line, format!("`{key}` is {}, not a mapping", value.describe()))),
        value => Ok(value),
    }
}

fn mapping<'t>(parent: &'t Node, key: &str) -> Result<&'t Node, Unsupported> {
    optional_mapping(parent, key)?.ok_or_else(|| shape(parent.line, format!("there is no `{key}`")))
}

/// Positions of the items of a list of mappings that have that `name`.
pub(super) fn named(list: &Node, name: &str) -> Vec<usize> {
    let is_named = |item: &Node| item.get("name").and_then(Node::scalar) == Some(name);
    list.items().iter().enumerate().filter(|(_, item)| is_named(item)).map(|(index, _)| index).collect()
}

/// Whether the container runs `program` itself. A container of that name that starts something else, which may start the program
/// with other words than the manifest's, is refused rather than passed over: the component is there, but its flags cannot be edited.
fn runs(container: &Node, program: &str) -> Result<bool, Unsupported> {
    let name = container.get("name").and_then(Node::scalar);
    let first = [List::Command, List::Args].into_iter().find_map(|list| container.get(list.key())?.items().first());
    let Some(word) = first.and_then(Node::scalar) else { return Ok(name == Some(program)) };
    let base = word.rsplit('/').next().unwrap_or(word);
    if base == program {
        return Ok(true);
    }
    if name != Some(program) {
        return Ok(false);
    }
    let line = first.map_or(container.line, |node| node.line);
    match base {
        "sh" | "bash" | "ash" | "dash" | "busybox" => Err(shape(line, format!("container {program} runs through a shell ({word})"))),
        // Only args, and they begin with a flag: the image's entrypoint decides, and the container's name tells which it is.
        _ if word.starts_with('-') => Ok(true),
        _ => Err(shape(line, format!("container {program} runs {word}, not {program} itself"))),
    }
}

fn words(container: &Node, which: List) -> Result<Vec<Word<'_>>, Unsupported> {
    let key = which.key();
    let Some(list) = list(container, key)? else { return Ok(Vec::new()) };
    let mut words = Vec::new();
    for (index, node) in list.items().iter().enumerate() {
        let text = node.string().ok_or_else(|| shape(node.line, format!("an element of `{key}` is {}, not a string", node.describe())))?;
        words.push(Word { list: which, index, text, node });
    }
    Ok(words)
}
