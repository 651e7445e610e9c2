//! The report for people: a heading for each category, a line for each check, and below those that are not well what to do. Pure.

use super::report::{CheckCategory, CheckReport, CheckResult, Severity};
use crate::cli::style::{Palette, Tone};

/// Cells of the longest word of a result.
const WORD: usize = "success".len();

/// As text. Glyph and colour say nothing that the word does not.
pub(super) fn text(report: &CheckReport, palette: Palette) -> String {
    let category = |category: &CheckCategory| {
        let checks: String = category.checks.iter().map(|check| lines(check, palette)).collect();
        format!("{}\n{}\n{checks}\n", category.name, "-".repeat(category.name.len()))
    };
    report.categories.iter().map(category).chain([summary(report)]).collect()
}

fn lines(check: &CheckResult, palette: Palette) -> String {
    let mark = format!("{} {:WORD$}", glyph(check.result, palette.is_unicode()), check.result.as_str());
    let mark = palette.paint(tone(check.result), &mark);
    let told = if check.found.is_empty() { String::new() } else { format!(": {}", check.found.join("; ")) };
    let CheckResult { code, description, .. } = check;
    let (Some(cause), Some(fix)) = (&check.cause, &check.fix) else {
        return format!("{mark}  {code}  {description}{told}\n");
    };
    let found = check.found.iter().map(|found| ("found", found));
    let below = found.chain([("cause", cause), ("next", fix), ("docs", &check.docs)]);
    let head = format!("{mark}  {code}  {description}\n");
    std::iter::once(head).chain(below.map(|(what, text)| format!("    {:7}{text}\n", format!("{what}:")))).collect()
}

fn glyph(severity: Severity, unicode: bool) -> char {
    match (severity, unicode) {
        (Severity::Success, true) => '√',
        (Severity::Warning, true) => '‼',
        (Severity::Error, true) => '×',
        (Severity::Success, false) => '+',
        (Severity::Warning, false) => '!',
        (Severity::Error, false) => 'x',
    }
}

fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Success => Tone::Good,
        Severity::Warning => Tone::Wait,
        Severity::Error => Tone::Bad,
    }
}

fn summary(report: &CheckReport) -> String {
    let counted = |severity, one: &str, many: &str| match report.count(severity) {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    };
    format!(
        "{}, {}, {} well\n",
        counted(Severity::Error, "error", "errors"),
        counted(Severity::Warning, "warning", "warnings"),
        report.count(Severity::Success)
    )
}
