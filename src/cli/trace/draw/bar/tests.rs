use super::*;
use crate::cli::trace::draw::glyphs::{ASCII, UNICODE};

const AXIS: Axis = Axis { start: 0, end: 80, cells: 10 };

fn drawn(ran: &[(u64, u64)], waited: &[(u64, u64)], happened: &[u64], glyphs: &Glyphs) -> String {
    let taken = |times: &[(u64, u64)]| {
        let mut taken = Taken::nothing(AXIS.cells);
        for (from, until) in times {
            taken.take(&AXIS, *from, *until);
        }
        taken
    };
    let glyph = |cell| match cell {
        Cell::Empty(glyph) | Cell::Ran(glyph) | Cell::Waited(glyph) => glyph,
    };
    bar(&taken(ran), &taken(waited), happened.iter().copied(), &AXIS, glyphs).into_iter().map(glyph).collect()
}

#[test]
fn bars_begin_and_end_within_cells() {
    for (ran, unicode, ascii) in [
        (&[][..], "··········", ".........."),
        (&[(0, 80)][..], "██████████", "=========="),
        (&[(0, 12)], "█▌········", "==........"),
        (&[(0, 9)], "█▏········", "=-........"),
        (&[(4, 16)], "▐█········", "==........"),
        (&[(7, 16)], "▕█········", "-=........"),
        (&[(18, 21)], "··▍·······", "..-......."),
        (&[(40, 40)], "·····▏····", ".....-...."),
        (&[(0, 8), (32, 40)], "█···█·····", "=...=....."),
        (&[(0, 2), (6, 8), (16, 17)], "▌·▏·······", "=.-......."),
    ] {
        assert_eq!(drawn(ran, &[], &[], &UNICODE), unicode, "{ran:?}");
        assert_eq!(drawn(ran, &[], &[], &ASCII), ascii, "{ran:?}");
    }
}

#[test]
fn what_was_waited_for_is_told_from_what_ran_beside() {
    assert_eq!(drawn(&[(0, 48)], &[(16, 32)], &[], &UNICODE), "██▓▓██····");
    assert_eq!(drawn(&[(0, 48)], &[(16, 32)], &[], &ASCII), "==##==....");
    assert_eq!(drawn(&[(0, 48)], &[(60, 70)], &[], &UNICODE), "██████····", "what did not run was not waited for");
}

#[test]
fn what_happened_is_a_tick_on_a_bar_that_is_long_enough() {
    assert_eq!(drawn(&[(0, 48)], &[], &[0, 17, 18, 79], &UNICODE), "┃█┃███····");
    assert_eq!(drawn(&[(0, 24)], &[], &[17], &UNICODE), "███·······");
    assert_eq!(drawn(&[(0, 48)], &[], &[17], &ASCII), "==|===....");
}
