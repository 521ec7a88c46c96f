"""Files that are always whole: written beside, then renamed over."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replaces a file in one step: a reader sees the old bytes or the new ones. OSError leaves the old ones.

    `durable` also survives a power cut, at the price of a sync.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(scratch, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise


def replace_json(path: Path, value: Mapping[str, Any], *, durable: bool = False) -> None:
    """`replace_file` of a JSON document; non-finite numbers become null."""
    replace_file(path, json.dumps(finite(value), indent=1).encode() + b"\n", durable=durable)


def finite(value: Any) -> Any:
    """The same value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object of the run folder; None if it is missing, unreadable or something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
