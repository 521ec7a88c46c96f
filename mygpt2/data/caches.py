"""Where everything lies that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from mygpt2.config.schema import DataConfig


def cache_dir_of(data: DataConfig) -> Path:
    """data.cache_dir, else $MYGPT2_CACHE, else the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(data.cache_dir or os.environ.get("MYGPT2_CACHE") or home / "mygpt2").expanduser()
