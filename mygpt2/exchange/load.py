"""From what a person names (a run, a checkpoint, a folder, a model on the hub) to a model and its tokenizer."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.checkpoint import Checkpoint, candidates, load, load_newest
from mygpt2.checkpoint.format import MANIFEST, MODEL, STATE, verify, weights_sha256
from mygpt2.config.mix import MixSource, mix_words
from mygpt2.errors import UserError
from mygpt2.exchange.hub import GPT2_NAMES, Snapshot, fetch_model, hub_model
from mygpt2.exchange.huggingface import CONFIG, INDEX, WEIGHTS, build, is_huggingface, load_huggingface, weight_files
from mygpt2.machine import home_path
from mygpt2.model.gpt import GPT, GPTConfig, state_for_checkpoint
from mygpt2.run_dir import RunDir, list_runs
from mygpt2.run_dir.ghost import check_weights
from mygpt2.tokenizer import Tokenizer, load_tokenizer
from mygpt2.tokenizer.folder import tokenizer_of

PICKLED = ("pytorch_model.bin", "ckpt.pt", "model.pt")


@dataclass(frozen=True)
class Loaded:
    """A model on the CPU, in float32 and evaluation mode, and where it came from.

    `name` is short, for people. `details` is JSON: kind ("checkpoint", "folder", "hub" or "file"), path, name,
    parameters, weights_sha256, and as they apply run, step, tokens, source, repo, revision, unused_ids (rows of
    the embedding beyond the tokenizer's ids, which were left out).
    """

    model: GPT
    tokenizer: Tokenizer
    name: str
    details: dict[str, Any]

    @property
    def words(self) -> str:
        """The name, and what was left out of the model."""
        cut = self.details.get("unused_ids", 0)
        return f"{self.name} ({cut:,} ids without a token left out)" if cut else self.name


def load_model(spec: str, runs: Path | str = "runs") -> Loaded:
    """The model of a run (its newest whole checkpoint), a checkpoint folder, a Hugging Face folder, or the hub.

    A run is a name within `runs` or a path, and goes before a model on the hub of the same name. On the hub: `gpt2`,
    `gpt2-xl`, `owner/name`, each with an optional `@revision`. Raises UserError that names what is allowed.
    """
    path = home_path(spec)
    if (path / MANIFEST).is_file():
        return _from_checkpoint(load(path, optimizer=False))
    if is_huggingface(path):
        return _from_folder(path)
    if RunDir(path).exists():
        return _from_run(RunDir(path))
    is_name = path.name == spec
    if is_name and RunDir(Path(runs) / spec).exists():
        return _from_run(RunDir.open(runs, spec))
    on_hub = hub_model(spec)
    if path.exists() or on_hub is None or (not is_name and Path(path.parts[0]).exists()):
        raise _not_a_model(spec, path, runs)
    return _from_hub(fetch_model(on_hub))


def checkpoints_of(spec: str, runs: Path | str = "runs") -> tuple[list[str], list[str]]:
    """(what `load_model` takes, the oldest checkpoint of a run first; names of those that are not whole). What is no
    run is one model. UserError for a run without a whole checkpoint."""
    path = home_path(spec)
    named = path.name == spec and RunDir(Path(runs) / spec).exists()
    run = RunDir.open(runs, spec) if named else RunDir(path)
    if (path / MANIFEST).is_file() or is_huggingface(path) or not run.exists():
        return [spec], []
    check_weights(run)
    places = list(reversed(candidates(run.checkpoints_dir)))
    broken = [place for place in places if verify(place, only=(MODEL, STATE))]
    if len(broken) == len(places):
        return [spec], []  # which says so
    return [str(place) for place in places if place not in broken], [place.name for place in broken]


def _not_a_model(spec: str, path: Path, runs: Path | str) -> UserError:
    """Why a name or path leads nowhere."""
    if path.name == spec and not path.exists() and list_runs(runs):
        try:
            RunDir.open(runs, spec)
        except UserError as error:  # it knows the nearest names
            return error
    pickled = next((path / name for name in PICKLED if (path / name).is_file()), None)
    if pickled:
        return UserError(
            f"--model {spec} holds its weights as {pickled.name}, a pickle, which is read once and on request: "
            f"python -m mygpt2 import {shlex.quote(str(pickled))} --to DIR, then --model DIR"
        )
    if path.is_file():
        return UserError(
            f"--model {spec} is a file; give the folder it is in, or turn a .pt or .bin into one: "
            f"python -m mygpt2 import {shlex.quote(spec)} --to DIR"
        )
    return UserError(
        f"--model {spec} is neither a run (python -m mygpt2 runs list), nor a checkpoint folder (with {MANIFEST}), nor "
        f"a Hugging Face folder (with {CONFIG} and {WEIGHTS} or {INDEX}), nor a model on the hub "
        f"({', '.join(GPT2_NAMES)}, owner/name)"
    )


def _from_run(run: RunDir) -> Loaded:
    check_weights(run)
    checkpoint, skipped = load_newest(run.checkpoints_dir, optimizer=False)
    if checkpoint is None:
        broken = f" ({len(skipped)} that do not verify)" if skipped else ""
        raise UserError(f"run {run.name} has no whole checkpoint{broken}; wait for its first one or choose another run")
    return _from_checkpoint(checkpoint)


def _from_checkpoint(checkpoint: Checkpoint) -> Loaded:
    path, state = checkpoint.path, checkpoint.state
    try:
        settings: dict[str, Any] = {name: value for name, value in state["config"]["model"].items() if name != "seed"}
        spec, fingerprint = state["tokenizer"]["spec"], state["tokenizer"]["fingerprint"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"checkpoint {path} does not say what it is of ({error!r}); choose another") from error
    tokenizer = load_tokenizer(spec)
    if tokenizer.fingerprint != fingerprint:
        raise UserError(
            f"tokenizer {spec} is not the one {path} was trained with (fingerprint {tokenizer.fingerprint[:12]}, not "
            f"{str(fingerprint)[:12]}); restore that file"
        )
    model = build(GPTConfig(**settings, vocab_size=tokenizer.vocab_size), checkpoint.model)
    run = RunDir(path.resolve().parent.parent)
    name = f"{run.name}/{path.name}" if run.exists() else path.name
    more = {
        "run": str(run.path) if run.exists() else None,
        "step": checkpoint.step,
        "tokens": state.get("tokens"),
        "source": _trained_on(state["config"].get("data", {})),
        "weights_sha256": weights_sha256(checkpoint),
    }
    return described(model, tokenizer, name, "checkpoint", path, **more)


def _trained_on(data: Mapping[str, Any]) -> str | None:
    """The text of a run for a person: its source, or the mixture with the shares."""
    mix = data.get("mix") or []
    if not mix:
        return data.get("source")
    return mix_words([MixSource.model_construct(name=each["name"], weight=each["weight"]) for each in mix])


def _from_hub(snapshot: Snapshot) -> Loaded:
    name = f"{snapshot.repo}@{snapshot.commit[:7]}"
    return _from_folder(snapshot.folder, name, "hub", repo=snapshot.repo, revision=snapshot.commit)


def _from_folder(folder: Path, name: str = "", kind: str = "folder", **more: Any) -> Loaded:
    model = load_huggingface(folder)
    tokenizer = tokenizer_of(folder, model.config.vocab_size)
    digest = _digest(weight_files(folder))
    return described(
        model, tokenizer, name or folder.resolve().name, kind, folder, weights_sha256=digest, **more
    )  # fmt: skip


def described(model: GPT, tokenizer: Tokenizer, name: str, kind: str, path: Path, **more: Any) -> Loaded:
    """A model with the tokenizer it is used with, cut to the ids that the tokenizer has."""
    model, unused = fitted(model, tokenizer)
    known = {key: value for key, value in more.items() if value is not None}
    if unused:
        known["unused_ids"] = unused
    details = {"kind": kind, "path": str(path), "name": name, "parameters": model.num_parameters(), **known}
    return Loaded(model, tokenizer, name, details)


def fitted(model: GPT, tokenizer: Tokenizer) -> tuple[GPT, int]:
    """The model without rows of wte for ids that the tokenizer does not have, and how many those were.

    Such rows are padding for speed in other programs; an id without a token must never be predicted.
    """
    unused = model.config.vocab_size - tokenizer.vocab_size
    if unused < 0:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids and the model {model.config.vocab_size}; "
            "give the tokenizer the model was trained with"
        )
    if unused == 0:
        return model, 0
    tensors = state_for_checkpoint(model)
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][: tokenizer.vocab_size]
    return build(dataclasses.replace(model.config, vocab_size=tokenizer.vocab_size), tensors), unused


def _digest(files: list[Path]) -> str:
    """SHA-256 of the one weights file; of several, of their digests in order."""
    digests = []
    for path in files:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
