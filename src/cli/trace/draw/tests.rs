use super::*;

#[test]
fn texts_of_others_cannot_steer_a_terminal() {
    for (text, clean_text, ascii) in [
        ("pods", "pods", "pods"),
        ("a\u{1b}[31mb\u{7}", "a\u{fffd}[31mb\u{fffd}", "a?[31mb?"),
        ("two\r\nlines\tand  spaces", "two lines and spaces", "two lines and spaces"),
        ("right\u{202e}left\u{200b}", "rightleft", "rightleft"),
        ("größe 大", "größe 大", "gr??e ?"),
    ] {
        assert_eq!(clean(text, false), clean_text);
        assert_eq!(clean(text, true), ascii);
    }
}

#[test]
fn names_are_shortened_in_the_middle_to_cells() {
    for (text, most, short) in [
        ("policy.shop.io", 14, "policy.shop.io"),
        ("policy.shop.io", 9, "poli…p.io"),
        ("policy", 1, "…"),
        ("policy", 0, ""),
        ("大大大大", 5, "大…大"),
        ("大大大大", 4, "大…"),
    ] {
        assert_eq!(shorten(text, most, "…"), short, "{text} in {most}");
        assert_eq!(cells(&text::left(text, most, "…")), most);
    }
}

#[test]
fn parts_are_wrapped_and_those_too_wide_are_cut() {
    for (parts, width, lines) in [
        (&["one", "two", "three"][..], 7, &["one two", "three"][..]),
        (&["1234567890", "a"], 4, &["1234", "5678", "90 a"]),
        (&["大大"], 3, &["大", "大"]),
        (&[], 4, &[]),
    ] {
        assert_eq!(wrap(parts.iter().copied(), " ", width), lines);
    }
}
