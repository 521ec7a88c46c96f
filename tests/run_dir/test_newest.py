"""A file that grows is kept as it is now, and not as it was."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from weakref import WeakSet

import pytest

from mygpt2.run_dir.newest import Newest


class Made:
    """Something that can be waited for to go."""


def test_of_a_file_that_grows_only_its_present_state_stays(tmp_path: Path) -> None:
    newest, reads, file, alive = Newest[Made](2), [], tmp_path / "a", WeakSet[Made]()

    def read() -> Made:
        made = Made()
        alive.add(made)
        reads.append(1)
        return made

    for number in range(5):
        file.write_bytes(b"x" * number)
        assert newest.of(file, read) is newest.of(file, read)
    gc.collect()
    assert (len(reads), len(alive)) == (5, 1)
    os.utime(file, ns=(1, 1))
    newest.of(file, read)
    assert len(reads) == 6, "changed, and as long as before"
    for name in "bc":
        (tmp_path / name).touch()
        newest.of(tmp_path / name, read)
    gc.collect()
    assert len(alive) == 2
    newest.of(tmp_path / "c", read)
    assert len(reads) == 8, "the last ones are still there"
    with pytest.raises(OSError):
        newest.of(tmp_path / "gone", read)


def test_of_several_who_ask_at_once_one_reads(tmp_path: Path) -> None:
    newest, reads, file = Newest[Made](2), [], tmp_path / "a"
    file.touch()

    def read() -> Made:
        reads.append(1)
        time.sleep(0.05)
        return Made()

    found: list[Made] = []
    askers = [threading.Thread(target=lambda: found.append(newest.of(file, read))) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(reads) == 1 and len(found) == 4 and len(set(map(id, found))) == 1
