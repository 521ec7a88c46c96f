"""The models a page can offer: checkpoints of runs by step, Hugging Face folders of the roots, and GPT-2 by name."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mygpt2.checkpoint import candidates, step_of
from mygpt2.errors import UserError
from mygpt2.run_dir.marks import current_runs
from workbench.context import GPT2_NAMES, Context

CHECKPOINT = re.compile(r"(?P<run>[A-Za-z0-9][A-Za-z0-9._-]{0,63})/(?P<step>step-\d{8,})")
ONLY_HUB = ("gpt2", "")  # the models to begin with where nothing is on this machine
NEWEST, FOLDER, HERE, HUB = " · newest (", " · folder", " · OpenAI, on this machine", " · OpenAI, from the hub"
DEPTH = 3  # folders below a root that are looked through for models
MOST = 2000  # folders looked at in all: a root may be somebody's whole disk


def choices(context: Context) -> list[tuple[str, str]]:
    """(label, value) of what can be chosen: runs with their checkpoints, newest first, folders, then the hub."""
    found: list[tuple[str, str]] = []
    runs = [(run.name, checkpoints) for run in current_runs(context.runs) if (checkpoints := checkpoints_of(run.path))]
    for name, checkpoints in sorted(runs, key=lambda each: -_saved(each[1][0])):
        steps = [path.name for path in checkpoints]
        found.append((f"{name}{NEWEST}step {step_of(steps[0]):,})", name))
        found += [(f"{name} · step {step_of(step):,}", f"{name}/{step}") for step in steps]
    found += [(f"{folder}{FOLDER}", folder) for folder in model_folders(context)]
    return found + [(f"{name}{HERE if is_here(name) else HUB}", name) for name in GPT2_NAMES]


def defaults(
    known: Sequence[tuple[Any, ...]], wanted: str = "", fit: Callable[[str], bool] = lambda run: True
) -> tuple[str, str]:
    """Two models to begin with: `wanted` or the newest run, and beside it GPT-2, the newest other run, or a folder.

    fit: whether a run may be the one beside. "" where there is none. What would have to be fetched from the hub is left
    to a person to choose.
    """
    local = [(label, value) for label, value in known if not label.endswith(HUB)]
    if not local:
        return ONLY_HUB
    first = wanted if wanted in (value for _, value in local) else local[0][1]
    gpt2 = [value for label, value in local if label.endswith(HERE)]
    gpt2 += [value for label, value in local if _is_gpt2_folder(label, value)]
    run = first.partition("/")[0]
    others = (value for label, value in local if label.endswith(FOLDER) or (NEWEST in label and fit(value)))
    return first, next((value for value in itertools.chain(gpt2, others) if value not in (first, run)), "")


def is_here(name: str) -> bool:
    """Whether a GPT-2 of the hub was fetched before: all of it lies in the cache that other programs share."""
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "model.safetensors")
    return all(isinstance(try_to_load_from_cache(f"openai-community/{name}", file), str) for file in files)


def _is_gpt2_folder(label: str, value: str) -> bool:
    return label.endswith(FOLDER) and Path(value).name.lower().startswith("gpt2")


def _saved(checkpoint: Path) -> float:
    try:
        return checkpoint.stat().st_mtime
    except OSError:
        return 0.0


def gpt2_at_hand(context: Context) -> str:
    """GPT-2 124M where it need not be fetched: in the hub's cache, or a folder of the roots named so; else ""."""
    if is_here(ONLY_HUB[0]):
        return ONLY_HUB[0]
    return next((name for name in model_folders(context) if _is_gpt2_folder(FOLDER, name)), "")


def resolve(context: Context, text: Any) -> str:
    """What the engine loads for a choice or something typed. A run becomes its newest checkpoint. UserError else."""
    text = str(text or "").strip()
    m = CHECKPOINT.fullmatch(text)
    if m:
        run = context.run(m["run"])
        path, known = run.checkpoints_dir / m["step"], checkpoints_of(run.path)
        if path not in known:
            steps = ", ".join(f"{step_of(p.name):,}" for p in known) or "none yet"
            raise UserError(f"run {run.name} has no checkpoint of step {step_of(path.name):,}; there are: {steps}")
        return str(context.checkpoint(path))
    spec = context.model(text)
    newest = checkpoints_of(Path(spec)) if Path(spec).is_absolute() else []
    return str(context.checkpoint(newest[0])) if newest else spec


def checkpoints_of(run: Path) -> list[Path]:
    """A run's checkpoint folders, newest first; those being replaced just now are left out."""
    return [path for path in candidates(run / "checkpoints") if path.name.startswith("step-")]


def short(context: Context, spec: str) -> str:
    """A resolved model as people call it: run/step, a path below its root, or a name of the hub."""
    path = Path(spec)
    if not path.is_absolute():
        return spec
    if path.parent.name == "checkpoints" and path.is_relative_to(context.runs):
        return f"{path.parent.parent.name}/{path.name}"
    for root in (context.runs, *context.data_roots):
        if path.is_relative_to(root) and path != root:
            return str(path.relative_to(root))
    return str(path)


def model_folders(context: Context) -> list[str]:
    """Hugging Face GPT-2 folders inside the data roots, as paths below their root."""
    found: dict[str, None] = {}
    for root in context.data_roots:
        for folder in _folders(root, context.runs):
            if folder != root and is_model(folder):
                found.setdefault(str(folder.relative_to(root)), None)
    return list(found)


def is_model(folder: Path) -> bool:
    """Whether a folder looks like a GPT-2 in Hugging Face's format; nothing heavy is read."""
    try:
        settings = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    weights = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    return weights and isinstance(settings, dict) and settings.get("model_type") == "gpt2"


def _folders(root: Path, runs: Path) -> Iterator[Path]:
    """Folders below a root, nearest first; links, hidden folders and the runs themselves are left out."""
    level, looked = [root], 0
    for _ in range(DEPTH + 1):
        deeper: list[Path] = []
        for folder in level:
            looked += 1
            if looked > MOST:
                return
            yield folder
            deeper += [path for path in _below(folder) if path != runs]
        level = deeper


def _below(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith((".", "_"))]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]
