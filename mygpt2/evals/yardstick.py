"""GPT-2's own result on a text, measured once with this code and kept: what a run in training is held against."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.evals.loss import LossResult
from mygpt2.files import read_json, replace_json
from mygpt2.machine import home_path

SCHEMA = 1


def find(cache_dir: Path, spec: str, token_sha256: str) -> dict[str, Any] | None:
    """The result of the model `spec` on the text with this fingerprint, or None: nothing is measured or fetched."""
    record = read_json(_path(cache_dir, spec, token_sha256))
    whole = record is not None and record.get("schema") == SCHEMA and record.get("token_sha256") == token_sha256
    return record if whole and isinstance((record or {}).get("loss"), float) else None


def keep(cache_dir: Path, spec: str, details: dict[str, Any], protocol: str, result: LossResult) -> dict[str, Any]:
    """Keeps a result with the model's revision and the hash of its weights; returns the record."""
    record = {
        "schema": SCHEMA,
        "of": spec,
        "name": details["name"],
        "revision": details.get("revision"),
        "weights_sha256": details["weights_sha256"],
        "protocol": protocol,
        **result.to_json(),
    }
    path = _path(cache_dir, spec, result.token_sha256)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_json(path, record)
    except OSError as error:
        raise UserError(
            f"cannot keep {path}: {error.strerror or error}; set MYGPT2_CACHE to a writable folder"
        ) from error
    return record


def measurable(details: dict[str, Any]) -> bool:
    """Whether a loaded model stays what it is: a published one or a folder, not a run that goes on."""
    return details["kind"] in ("hub", "folder")


def _path(cache_dir: Path, spec: str, token_sha256: str) -> Path:
    name = hashlib.sha256(repr((_model(spec), token_sha256)).encode()).hexdigest()[:32]
    return Path(cache_dir) / "yardstick" / f"{name}.json"


def _model(spec: str) -> str:
    """One name for a model however it is called; a folder goes by its place and the state of its weights."""
    folder = home_path(spec)
    if folder.is_dir():
        states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.glob("*.safetensors"))]
        return f"{folder.resolve()} {states}"
    from mygpt2.exchange.hub import hub_model

    on_hub = hub_model(spec)
    return str(on_hub) if on_hub else spec
