//! What must hold of the manifest editor for every manifest that people and tools may write, not only for the golden ones.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a property that cannot go on panics")]

use std::fmt::Write as _;

use clustertracing::manifest::{self, Edit, FileMount, Manifest, Unsupported};
use proptest::prelude::*;
use serde_yaml::{Mapping, Value};

const PROGRAM: &str = "kube-apiserver";
const FLAG: &str = "tracing-config-file";
const PATH: &str = "/etc/kubernetes/clustertracing/tracing-1.yaml";

/// How a collection stands in a manifest before the edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Missing,
    EmptyFlow,
    Flow,
    Block,
}

/// One of the ways to write the same kind of pod.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
struct Shape {
    /// Blanks before the dashes of lists, behind the dashes, and from a key to what is below it.
    dash: usize,
    gap: usize,
    step: usize,
    newline: &'static str,
    final_newline: bool,
    quote: &'static str,
    two_words: bool,
    flow_command: bool,
    flags_in_args: bool,
    gates: Option<&'static str>,
    annotations: Before,
    env: Before,
    mounts: Before,
    volumes: Before,
    sidecars: (bool, bool),
    container_first: bool,
    /// For each line, in turn: leave it, a comment behind it, a comment above it, a blank line above it.
    decoration: Vec<u8>,
}

fn before() -> impl Strategy<Value = Before> {
    prop_oneof![Just(Before::Missing), Just(Before::EmptyFlow), Just(Before::Flow), Just(Before::Block)]
}

prop_compose! {
    fn shapes()(
        (dash, gap, step) in (prop_oneof![Just(0usize), Just(2), Just(4)], 1..4usize, prop_oneof![Just(2usize), Just(4)]),
        (newline, final_newline) in (prop_oneof![Just("\n"), Just("\r\n")], any::<bool>()),
        quote in prop_oneof![Just(""), Just("\""), Just("'")],
        (two_words, flow_command, flags_in_args) in any::<(bool, bool, bool)>(),
        gates in prop_oneof![Just(None), Just(Some("")), Just(Some("A=true")), Just(Some("A=true,B=false")), Just(Some("X=true,A=false"))],
        (annotations, env, mounts, volumes) in (before(), before(), before(), before()),
        sidecars in any::<(bool, bool)>(),
        container_first in any::<bool>(),
        decoration in proptest::collection::vec(0..8u8, 1..40),
    ) -> Shape {
        Shape { dash, gap, step, newline, final_newline, quote, two_words, flow_command, flags_in_args, gates, annotations, env, mounts,
            volumes, sidecars, container_first, decoration }
    }
}

impl Shape {
    fn flags(&self) -> Vec<String> {
        let words: &[&str] =
            if self.two_words { &["--secure-port", "6443x", "-v=2"] } else { &["--secure-port=6443", "--profiling=false"] };
        let mut words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        match (self.gates, self.two_words) {
            (Some(gates), true) if !gates.is_empty() => words.extend(["--feature-gates".to_owned(), gates.to_owned()]),
            (Some(gates), _) => words.push(format!("--feature-gates={gates}")),
            (None, _) => {}
        }
        words
    }

    /// A list of strings under `key`.
    fn words(&self, lines: &mut Vec<String>, indent: usize, key: &str, words: &[String]) {
        let quoted = |word: &String| match self.quote {
            "" if self.flow_command && word.contains(',') => format!("\"{word}\""),
            quote => format!("{quote}{word}{quote}"),
        };
        if self.flow_command {
            // Unquoted gates in a flow list are refused; that is a golden case.
            let words: Vec<_> = words
                .iter()
                .map(|word| if word.contains("A=") || word.contains("gates=") { format!("'{word}'") } else { quoted(word) })
                .collect();
            lines.push(format!("{}{key}: [{}]", " ".repeat(indent), words.join(", ")));
            return;
        }
        lines.push(format!("{}{key}:", " ".repeat(indent)));
        lines.extend(words.iter().map(|word| format!("{}-{}{}", " ".repeat(indent + self.dash), " ".repeat(self.gap), quoted(word))));
    }

    /// A list of mappings with two keys under `key`.
    fn list(&self, lines: &mut Vec<String>, indent: usize, key: &str, how: Before, item: [(&str, &str); 2]) {
        let [(first, name), (second, value)] = item;
        let blanks = " ".repeat(indent);
        match how {
            Before::Missing => {}
            Before::EmptyFlow => lines.push(format!("{blanks}{key}: []")),
            Before::Flow => lines.push(format!("{blanks}{key}: [{{{first}: {name}, {second}: {value}}}]")),
            Before::Block => {
                let item = " ".repeat(indent + self.dash);
                lines.push(format!("{blanks}{key}:"));
                lines.push(format!("{item}-{}{first}: {name}", " ".repeat(self.gap)));
                lines.push(format!("{item} {}{second}: {value}", " ".repeat(self.gap)));
            }
        }
    }

    fn sidecar(&self, lines: &mut Vec<String>, indent: usize, name: &str) {
        let (dash, key) = (" ".repeat(indent), " ".repeat(indent + 1 + self.gap));
        lines.push(format!("{dash}-{}name: {name}", " ".repeat(self.gap)));
        lines.push(format!("{key}image: example.com/{name}:1"));
        lines.push(format!("{key}command: [/{name}, --{FLAG}=theirs]"));
    }

    fn yaml(&self) -> String {
        let (step, list) = (" ".repeat(self.step), self.step + self.dash);
        let mut lines = vec!["apiVersion: v1".to_owned(), "kind: Pod".into(), "metadata:".into(), format!("{step}name: kube-apiserver")];
        match self.annotations {
            Before::Missing => {}
            Before::EmptyFlow => lines.push(format!("{step}annotations: {{}}")),
            Before::Flow => lines.push(format!("{step}annotations: {{owner: platform}}")),
            Before::Block => lines.extend([format!("{step}annotations:"), format!("{step}{step}owner: platform")]),
        }
        lines.extend(["spec:".to_owned(), format!("{step}hostNetwork: true"), format!("{step}containers:")]);
        if self.sidecars.0 {
            self.sidecar(&mut lines, list, "before");
        }
        let key = list + 1 + self.gap;
        let mut container = Vec::new();
        let program = vec!["/usr/bin/kube-apiserver".to_owned()];
        if self.flags_in_args {
            self.words(&mut container, key, "command", &program);
            self.words(&mut container, key, "args", &self.flags());
        } else {
            self.words(&mut container, key, "command", &[program, self.flags()].concat());
        }
        let blanks = " ".repeat(key);
        let name = [format!("{blanks}name: kube-apiserver"), format!("{blanks}image: registry.k8s.io/kube-apiserver:v1.26.0")];
        if self.container_first {
            container.splice(0..0, name)
        } else {
            container.splice(container.len().., name)
        };
        self.list(&mut container, key, "env", self.env, [("name", "GODEBUG"), ("value", "x")]);
        self.list(&mut container, key, "volumeMounts", self.mounts, [("name", "pki"), ("mountPath", "/etc/kubernetes/pki")]);
        let dash = format!("{}-{}", " ".repeat(list), " ".repeat(self.gap));
        container[0] = format!("{dash}{}", container[0].trim_start());
        lines.extend(container);
        if self.sidecars.1 {
            self.sidecar(&mut lines, list, "after");
        }
        self.list(&mut lines, self.step, "volumes", self.volumes, [("name", "pki"), ("emptyDir", "{}")]);
        self.decorated(&lines)
    }

    fn decorated(&self, lines: &[String]) -> String {
        let mut text = String::new();
        for (line, decoration) in lines.iter().zip(self.decoration.iter().cycle()) {
            let indent = line.len() - line.trim_start().len();
            match decoration {
                0 => write!(text, "{line}   # naïve: [\"{{'{}", self.newline).unwrap(),
                1 => write!(text, "{}# - --disabled: 1{}{line}{}", " ".repeat(indent), self.newline, self.newline).unwrap(),
                2 => write!(text, "{}{line}{}", self.newline, self.newline).unwrap(),
                3 => write!(text, "# far left{}{line}{}", self.newline, self.newline).unwrap(),
                _ => write!(text, "{line}{}", self.newline).unwrap(),
            }
        }
        if !self.final_newline {
            text.truncate(text.trim_end().len());
        }
        text
    }

    /// The same pod as JSON.
    fn json(&self, indent: Option<usize>) -> String {
        let value: serde_json::Value = serde_yaml::from_str(&self.yaml()).unwrap();
        let Some(indent) = indent else { return value.to_string() };
        let mut text = Vec::new();
        let blanks = " ".repeat(indent);
        let formatter = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
        serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut text, formatter)).unwrap();
        String::from_utf8(text).unwrap().replace('\n', self.newline)
    }
}

fn edit() -> Edit {
    let string = |text: &str| text.to_owned();
    Edit {
        flags: vec![(string(FLAG), string(PATH)), (string("other"), string("a: b, [\"c\"] #d"))],
        feature_gates: vec![(string("X"), true), (string("Y"), false)],
        files: vec![FileMount { volume: string("clustertracing"), path: string(PATH) }],
        env: vec![(string("OTEL_BSP_MAX_QUEUE_SIZE"), string("512")), (string("GODEBUG"), string("ours"))],
    }
}

/// Checks every promise for one text.
fn check(text: &str) {
    let edited = manifest::apply(text, PROGRAM, &edit()).unwrap_or_else(|refusal| panic!("{refusal} in\n{text}"));
    assert_eq!(manifest::revert(&edited, PROGRAM).unwrap(), text);
    assert!(matches!(manifest::apply(&edited, PROGRAM, &edit()), Err(Unsupported::Shape(_))));
    assert_eq!(manifest::revert(text, PROGRAM).unwrap(), text);

    let (before, after) = (Manifest::parse(text, PROGRAM).unwrap().unwrap(), Manifest::parse(&edited, PROGRAM).unwrap().unwrap());
    assert!(after.is_ours() && !before.is_ours());
    assert_eq!(after.flag(FLAG), [PATH]);
    assert_eq!(after.flag("other"), ["a: b, [\"c\"] #d"]);
    let gates = after.flag("feature-gates").join(",");
    assert!(gates.contains("X=true") && gates.contains("Y=false"), "{gates}");
    assert!(before.flag_names().iter().all(|name| after.flag_names().contains(name)));
    for line in text.lines().filter(|line| line.contains('#')) {
        assert!(edited.contains(line.trim()) || line.contains("--feature-gates") || line.contains('['), "{line:?} is not in\n{edited}");
    }
    only_ours_differs(text, &edited);
}

/// Takes what the edit may have added out of the edited value, by its names, and finds the first value.
fn only_ours_differs(text: &str, edited: &str) {
    let (before, mut after): (Value, Value) = (serde_yaml::from_str(text).unwrap(), serde_yaml::from_str(edited).unwrap());
    let find = |pod: &Value| {
        let containers = pod["spec"]["containers"].as_sequence().unwrap();
        containers.iter().position(|container| container["name"] == "kube-apiserver").unwrap()
    };
    let index = find(&before);
    let container_before = before["spec"]["containers"][index].clone();
    let container = &mut after["spec"]["containers"][index];
    for key in ["command", "args"] {
        let Some(words) = container.get_mut(key).and_then(Value::as_sequence_mut) else { continue };
        words.retain(|word| !word.as_str().unwrap().starts_with(&format!("--{FLAG}=")) && !word.as_str().unwrap().starts_with("--other="));
        let had_gates = serde_yaml::to_string(&container_before).unwrap().contains("--feature-gates");
        words.retain(|word| had_gates || !word.as_str().unwrap().starts_with("--feature-gates="));
        for (word, original) in words.iter_mut().zip(container_before[key].as_sequence().unwrap()) {
            let original = original.as_str().unwrap();
            if word
                .as_str()
                .unwrap()
                .strip_prefix(original)
                .is_some_and(|added| ["X=true,Y=false", ",X=true,Y=false", ",Y=false"].contains(&added))
            {
                *word = original.into();
            }
        }
    }
    let drop = |parent: &mut Value, original: &Value, key: &str, ours: &[&str]| {
        let Some(list) = parent.get_mut(key).and_then(Value::as_sequence_mut) else { return };
        list.retain(|item| !ours.iter().any(|name| item["name"] == *name));
        if list.is_empty() && original.get(key).is_none() {
            parent.as_mapping_mut().unwrap().remove(key);
        }
    };
    drop(
        container,
        &container_before,
        "env",
        if container_before.get("env").is_some_and(|env| env != &Value::Sequence(vec![])) {
            &["OTEL_BSP_MAX_QUEUE_SIZE"]
        } else {
            &["OTEL_BSP_MAX_QUEUE_SIZE", "GODEBUG"]
        },
    );
    drop(container, &container_before, "volumeMounts", &["clustertracing"]);
    drop(&mut after["spec"], &before["spec"], "volumes", &["clustertracing"]);
    let annotations = after["metadata"]["annotations"].as_mapping_mut().unwrap();
    annotations.remove("clustertracing.dev/added").unwrap();
    if annotations == &Mapping::new() && before["metadata"].get("annotations").is_none() {
        after["metadata"].as_mapping_mut().unwrap().remove("annotations");
    }
    assert_eq!(before, after);
}

proptest! {

    #[test]
    fn every_shape_of_yaml_takes_the_edit_and_gives_its_bytes_back(shape in shapes()) {
        check(&shape.yaml());
    }

    #[test]
    fn every_shape_of_json_stays_json_and_gives_its_bytes_back(shape in shapes(), indent in prop_oneof![Just(None), Just(Some(2)), Just(Some(4))]) {
        let text = shape.json(indent);
        check(&text);
        let edited = manifest::apply(&text, PROGRAM, &edit()).unwrap();
        serde_json::from_str::<serde_json::Value>(&edited).unwrap();
    }

    /// A person adds comments anywhere and flags around ours; all of it stays, and all of ours goes.
    #[test]
    fn a_later_change_by_somebody_else_stays(mut shape in shapes(), comments in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        shape.flow_command = false;
        let text = shape.yaml();
        let edited = manifest::apply(&text, PROGRAM, &edit()).unwrap();
        let mut lines: Vec<&str> = edited.split_inclusive('\n').collect();
        let ours = lines.iter().position(|line| line.contains(&format!("--{FLAG}={PATH}"))).unwrap();
        let theirs: Vec<_> = ["--theirs-before=1", "--theirs-behind=1"].iter().map(|flag| {
            let dash = lines[ours].find('-').unwrap();
            format!("{}-{}{flag}   # theirs{}", &lines[ours][..dash], " ".repeat(shape.gap), shape.newline)
        }).collect();
        if !lines[ours].ends_with('\n') { return Ok(()); }
        lines.insert(ours + 1, &theirs[1]);
        lines.insert(ours, &theirs[0]);
        let comment = format!("# noted later{}", shape.newline);
        for index in comments {
            lines.insert(index.index(lines.len()), &comment);
        }
        let reverted = manifest::revert(&lines.concat(), PROGRAM).unwrap();

        let view = Manifest::parse(&reverted, PROGRAM).unwrap().unwrap();
        prop_assert!(!view.is_ours());
        let mut flags = Manifest::parse(&text, PROGRAM).unwrap().unwrap().flag_names();
        flags.extend(["theirs-before".to_owned(), "theirs-behind".to_owned()]);
        prop_assert_eq!(view.flag_names(), flags);
        prop_assert_eq!(reverted.matches("# theirs").count(), 2);
        for name in ["clustertracing", "OTEL_BSP", "--other"] {
            prop_assert!(!reverted.contains(name), "{} is left in\n{}", name, reverted);
        }
    }

    /// Neither a panic nor an unproved edit, whatever the text is.
    #[test]
    fn a_manifest_with_a_hole_or_a_stray_character_is_edited_right_or_refused(
        shape in shapes(),
        at in any::<prop::sample::Index>(),
        length in 0..30usize,
        stray in "[\\-:#\\[\\]{}&*!|>'\"%@`, \n\tax]{0,3}",
    ) {
        let mut text: Vec<char> = shape.yaml().chars().collect();
        let start = at.index(text.len());
        text.splice(start..(start + length).min(text.len()), stray.chars());
        let text: String = text.into_iter().collect();
        match manifest::apply(&text, PROGRAM, &edit()) {
            Ok(edited) => prop_assert_eq!(manifest::revert(&edited, PROGRAM).unwrap(), text),
            Err(refusal) => prop_assert!(!matches!(refusal, Unsupported::Unproven(_)), "{} in\n{}", refusal, text),
        }
    }
}

#[test]
fn a_bomb_is_refused_at_once() {
    let aliases: String = (1..60).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let alias = format!("*a{}", level - 1);
        text + &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(","))
    });
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let indented: String = (0..2000).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n");
    let large = format!("kind: Pod\n{}", "# \n".repeat(400_000));
    for text in [aliases, deep, indented, large] {
        assert!(Manifest::parse(&text, PROGRAM).is_err());
    }
}
