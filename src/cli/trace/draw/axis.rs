//! Time: how long something took, and where on a line a moment stands.

use super::text::cells;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// A duration of so many nanoseconds in two or three digits: `850 ns`, `4.5 µs`, `97 ms`, `1.94 s`, `2m05s`, `3h04m`. `micro` is the sign for
/// microseconds.
pub fn duration(nanos: u64, micro: &str) -> String {
    // A unit begins where rounding would give it, so that nothing reads "1000 ms".
    match nanos {
        0..MICRO => format!("{nanos} ns"),
        MICRO..999_500 => digits(nanos, MICRO, micro),
        999_500..999_500_000 => digits(nanos, MILLI, "ms"),
        999_500_000..59_950_000_000 => digits(nanos, SECOND, "s"),
        _ => {
            let seconds = nanos / SECOND + u64::from(nanos % SECOND >= SECOND / 2);
            match seconds {
                0..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
                _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
            }
        }
    }
}

/// Below ten, one decimal; of seconds, as many as make three digits.
fn digits(nanos: u64, unit: u64, name: &str) -> String {
    let decimals = match (nanos, unit) {
        (0..9_995_000_000, SECOND) => 2,
        (_, SECOND) => 1,
        _ if u128::from(nanos) * 100 < u128::from(unit) * 995 => 1,
        _ => 0,
    };
    let scale = 10_u64.pow(decimals);
    let tenths = (u128::from(nanos) * u128::from(scale) + u128::from(unit) / 2) / u128::from(unit);
    let (whole, part) = (tenths / u128::from(scale), tenths % u128::from(scale));
    match decimals {
        0 => format!("{whole} {name}"),
        // As many digits as decimals.
        width => format!("{whole}.{part:0width$} {name}", width = width as usize),
    }
}

/// A span of time on a line of cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Nanoseconds since 1970.
    pub(super) start: u64,
    /// Nanoseconds since 1970.
    pub(super) end: u64,
    pub(super) cells: usize,
}

/// A cell's parts that can be told apart.
pub(super) const PARTS: usize = 8;

impl Axis {
    /// The eighths of cells from one moment to another: one at the least, none outside the axis.
    pub(super) fn eighths(&self, from: u64, until: u64) -> std::ops::Range<usize> {
        let all = self.cells * PARTS;
        let whole = u128::from(self.end.saturating_sub(self.start)).max(1);
        let place = |at: u64, up: u128| {
            let place = (u128::from(at.saturating_sub(self.start)) * (all as u128) + up) / whole;
            usize::try_from(place).unwrap_or(all).min(all)
        };
        let first = place(from, 0).min(all - 1);
        first..place(until, whole - 1).max(first + 1)
    }

    /// The axis with nice numbers on it: 1, 2 or 5 of a power of ten apart, as many as have room; the end with its own.
    pub(super) fn labels(&self, micro: &str) -> String {
        let whole = self.end - self.start;
        let last = duration(whole, micro);
        let room = self.cells.saturating_sub(cells(&last));
        let mut line = format!("{:room$}{last}", "");
        if cells(&line) > self.cells {
            return String::new();
        }
        if whole == 0 {
            return line;
        }
        let step = nice_steps().find(|step| self.fits(*step, room, micro));
        let marks = step.map_or_else(|| vec![0], |step| (0..=whole / step).map(|n| n * step).collect());
        let mut written = String::new();
        for at in marks {
            let (label, column) = (label(at, micro), self.column(at));
            let spaces = column.saturating_sub(cells(&written));
            if column + cells(&label) + 2 <= room {
                written = format!("{written}{:spaces$}{label}", "");
            }
        }
        let rest = self.cells - cells(&last) - cells(&written);
        line = format!("{written}{:rest$}{last}", "");
        line
    }

    fn column(&self, after: u64) -> usize {
        self.eighths(self.start.saturating_add(after), self.end).start / PARTS
    }

    /// Whether no two labels this far apart touch.
    fn fits(&self, step: u64, room: usize, micro: &str) -> bool {
        let whole = self.end - self.start;
        if whole / step > self.cells as u64 {
            return false;
        }
        let marks: Vec<_> = (0..=whole / step).map(|n| n * step).collect();
        let until = |at: u64| self.column(at) + cells(&label(at, micro));
        marks.windows(2).all(|pair| until(pair[0]) + 2 <= self.column(pair[1]) || self.column(pair[1]) >= room)
    }
}

/// A nice number: without decimals that are zero.
fn label(nanos: u64, micro: &str) -> String {
    let text = if nanos == 0 { "0".to_owned() } else { duration(nanos, micro) };
    match text.split_once('.').and_then(|(whole, rest)| Some((whole, rest.split_once(' ')?))) {
        Some((whole, (decimals, unit))) => match decimals.trim_end_matches('0') {
            "" => format!("{whole} {unit}"),
            decimals => format!("{whole}.{decimals} {unit}"),
        },
        None => text,
    }
}

/// 1, 2, 5, 10, 20, 50 … nanoseconds.
fn nice_steps() -> impl Iterator<Item = u64> {
    (0..19).map(|power| 10_u64.pow(power)).flat_map(|unit| [Some(unit), unit.checked_mul(2), unit.checked_mul(5)]).flatten()
}

#[cfg(test)]
mod tests;
