//! A node's changes as a unified diff, which `patch -p1` and `git apply` take. Pure.

use similar::TextDiff;

use super::node::Preview;
use crate::cli::Palette;

/// The changes of all nodes: each manifest that changes, and each file that it needs as a new one. Empty when nothing changes.
pub(super) fn unified(previews: &[Preview], palette: Palette) -> String {
    let mut text = String::new();
    for preview in previews {
        let prefix = preview.folder.prefix();
        for change in preview.changes.iter().filter(|change| !change.is_made()) {
            let name = format!("{prefix}{}", change.file);
            text += &file(&change.before, &change.after, &format!("a/{name}"), &format!("b/{name}"));
            for (path, contents) in &change.needs {
                text += &file("", contents, "/dev/null", &format!("b/{prefix}{}", path.trim_start_matches('/')));
            }
        }
    }
    text.split_inclusive('\n')
        .map(|line| {
            let bare = line.trim_end_matches('\n');
            palette.diff_line(bare) + &line[bare.len()..]
        })
        .collect()
}

fn file(before: &str, after: &str, old: &str, new: &str) -> String {
    TextDiff::from_lines(before, after).unified_diff().header(old, new).to_string()
}
