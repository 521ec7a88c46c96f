"""One checkpoint: a folder that is whole or does not count.

    step-00001200/   model.safetensors  optimizer.safetensors  state.json  MANIFEST.json

or with the tensors in parts (see `parts`), or as weights alone, without the optimizer's state. It is built aside under
a temporary name, MANIFEST.json (size and SHA-256 of every file, and of itself) comes last, everything is synced, and
one rename makes it visible. A folder counts if and only if its manifest verifies, so neither a crash nor a flipped bit
is ever mistaken for a checkpoint. Only safetensors and JSON are written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.checkpoint.files import FileSystem, discard, replaced_name, scratch_name, step_name, step_of, write_all
from mygpt2.checkpoint.layout import (
    BrokenCheckpoint,
    Unreadable,
    UnreadableCheckpoint,
    document_problem,
    layout_problem,
)
from mygpt2.checkpoint.parts import Share, count_parts, part_name, part_names, whole_name

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA, WHOLE = 2, 1  # of manifests; a checkpoint that is not in parts is what it was before there were any
MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"
CONTENTS = (MODEL, OPTIMIZER, STATE)
MAX_JSON_BYTES = 64 << 20
Entries = Mapping[str, Mapping[str, Any]]  # of a manifest: by name, the bytes and sha256 of a file


@dataclass(frozen=True)
class Checkpoint:
    """What a verified folder holds. `optimizer` is empty when it was not asked for."""

    step: int
    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def write(
    checkpoints: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    files: FileSystem | None = None,
) -> Path:
    """Writes checkpoints/step-<step> and returns its path once it is safe on disk.

    An existing folder of that step is moved aside only when the new one is whole. OSError leaves the folder as it was.
    """
    from mygpt2.checkpoint.tensors import write_tensors

    files = files or FileSystem()

    def fill(scratch: Path) -> Entries:
        return {
            MODEL: _write_file(files, scratch / MODEL, lambda fd: write_tensors(files, fd, model)),
            OPTIMIZER: _write_file(files, scratch / OPTIMIZER, lambda fd: write_tensors(files, fd, optimizer)),
        }

    return write_aside(checkpoints, step, fill, encode_json(state), files)


def write_aside(checkpoints: Path, step: int, fill: Callable[[Path], Entries], state: bytes, files: FileSystem) -> Path:
    """Writes a checkpoint whose tensors `fill` writes into a folder, and returns its path once it is safe on disk.

    Whatever `fill` or the disk raises leaves the folder of checkpoints as it was.
    """
    scratch, document = checkpoints / scratch_name("tmp"), memoryview(state)
    try:
        files.mkdir(scratch)
        entries = dict(fill(scratch))
        entries[STATE] = _write_file(files, scratch / STATE, lambda fd: _write_bytes(files, fd, document))
        manifest = memoryview(encode_manifest(step, entries))
        _write_file(files, scratch / MANIFEST, lambda fd: _write_bytes(files, fd, manifest))
        files.fsync_folder(scratch)
        return _publish(files, scratch, checkpoints / step_name(step))
    except BaseException:
        discard(files, scratch)
        raise


def write_share(folder: Path, share: Share, files: FileSystem) -> Entries:
    """Writes the files of one part, and reads them back: nobody else does before the checkpoint counts. OSError."""
    from mygpt2.checkpoint.tensors import write_tensors

    entries = {}
    for whole, part in ((MODEL, share.model), (OPTIMIZER, share.optimizer)):
        path = folder / part_name(whole, share.index, share.count)
        fill = partial(write_tensors, files, tensors=part.tensors, rows=part.rows)
        entries[path.name] = _write_file(files, path, fill)
        if (problem := file_problem(path, entries[path.name])) is not None:
            raise OSError(problem)
    return entries


def _write_file(files: FileSystem, path: Path, fill: Callable[[int], tuple[int, str]]) -> dict[str, Any]:
    descriptor = files.create(path)
    try:
        size, digest = fill(descriptor)
        files.fsync(descriptor)
    finally:
        files.close(descriptor)
    return {"bytes": size, "sha256": digest}


def _write_bytes(files: FileSystem, descriptor: int, data: memoryview) -> tuple[int, str]:
    write_all(files, descriptor, data)
    return len(data), hashlib.sha256(data).hexdigest()


def _publish(files: FileSystem, scratch: Path, final: Path) -> Path:
    """The rename that makes a checkpoint visible.

    A folder cannot be renamed over another one. The older one is therefore renamed first, to a name that `store.newest`
    still finds, so a crash between the two renames loses nothing.
    """
    aside = final.with_name(replaced_name(final.name)) if os.path.lexists(final) else None
    if aside:
        files.rename(final, aside)
    try:
        files.rename(scratch, final)
    except OSError:
        if aside:
            files.rename(aside, final)
        raise
    files.fsync_folder(final.parent)
    if aside:
        discard(files, aside)
    return final


def encode_json(value: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON document here. NaN and objects JSON does not know are errors of the caller."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def encode_manifest(step: int, entries: Entries) -> bytes:
    """MANIFEST.json. Its own digest covers the rest of it, and only this exact spelling is accepted."""
    body = {"schema": SCHEMA if count_parts(entries) else WHOLE, "step": step, "files": entries}
    return encode_json({**body, "self": hashlib.sha256(encode_json(body)).hexdigest()})


def verify(path: Path, *, only: Iterable[str] = CONTENTS, share: tuple[int, int] = (0, 1)) -> list[str]:
    """What is wrong with a checkpoint folder; an empty list means that every file is what was written.

    What cannot be read just now is an Unreadable: the checkpoint may be whole all the same.
    Reads every byte of the files in `only`, and of their parts. Needs no torch and executes nothing. Of several that
    verify together, rank r of n has the `share` (r, n): each file is read by one of them.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return ["is not a folder"]
        manifest = _read_manifest(path)
    except FileNotFoundError as error:
        return [f"{Path(error.filename).name} is missing"]
    except OSError as error:
        return [Unreadable(f"cannot be read: {error.strerror or error}")]
    except BrokenCheckpoint as error:
        return [str(error)]
    step = step_of(path.name)
    if step is not None and manifest["step"] != step:
        return [f"{MANIFEST} is of step {manifest['step']}"]
    kinds = set(only)
    names = [name for name in sorted(manifest["files"]) if whole_name(name) in kinds][share[0] :: share[1]]
    return [problem for name in names if (problem := file_problem(path / name, manifest["files"][name]))]


def tensor_files(path: Path, kind: str) -> list[Path]:
    """The files that hold the tensors of MODEL or OPTIMIZER, unverified: one, or its parts in their order."""
    return [path / name for name in part_names(kind, count_parts(_read_manifest(path)["files"]))]


def _read_manifest(path: Path) -> dict[str, Any]:
    raw = _read_small(path / MANIFEST)
    try:
        manifest = json.loads(raw)
        names = set(manifest["files"])
        kinds = (_contents(count_parts(names)), _contents(count_parts(names), alone=True))
        whole = raw == encode_manifest(manifest["step"], manifest["files"]) and names in kinds
        newer = not whole and manifest["schema"] > SCHEMA
        for entry in manifest["files"].values():
            _ = entry["bytes"], entry["sha256"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BrokenCheckpoint(f"{MANIFEST} is not readable") from None
    if newer:
        raise BrokenCheckpoint(f"{MANIFEST} has schema {manifest['schema']}, this version reads {SCHEMA}")
    if not whole:
        raise BrokenCheckpoint(f"{MANIFEST} does not match its own checksum")
    return manifest


def _contents(count: int, alone: bool = False) -> set[str]:
    """The files of a checkpoint in `count` parts, or in none; of weights alone, those without the optimizer's."""
    return {STATE, *part_names(MODEL, count), *(() if alone else part_names(OPTIMIZER, count))}


def weights_alone(path: Path) -> bool:
    """Whether a checkpoint holds no optimizer state: it can be measured and branched from, not gone on with. OSError or
    BrokenCheckpoint where that cannot be told."""
    return not any(whole_name(name) == OPTIMIZER for name in _read_manifest(path)["files"])


def strip(path: Path, files: FileSystem) -> None:
    """Makes weights alone of a checkpoint: links to its other files, then one rename. OSError leaves it whole."""
    entries = {n: entry for n, entry in _read_manifest(path)["files"].items() if whole_name(n) != OPTIMIZER}
    scratch = path.with_name(scratch_name("tmp"))
    try:
        files.mkdir(scratch)
        for name in entries:
            files.link(path / name, scratch / name)
        manifest = memoryview(encode_manifest(step_of(path.name) or 0, entries))
        _write_file(files, scratch / MANIFEST, lambda fd: _write_bytes(files, fd, manifest))
        files.fsync_folder(scratch)
        _publish(files, scratch, path)
    except BaseException:
        discard(files, scratch)
        raise


def _read_small(path: Path) -> bytes:
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        raise BrokenCheckpoint(f"{path.name} is not a regular file")
    if info.st_size > MAX_JSON_BYTES:
        raise BrokenCheckpoint(f"{path.name} has {info.st_size} bytes, at most {MAX_JSON_BYTES} are read")
    return path.read_bytes()


def file_problem(path: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file of a checkpoint, as its manifest has it; None if nothing is."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode):
            return f"{path.name} is not a regular file"
        if info.st_size != entry["bytes"]:
            return f"{path.name} has {info.st_size} bytes, {entry['bytes']} were written"
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                return f"{path.name} has other bytes than were written"
        content = layout_problem(path) if path.suffix == ".safetensors" else document_problem(_read_small(path))
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return Unreadable(f"{path.name} cannot be read: {error.strerror or error}")
    except BrokenCheckpoint as error:
        return str(error)
    return f"{path.name} {content}" if content else None


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint, unverified."""
    return json.loads(_read_small(path / STATE))


def read_model(path: Path) -> dict[str, Tensor]:
    """Weights of a checkpoint on the CPU, unverified."""
    return _read(path, MODEL)


def read_optimizer(path: Path) -> dict[str, Tensor]:
    """Optimizer tensors of a checkpoint on the CPU, unverified."""
    return _read(path, OPTIMIZER)


def _read(path: Path, kind: str) -> dict[str, Tensor]:
    from mygpt2.checkpoint.stored import Stored
    from mygpt2.checkpoint.tensors import read_tensors

    files = tensor_files(path, kind)
    return read_tensors(files[0]) if files == [path / kind] else Stored(files).all()


def weights_sha256(checkpoint: Checkpoint) -> str:
    """What tells these weights from others, in however many parts they lie: the digest of MODEL as one file."""
    from mygpt2.checkpoint.tensors import sha256_of

    entry = _read_manifest(checkpoint.path)["files"].get(MODEL)
    return entry["sha256"] if entry else sha256_of(checkpoint.model)


def load(path: Path, *, optimizer: bool = True) -> Checkpoint:
    """A checkpoint, verified first. Raises BrokenCheckpoint (a UserError) that names every problem, or TryAgain when
    it cannot be read just now."""
    problems = verify(path, only=CONTENTS if optimizer else (MODEL, STATE))
    if problems and all(isinstance(problem, Unreadable) for problem in problems):
        raise UnreadableCheckpoint(f"checkpoint {path}: {'; '.join(problems)}; try again when it can be read")
    if problems:
        raise BrokenCheckpoint(
            f"checkpoint {path} is not whole ({'; '.join(problems)}); "
            "choose another one: python -m mygpt2 runs verify lists which are"
        )
    try:
        if optimizer and weights_alone(path):
            raise BrokenCheckpoint(
                f"checkpoint {path} holds the weights alone, so no run goes on from it; "
                f"branch from it: python -m mygpt2 runs branch NAME@{step_of(path.name)} --run NEW"
            )
        step = _read_manifest(path)["step"]
        return Checkpoint(step, path, read_model(path), read_optimizer(path) if optimizer else {}, read_state(path))
    except OSError as error:
        raise UnreadableCheckpoint(f"checkpoint {path}: {error}; try again when it can be read") from None
