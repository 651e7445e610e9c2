//! Golden files: what comes of a case, kept beside it. `UPDATE_GOLDEN=1` writes them anew: read the difference before you commit it.

use std::path::{Path, PathBuf};

/// What of `text` differs from a golden file, line by line; empty where nothing does. Or writes the file.
pub(crate) fn difference(path: &Path, text: &str) -> String {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let diff = similar::TextDiff::from_lines(&expected, text);
    diff.unified_diff().header(&path.display().to_string(), "now (UPDATE_GOLDEN=1 writes it anew)").to_string()
}

/// The cases that stand in a folder of `tests`, one file `.yaml` each.
#[allow(dead_code, reason = "not every test has its cases in files")]
pub(crate) fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    cases
}
