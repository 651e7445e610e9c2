//! Edits the text of kubeadm's `ClusterConfiguration` as manifests are edited: spliced in, read back by a second parser, undone to the byte.
//!
//! What kubeadm is asked to add to a component's manifest stands below the component's section (`apiServer`, `etcd.local`): `extraArgs`
//! (up to `kubeadm.k8s.io/v1beta3` a mapping, from `v1beta4` on a list that may name a flag twice), `extraEnvs` (from `v1beta4` on) and
//! `extraVolumes`. kubeadm writes this text anew at every upgrade, sorted and without comments: nothing here relies on where things stand.
//!
//! A section that stands empty is `{}`, and a list in it that would stand empty is not there: so kubeadm writes them.

use serde_yaml::{Mapping, Value};

use super::added::Added;
use super::layout::{Layout, New, indentation};
use super::pod::{list, named};
use super::splice::{append_item, insert_entry, remove_entry, remove_item, spliced};
use super::tree::{self, Node, shape};
use super::{Unsupported, proof};
use crate::api::VARIABLE_ADDED;

const ARGS: &str = "extraArgs";
const ENVS: &str = "extraEnvs";
const VOLUMES: &str = "extraVolumes";

/// What kubeadm is asked to add to one component's manifest, besides the note of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Flags without their dashes, with values.
    pub args: Vec<(&'static str, String)>,
    /// Environment variables.
    pub envs: Vec<(&'static str, String)>,
    /// What is mounted.
    pub volumes: Vec<ExtraVolume>,
}

/// A path of the node that is mounted read-only at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraVolume {
    /// Name of the volume.
    pub name: &'static str,
    /// Absolute path.
    pub path: String,
    /// What the kubelet demands of the path, or makes there.
    pub path_type: &'static str,
}

/// Names of what stands in a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Flags.
    pub args: Vec<String>,
    /// Environment variables.
    pub envs: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
}

/// One component's part of a `ClusterConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Flags that are asked for, with values, in order.
    pub args: Vec<(String, String)>,
    /// All names.
    pub names: Names,
    /// What the note in it says is ours; without a note, nothing.
    pub ours: Names,
    /// Whether it has a place for environment variables, and so for a note.
    pub has_envs: bool,
}

/// Reads a section. `None` where the configuration has none of that name.
pub fn section(text: &str, path: &[&str]) -> Result<Option<Section>, Unsupported> {
    let root = root(text)?;
    let Some(section) = find(&root, path)? else { return Ok(None) };
    let envs = list(section, ENVS)?.map(Node::items).unwrap_or_default();
    let volumes = list(section, VOLUMES)?.map(Node::items).unwrap_or_default();
    let args = args(section)?;
    let text_of = |item: &Node, key: &str| item.get(key).and_then(Node::scalar).map(str::to_owned);
    let names = Names {
        args: args.iter().map(|(name, _)| name.clone()).collect(),
        envs: envs.iter().filter_map(|item| text_of(item, "name")).collect(),
        volumes: volumes.iter().filter_map(|item| text_of(item, "name")).collect(),
    };
    let note = envs.iter().find(|item| text_of(item, "name").as_deref() == Some(VARIABLE_ADDED));
    let ours = match note.and_then(|item| item.get("value")) {
        Some(value) => Names::from(Added::parse(value.scalar().unwrap_or_default(), value.line)?),
        None => Names::default(),
    };
    Ok(Some(Section { args, names, ours, has_envs: args_are_a_list(&root) }))
}

/// Whether a section holds of ours exactly `new` and the note of it, in whatever order.
pub fn holds(text: &str, path: &[&str], ours: &Names, new: &Extras) -> Result<bool, Unsupported> {
    let root = root(text)?;
    let Some(section) = find(&root, path)? else { return Ok(*new == Extras::default()) };
    let noted = with_note(new, args_are_a_list(&root));
    let items = |key: &str| section.get(key).map(Node::items).unwrap_or_default();
    let member = |item: &Node, key: &str, value: &str| item.get(key).and_then(Node::scalar) == Some(value);
    let args = args(section)?;
    let pair = |item: &Node, (name, value): &(&'static str, String)| member(item, "name", name) && member(item, "value", value);
    let volume = |item: &Node, volume: &ExtraVolume| {
        let at = |key| member(item, key, &volume.path);
        member(item, "name", volume.name)
            && at("hostPath")
            && at("mountPath")
            && member(item, "pathType", volume.path_type)
            && member(item, "readOnly", "true")
    };
    Ok(Names::from(&noted).sorted() == ours.clone().sorted()
        && noted.args.iter().all(|(name, value)| args.iter().any(|(n, v)| n == name && v == value))
        && noted.envs.iter().all(|env| items(ENVS).iter().any(|item| pair(item, env)))
        && noted.volumes.iter().all(|wanted| items(VOLUMES).iter().any(|item| volume(item, wanted))))
}

/// Takes out of a section what has one of the names of `old`, adds `new` with a note of it, and proves both.
pub fn replace(text: &str, path: &[&str], old: &Names, new: &Extras) -> Result<String, Unsupported> {
    let noted = with_note(new, args_are_a_list(&root(text)?));
    let without = take_out(text, path, old)?;
    prove(text, &without, path, old, &Extras::default())?;
    let after = put_in(&without, path, &noted)?;
    prove(&without, &after, path, &Names::default(), &noted)?;
    if take_out(&after, path, &Names::from(&noted))? != without {
        return Err(Unsupported::Unproven("taking the entries back does not give the same bytes".into()));
    }
    Ok(after)
}

/// `new` with the variable that names all of it; nothing is noted of nothing, nor where there is no place for a variable.
fn with_note(new: &Extras, has_envs: bool) -> Extras {
    let mut noted = new.clone();
    if *new == Extras::default() || !has_envs {
        noted.envs.clear();
        return noted;
    }
    noted.envs.push((VARIABLE_ADDED, String::new()));
    let Names { args: flags, envs: env, volumes } = Names::from(&noted);
    let note = Added { flags, volumes, env, ..Added::default() }.to_string();
    if let Some((_, value)) = noted.envs.last_mut() {
        *value = note;
    }
    noted
}

impl Names {
    /// Each name once, in order.
    fn sorted(mut self) -> Self {
        for names in [&mut self.args, &mut self.envs, &mut self.volumes] {
            names.sort();
            names.dedup();
        }
        self
    }

    /// These and those, each once, in order.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.args.extend(others.args);
        self.envs.extend(others.envs);
        self.volumes.extend(others.volumes);
        self.sorted()
    }
}

impl From<&Extras> for Names {
    fn from(extras: &Extras) -> Self {
        let names = |pairs: &[(&'static str, String)]| pairs.iter().map(|(name, _)| (*name).to_owned()).collect();
        let volumes = extras.volumes.iter().map(|volume| volume.name.to_owned()).collect();
        Self { args: names(&extras.args), envs: names(&extras.envs), volumes }
    }
}

impl From<Added> for Names {
    fn from(added: Added) -> Self {
        Self { args: added.flags, envs: added.env, volumes: added.volumes }
    }
}

fn root(text: &str) -> Result<Node, Unsupported> {
    let root = tree::parse(text)?;
    match root.get("kind").and_then(Node::scalar) {
        Some("ClusterConfiguration") => Ok(root),
        _ => Err(shape(root.line, "it is no ClusterConfiguration")),
    }
}

/// From `v1beta4` on. A version that is not known yet is taken for the newest one; the proof and kubeadm's own check stand behind that.
fn args_are_a_list(root: &Node) -> bool {
    is_list_version(root.get("apiVersion").and_then(Node::scalar).unwrap_or_default())
}

fn is_list_version(api_version: &str) -> bool {
    !matches!(api_version, "kubeadm.k8s.io/v1beta1" | "kubeadm.k8s.io/v1beta2" | "kubeadm.k8s.io/v1beta3")
}

fn find<'t>(root: &'t Node, path: &[&str]) -> Result<Option<&'t Node>, Unsupported> {
    let mut node = root;
    for key in path {
        let Some(value) = node.get(key) else { return Ok(None) };
        if !value.is_mapping() {
            return Err(shape(value.line, format!("`{key}` is {}, not a mapping", value.describe())));
        }
        node = value;
    }
    Ok(Some(node))
}

fn args(section: &Node) -> Result<Vec<(String, String)>, Unsupported> {
    let Some(args) = section.get(ARGS) else { return Ok(Vec::new()) };
    let scalar = |node: &Node| {
        node.scalar().map(str::to_owned).ok_or_else(|| shape(node.line, format!("a flag in `{ARGS}` is {}", node.describe())))
    };
    if args.is_mapping() {
        return args.entries().iter().map(|entry| Ok((entry.key.clone(), scalar(&entry.value)?))).collect();
    }
    let items = list(section, ARGS)?.map(Node::items).unwrap_or_default();
    let member = |item: &Node, key: &str| item.get(key).map_or_else(|| Ok(String::new()), scalar);
    items.iter().map(|item| Ok((member(item, "name")?, member(item, "value")?))).collect()
}

/// The section without everything of these names.
fn take_out(text: &str, path: &[&str], names: &Names) -> Result<String, Unsupported> {
    let all = [(ARGS, &names.args), (ENVS, &names.envs), (VOLUMES, &names.volumes)];
    let mut text = text.to_owned();
    for (key, name) in all.into_iter().flat_map(|(key, names)| names.iter().map(move |name| (key, name))) {
        text = take_out_one(&text, path, key, name)?;
    }
    Ok(text)
}

fn take_out_one(text: &str, path: &[&str], key: &str, name: &str) -> Result<String, Unsupported> {
    let root = root(text)?;
    let Some(section) = find(&root, path)? else { return Ok(text.to_owned()) };
    let Some((position, entry)) = section.entry(key) else { return Ok(text.to_owned()) };
    let collection = &entry.value;
    let found: Vec<usize> = match collection.entry(name) {
        Some((index, _)) => vec![index],
        None => named(collection, name),
    };
    match found.as_slice() {
        [] => Ok(text.to_owned()),
        [_, _, ..] => Err(shape(collection.line, format!("{name:?} is in `{key}` twice, so it is not clear which one was added"))),
        [_] if collection.len() == 1 && section.len() == 1 && !section.is_flow() => empty_section(text, &root, path),
        [_] if collection.len() == 1 => remove_entry(text, section, position),
        [index] if collection.is_mapping() => remove_entry(text, collection, *index),
        [index] => remove_item(text, collection, *index),
    }
}

/// A block mapping cannot stand empty: it becomes `{}`.
fn empty_section(text: &str, root: &Node, path: &[&str]) -> Result<String, Unsupported> {
    let (parents, key) = path.split_at(path.len().saturating_sub(1));
    let entry = find(root, parents)?.and_then(|parent| parent.entry(key.first()?));
    let Some((_, entry)) = entry else { return Ok(text.to_owned()) };
    Ok(spliced(text, entry.key_range.end..entry.value.range.end, ": {}"))
}

/// The section with everything of `new`, behind what is there.
fn put_in(text: &str, path: &[&str], new: &Extras) -> Result<String, Unsupported> {
    let as_list = args_are_a_list(&root(text)?);
    let pair = |(name, value): &(&'static str, String)| New::Mapping(vec![("name", New::text(name)), ("value", New::text(value))]);
    let mut text = text.to_owned();
    for arg in &new.args {
        let new = if as_list { pair(arg) } else { New::Mapping(vec![(arg.0, New::text(&arg.1))]) };
        text = put_in_one(&text, path, ARGS, new, as_list)?;
    }
    for env in &new.envs {
        text = put_in_one(&text, path, ENVS, pair(env), true)?;
    }
    for ExtraVolume { name, path: at, path_type } in &new.volumes {
        let volume = vec![
            ("hostPath", New::text(at)),
            ("mountPath", New::text(at)),
            ("name", New::text(name)),
            ("pathType", New::text(path_type)),
            ("readOnly", New::True),
        ];
        text = put_in_one(&text, path, VOLUMES, New::Mapping(volume), true)?;
    }
    Ok(text)
}

/// Adds `new` to the collection under `key`: as an item of a list, or its one entry as an entry of a mapping.
fn put_in_one(text: &str, path: &[&str], key: &str, new: New, as_list: bool) -> Result<String, Unsupported> {
    let root = root(text)?;
    let section = find(&root, path)?.ok_or_else(|| shape(root.line, format!("there is no `{}`", path.join("."))))?;
    let Some(collection) = section.get(key) else {
        let new = if as_list { New::List(vec![new]) } else { new };
        let in_block =
            (0..path.len()).all(|depth| find(&root, &path[..depth]).is_ok_and(|parent| parent.is_some_and(|parent| !parent.is_flow())));
        if in_block && text.get(section.range.clone()) == Some("{}") {
            return Ok(fill_section(text, &root, section, key, &new));
        }
        // Sorted, as kubeadm writes them; what would be first goes behind the first.
        let after = section.entries().iter().rposition(|entry| entry.key.as_str() < key).unwrap_or_default();
        return insert_entry(text, &root, section, after, key, &new);
    };
    match new {
        New::Mapping(entries) if !as_list => {
            let Some((name, value)) = entries.into_iter().next() else { return Ok(text.to_owned()) };
            insert_entry(text, &root, collection, collection.len().saturating_sub(1), name, &value)
        }
        item => append_item(text, &root, collection, &item),
    }
}

/// Writes the first entry into a section that is `{}`, in block style.
fn fill_section(text: &str, root: &Node, section: &Node, key: &str, new: &New) -> String {
    let layout = Layout::of(text, root);
    let indent = indentation(text, section.range.start) + layout.step;
    let lines = layout.entry_lines(key, new, layout.dash);
    let lines = lines.iter().map(|line| format!("{}{}{line}", layout.newline, " ".repeat(indent)));
    let key_end = text[..section.range.start].trim_end_matches(' ').len();
    spliced(text, key_end..section.range.end, &lines.collect::<String>())
}

/// Proves that `after` is `before` without `old` and with `new` in this section, and nothing else.
fn prove(before: &str, after: &str, path: &[&str], old: &Names, new: &Extras) -> Result<(), Unsupported> {
    let mut expected = proof::read(before).map_err(Unsupported::Unreadable)?;
    let after = proof::read(after).map_err(Unsupported::Unproven)?;
    let section = path.iter().try_fold(&mut expected, |node, key| node.get_mut(*key)).and_then(Value::as_mapping_mut);
    if let Some(section) = section {
        for (key, names) in [(ARGS, &old.args), (ENVS, &old.envs), (VOLUMES, &old.volumes)] {
            without(section, key, names);
        }
        with(section, new, after.get("apiVersion").and_then(Value::as_str).unwrap_or_default());
    }
    proof::compare(&expected, &after)
}

fn without(section: &mut Mapping, key: &str, names: &[String]) {
    let is_named = |name: Option<&str>| name.is_some_and(|name| names.iter().any(|gone| gone == name));
    let (before, left) = match section.get_mut(key) {
        Some(Value::Sequence(items)) => {
            let before = items.len();
            items.retain(|item| !is_named(item.get("name").and_then(Value::as_str)));
            (before, items.len())
        }
        Some(Value::Mapping(entries)) => {
            let before = entries.len();
            entries.retain(|name, _| !is_named(name.as_str()));
            (before, entries.len())
        }
        _ => return,
    };
    if left == 0 && before > 0 {
        section.remove(key);
    }
}

fn with(section: &mut Mapping, new: &Extras, api_version: &str) {
    let mapping =
        |entries: &[(&str, Value)]| Value::Mapping(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect());
    let pair = |(name, value): &(&str, String)| mapping(&[("name", (*name).into()), ("value", value.as_str().into())]);
    let mut push = |key: &str, item: Value| {
        if let Some(items) = section.entry(key.into()).or_insert_with(|| Value::Sequence(Vec::new())).as_sequence_mut() {
            items.push(item);
        }
    };
    for volume in &new.volumes {
        let path = Value::from(volume.path.as_str());
        let path_type = Value::from(volume.path_type);
        let name = Value::from(volume.name);
        push(
            VOLUMES,
            mapping(&[("hostPath", path.clone()), ("mountPath", path), ("name", name), ("pathType", path_type), ("readOnly", true.into())]),
        );
    }
    new.envs.iter().for_each(|env| push(ENVS, pair(env)));
    if is_list_version(api_version) {
        new.args.iter().for_each(|arg| push(ARGS, pair(arg)));
        return;
    }
    for (name, value) in &new.args {
        if let Some(args) = section.entry(ARGS.into()).or_insert_with(|| Value::Mapping(Mapping::new())).as_mapping_mut() {
            args.insert((*name).into(), value.as_str().into());
        }
    }
}
