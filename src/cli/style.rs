//! Whether colours are used, and which. A colour never says what the text does not.

use clap::ValueEnum;

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that can show them, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the program knows of where its output goes.
#[derive(Clone, Debug, Default)]
pub struct Terminal {
    /// Whether standard output is one.
    pub is_terminal: bool,
    /// Variable `NO_COLOR`: set and not empty, it forbids colours (no-color.org).
    pub no_color: Option<String>,
    /// Variable `TERM`.
    pub term: Option<String>,
}

/// How a word is meant: it also says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// All is well.
    Good,
    /// It is not over yet.
    Wait,
    /// Somebody should look.
    Bad,
}

/// The colours in use, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    is_colored: bool,
}

impl Palette {
    /// What was chosen, on this terminal.
    pub fn new(choice: ColorChoice, terminal: &Terminal) -> Self {
        let is_colored = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                terminal.is_terminal
                    && terminal.no_color.as_deref().unwrap_or_default().is_empty()
                    && terminal.term.as_deref().is_some_and(|term| term != "dumb")
            }
        };
        Self { is_colored }
    }

    /// Whether there are colours.
    pub(super) fn is_colored(self) -> bool {
        self.is_colored
    }

    /// A word.
    pub(super) fn paint(self, tone: Tone, word: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Wait => "33",
            Tone::Bad => "31",
        };
        if self.is_colored { format!("\x1b[1;{code}m{word}\x1b[0m") } else { word.to_owned() }
    }

    /// A line of a unified diff, without its line end.
    pub(super) fn diff_line(self, line: &str) -> String {
        let code = match line.as_bytes() {
            _ if !self.is_colored => return line.to_owned(),
            [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => "1",
            [b'@', ..] => "36",
            [b'+', ..] => "32",
            [b'-', ..] => "31",
            _ => return line.to_owned(),
        };
        format!("\x1b[{code}m{line}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let terminal = |is_terminal, no_color: Option<&str>, term: Option<&str>| Terminal {
            is_terminal,
            no_color: no_color.map(str::to_owned),
            term: term.map(str::to_owned),
        };
        for (choice, terminal, expected) in [
            (ColorChoice::Auto, terminal(true, None, Some("xterm")), true),
            (ColorChoice::Auto, terminal(true, Some(""), Some("xterm")), true),
            (ColorChoice::Auto, terminal(true, Some("1"), Some("xterm")), false),
            (ColorChoice::Auto, terminal(true, None, Some("dumb")), false),
            (ColorChoice::Auto, terminal(true, None, None), false),
            (ColorChoice::Auto, terminal(false, None, Some("xterm")), false),
            (ColorChoice::Always, terminal(false, Some("1"), None), true),
            (ColorChoice::Never, terminal(true, None, Some("xterm")), false),
        ] {
            assert_eq!(Palette::new(choice, &terminal).is_colored, expected, "{choice:?} {terminal:?}");
        }
    }

    #[test]
    fn without_colours_a_line_is_as_it_is_and_with_them_nothing_else_is_added() {
        let colored = Palette { is_colored: true };
        for line in ["--- a/x", "+++ b/x", "@@ -1 +1 @@", "+new", "-old", "-", " same", ""] {
            assert_eq!(Palette { is_colored: false }.diff_line(line), line);
            let bare =
                ["\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"].iter().fold(colored.diff_line(line), |l, c| l.replace(c, ""));
            assert_eq!(bare, line);
        }
        assert_ne!(colored.diff_line("+new"), "+new");
    }
}
