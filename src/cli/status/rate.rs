//! Sampling rates as people write and read them. Pure.

/// All requests.
const ALL: i32 = 1_000_000;

/// `1 %`, `0.05 %`: exactly what so many of a million are.
pub(in crate::cli) fn told(per_million: i32) -> String {
    let (whole, rest) = (per_million / 10_000, per_million % 10_000);
    let rest = format!("{rest:04}");
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { format!("{whole} %") } else { format!("{whole}.{rest} %") }
}

/// `1%`, `0.05 %`, `100%`: how many of a million that is. Finer than one in a million is refused, as is more than all.
pub(in crate::cli) fn read(text: &str) -> Result<i32, String> {
    const PROBLEM: &str = "is no sampling rate: give a percentage from 0% to 100% with at most four decimals, such as 1% or 0.05%";
    let number = text.trim().strip_suffix('%').ok_or(PROBLEM)?.trim();
    let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(rest) || rest.len() > 4 || whole.len() > 3 {
        return Err(PROBLEM.to_owned());
    }
    let parse = |text: &str| text.parse::<i32>().map_err(|_| PROBLEM.to_owned());
    let rate = parse(whole)? * 10_000 + parse(&format!("{rest:0<4}"))?;
    if rate <= ALL { Ok(rate) } else { Err(PROBLEM.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_it_is_told() {
        for (per_million, text) in
            [(0, "0 %"), (1, "0.0001 %"), (500, "0.05 %"), (10_000, "1 %"), (123_456, "12.3456 %"), (1_000_000, "100 %")]
        {
            assert_eq!((told(per_million).as_str(), read(text)), (text, Ok(per_million)));
        }
        assert_eq!((read("1%"), read(" 2.50% ")), (Ok(10_000), Ok(25_000)));
        for wrong in ["", "%", "1", "10000", "-1%", "100.0001%", "101%", "1.%", ".5%", "0.00001%", "1e2%", "999999999999%", "1,5%"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
