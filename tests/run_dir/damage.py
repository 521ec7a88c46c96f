"""Damaged run folders, made to order: every kind of harm to every file that a reader of runs opens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mygpt2.run_dir import Process, RunDir, RunWriter

HUGE = 10**400  # no float holds it, and int64 does not either
RECORD = {
    "schema": 1, "attempt": 1, "rank": 0, "world_size": 1, "state": "running", "phase": "training", "step": 7,
    "steps": 9, "tokens": 448, "loss": 3.5, "lr": 0.1, "eta": 60.0, "heartbeat": 1.7e9, "progress": 1.7e9,
    "started": 1.7e9, "time": 1.7e9, "message": "", "reason": "", "code": 0, "kind": "eval", "text": "a",
    "prompt": "b", "seed": 1, "argv": ["train"], "device": "cpu", "tokens_per_second": 5.0,
    "losses": {"7": 3.5}, "preset": "tiny",
}  # fmt: skip

Damage = Callable[[Path, Path], None]


def whole(runs: Path, name: str) -> RunDir:
    """A run of seven steps, ended, with a checkpoint's folder (of nothing), an evaluation and a log."""
    run = RunDir.create(runs, name)
    with RunWriter(run, 1, clock=lambda: 1.7e9) as writer:
        writer.config("[train]\nsteps = 9\n")
        writer.command(["train"], {})
        for step in range(1, 8):
            writer.metrics(step=step, tokens=step * 64, loss=4.0, tokens_per_second=1.0)
        writer.event("eval", step=7, loss=3.0)
        writer.sample(step=7, prompt="a", text="b", seed=1)
        writer.status(state="running", phase="training", step=7, steps=9, tokens=448)
        writer.finish("stopped", 85, "stopped on request")
    record = {"rank": 0, "attempt": 1, "device": "cpu", **Process(2**22 + 7, "x", Process.current().host).to_json()}
    run.rank_file(0).write_text(json.dumps(record))
    folder = run.checkpoints_dir / "step-00000007"
    folder.mkdir()
    for file in ("model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"):
        (folder / file).write_bytes(b"{}")
    (run.checkpoints_dir / "validation.json").write_text('{"losses": {"7": 3.5}}')
    (run.evals_dir / "run.json").write_text('{"loss": 1}')
    run.log_file(0).write_bytes(b"a line\n")
    run.notes_file.write_text("a note")
    run.lock_file.write_text(json.dumps(record))
    return run


RECORDS = (
    "status.json", "exit.json", "command.json", "metrics.jsonl", "events.jsonl", ".lock", "ranks/0.json",
    "checkpoints/validation.json",
)  # fmt: skip
OTHERS = (
    "config.toml", "samples.jsonl", "notes.md", "attempts/1/config.toml", "attempts/1/exit.json", "evals/run.json",
    "logs/rank-0.log", "checkpoints/step-00000007/MANIFEST.json", "checkpoints/step-00000007/state.json",
    "checkpoints/step-00000007/model.safetensors",
)  # fmt: skip
FOLDERS = (
    "ranks", "attempts", "control", "logs", "evals", "trace", "checkpoints", "attempts/1", "checkpoints/step-00000007",
)  # fmt: skip


def with_values(value: Any) -> Damage:
    """A record of the usual entries, each with the same wrong value; twice, as lines."""

    def damage(path: Path, outside: Path) -> None:
        line = json.dumps(dict.fromkeys(RECORD, value))
        path.write_text(f"{line}\n{line}\n" if path.suffix == ".jsonl" else line)

    return damage


def with_bytes(data: bytes) -> Damage:
    return lambda path, outside: _ignored(path.write_bytes(data))


def with_one(**values: Any) -> Damage:
    """The usual record with some wrong values: the others are believed."""

    def damage(path: Path, outside: Path) -> None:
        text = json.dumps({**RECORD, **values})
        path.write_text(text + "\n" + text + "\n")

    return damage


def sparse(path: Path, outside: Path) -> None:
    os.truncate(path, 100 << 20)  # a line of 100 MB that takes no disk


def fifo(path: Path, outside: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def link_out(path: Path, outside: Path) -> None:
    is_folder = path.is_dir()
    _remove(path)
    path.symlink_to(outside if is_folder else outside / "secret.json")


def circle(path: Path, outside: Path) -> None:
    _remove(path)
    path.symlink_to(path.name)


def folder(path: Path, outside: Path) -> None:
    _remove(path)
    path.mkdir()


def file(path: Path, outside: Path) -> None:
    _remove(path)
    path.write_bytes(b"not a folder")


def forbidden(path: Path, outside: Path) -> None:
    path.chmod(0)


def full(path: Path, outside: Path) -> None:
    """A folder with entries whose names say more than they should."""
    names = ("step-" + "9" * 200, "step-0000000x", ".replaced-step-00000009-ab", "9" * 200 + ".json", "٣.json",
             "1e9.json", "-1.json", "rank-x.log", "stop", " ", "\x1b[2Jx.json", "step-00000008")  # fmt: skip
    for name in names:
        (path / name).mkdir(exist_ok=True)


def missing(path: Path, outside: Path) -> None:
    _remove(path)


TO_FILES: dict[str, Damage] = {
    "empty": with_bytes(b""), "junk": with_bytes(bytes(range(256)) * 40), "100 MB line": sparse, "pipe": fifo,
    "link out": link_out, "circle": circle, "folder": folder, "missing": missing, "forbidden": forbidden,
}  # fmt: skip
TO_RECORDS: dict[str, Damage] = TO_FILES | {
    "utf-16": with_bytes('{"a": 1}'.encode("utf-16")), "nul": with_bytes(b"\0" * 5000), "list": with_bytes(b"[1, 2]\n"),
    "deep": with_bytes(b'{"a":' * 20_000), "nested": with_bytes(b'{"state":' + b"[" * 900 + b"]" * 900 + b"}\n"),
    "digits": with_bytes(b'{"step":' + b"9" * 9000 + b"}\n"), "blank lines": with_bytes(b"\n" * 100_000),
    "text": with_values("x"), "huge": with_values(HUGE), "minus": with_values(-1), "nan": with_values(float("nan")),
    "infinite": with_values(float("inf")), "lists": with_values([[1], [2]]), "objects": with_values({"a": {}}),
    "true": with_values(True), "large": with_values(1.7e308), "int64": with_values(2**63),
    "surrogate": with_values("\ud800\x1b]0;title\x07"), "no steps": with_one(steps=0, step=0),
    "far future": with_one(time=1e15, heartbeat=1e15, progress=1e15), "negative step": with_one(step=-5),
    "long text": with_one(message="m" * 200_000), "odd state": with_one(state="dancing"),
    "pid": with_one(pid=2**80, start="x", host="y"),
}  # fmt: skip
TO_FOLDERS: dict[str, Damage] = {
    "link out": link_out, "circle": circle, "file": file, "pipe": fifo, "missing": missing, "full": full,
    "forbidden": forbidden,
}  # fmt: skip


def damaged(runs: Path, outside: Path) -> Iterator[tuple[str, RunDir]]:
    """Every damage as a run of its own: (what was done, the run)."""
    model = whole(runs, "model")
    kinds = ((RECORDS, TO_RECORDS), (OTHERS, TO_FILES), (FOLDERS, TO_FOLDERS))
    cases = [(name, how, damage) for names, to in kinds for name in names for how, damage in to.items()]
    for number, (name, how, damage) in enumerate(cases):
        run = RunDir(runs / f"bad-{number:04d}")
        shutil.copytree(model.path, run.path)
        damage(run.path / name, outside)
        yield f"{name}: {how}", run


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _ignored(value: object) -> None:
    """The type of a damage."""
