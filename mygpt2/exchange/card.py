"""README.md of an exported model: what it is, how it was trained, and its figures, each with its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mygpt2 import __version__
from mygpt2.files import read_json
from mygpt2.run_dir import RunDir, read_events, read_metrics

if TYPE_CHECKING:
    from mygpt2.exchange.load import Loaded

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- gpt2
- text-generation
---
"""
USE = """
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForCausalLM.from_pretrained("PATH")
ids = tokenizer("The", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```

It continues text. It was not taught to follow instructions, and what it says may be wrong or offensive.
"""
LAST = 100  # steps whose mean stands for the training loss: a single step's is noise

Rows = list[tuple[str, str]]


def model_card(loaded: Loaded, run: RunDir | None, picture: str | None) -> str:
    """The card as Markdown. `run` is the folder of the run that made the model, if it is there; `picture` its curve."""
    parts = [HEAD, f"# {_text(loaded.name)}\n", _table("Model", _model_rows(loaded))]
    if run is not None and "step" in loaded.details:
        step = int(loaded.details["step"])
        parts += [_table("Training", _training_rows(loaded, run, step)), _table("Evaluation", _results(run, step))]
    if picture:
        parts.append(f"\n![Training and validation loss]({picture})\n")
    return "".join([*parts, USE, f"\nExported by mygpt2 {__version__}.\n"])


def _model_rows(loaded: Loaded) -> Rows:
    config, details = loaded.model.config, loaded.details
    rows = [
        ("Architecture", "GPT-2" + ("" if config.bias else " without biases (stored as zeros)")),
        ("Parameters", f"{details['parameters']:,}"),
        ("Layers, heads, width", f"{config.n_layer}, {config.n_head}, {config.n_embd}"),
        ("Context", f"{config.block_size:,} tokens"),
        ("Vocabulary", f"{config.vocab_size:,} ids ({_tokenizer(loaded)})"),
    ]
    if "repo" in details:
        rows.append(("From", f"{details['repo']} at {details['revision']}"))
    return rows


def _tokenizer(loaded: Loaded) -> str:
    name = loaded.tokenizer.name
    return f"{name} tokenizer" if name.startswith("gpt2") else "its own tokenizer, see tokenizer.json"


def _training_rows(loaded: Loaded, run: RunDir, step: int) -> Rows:
    """What the run's metrics say up to the step of the checkpoint."""
    details, metrics = loaded.details, read_metrics(run)
    seen = np.flatnonzero(metrics["step"] <= step)
    losses = metrics["loss"][seen][-LAST:]
    losses = losses[np.isfinite(losses)]
    rows = [("Run", run.name), ("Steps", f"{step:,}")]
    if details.get("tokens") is not None:
        rows.append(("Tokens", f"{details['tokens']:,}"))
    if details.get("source"):
        rows.append(("Data", str(details["source"])))
    if len(losses):
        rows.append((f"Training loss, mean of the last {len(losses)} steps", f"{losses.mean():.4f} nats per token"))
    return rows


def _results(run: RunDir, step: int) -> Rows:
    """The latest result under each protocol's name, up to the step: numbers compare within one protocol only."""
    found: dict[str, tuple[int, str]] = {}
    for at, record in sorted(_measured(run), key=lambda pair: pair[0]):
        if at > step:
            continue
        protocol, outcome = record.get("protocol"), record.get("hellaswag")
        if isinstance(protocol, str) and isinstance(record.get("loss"), int | float):
            found[f"Loss, protocol {protocol}"] = at, _loss(record)
        for name in ("completion", "harness"):
            if isinstance(outcome, dict) and isinstance(outcome.get(name), dict):
                found[f"HellaSwag, protocol {name}"] = at, _shares(outcome[name])
    return [(label, f"{text}, at step {at:,}") for label, (at, text) in sorted(found.items())]


def _measured(run: RunDir) -> list[tuple[int, dict[str, Any]]]:
    """(step, record) of what was measured while the run trained and of what `eval` left in its folder."""
    names = [name for name in run.names(run.evals_dir) if name.endswith(".json")]
    files = [read_json(run.evals_dir / name, run.path) or {} for name in names]
    found = [(record["details"].get("step"), record) for record in files if isinstance(record.get("details"), dict)]
    found += [(event.get("step"), event) for event in read_events(run, ["eval"])]
    found += [(event.get("step"), {"hellaswag": event}) for event in read_events(run, ["hellaswag"])]
    return [(at, record) for at, record in found if isinstance(at, int)]


def _loss(record: dict[str, Any]) -> str:
    parts = [f"{record['loss']:.4f} nats per token"]
    if isinstance(record.get("stderr"), int | float):
        parts[0] += f" (standard error {record['stderr']:.4f})"
    if isinstance(record.get("bits_per_byte"), int | float):
        parts.append(f"{record['bits_per_byte']:.4f} bits per byte")
    if isinstance(record.get("tokens"), int):
        parts.append(f"{record['tokens']:,} targets")
    return ", ".join(parts)


def _shares(outcome: dict[str, Any]) -> str:
    """Shares are stored as fractions and read as percent."""
    shares = [(name, outcome[name]) for name in ("acc", "acc_norm") if isinstance(outcome.get(name), int | float)]
    text = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares)
    if isinstance(outcome.get("stderr"), int | float):
        text += f" (standard error {100 * outcome['stderr']:.2f})"
    return f"{text} of {outcome['n']:,} items" if isinstance(outcome.get("n"), int) else text


def _table(title: str, rows: Rows) -> str:
    lines = [f"| {_text(label)} | {_text(value)} |" for label, value in rows]
    return "\n".join([f"\n## {title}\n", "| | |", "|---|---|", *lines, ""]) if rows else ""


def _text(value: str) -> str:
    """One line that cannot end a table cell or start a tag: names and sources come from outside."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
