"""Programs that stand for an engine's own: scripts in a folder that is all of PATH, each keeping how it was called."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

Put = Callable[[str, str], None]


def putting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """put(name, script); the script's words are appended to `folder`/NAME.asked."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f'#!/bin/bash\nPATH=/usr/bin:/bin\necho "$@" >> {folder}/{name}.asked\n{script}\n')
        path.chmod(stat.S_IRWXU)

    return put


def asked(folder: Path, name: str) -> list[str]:
    """How the program was called, a line each."""
    path = folder / f"{name}.asked"
    return path.read_text().splitlines() if path.exists() else []
