"""From what a person names (a run, a checkpoint, a folder) to a model in memory and the tokenizer it belongs with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.checkpoint import Checkpoint, load, load_newest
from mygpt2.checkpoint.format import MANIFEST
from mygpt2.errors import UserError
from mygpt2.model.gpt import GPT, GPTConfig
from mygpt2.model.huggingface import is_huggingface, load_huggingface
from mygpt2.model.weights import load_state
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Opened:
    """A model on the CPU in evaluation mode, and where it came from in one phrase."""

    model: GPT
    tokenizer: Tokenizer
    origin: str


def open_model(spec: str, runs: Path | str = "runs") -> Opened:
    """The model of a run (its newest whole checkpoint), of a checkpoint folder, or of a Hugging Face GPT-2 folder.

    A run is a name within `runs` or a path. Raises UserError that names what is allowed.
    """
    path = Path(spec).expanduser()
    if (path / MANIFEST).is_file():
        return _from_checkpoint(load(path, optimizer=False))
    if is_huggingface(path):
        return _from_huggingface(path)
    if RunDir(path).exists():
        return _from_run(RunDir(path))
    if spec == "gpt2" and not (Path(runs) / spec).is_dir():
        raise UserError(
            "gpt2's published weights are not part of this installation; save them to a folder, give its path"
        )
    if path.exists() or path.name != spec:
        raise UserError(
            f"--model {spec} is neither a run folder, nor a checkpoint folder (with {MANIFEST}), nor a Hugging Face "
            "folder (with config.json and model.safetensors); python -m mygpt2 runs list shows the runs"
        )
    return _from_run(RunDir.open(runs, spec))


def _from_run(run: RunDir) -> Opened:
    checkpoint, skipped = load_newest(run.checkpoints_dir, optimizer=False)
    if checkpoint is None:
        broken = f" ({len(skipped)} that do not verify)" if skipped else ""
        raise UserError(f"run {run.name} has no whole checkpoint{broken}; wait for its first one or choose another run")
    return _from_checkpoint(checkpoint)


def _from_checkpoint(checkpoint: Checkpoint) -> Opened:
    try:
        settings: dict[str, Any] = checkpoint.state["config"]["model"]
        spec, fingerprint = checkpoint.state["tokenizer"]["spec"], checkpoint.state["tokenizer"]["fingerprint"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {checkpoint.path} does not say what it is of ({error!r}); choose another"
        ) from error
    tokenizer = load_tokenizer(spec)
    if tokenizer.fingerprint != fingerprint:
        raise UserError(
            f"tokenizer {spec} is not the one {checkpoint.path} was trained with (fingerprint "
            f"{tokenizer.fingerprint[:12]}, not {str(fingerprint)[:12]}); restore that file"
        )
    model = GPT(GPTConfig(**settings, vocab_size=tokenizer.vocab_size))
    load_state(model, checkpoint.model)
    return Opened(model.eval(), tokenizer, f"{checkpoint.path}, step {checkpoint.step}")


def _from_huggingface(folder: Path) -> Opened:
    model = load_huggingface(folder)
    tokenizer = load_tokenizer(str(folder) if (folder / "tokenizer.json").is_file() else "gpt2")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{folder} has no tokenizer.json and a vocabulary of {model.config.vocab_size}, which is not GPT-2's; "
            "put the model's tokenizer.json beside it"
        )
    return Opened(model.eval(), tokenizer, str(folder))
