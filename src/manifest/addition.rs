//! Puts an edit into a manifest: first what exactly is missing, then the text of each part.

use super::added::{ANNOTATIONS, Added, ENV, VOLUME_MOUNTS, VOLUMES};
use super::args::{self, FEATURE_GATES};
use super::layout::New;
use super::pod::{List, Pod, list, named, optional_mapping};
use super::scalar::Quoting;
use super::splice::{append_item, insert_entry, literal_range, spliced};
use super::tree::{Kind, Node, shape};
use super::{Edit, FileMount, Unsupported, step};
use crate::api::ANNOTATION_ADDED;

/// What is missing in one manifest for an [`Edit`].
#[derive(Debug)]
pub(super) struct Addition {
    /// Where flags go. Nothing when there are none to add.
    pub(super) list: Option<List>,
    /// New flags, `--feature-gates` among them where the program had none.
    pub(super) flags: Vec<(String, String)>,
    /// Gates to append to the `--feature-gates` that is there.
    pub(super) gates: Vec<(String, bool)>,
    pub(super) files: Vec<FileMount>,
    pub(super) env: Vec<(String, String)>,
    /// The note of all this.
    pub(super) added: Added,
}

/// Compares an edit with the manifest. Whatever would change or shadow something that is there is refused.
pub(super) fn plan(pod: &Pod<'_>, edit: &Edit) -> Result<Addition, Unsupported> {
    for (name, _) in &edit.flags {
        if let Some(flag) = pod.flag(name)? {
            return Err(shape(pod.line(&flag), format!("flag --{name} is set already")));
        }
    }
    let (mut flags, mut gates) = (edit.flags.clone(), missing_gates(pod, edit)?);
    let gate_names = gates.iter().map(|(name, _)| name.clone()).collect();
    if !gates.is_empty() && pod.flag(FEATURE_GATES)?.is_none() {
        flags.push((FEATURE_GATES.to_owned(), args::write_gates(&std::mem::take(&mut gates))));
    }
    check_files(pod, &edit.files)?;
    let env_list = list(pod.container, ENV)?;
    let env: Vec<_> = edit.env.iter().filter(|(name, _)| env_list.is_none_or(|list| named(list, name).is_empty())).cloned().collect();

    let mut added = Added {
        flags: flags.iter().map(|(name, _)| name.clone()).collect(),
        gates: gate_names,
        volumes: edit.files.iter().map(|file| file.volume.clone()).collect(),
        env: env.iter().map(|(name, _)| name.clone()).collect(),
        keys: Vec::new(),
    };
    let collections = [
        (VOLUMES, !edit.files.is_empty() && pod.spec.get(VOLUMES).is_none()),
        (VOLUME_MOUNTS, !edit.files.is_empty() && pod.container.get(VOLUME_MOUNTS).is_none()),
        (ENV, !env.is_empty() && env_list.is_none()),
        (ANNOTATIONS, added != Added::default() && optional_mapping(pod.metadata, ANNOTATIONS)?.is_none()),
    ];
    added.keys = collections.iter().filter(|(_, created)| *created).map(|(key, _)| (*key).to_owned()).collect();
    let list = if flags.is_empty() { None } else { Some(pod.flag_list()?) };
    Ok(Addition { list, flags, gates, files: edit.files.clone(), env, added })
}

/// The gates that are not set as wanted yet.
fn missing_gates(pod: &Pod<'_>, edit: &Edit) -> Result<Vec<(String, bool)>, Unsupported> {
    let mut missing = edit.feature_gates.clone();
    if missing.is_empty() {
        return Ok(missing);
    }
    let Some(flag) = pod.flag(FEATURE_GATES)? else { return Ok(missing) };
    let line = pod.line(&flag);
    let value = flag.value.as_deref().ok_or_else(|| shape(line, "flag --feature-gates has no value"))?;
    for (name, on) in args::gates(value) {
        let Some((_, wanted)) = edit.feature_gates.iter().find(|(gate, _)| gate == name) else { continue };
        if on != Some(*wanted) {
            return Err(shape(line, format!("feature gate {name} is set already, and not to {wanted}")));
        }
        missing.retain(|(gate, _)| gate != name);
    }
    Ok(missing)
}

fn check_files(pod: &Pod<'_>, files: &[FileMount]) -> Result<(), Unsupported> {
    if files.is_empty() {
        return Ok(());
    }
    let volumes = list(pod.spec, VOLUMES)?.map(Node::items).unwrap_or_default();
    let mounts = list(pod.container, VOLUME_MOUNTS)?.map(Node::items).unwrap_or_default();
    let has = |node: &Node, key: &str, value: &str| node.get(key).and_then(Node::scalar) == Some(value);
    for FileMount { volume, path } in files {
        if let Some(volume_there) = volumes.iter().find(|item| has(item, "name", volume)) {
            return Err(shape(volume_there.line, format!("a volume {volume:?} is there already")));
        }
        if let Some(mount) = mounts.iter().find(|item| has(item, "name", volume) || has(item, "mountPath", path)) {
            return Err(shape(mount.line, format!("a mount of volume {volume:?} or at {path:?} is there already")));
        }
    }
    Ok(())
}

impl Addition {
    /// The manifest with everything in it. Each step reads the text that the one before it left, so each can be simple.
    pub(super) fn write(&self, text: &str, program: &str) -> Result<String, Unsupported> {
        let mut text = text.to_owned();
        for (name, value) in &self.flags {
            text = step(&text, program, |pod| self.append_flag(&text, pod, &format!("--{name}={value}")))?;
        }
        if !self.gates.is_empty() {
            text = step(&text, program, |pod| append_gates(&text, pod, &args::write_gates(&self.gates)))?;
        }
        for (name, value) in &self.env {
            let item = New::Mapping(vec![("name", New::text(name)), ("value", New::text(value))]);
            text = step(&text, program, |pod| append(&text, pod, pod.container, ENV, item))?;
        }
        for FileMount { volume, path } in &self.files {
            let item = New::Mapping(vec![("mountPath", New::text(path)), ("name", New::text(volume)), ("readOnly", New::True)]);
            text = step(&text, program, |pod| append(&text, pod, pod.container, VOLUME_MOUNTS, item))?;
        }
        for FileMount { volume, path } in &self.files {
            let host_path = New::Mapping(vec![("path", New::text(path)), ("type", New::text("File"))]);
            let item = New::Mapping(vec![("hostPath", host_path), ("name", New::text(volume))]);
            text = step(&text, program, |pod| append(&text, pod, pod.spec, VOLUMES, item))?;
        }
        step(&text, program, |pod| annotate(&text, pod, &self.added.to_string()))
    }

    fn append_flag(&self, text: &str, pod: &Pod<'_>, flag: &str) -> Result<String, Unsupported> {
        let which = self.list.unwrap_or(List::Command);
        let Some(list) = pod.container.get(which.key()) else {
            return Err(shape(pod.container.line, format!("the container has no {}", which.key())));
        };
        append_item(text, pod.root, list, &New::Text(flag.to_owned(), common_quoting(list)))
    }
}

/// The quoting that all flags of a list have, if they agree.
fn common_quoting(list: &Node) -> Quoting {
    let mut quotings = list.items().iter().filter_map(|item| match &item.kind {
        Kind::Scalar { value, style } if value.starts_with('-') => Some(Quoting::from(*style)),
        _ => None,
    });
    let first = quotings.next().unwrap_or(Quoting::Plain);
    if quotings.all(|quoting| quoting == first) { first } else { Quoting::Plain }
}

/// Puts gates at the end of the `--feature-gates` that is there, inside its quotes.
fn append_gates(text: &str, pod: &Pod<'_>, gates: &str) -> Result<String, Unsupported> {
    let flag = pod.flag(FEATURE_GATES)?.ok_or_else(|| shape(pod.container.line, "flag --feature-gates has gone"))?;
    let line = pod.line(&flag);
    let refuse =
        || shape(line, "the value of --feature-gates is escaped, folded, or unquoted in a `[…]` list, where a comma cannot follow");
    let word = pod.words.get(flag.words.end - 1).ok_or_else(refuse)?;
    let range = literal_range(text, word.node).ok_or_else(refuse)?;
    let in_flow = pod.container.get(word.list.key()).is_some_and(Node::is_flow);
    if in_flow && range == word.node.range {
        return Err(refuse());
    }
    let comma = if flag.value.is_some_and(|value| value.is_empty()) { "" } else { "," };
    Ok(spliced(text, range.end..range.end, &format!("{comma}{gates}")))
}

/// Appends an item to the list under `key` of `parent`, which the first item creates where it is missing.
fn append(text: &str, pod: &Pod<'_>, parent: &Node, key: &str, item: New) -> Result<String, Unsupported> {
    if let Some(list) = parent.get(key) {
        return append_item(text, pod.root, list, &item);
    }
    // What the process is given goes below what it is started with; everything else goes last, as people append.
    let after_words = [List::Args, List::Command].iter().filter_map(|list| parent.entry(list.key())).map(|(index, _)| index).max();
    let after = after_words.filter(|_| key == ENV).unwrap_or(parent.entries().len().saturating_sub(1));
    insert_entry(text, pod.root, parent, after, key, &New::List(vec![item]))
}

fn annotate(text: &str, pod: &Pod<'_>, note: &str) -> Result<String, Unsupported> {
    let value = New::text(note);
    if let Some(annotations) = pod.metadata.get(ANNOTATIONS) {
        let last = annotations.entries().len().saturating_sub(1);
        return insert_entry(text, pod.root, annotations, last, ANNOTATION_ADDED, &value);
    }
    let last = pod.metadata.entries().len().saturating_sub(1);
    insert_entry(text, pod.root, pod.metadata, last, ANNOTATIONS, &New::Mapping(vec![(ANNOTATION_ADDED, value)]))
}
