//! Whether two manifests that differ in the place of our additions alone say the same.
//!
//! People append, too: a flag that somebody puts behind ours would otherwise have ours moved behind it, and the component restarted for that.

use serde_yaml::Value;

use super::proof::read;
use crate::api::ANNOTATION_ADDED;

/// Whether `a` and `b`, which are the same without our additions, carry the same additions, wherever they stand.
pub fn add_the_same(a: &str, b: &str) -> bool {
    let sorted = |text: &str| read(text).map(in_order);
    a == b || matches!((sorted(a), sorted(b)), (Ok(a), Ok(b)) if a == b)
}

/// The value with its lists in an order of their own. What is not ours has the same order in both manifests, so that nothing is hidden by it.
fn in_order(value: Value) -> Value {
    match value {
        Value::Sequence(items) => {
            let mut items: Vec<_> = items.into_iter().map(in_order).collect();
            items.sort_by_cached_key(|item| serde_yaml::to_string(item).unwrap_or_default());
            Value::Sequence(items)
        }
        Value::Mapping(entries) => {
            let entry = |(key, value)| if key == ANNOTATION_ADDED { (key, note(value)) } else { (key, in_order(value)) };
            Value::Mapping(entries.into_iter().map(entry).collect())
        }
        scalar => scalar,
    }
}

/// Which collections an edit had to make depends on what was there then, and says nothing of what it added.
fn note(value: Value) -> Value {
    let Value::String(words) = value else { return value };
    let mut words: Vec<_> = words.split(',').filter(|word| !word.starts_with("key:")).collect();
    words.sort_unstable();
    Value::String(words.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../../tests/manifests/kubeadm/1.36.3/kube-apiserver/out.yaml");

    #[test]
    fn the_place_of_an_addition_does_not_matter_and_its_value_does() {
        let moved = |from: &str, to: &str| {
            let line = OURS.lines().find(|line| line.contains(from)).unwrap();
            OURS.replacen(&format!("{line}\n"), "", 1).replacen(to, &format!("{line}\n{to}"), 1)
        };
        let flag_first = moved("--tracing-config-file", "    - --advertise-address");
        let note_last = moved("clustertracing.dev/added", "  labels:");
        for same in [OURS.to_owned(), flag_first.clone(), note_last, OURS.replace(",key:env", "")] {
            assert!(add_the_same(OURS, &same), "{same}");
        }
        assert_ne!(flag_first, OURS);
        for other in
            [OURS.replace("value: \"512\"", "value: \"513\""), OURS.replace("env:OTEL_BSP_MAX_QUEUE_SIZE", "env:OTHER"), "a: [".into()]
        {
            assert_ne!(other, OURS);
            assert!(!add_the_same(OURS, &other), "{other}");
        }
    }
}
