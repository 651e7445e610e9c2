//! What was found, by category: the values of `-o json`, published as docs/schema/check.json. Pure.

use schemars::JsonSchema;
use serde::Serialize;

/// What `kubectl tracing check -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct CheckReport {
    /// `CheckReport`
    kind: Kind,
    /// Whether no check ended in an error. Warnings are allowed.
    pub(in crate::cli) success: bool,
    /// In the order of their codes.
    pub(in crate::cli) categories: Vec<CheckCategory>,
}

/// What the document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
enum Kind {
    /// The report of the checks.
    CheckReport,
}

/// Checks of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct CheckCategory {
    /// The subject.
    pub(in crate::cli) name: String,
    /// In the order of their codes. A check that has nothing to look at is left out.
    pub(in crate::cli) checks: Vec<CheckResult>,
}

/// How one check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct CheckResult {
    /// Stable: `kubectl tracing explain CODE`.
    pub(in crate::cli) code: String,
    /// What holds when all is well.
    pub(in crate::cli) description: String,
    /// How it ended.
    pub(in crate::cli) result: Severity,
    /// What was found, one entry for each object. It may be empty where all is well.
    pub(in crate::cli) found: Vec<String>,
    /// Why that may be, in one sentence. Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) cause: Option<String>,
    /// A command that puts it right, or shows more. Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) fix: Option<String>,
    /// Page and section that explain the code.
    pub(in crate::cli) docs: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr, strum::EnumIter)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub(in crate::cli) enum Severity {
    /// All is well.
    Success,
    /// It works, and somebody should know. Also: it is not known, because it may not be read.
    Warning,
    /// It is not so, or not yet.
    Error,
}

impl Severity {
    /// The word of the report.
    pub(in crate::cli) fn as_str(self) -> &'static str {
        self.into()
    }
}

impl CheckReport {
    /// Of these categories.
    pub(in crate::cli) fn new(categories: Vec<CheckCategory>) -> Self {
        let success = categories.iter().flat_map(|category| &category.checks).all(|check| check.result != Severity::Error);
        Self { kind: Kind::CheckReport, success, categories }
    }

    /// How many checks ended so.
    pub(in crate::cli) fn count(&self, severity: Severity) -> usize {
        self.checks().filter(|check| check.result == severity).count()
    }

    /// All checks, in order.
    pub(in crate::cli) fn checks(&self) -> impl Iterator<Item = &CheckResult> {
        self.categories.iter().flat_map(|category| &category.checks)
    }

    /// The first error on one line: why it is waited for.
    pub(in crate::cli) fn first_error(&self) -> Option<String> {
        let check = self.checks().find(|check| check.result == Severity::Error)?;
        Some(format!("{} {}: {}", check.code, check.description, check.found.join("; ")))
    }
}
