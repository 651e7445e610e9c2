use super::*;

#[test]
fn durations_have_two_or_three_digits_and_never_a_thousand_of_a_unit() {
    for (nanos, text) in [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.0 µs"),
        (4_549, "4.5 µs"),
        (9_949, "9.9 µs"),
        (9_950, "10 µs"),
        (200_000, "200 µs"),
        (999_499, "999 µs"),
        (999_500, "1.0 ms"),
        (6_224_000, "6.2 ms"),
        (97_400_000, "97 ms"),
        (999_499_999, "999 ms"),
        (999_500_000, "1.00 s"),
        (1_940_000_000, "1.94 s"),
        (9_994_999_999, "9.99 s"),
        (9_995_000_000, "10.0 s"),
        (59_949_999_999, "59.9 s"),
        (59_950_000_000, "1m00s"),
        (125_000_000_000, "2m05s"),
        (3_599_500_000_000, "1h00m"),
        (11_040_000_000_000, "3h04m"),
    ] {
        assert_eq!(duration(nanos, "µs"), text);
    }
}

#[test]
fn labels_are_nice_numbers_where_they_stand_and_the_end() {
    let labels = |nanos: u64, cells| Axis { start: 7, end: 7 + nanos, cells }.labels("µs");
    for (nanos, cells, line) in [
        (1_940_000_000, 36, "0        500 ms   1 s         1.94 s"),
        (1_940_000_000, 80, "0       200 ms  400 ms  600 ms  800 ms   1 s     1.2 s   1.4 s   1.6 s    1.94 s"),
        (1_000_000, 20, "0             1.0 ms"),
        (1_000_000, 28, "0             500 µs  1.0 ms"),
        (10, 12, "0      10 ns"),
        (1, 8, "0   1 ns"),
        (0, 8, "    0 ns"),
        (1_940_000_000, 4, ""),
    ] {
        assert_eq!(labels(nanos, cells), line, "{nanos} ns in {cells} cells");
    }
}

#[test]
fn a_moment_stands_in_its_eighth_and_nothing_stands_outside() {
    let axis = Axis { start: 1_000, end: 2_000, cells: 10 };
    for (from, until, eighths) in [
        (1_000, 2_000, 0..80),
        (1_500, 1_600, 40..48),
        (1_500, 1_501, 40..41),
        (1_500, 1_500, 40..41),
        (2_000, 2_000, 79..80),
        (0, 500, 0..1),
        (3_000, u64::MAX, 79..80),
    ] {
        assert_eq!(axis.eighths(from, until), eighths, "{from}..{until}");
    }
    assert_eq!(Axis { start: 5, end: 5, cells: 3 }.eighths(5, 5), 0..1, "an axis of no time");
}
