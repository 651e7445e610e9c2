//! Tables as kubectl prints them: upper-case heads, three blanks between columns, no borders. Pure.

use unicode_width::UnicodeWidthStr as _;

/// Blanks between columns.
const GAP: usize = 3;

/// Lines of cells under their heads. Nothing stands behind a line's last cell.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines = || std::iter::once(&heads).chain(rows);
    let width = |column: usize| lines().filter_map(|cells| cells.get(column)).map(|cell| cell.width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell}{:1$}", "", width - cell.width() + GAP));
        format!("{}\n", padded.collect::<String>().trim_end())
    };
    lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_on_the_screen() {
        let rows = [["µs", "x"], ["one", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["A", "LAST"], &rows), "A     LAST\nµs    x\none\n");
    }
}
