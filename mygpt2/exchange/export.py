"""A folder that transformers loads and generates from, made whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from glob import escape
from pathlib import Path

from mygpt2.checkpoint import FileSystem
from mygpt2.checkpoint.files import discard, is_leftover, scratch_name
from mygpt2.checkpoint.tensors import tensor_bytes, write_tensors
from mygpt2.errors import UserError
from mygpt2.exchange.card import model_card
from mygpt2.exchange.huggingface import CONFIG, WEIGHTS, config_json, to_huggingface
from mygpt2.exchange.load import Loaded
from mygpt2.files import encode_json
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer.folder import write_tokenizer

OTHER_BYTES = 16 << 20  # tokenizer, card and picture, generously


def check_target(to: Path) -> None:
    """UserError unless `to` can become a new folder: it is absent or empty, and what it lies in exists."""
    if os.path.lexists(to) and not to.is_dir():
        raise UserError(f"--to {to} is a file; give a new folder")
    if to.is_dir() and any(to.iterdir()):
        raise UserError(f"--to {to} is not empty; give a new folder, nothing is overwritten")
    if not to.resolve().parent.is_dir():
        raise UserError(f"--to {to}: there is no folder {to.resolve().parent}; make it or choose another")


def export_folder(loaded: Loaded, to: Path) -> Path:
    """Writes the model, its tokenizer and a model card to `to`, built aside and renamed when everything is on disk."""
    check_target(to)
    to = to.resolve()
    files, tensors = FileSystem(), to_huggingface(loaded.model)
    check_room(files, "--to", to, tensor_bytes(tensors) + OTHER_BYTES)
    sweep_beside(files, to)
    scratch = to.with_name(f".{to.name}{scratch_name('tmp')}")
    try:
        scratch.mkdir()
        with open(scratch / WEIGHTS, "xb") as file:
            write_tensors(files, file.fileno(), tensors)
        _write_rest(loaded, scratch)
        _sync(files, scratch)
        os.rename(scratch, to)  # over an empty folder too, and over nothing else
        files.fsync_folder(to.parent)
    except OSError as error:
        discard(files, scratch)
        raise UserError(f"cannot write --to {to}: {error.strerror or error}; choose another folder") from error
    except BaseException:
        discard(files, scratch)
        raise
    return to


def _write_rest(loaded: Loaded, folder: Path) -> None:
    config, eot = loaded.model.config, loaded.tokenizer.eot_id
    (folder / CONFIG).write_bytes(encode_json(config_json(config, eot)))
    generation = {f"{name}_token_id": eot for name in ("bos", "eos", "pad")}
    (folder / "generation_config.json").write_bytes(encode_json(generation))
    write_tokenizer(loaded.tokenizer, folder, config.block_size)
    run = RunDir(Path(loaded.details["run"])) if "run" in loaded.details else None
    picture = run.plot_file if run and run.plot_file.is_file() else None
    if picture:
        shutil.copyfile(picture, folder / picture.name)
    card = model_card(loaded, run, picture.name if picture else None)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")


def check_room(files: FileSystem, option: str, to: Path, needed: int) -> None:
    """UserError where the disk has no room for `needed` bytes beside `to`."""
    free = files.free_bytes(to.parent)
    if needed > free:
        raise UserError(
            f"{option} {to}: {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB to come; choose another disk or make "
            "room"
        )


def sweep_beside(files: FileSystem, to: Path) -> None:
    """Removes what exports to the same place left when they were killed."""
    for entry in to.parent.glob(f".{escape(to.name)}.tmp-*"):
        if is_leftover(entry.name.removeprefix(f".{to.name}")):
            if entry.is_dir():
                discard(files, entry)
            else:
                with contextlib.suppress(OSError):  # of another user; the next sweep tries again
                    files.unlink(entry)


def _sync(files: FileSystem, folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            files.fsync(descriptor)
        finally:
            os.close(descriptor)
    files.fsync_folder(folder)
