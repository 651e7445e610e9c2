//! Takes out of a manifest what its note names, wherever it stands by now. What has gone already is passed over.

use super::added::{ANNOTATIONS, Added, ENV, VOLUME_MOUNTS, VOLUMES};
use super::args::{self, FEATURE_GATES};
use super::pod::{Pod, list, named};
use super::splice::{literal_range, remove_entry, remove_item, spliced};
use super::tree::{Node, shape};
use super::{Unsupported, step};
use crate::api::ANNOTATION_ADDED;

/// The manifest without what `added` names, and without the note.
pub(super) fn write(text: &str, program: &str, added: &Added) -> Result<String, Unsupported> {
    let mut text = text.to_owned();
    for flag in added.whole_flags() {
        text = remove_flag(&text, program, flag)?;
    }
    for gate in &added.gates {
        text = step(&text, program, |pod| remove_gate(&text, pod, gate))?;
    }
    if added.flags.iter().any(|flag| flag == FEATURE_GATES) && step(&text, program, has_no_gates)? {
        text = remove_flag(&text, program, FEATURE_GATES)?;
    }
    for name in &added.env {
        text = step(&text, program, |pod| remove_named(&text, pod.container, ENV, name, added))?;
    }
    for name in &added.volumes {
        step(&text, program, |pod| check_unused_elsewhere(pod, name))?;
        text = step(&text, program, |pod| remove_named(&text, pod.container, VOLUME_MOUNTS, name, added))?;
        text = step(&text, program, |pod| remove_named(&text, pod.spec, VOLUMES, name, added))?;
    }
    step(&text, program, |pod| match pod.metadata.get(ANNOTATIONS).and_then(|annotations| annotations.entry(ANNOTATION_ADDED)) {
        Some((index, _)) => remove_member(&text, pod.metadata, ANNOTATIONS, index, added.created(ANNOTATIONS)),
        None => Ok(text.clone()),
    })
}

fn remove_flag(text: &str, program: &str, name: &str) -> Result<String, Unsupported> {
    let words = step(text, program, |pod| Ok(pod.flag(name)?.map_or(0..0, |flag| flag.words)))?;
    words.rev().try_fold(text.to_owned(), |text, word| {
        step(&text, program, |pod| match pod.words.get(word) {
            Some(word) => remove_member(&text, pod.container, word.list.key(), word.index, false),
            None => Ok(text.clone()),
        })
    })
}

fn remove_gate(text: &str, pod: &Pod<'_>, gate: &str) -> Result<String, Unsupported> {
    let Some(flag) = pod.flag(FEATURE_GATES)? else { return Ok(text.to_owned()) };
    let Some(word) = pod.words.get(flag.words.end - 1) else { return Ok(text.to_owned()) };
    if args::gate_range(word.text, gate).is_none() {
        return Ok(text.to_owned());
    }
    let literal = literal_range(text, word.node)
        .ok_or_else(|| shape(word.node.line, "the value of --feature-gates is escaped or folded, so nothing can be taken out of it"))?;
    let gate = args::gate_range(&text[literal.clone()], gate).unwrap_or(0..0);
    Ok(spliced(text, literal.start + gate.start..literal.start + gate.end, ""))
}

fn has_no_gates(pod: &Pod<'_>) -> Result<bool, Unsupported> {
    Ok(pod.flag(FEATURE_GATES)?.is_some_and(|flag| flag.value.is_none_or(|value| value.is_empty())))
}

/// Removes the one item of that name from the list under `key`.
fn remove_named(text: &str, parent: &Node, key: &str, name: &str, added: &Added) -> Result<String, Unsupported> {
    let Some(list) = list(parent, key)? else { return Ok(text.to_owned()) };
    match named(list, name).as_slice() {
        [] => Ok(text.to_owned()),
        [index] => remove_member(text, parent, key, *index, added.created(key)),
        [_, second, ..] => {
            let line = list.items().get(*second).map_or(list.line, |item| item.line);
            Err(shape(line, format!("{name:?} is in `{key}` twice, so it is not clear which one was added")))
        }
    }
}

/// Removes one member of the collection under `key`. A block collection cannot stand empty, so its key goes with its last member;
/// so does a flow collection's if we created it.
fn remove_member(text: &str, parent: &Node, key: &str, index: usize, created: bool) -> Result<String, Unsupported> {
    let Some((position, entry)) = parent.entry(key) else { return Ok(text.to_owned()) };
    let collection = &entry.value;
    if collection.len() == 1 && (created || !collection.is_flow()) {
        remove_entry(text, parent, position)
    } else if collection.is_sequence() {
        remove_item(text, collection, index)
    } else {
        remove_entry(text, collection, index)
    }
}

/// A container that somebody has since given our volume to would keep the pod from starting once the volume has gone.
fn check_unused_elsewhere(pod: &Pod<'_>, volume: &str) -> Result<(), Unsupported> {
    for key in ["containers", "initContainers"] {
        let containers = list(pod.spec, key)?.map(Node::items).unwrap_or_default();
        for (index, container) in containers.iter().enumerate() {
            if key == "containers" && index == pod.index {
                continue;
            }
            let mounts = list(container, VOLUME_MOUNTS)?;
            if let Some(mount) = mounts.and_then(|mounts| mounts.items().get(*named(mounts, volume).first()?)) {
                return Err(shape(mount.line, format!("another container mounts volume {volume:?}, which was added for this one")));
            }
        }
    }
    Ok(())
}
