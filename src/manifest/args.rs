//! Flags as programs of the control plane read them: pure functions on words, no YAML.
//!
//! kube-apiserver (pflag) and etcd (Go's `flag`) both take `--name=value` and `--name value`; etcd takes one dash too.
//! kube-apiserver also takes `_` for `-` in a name, so both are the same name here.

use std::ops::Range;

/// The flag that holds feature gates.
pub(super) const FEATURE_GATES: &str = "feature-gates";

/// One flag of an argv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// Without dashes.
    pub(super) name: String,
    /// `None` for a flag that stands alone, which means true.
    pub(super) value: Option<String>,
    /// The words it takes: one, or two for `--name value`.
    pub(super) words: Range<usize>,
}

/// The flags among `words`. Words that are neither flags nor their values (the program's name) are passed over.
pub(super) fn flags<S: AsRef<str>>(words: &[S]) -> Vec<Flag> {
    let mut flags = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at).map(AsRef::as_ref) {
        let next = words.get(at + 1).map(AsRef::as_ref).filter(|next| !next.starts_with('-'));
        let Some((name, value)) = split(word) else {
            at += 1;
            continue;
        };
        let (value, length) = match (value, next) {
            (Some(value), _) => (Some(value), 1),
            (None, Some(next)) => (Some(next), 2),
            (None, None) => (None, 1),
        };
        flags.push(Flag { name, value: value.map(str::to_owned), words: at..at + length });
        at += length;
    }
    flags
}

/// Name and value of `--name=value`; nothing for a word that is no flag.
fn split(word: &str) -> Option<(String, Option<&str>)> {
    let body = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
    (!name.is_empty()).then(|| (name.replace('_', "-"), value))
}

/// The gates of a `--feature-gates` value, in order. A value that is no boolean is `None`.
pub(super) fn gates(value: &str) -> Vec<(&str, Option<bool>)> {
    let pairs = value.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').map_or((pair, None), |(name, on)| (name.trim(), parse_bool(on.trim())))).collect()
}

/// The words that Go's `strconv.ParseBool` knows.
fn parse_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `Name=true,Other=false`.
pub(super) fn write_gates(gates: &[(String, bool)]) -> String {
    gates.iter().map(|(name, on)| format!("{name}={on}")).collect::<Vec<_>>().join(",")
}

/// The bytes of `gate` in a `--feature-gates` value (or word), with the one comma that goes with it.
pub(super) fn gate_range(word: &str, gate: &str) -> Option<Range<usize>> {
    let value = if word.starts_with('-') { word.find('=')? + 1 } else { 0 };
    let mut start = value;
    for pair in word[value..].split(',') {
        let end = start + pair.len();
        if pair.split_once('=').is_some_and(|(name, _)| name == gate) {
            return Some(match (start > value, end < word.len()) {
                (true, _) => start - 1..end,
                (false, true) => start..end + 1,
                (false, false) => start..end,
            });
        }
        start = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_flags_in_every_form_that_the_programs_take() {
        type Flag = (&'static str, Option<&'static str>, usize);
        let cases: [(&[&str], &[Flag]); 8] = [
            (&["etcd", "--name=a"], &[("name", Some("a"), 1)]),
            (&["etcd", "-name=a"], &[("name", Some("a"), 1)]),
            (&["etcd", "--name", "a", "--b"], &[("name", Some("a"), 2), ("b", None, 1)]),
            (&["etcd", "--b", "--name", "a"], &[("b", None, 1), ("name", Some("a"), 2)]),
            (&["kube-apiserver", "--feature_gates=A=true,B=false"], &[("feature-gates", Some("A=true,B=false"), 1)]),
            (&["kube-apiserver", "-v=2"], &[("v", Some("2"), 1)]),
            (&["etcd", "--name="], &[("name", Some(""), 1)]),
            (&["etcd", "-", "x"], &[]),
        ];
        for (words, expected) in cases {
            let found = flags(words);
            let found: Vec<_> = found.iter().map(|flag| (flag.name.as_str(), flag.value.as_deref(), flag.words.len())).collect();
            assert_eq!(found, expected, "{words:?}");
        }
    }

    #[test]
    fn takes_a_gate_out_with_one_comma() {
        let cases = [
            ("--feature-gates=A=true,X=true", "--feature-gates=A=true"),
            ("--feature-gates=X=true,A=true", "--feature-gates=A=true"),
            ("--feature-gates=A=true,X=true,B=true", "--feature-gates=A=true,B=true"),
            ("--feature-gates=X=true", "--feature-gates="),
            ("A=true,X=true", "A=true"),
        ];
        for (word, without) in cases {
            let mut word = word.to_owned();
            let range = gate_range(&word, "X").expect("it has the gate");
            word.replace_range(range, "");
            assert_eq!(word, without);
        }
        assert_eq!(gate_range("--feature-gates=XY=true,YX=true", "X"), None);
    }

    #[test]
    fn reads_gates_as_go_does() {
        assert_eq!(gates("A=true, B=F,,C,D=maybe"), [("A", Some(true)), ("B", Some(false)), ("C", None), ("D", None)]);
        assert_eq!(gates(""), []);
    }
}
