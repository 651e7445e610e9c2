//! The signs that a drawing is made of, with Unicode and without.

/// Signs of one kind each; those of bars take one cell.
pub(super) struct Glyphs {
    /// Of a bar where the request waited for this span.
    pub(super) waited: char,
    /// Of a bar elsewhere.
    pub(super) full: char,
    /// A bar that ends within a cell, by the eighths of it that it fills.
    pub(super) left: [char; 8],
    /// A bar that begins within a cell, by the eighths of it that it fills.
    pub(super) right: [char; 8],
    /// No bar.
    pub(super) none: char,
    /// Something happened.
    pub(super) tick: char,
    /// The last of its siblings, and one that is not.
    pub(super) last: &'static str,
    pub(super) fork: &'static str,
    /// A line to a sibling below, and none. Both are as wide as `last` and `fork`.
    pub(super) through: &'static str,
    pub(super) blank: &'static str,
    /// Outer levels that are left out, as wide as the others.
    pub(super) deeper: &'static str,
    pub(super) ellipsis: &'static str,
    pub(super) failed: &'static str,
    pub(super) times: &'static str,
    /// From one step of a path to the next.
    pub(super) arrow: &'static str,
    pub(super) pointer: &'static str,
    pub(super) between: &'static str,
    pub(super) micro: &'static str,
}

pub(super) const UNICODE: Glyphs = Glyphs {
    waited: '▓',
    full: '█',
    left: ['·', '▏', '▎', '▍', '▌', '▋', '▊', '▉'],
    // Unicode has only two blocks that begin within a cell.
    right: ['·', '▕', '▕', '▐', '▐', '▐', '█', '█'],
    none: '·',
    tick: '┃',
    last: "└ ",
    fork: "├ ",
    through: "│ ",
    blank: "  ",
    deeper: "… ",
    ellipsis: "…",
    failed: "✗ ",
    times: "×",
    arrow: "→ ",
    pointer: "◀",
    between: "↔",
    micro: "µs",
};

pub(super) const ASCII: Glyphs = Glyphs {
    waited: '#',
    full: '=',
    left: ['.', '-', '-', '-', '=', '=', '=', '='],
    right: ['.', '-', '-', '-', '=', '=', '=', '='],
    none: '.',
    tick: '|',
    last: "`-",
    fork: "|-",
    through: "| ",
    blank: "  ",
    deeper: "> ",
    ellipsis: "~",
    failed: "! ",
    times: "x",
    arrow: "-> ",
    pointer: "<",
    between: "<->",
    micro: "us",
};
