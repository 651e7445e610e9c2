//! `explain`: what a condition or a reason means, from the same text as docs/reasons.md.

use super::Report;
use crate::api::condition::{Meaning, meanings};

/// Explain a condition's type or a reason, offline
///
/// Conditions, Events, refusals and the outcomes of nodes share one set of reasons. Without a name, all are listed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # What a refusal's reason means
  kubectl tracing explain UnsupportedManifest

  # All of them
  kubectl tracing explain")]
pub(super) struct Explain {
    /// A condition's type or a reason, in whatever case
    reason: Option<String>,
}

/// A word of neither set.
#[derive(Debug, thiserror::Error)]
#[error("{word:?} is neither a condition nor a reason{}", suggestion(.nearest.as_deref()).unwrap_or_else(|| "; kubectl tracing explain lists them".to_owned()))]
pub struct Unknown {
    word: String,
    nearest: Option<String>,
}

impl Explain {
    pub(super) fn run(&self) -> Result<Report, Unknown> {
        let all = meanings();
        let Some(word) = &self.reason else { return Ok(Report::data(table(&all))) };
        let meant: Vec<_> = all.iter().filter(|meaning| meaning.name.eq_ignore_ascii_case(word)).collect();
        if meant.is_empty() {
            return Err(Unknown { word: word.clone(), nearest: nearest(word, all.iter().map(|meaning| meaning.name)) });
        }
        let lines: Vec<_> = meant.iter().map(|meaning| format!("{} ({}): {}\n", meaning.name, meaning.kind, meaning.text)).collect();
        Ok(Report::data(lines.concat()))
    }
}

fn table(all: &[Meaning]) -> String {
    let width = all.iter().map(|meaning| meaning.name.len()).max().unwrap_or_default();
    let row = |kind: &str, name: &str, text: &str| format!("{kind:9}   {name:width$}   {text}\n");
    let rows: String = all.iter().map(|meaning| row(&meaning.kind.to_string(), meaning.name, &meaning.text)).collect();
    row("KIND", "NAME", "MEANS") + &rows
}

/// The word that was probably meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // letters in another case are no other letters
    let lower: Vec<(String, &str)> = known.map(|known| (known.to_lowercase(), known)).collect();
    let candidates: Vec<&str> = lower.iter().map(|(lower, _)| lower.as_str()).collect();
    let found = similar::get_close_matches(&*word.to_lowercase(), &candidates, 1, 0.6).first().copied()?.to_owned();
    lower.iter().find(|(lower, _)| *lower == found).map(|(_, known)| (*known).to_owned())
}

/// The end of a sentence that says what was probably meant.
pub(super) fn suggestion(nearest: Option<&str>) -> Option<String> {
    nearest.map(|nearest| format!(": did you mean {nearest:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(word: &str) -> Result<String, String> {
        Explain { reason: Some(word.to_owned()) }.run().map(|report| report.data).map_err(|unknown| unknown.to_string())
    }

    #[test]
    fn a_word_of_both_sets_is_explained_twice_in_whatever_case() {
        let both = explain("spansflowing").unwrap();
        assert!(both.starts_with("SpansFlowing (condition): ") && both.contains("\nSpansFlowing (reason): "), "{both}");
        assert_eq!(both.lines().count(), 2);
    }

    #[test]
    fn a_word_that_is_not_known_names_the_nearest_one() {
        let unknown = explain("UnsupportedManfest").unwrap_err();
        assert!(unknown.contains("did you mean \"UnsupportedManifest\"?"), "{unknown}");
        assert!(!explain("xyz").unwrap_err().contains("did you mean"));
    }
}
