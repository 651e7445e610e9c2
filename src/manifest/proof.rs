//! Proves an edit on what the texts mean, by another parser and without the tree that the edit was made with.
//!
//! The first text's value, changed as a program that does not care for text would change it, must be the second text's value.

use serde_yaml::{Mapping, Value};

use super::Unsupported;
use super::added::{ANNOTATIONS, Added, ENV, VOLUME_MOUNTS, VOLUMES};
use super::addition::Addition;
use super::args::{self, FEATURE_GATES};
use super::pod::List;
use crate::api::ANNOTATION_ADDED;

/// Proves that `after` is `before` with the addition in the container at `index`, and nothing else.
pub(super) fn added(before: &str, after: &str, index: usize, addition: &Addition) -> Result<(), Unsupported> {
    if is_json(before) && !is_json(after) {
        // The kubelet reads a text that begins with `{` as JSON alone.
        return Err(Unsupported::Unproven("JSON has become YAML".into()));
    }
    let (mut expected, after) = (read(before).map_err(Unsupported::Unreadable)?, read(after).map_err(Unsupported::Unproven)?);
    add(&mut expected, index, addition).ok_or_else(|| Unsupported::Unproven("the parsers disagree about the manifest".into()))?;
    compare(&expected, &after)
}

/// Proves that `after` is `before` without what was added to the container at `index`, and nothing else is missing.
pub(super) fn removed(before: &str, after: &str, index: usize, added: &Added) -> Result<(), Unsupported> {
    let (mut expected, after) = (read(before).map_err(Unsupported::Unreadable)?, read(after).map_err(Unsupported::Unproven)?);
    remove(&mut expected, &after, index, added).ok_or_else(|| Unsupported::Unproven("the parsers disagree about the manifest".into()))?;
    compare(&expected, &after)
}

pub(super) fn read(text: &str) -> Result<Value, String> {
    serde_yaml::from_str(text).map_err(|error| format!("a second parser says: {error}"))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

pub(super) fn compare(expected: &Value, found: &Value) -> Result<(), Unsupported> {
    match difference(expected, found, String::new()) {
        None => Ok(()),
        Some(path) => Err(Unsupported::Unproven(format!("{path} is not as intended"))),
    }
}

/// Where two values differ first.
fn difference(left: &Value, right: &Value, path: String) -> Option<String> {
    match (left, right) {
        (Value::Mapping(left), Value::Mapping(right)) => {
            let name = |key: &Value| format!("{path}.{}", key.as_str().unwrap_or("?"));
            let surplus = right.keys().find(|key| !left.contains_key(*key)).map(name);
            left.iter()
                .find_map(|(key, value)| match right.get(key) {
                    Some(other) => difference(value, other, name(key)),
                    None => Some(name(key)),
                })
                .or(surplus)
        }
        (Value::Sequence(left), Value::Sequence(right)) if left.len() == right.len() => {
            left.iter().zip(right).enumerate().find_map(|(index, (left, right))| difference(left, right, format!("{path}[{index}]")))
        }
        _ => (left != right).then_some(path),
    }
}

fn container_mut(pod: &mut Value, index: usize) -> Option<&mut Value> {
    pod.get_mut("spec")?.get_mut("containers")?.get_mut(index)
}

fn mapping(entries: &[(&str, Value)]) -> Value {
    Value::Mapping(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
}

fn add(pod: &mut Value, index: usize, addition: &Addition) -> Option<()> {
    let container = container_mut(pod, index)?;
    if let Some(list) = addition.list {
        let words = container.get_mut(list.key())?.as_sequence_mut()?;
        words.extend(addition.flags.iter().map(|(name, value)| Value::from(format!("--{name}={value}"))));
    }
    if !addition.gates.is_empty() {
        let gates = args::write_gates(&addition.gates);
        rewrite_gates(container, |word| match word {
            _ if word.is_empty() || word.ends_with('=') => format!("{word}{gates}"),
            _ => format!("{word},{gates}"),
        })?;
    }
    for (name, value) in &addition.env {
        push(container, ENV, mapping(&[("name", name.as_str().into()), ("value", value.as_str().into())]))?;
    }
    for file in &addition.files {
        let (path, volume) = (Value::from(file.path.as_str()), Value::from(file.volume.as_str()));
        let container = container_mut(pod, index)?;
        push(container, VOLUME_MOUNTS, mapping(&[("mountPath", path.clone()), ("name", volume.clone()), ("readOnly", true.into())]))?;
        let host_path = mapping(&[("path", path), ("type", "File".into())]);
        push(pod.get_mut("spec")?, VOLUMES, mapping(&[("hostPath", host_path), ("name", volume)]))?;
    }
    let annotations = member(pod.get_mut("metadata")?, ANNOTATIONS, Value::Mapping(Mapping::new()))?;
    annotations.as_mapping_mut()?.insert(ANNOTATION_ADDED.into(), addition.added.to_string().into());
    Some(())
}

fn member<'v>(parent: &'v mut Value, key: &str, empty: Value) -> Option<&'v mut Value> {
    Some(parent.as_mapping_mut()?.entry(key.into()).or_insert(empty))
}

fn push(parent: &mut Value, key: &str, item: Value) -> Option<()> {
    member(parent, key, Value::Sequence(Vec::new()))?.as_sequence_mut()?.push(item);
    Some(())
}

/// The container's argv, each word with its list and its place there.
fn words(container: &Value) -> Vec<(List, usize, String)> {
    let list = |list: List| {
        let words = container.get(list.key()).and_then(Value::as_sequence).into_iter().flatten();
        words.enumerate().map(move |(index, word)| (list, index, word.as_str().unwrap_or_default().to_owned()))
    };
    list(List::Command).chain(list(List::Args)).collect()
}

/// The words of the flag of that name.
fn flag_words(container: &Value, name: &str) -> Vec<(List, usize, String)> {
    let words = words(container);
    let texts: Vec<_> = words.iter().map(|(_, _, text)| text.as_str()).collect();
    let flag = args::flags(&texts).into_iter().find(|flag| flag.name == name);
    flag.map(|flag| words[flag.words].to_vec()).unwrap_or_default()
}

/// Changes the word that ends in the value of `--feature-gates`.
fn rewrite_gates(container: &mut Value, rewrite: impl Fn(&str) -> String) -> Option<()> {
    let (list, index, word) = flag_words(container, FEATURE_GATES).pop()?;
    *container.get_mut(list.key())?.get_mut(index)? = rewrite(&word).into();
    Some(())
}

/// `after` is asked for one thing only: whether a collection that has become empty has gone or stands there empty.
fn remove(pod: &mut Value, after: &Value, index: usize, added: &Added) -> Option<()> {
    let after_container = after.get("spec")?.get("containers")?.get(index)?;
    let container = container_mut(pod, index)?;
    for gate in &added.gates {
        // Nothing to rewrite where somebody has taken the whole flag out.
        let _gone = rewrite_gates(container, |word| match args::gate_range(word, gate) {
            Some(range) => format!("{}{}", &word[..range.start], &word[range.end..]),
            None => word.to_owned(),
        });
    }
    let gates_flag = added.flags.iter().any(|flag| flag == FEATURE_GATES).then_some(FEATURE_GATES);
    let empty_gates =
        gates_flag.filter(|name| flag_words(container, name).last().is_some_and(|(_, _, word)| word.is_empty() || word.ends_with('=')));
    for name in added.whole_flags().chain(empty_gates) {
        for (list, index, _) in flag_words(container, name).into_iter().rev() {
            container.get_mut(list.key())?.as_sequence_mut()?.remove(index);
            drop_empty(container, after_container, list.key());
        }
    }
    remove_named(container, after_container, ENV, &added.env);
    remove_named(container, after_container, VOLUME_MOUNTS, &added.volumes);
    remove_named(pod.get_mut("spec")?, after.get("spec")?, VOLUMES, &added.volumes);
    let metadata = pod.get_mut("metadata")?;
    if let Some(annotations) = metadata.get_mut(ANNOTATIONS).and_then(Value::as_mapping_mut) {
        annotations.remove(ANNOTATION_ADDED);
    }
    drop_empty(metadata, after.get("metadata")?, ANNOTATIONS);
    Some(())
}

fn remove_named(parent: &mut Value, after: &Value, key: &str, names: &[String]) {
    if let Some(items) = parent.get_mut(key).and_then(Value::as_sequence_mut) {
        items.retain(|item| !item.get("name").and_then(Value::as_str).is_some_and(|name| names.iter().any(|added| added == name)));
        drop_empty(parent, after, key);
    }
}

fn drop_empty(parent: &mut Value, after: &Value, key: &str) {
    let is_empty = match parent.get(key) {
        Some(Value::Sequence(items)) => items.is_empty(),
        Some(Value::Mapping(entries)) => entries.is_empty(),
        _ => false,
    };
    if is_empty
        && after.get(key).is_none()
        && let Some(parent) = parent.as_mapping_mut()
    {
        parent.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Edit, FileMount, addition, component, tree};

    const BEFORE: &str = "
kind: Pod
metadata: {name: etcd}
spec:
  containers:
  - name: other
    image: other:1
  - name: etcd
    image: etcd:1
    command: [etcd, --name=a]
    env: [{name: THEIRS, value: b}]
";
    const AFTER: &str = "
kind: Pod
metadata: {name: etcd, annotations: {clustertracing.dev/added: 'flag:x,volume:v,env:OURS,key:volumes,key:volumeMounts,key:annotations'}}
spec:
  containers:
  - name: other
    image: other:1
  - name: etcd
    image: etcd:1
    command: [etcd, --name=a, --x=1]
    env: [{name: THEIRS, value: b}, {name: OURS, value: '1'}]
    volumeMounts: [{mountPath: /f, name: v, readOnly: true}]
  volumes: [{hostPath: {path: /f, type: File}, name: v}]
";
    /// What a wrong edit could have done besides, and where the proof sees it.
    const MISTAKES: [(&str, &str, &str); 13] = [
        ("kind: Pod", "kind: Pod\nstatus: {}", ".status"),
        ("kind: Pod\n", "", ".kind"),
        ("image: other:1", "image: other:2", ".spec.containers[0].image"),
        ("image: etcd:1", "image: etcd:2", ".spec.containers[1].image"),
        ("--name=a", "--name=b", ".spec.containers[1].command[1]"),
        ("--x=1", "--x=1, --y=2", ".spec.containers[1].command"),
        ("'1'", "1", ".spec.containers[1].env[1].value"),
        ("value: b", "value: c", ".spec.containers[1].env[0].value"),
        ("readOnly: true", "readOnly: false", ".spec.containers[1].volumeMounts[0].readOnly"),
        ("readOnly: true", "readOnly: 'true'", ".spec.containers[1].volumeMounts[0].readOnly"),
        ("type: File", "type: FileOrCreate", ".spec.volumes[0].hostPath.type"),
        ("annotations: {", "annotations: {a: b, ", ".metadata.annotations.a"),
        ("flag:x,", "", ".metadata.annotations.clustertracing.dev/added"),
    ];

    fn addition() -> Addition {
        let edit = Edit {
            flags: vec![("x".into(), "1".into())],
            files: vec![FileMount { volume: "v".into(), path: "/f".into() }],
            env: vec![("OURS".into(), "1".into())],
            ..Edit::default()
        };
        let root = tree::parse(BEFORE).expect("it is YAML");
        addition::plan(&component(&root, "etcd").expect("it runs etcd"), &edit).expect("it can be edited")
    }

    #[test]
    fn the_intended_difference_is_proved_both_ways() {
        let addition = addition();
        assert_eq!(added(BEFORE, AFTER, 1, &addition), Ok(()));
        assert_eq!(removed(AFTER, BEFORE, 1, &addition.added), Ok(()));
    }

    #[test]
    fn any_other_difference_is_refused_and_named() {
        for (right, wrong, place) in MISTAKES {
            assert!(AFTER.contains(right));
            let refusal = added(BEFORE, &AFTER.replacen(right, wrong, 1), 1, &addition());
            assert_eq!(refusal, Err(Unsupported::Unproven(format!("{place} is not as intended"))), "{wrong}");
        }
    }

    #[test]
    fn taking_out_more_or_less_than_was_added_is_refused_and_named() {
        let mistakes = [
            ("[{name: THEIRS, value: b}]", "[]", ".spec.containers[1].env"),
            (", --name=a", "", ".spec.containers[1].command"),
            ("--name=a", "--name=a, --x=1", ".spec.containers[1].command"),
            ("image: other:1", "image: other:2", ".spec.containers[0].image"),
            ("{name: etcd}", "{name: etcd, annotations: {a: b}}", ".metadata.annotations.a"),
        ];
        for (right, wrong, place) in mistakes {
            assert!(BEFORE.contains(right));
            let refusal = removed(AFTER, &BEFORE.replacen(right, wrong, 1), 1, &addition().added);
            assert_eq!(refusal, Err(Unsupported::Unproven(format!("{place} is not as intended"))), "{wrong}");
        }
    }

    #[test]
    fn json_that_has_become_yaml_is_refused() {
        let (before, after) = ("{\"a\": 1}", "{a: 1}");
        assert_eq!(added(before, after, 0, &addition()), Err(Unsupported::Unproven("JSON has become YAML".into())));
    }
}
