//! How a string is written so that every YAML reader takes it for that string.

use granit_parser::ScalarStyle;

/// The quoting to use where the value allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// None, unless the value needs it.
    Plain,
    /// `'…'`, unless the value needs an escape.
    Single,
    /// `"…"`, as JSON has it.
    Double,
}

impl From<ScalarStyle> for Quoting {
    fn from(style: ScalarStyle) -> Self {
        match style {
            ScalarStyle::SingleQuoted => Self::Single,
            ScalarStyle::DoubleQuoted => Self::Double,
            ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => Self::Plain,
        }
    }
}

/// Writes `value`, which has no control characters.
pub(super) fn write(value: &str, quoting: Quoting, in_flow: bool) -> String {
    match quoting {
        Quoting::Plain if is_safe_plain(value, in_flow) => value.to_owned(),
        Quoting::Single if !value.contains('\'') => format!("'{value}'"),
        _ => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// Stricter than YAML: only characters that mean nothing to any YAML reader at any place.
fn is_safe_plain(value: &str, in_flow: bool) -> bool {
    let body = value.strip_prefix("--").unwrap_or(value);
    body.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && body.chars().all(|c| c.is_ascii_alphanumeric() || "/._-=+@%~".contains(c) || (!in_flow && ":,".contains(c)))
        && !body.ends_with(':')
        && is_string_when_plain(value)
}

/// Whether an unquoted scalar is a string to readers of YAML 1.1 (which the kubelet is) and of YAML 1.2 alike.
pub(super) fn is_string_when_plain(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let word = matches!(lower.as_str(), "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "<<" | "=");
    !word && !is_number(&lower)
}

fn is_number(lower: &str) -> bool {
    let digits = lower.strip_prefix(['+', '-']).unwrap_or(lower).replace('_', "");
    if matches!(digits.as_str(), ".inf" | ".nan") {
        return true;
    }
    if let Some(prefixed) = ["0x", "0o", "0b"].iter().find_map(|prefix| digits.strip_prefix(prefix)) {
        return prefixed.chars().all(|c| c.is_ascii_hexdigit());
    }
    // Minutes and seconds (`1:30`, `1:30.5`) are numbers in YAML 1.1; an address has its dots before the colon.
    let base_60 = digits.rsplit_once(':').is_some_and(|(minutes, seconds)| {
        minutes.chars().all(|c| c.is_ascii_digit() || c == ':') && seconds.chars().all(|c| c.is_ascii_digit() || c == '.')
    });
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') && (base_60 || digits.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_plain_only_where_no_reader_takes_them_for_something_else() {
        let cases = [
            ("--tracing-config-file=/etc/kubernetes/a.yaml", "--tracing-config-file=/etc/kubernetes/a.yaml"),
            ("--distributed-tracing-address=127.0.0.1:4317", "--distributed-tracing-address=127.0.0.1:4317"),
            ("--feature-gates=A=true,B=false", "--feature-gates=A=true,B=false"),
            ("/etc/kubernetes", "/etc/kubernetes"),
            ("File", "File"),
            ("1000", "\"1000\""),
            ("1e3", "\"1e3\""),
            ("0x1f", "\"0x1f\""),
            ("12:30:45", "\"12:30:45\""),
            ("127.0.0.1:4317", "\"127.0.0.1:4317\""),
            ("true", "\"true\""),
            ("Off", "\"Off\""),
            ("null", "\"null\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("a:", "\"a:\""),
            ("*a", "\"*a\""),
            ("--x=a\"b\\c", "\"--x=a\\\"b\\\\c\""),
            ("--x=ä", "\"--x=ä\""),
        ];
        for (value, written) in cases {
            assert_eq!(write(value, Quoting::Plain, false), written);
            let read: serde_yaml::Value = serde_yaml::from_str(&format!("- {written}")).expect("it is YAML");
            assert_eq!(read[0].as_str(), Some(value));
        }
    }

    #[test]
    fn a_comma_or_colon_is_quoted_inside_a_flow_collection() {
        assert_eq!(write("--a=b,c", Quoting::Plain, true), "\"--a=b,c\"");
        assert_eq!(write("--a=b:1", Quoting::Plain, true), "\"--a=b:1\"");
        assert_eq!(write("--a=b", Quoting::Plain, true), "--a=b");
    }

    #[test]
    fn the_neighbours_quoting_is_kept_where_the_value_allows_it() {
        assert_eq!(write("--a=b", Quoting::Single, false), "'--a=b'");
        assert_eq!(write("--a=it's", Quoting::Single, false), "\"--a=it's\"");
        assert_eq!(write("--a=b", Quoting::Double, false), "\"--a=b\"");
    }

    #[test]
    fn an_address_is_a_string_and_a_number_is_none() {
        for string in ["127.0.0.1:2379", "1.2.3", "--5", "0xzz", "1a", "5s", "e3", "a.b"] {
            assert!(is_string_when_plain(string), "{string}");
        }
        for other in ["5", "-5", "+5.0", "1_000", ".5", "0o17", "0b11", ".inf", "-.INF", "1:30", "YES", "n", "~"] {
            assert!(!is_string_when_plain(other), "{other}");
        }
    }
}
