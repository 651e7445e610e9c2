//! `explain`: what a condition, a reason or a check's code means, from the same text as docs/reasons.md and docs/checks.md.

use strum::IntoEnumIterator as _;

use super::Report;
use super::check::catalog::Check;
use super::check::reasons;
use crate::api::Reason;
use crate::api::condition::{Meaning, WordKind, meanings};

/// Explain a condition's type, a reason or a check's code, offline
///
/// Conditions, Events, refusals and the outcomes of nodes share one set of reasons, each of which belongs to one check. Without a name, all are
/// listed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # What a refusal's reason means
  kubectl tracing explain UnsupportedManifest

  # What a check looks at, and which reasons it covers
  kubectl tracing explain CT0504

  # All of them
  kubectl tracing explain")]
pub(super) struct Explain {
    /// A condition's type, a reason or a check's code, in whatever case
    reason: Option<String>,
}

/// A word of neither set.
#[derive(Debug, thiserror::Error)]
#[error("{word:?} is no condition, no reason and no check{}", suggestion(.nearest.as_deref()).unwrap_or_else(|| "; kubectl tracing explain lists them".to_owned()))]
pub struct Unknown {
    word: String,
    nearest: Option<String>,
}

impl Explain {
    pub(super) fn run(&self) -> Result<Report, Unknown> {
        let all = meanings();
        let Some(word) = &self.reason else { return Ok(Report::data(table(&all))) };
        if let Some(check) = Check::iter().find(|check| check.entry().code.eq_ignore_ascii_case(word)) {
            return Ok(Report::data(section(check)));
        }
        let meant: Vec<_> = all.iter().filter(|meaning| meaning.name.eq_ignore_ascii_case(word)).collect();
        if meant.is_empty() {
            let codes = Check::iter().map(|check| check.entry().code);
            return Err(Unknown { word: word.clone(), nearest: nearest(word, all.iter().map(|meaning| meaning.name).chain(codes)) });
        }
        let line = |meaning: &&Meaning| format!("{} ({}): {}{}\n", meaning.name, meaning.kind, meaning.text, code(meaning));
        Ok(Report::data(meant.iter().map(line).collect()))
    }
}

/// Which check a reason belongs to.
fn code(meaning: &Meaning) -> String {
    let reason = meaning.name.parse().ok().filter(|_| meaning.kind == WordKind::Reason);
    reason.and_then(reasons::check).map(|(check, _)| format!(" Check {}.", check.entry().code)).unwrap_or_default()
}

/// All that is said of a check.
fn section(check: Check) -> String {
    let entry = check.entry();
    let reasons: Vec<_> = reasons::of(check).map(Reason::as_str).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!("Reasons: {}\n", reasons.join(", ")) };
    format!(
        "{} (check, {}): {}\nIf not: {}\nNext: {}\n{reasons}Docs: {}\n",
        entry.code,
        entry.category.as_str(),
        entry.description,
        entry.cause,
        entry.usual_fix(),
        check.docs()
    )
}

fn table(all: &[Meaning]) -> String {
    let width = all.iter().map(|meaning| meaning.name.len()).max().unwrap_or_default();
    let row = |kind: &str, name: &str, text: &str| format!("{kind:9}   {name:width$}   {text}\n");
    let rows: String = all.iter().map(|meaning| row(&meaning.kind.to_string(), meaning.name, &meaning.text)).collect();
    let checks: String = Check::iter().map(Check::entry).map(|entry| row("check", entry.code, entry.description)).collect();
    row("KIND", "NAME", "MEANS") + &rows + &checks
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
    fn a_check_lists_its_reasons_and_each_reason_names_its_check() {
        for check in Check::iter() {
            let explained = explain(&check.entry().code.to_lowercase()).unwrap();
            for reason in reasons::of(check) {
                assert!(explained.contains(reason.as_str()), "{explained}");
                assert!(explain(reason.as_str()).unwrap().trim_end().ends_with(&format!("Check {}.", check.entry().code)), "{reason}");
            }
        }
        assert!(!explain("NodeGranted").unwrap().contains("Check"));
    }

    #[test]
    fn a_word_that_is_not_known_names_the_nearest_one() {
        let unknown = explain("UnsupportedManfest").unwrap_err();
        assert!(unknown.contains("did you mean \"UnsupportedManifest\"?"), "{unknown}");
        assert!(!explain("xyz").unwrap_err().contains("did you mean"));
    }
}
