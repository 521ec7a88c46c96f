"""What can be chosen, by kind: which files and folders count, what else there is, what to bring along."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mygpt2.data.sources.local.find import kind_of
from mygpt2.data.sources.local.unpack import COMPRESSION
from mygpt2.errors import UserError
from mygpt2.run_dir.marks import current_runs
from workbench import models
from workbench.context import Context
from workbench.tokenizers import tokenizer_of

MOST_RUNS = 200  # in a list to choose from
LOGS = (".csv", ".tsv", ".json", ".jsonl", ".log", ".txt")


@dataclass(frozen=True)
class Offer:
    """Something that goes by a name: what is written into the field, how it is called, and a word on it."""

    value: str
    name: str
    detail: str


@dataclass(frozen=True)
class Kind:
    """What a field asks for.

    file: what a file of this name is, "" where it is not of this kind. whole: what a folder is as a whole, "" where it
    is only one to walk through; None: it counts by its files. spelled: what the engine would take for a text, for
    telling whether a short path means the same. endings: of the files that may be uploaded.
    """

    name: str
    title: str
    file: Callable[[str], str]
    whole: Callable[[Path], str] | None
    named: Callable[[Context], Iterable[tuple[str, list[Offer]]]]
    spelled: Callable[[Context, str], str]
    endings: tuple[str, ...]
    advice: str


def kind_named(name: object) -> Kind:
    """A kind by its name. UserError for one there is none of."""
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"kind {str(name)[:40]!r} cannot be chosen; allowed: {', '.join(KINDS)}")
    return KINDS[name]


def _data(name: str) -> str:
    found = kind_of(Path(name))
    return {None: "", "txt": "text", "arrow": "Arrow"}.get(found, str(found))


def _tokenizer(name: str) -> str:
    return "tokenizer" if name == "tokenizer.json" else ""


def _weights(name: str) -> str:
    return ""  # a model is a folder


def _log(name: str) -> str:
    return "log" if Path(name).suffix.lower() in LOGS else ""


def _tokenizer_folder(folder: Path) -> str:
    return "tokenizer" if (folder / "tokenizer.json").is_file() else ""


def _model_folder(folder: Path) -> str:
    return "GPT-2" if models.is_model(folder) else ""


def _event_folder(folder: Path) -> str:
    return "TensorBoard" if any("tfevents" in path.name for path in folder.glob("events.out.*")) else ""


def _named_data(context: Context) -> Iterable[tuple[str, list[Offer]]]:
    yield "Built in", [Offer("pydocs", "pydocs", "documentation of the Python packages on this machine")]
    hub = "educational web pages, 10 billion tokens, read over the network"
    yield "Hugging Face", [Offer("fineweb-edu-10BT", "fineweb-edu-10BT", hub)]


def _named_models(context: Context) -> Iterable[tuple[str, list[Offer]]]:
    found = [(label, value) for label, value in models.choices(context) if not label.endswith(" folder")]
    hub = {label: value for label, value in found if label.endswith("from the hub")}
    runs = [Offer(value, *_halves(label)) for label, value in found if label not in hub]
    yield "Runs", runs[:MOST_RUNS]
    yield "Hugging Face", [Offer(value, *_halves(label)) for label, value in hub.items()]


def _halves(label: str) -> tuple[str, str]:
    name, _, detail = label.partition(" · ")
    return name, detail


def _named_tokenizers(context: Context) -> Iterable[tuple[str, list[Offer]]]:
    yield (
        "Built in",
        [
            Offer("gpt2", "gpt2", "GPT-2, 50,257 ids"),
            Offer("gpt2:8192", "gpt2:8192", "the first 8,192 ids of GPT-2, for small models"),
        ],
    )
    own = context.runs / ".workbench" / "tokenizers"
    folders = sorted(path for path in own.glob("*") if _tokenizer_folder(path)) if own.is_dir() else []
    yield "Trained here", [Offer(str(path), path.name, "tokenizer") for path in folders[:MOST_RUNS]]


def _named_logs(context: Context) -> Iterable[tuple[str, list[Offer]]]:
    yield "Runs", [Offer(run.name, run.name, "run of this workbench") for run in current_runs(context.runs)[:MOST_RUNS]]


_PACKED = tuple(f"{ending}{packed}" for ending in (".txt", ".jsonl", ".tar") for packed in sorted(COMPRESSION))
KINDS = {
    kind.name: kind
    for kind in (
        Kind("data", "Choose data", _data, None, _named_data, lambda context, text: context.source(text),
             (".txt", ".jsonl", *_PACKED, ".parquet", ".arrow", ".feather", ".tar", ".bin", ".npy"),
             "save it as text (.txt), or as one JSON object a line (.jsonl)"),
        Kind("model", "Choose a model", _weights, _model_folder, _named_models,
             lambda context, text: context.model(text), (".safetensors", ".json"),
             "upload config.json, model.safetensors and tokenizer.json of a GPT-2 together"),
        Kind("tokenizer", "Choose a tokenizer", _tokenizer, _tokenizer_folder, _named_tokenizers, tokenizer_of,
             ("tokenizer.json",), "upload the file tokenizer.json of a tokenizer"),
        Kind("log", "Choose a log", _log, _event_folder, _named_logs,
             lambda context, text: str(context.path(text, "log")), LOGS,
             "upload the log as text, CSV or JSON"),
    )
}  # fmt: skip
