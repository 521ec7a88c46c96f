"""A lane's stream cut into rows: each once, in the order of its window, whatever is asked for at once."""

from __future__ import annotations

import numpy as np
import pytest

from mygpt2.data.lane import Window
from mygpt2.data.packing import LaneStream

T = 8
SIZES = (100, 3, 2, 70)  # tokens; the second and the third window are shorter than what is left of a row
STREAM = np.concatenate([np.arange(size) + 1000 * number for number, size in enumerate(SIZES)])
ROWS = [STREAM[at : at + T + 1].tolist() for at in range(0, len(STREAM) - T, T)]


def window(number: int, shuffled: bool) -> Window:
    """Three documents, the second of them without tokens."""
    size = SIZES[number]
    ids, names = np.arange(size) + 1000 * number, np.arange(3, dtype=np.int32)
    ends = np.array([size // 3, size // 3, size])
    return Window(0, number, ids, ends, names + 10 * number, names, row_key=("rows", number) if shuffled else None)


def opened(shuffled: bool, cursor: tuple[int, ...] = (0, 0, 0, 0, 0)) -> LaneStream:
    stream = LaneStream(cursor, T)
    for number in range(cursor[1], len(SIZES)):
        stream.append(window(number, shuffled))
    return stream


def take(stream: LaneStream, steps: int, rows: int):
    out = np.empty((steps * rows, T + 1), int)
    return stream.take(np.full(steps, rows), out), out.tolist()


def test_without_a_key_rows_come_as_they_lie():
    stream = opened(shuffled=False)
    assert stream.ready == len(ROWS) == 21
    assert take(stream, 7, 3)[1] == ROWS


def test_with_a_key_every_row_comes_once_and_the_one_that_goes_on_into_other_windows_last():
    rows = take(opened(shuffled=True), 21, 1)[1]
    assert rows != ROWS and sorted(rows) == sorted(ROWS)
    assert sorted(rows[:12]) == ROWS[:12] and rows[12] == ROWS[12] == [96, 97, 98, 99, 1000, 1001, 1002, 2000, 2001]


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_taken_at_once_changes_nothing_and_every_cursor_leads_on(shuffled):
    together, expected = take(opened(shuffled), 21, 1)
    by_three = opened(shuffled)
    for step in range(7):
        taken, rows = take(by_three, 1, 3)
        assert rows == expected[3 * step : 3 * step + 3]
        assert taken.cursors.tolist() == together.cursors[[3 * step + 2]].tolist()
    for done, cursor in enumerate(together.cursors[:-1].tolist(), start=1):
        assert cursor[4] == done
        assert take(opened(shuffled, tuple(cursor)), 21 - done, 1)[1] == expected[done:]
    assert together.cursors[12].tolist() == [0, 2, 1, 0, 13], "past the window in which no row begins"


@pytest.mark.parametrize("shuffled", [False, True])
def test_pieces_name_the_documents_of_each_row_and_where_it_begins(shuffled):
    taken, rows = take(opened(shuffled), 21, 1)
    pieces = taken.pieces
    begins = {10 * n: 1000 * n for n in range(4)} | {10 * n + 2: 1000 * n + SIZES[n] // 3 for n in range(4)}
    for row, first, last, offset in zip(rows, pieces.first, pieces.last, pieces.offsets, strict=True):
        named = [begins[block] for block in pieces.blocks[first : last + 1].tolist()]
        assert row[0] == named[0] + offset
        assert named[1:] == [token for token in row[1:] if token in begins.values()]


def test_more_rows_than_are_ready_are_refused():
    stream = opened(shuffled=True)
    with pytest.raises(ValueError, match="22 rows asked for, 21 ready"):
        take(stream, 22, 1)


@pytest.mark.parametrize("cursor", [(0, 0, 0, 14, 14), (0, 1, 0, 2, 13), (1, 0, 0, 3, 3)])
def test_a_cursor_that_does_not_fit_its_window_is_refused(cursor):
    stream = LaneStream(cursor, T)
    with pytest.raises(ValueError, match="outside its window"):
        stream.append(window(0 if cursor[1] == 0 else 1, True))
