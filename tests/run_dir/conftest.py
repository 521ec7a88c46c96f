"""A fresh run folder."""

from pathlib import Path

import pytest

from mygpt2.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "runs", "one")
