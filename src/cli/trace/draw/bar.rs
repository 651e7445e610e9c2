//! One span's bar.

use super::axis::{Axis, PARTS};
use super::glyphs::Glyphs;

/// Which eighths of an axis are taken, one byte a cell: the leftmost eighth is its lowest bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken(Vec<u8>);

impl Taken {
    pub(super) fn nothing(cells: usize) -> Self {
        Self(vec![0; cells])
    }

    /// From one moment to another.
    pub(super) fn take(&mut self, axis: &Axis, from: u64, until: u64) {
        for eighth in axis.eighths(from, until) {
            self.0[eighth / PARTS] |= 1 << (eighth % PARTS);
        }
    }

    fn cells(&self) -> usize {
        self.0.iter().filter(|cell| **cell != 0).count()
    }
}

/// What a cell of a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Nothing ran.
    Empty(char),
    /// The span ran.
    Ran(char),
    /// The request waited for it.
    Waited(char),
}

/// Narrower bars would be hidden by what happened within them.
const LEAST_FOR_TICKS: usize = 4;

/// The bar of a span that ran, for which the request waited, and within which something happened at these moments.
pub(super) fn bar(ran: &Taken, waited: &Taken, happened: impl Iterator<Item = u64>, axis: &Axis, glyphs: &Glyphs) -> Vec<Cell> {
    let mut bar: Vec<_> = ran.0.iter().zip(&waited.0).map(|(ran, waited)| cell(*ran, ran & waited, glyphs)).collect();
    if ran.cells() >= LEAST_FOR_TICKS {
        for at in happened {
            match &mut bar[axis.eighths(at, at).start / PARTS] {
                Cell::Empty(_) => {}
                Cell::Ran(glyph) | Cell::Waited(glyph) => *glyph = glyphs.tick,
            }
        }
    }
    bar
}

fn cell(ran: u8, waited: u8, glyphs: &Glyphs) -> Cell {
    let eighths = ran.count_ones() as usize;
    let most_of_it = waited.count_ones() * 2 >= ran.count_ones();
    let glyph = match ran {
        0 => return Cell::Empty(glyphs.none),
        u8::MAX if most_of_it => glyphs.waited,
        u8::MAX => glyphs.full,
        // It touches the right edge and not the left one.
        _ if ran & 1 == 0 && ran & 0x80 != 0 => glyphs.right[eighths],
        _ => glyphs.left[eighths],
    };
    if most_of_it { Cell::Waited(glyph) } else { Cell::Ran(glyph) }
}

#[cfg(test)]
mod tests;
