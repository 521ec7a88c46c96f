"""docs/batch.md leads from text to loss, and can be read from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(mygpt2/[\w/]+\.py)`", (ROOT / "docs" / "batch.md").read_text())


def test_every_file_that_the_way_names_is_there():
    assert len(NAMED) >= 20 and [name for name in NAMED if not (ROOT / name).is_file()] == []


def test_no_file_of_the_data_room_imports_one_that_comes_after_it():
    steps = [Path(name) for name in NAMED if Path(name).parent == Path("mygpt2/data")]
    for place, path in enumerate(steps):
        imported = re.findall(r"from mygpt2\.data\.(\w+) import", (ROOT / path).read_text())
        assert {later.stem for later in steps[place:]}.isdisjoint(imported), path
