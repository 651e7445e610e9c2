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
    /// The locale's name for characters, such as `C.UTF-8`: the first of the variables `LC_ALL`, `LC_CTYPE` and `LANG` that is set and not
    /// empty (POSIX, section 8.2).
    pub locale: Option<String>,
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

/// The colours in use, or none; and whether there are other characters than ASCII's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    is_colored: bool,
    is_unicode: bool,
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
        let charset = terminal.locale.as_deref().and_then(|locale| locale.split_once('.')).map(|(_, charset)| charset);
        // what follows @ is no charset
        let charset = charset.and_then(|charset| charset.split('@').next()).unwrap_or_default();
        let is_unicode = ["utf-8", "utf8"].contains(&charset.to_ascii_lowercase().as_str());
        Self { is_colored, is_unicode }
    }

    /// Whether the locale's characters are Unicode's.
    pub(super) fn is_unicode(self) -> bool {
        self.is_unicode
    }

    /// A text in the colour of an SGR code (ECMA-48), where there are colours.
    fn colored(self, code: &str, text: &str) -> String {
        if self.is_colored { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Whether there are colours.
    pub(super) fn is_colored(self) -> bool {
        self.is_colored
    }

    /// A word.
    pub(super) fn paint(self, tone: Tone, word: &str) -> String {
        let code = match tone {
            Tone::Good => "1;32",
            Tone::Wait => "1;33",
            Tone::Bad => "1;31",
        };
        self.colored(code, word)
    }

    /// A line of a unified diff, without its line end.
    pub(super) fn diff_line(self, line: &str) -> String {
        let code = match line.as_bytes() {
            [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => "1",
            [b'@', ..] => "36",
            [b'+', ..] => "32",
            [b'-', ..] => "31",
            _ => return line.to_owned(),
        };
        self.colored(code, line)
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
            locale: None,
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
    fn a_locale_tells_its_characters_behind_a_dot() {
        for (locale, expected) in [
            (Some("C.UTF-8"), true),
            (Some("de_DE.utf8"), true),
            (Some("ca_ES.UTF-8@valencia"), true),
            (Some("de_DE.ISO-8859-15@euro"), false),
            (Some("en_US"), false),
            (Some("POSIX"), false),
            (None, false),
        ] {
            let terminal = Terminal { locale: locale.map(str::to_owned), ..Terminal::default() };
            assert_eq!(Palette::new(ColorChoice::Auto, &terminal).is_unicode, expected, "{locale:?}");
        }
    }

    #[test]
    fn without_colours_a_line_is_as_it_is_and_with_them_nothing_else_is_added() {
        let colored = Palette { is_colored: true, is_unicode: false };
        for line in ["--- a/x", "+++ b/x", "@@ -1 +1 @@", "+new", "-old", "-", " same", ""] {
            assert_eq!(Palette { is_colored: false, is_unicode: false }.diff_line(line), line);
            let bare =
                ["\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"].iter().fold(colored.diff_line(line), |l, c| l.replace(c, ""));
            assert_eq!(bare, line);
        }
        assert_ne!(colored.diff_line("+new"), "+new");
    }
}
