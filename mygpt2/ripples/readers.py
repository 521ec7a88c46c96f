"""Reading logs of any origin: our run folders, text of every kind, and TensorBoard's files.

What a column is called decides what it is; how many numbers it holds decides between two of the same meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mygpt2.errors import UserError, listed
from mygpt2.progress import Progress, silent
from mygpt2.ripples.console import AT_EVALUATION
from mygpt2.ripples.events import PREFIX, event_files, read_event_files
from mygpt2.ripples.layout import Layout
from mygpt2.ripples.log import Curve, Floats, Log, make_curve, make_log, spacing
from mygpt2.ripples.runs import read_run
from mygpt2.ripples.tables import Table, read_table
from mygpt2.run_dir.paths import RunDir

STEPS = (
    "step", "_step", "global_step", "trainer/global_step", "train/global_step", "iteration", "iter",
    "num_updates", "update",
)  # fmt: skip
TOKENS = (
    "tokens", "total_tokens", "num_tokens", "train/tokens", "tokens_seen", "train/total_tokens",
    "num_input_tokens_seen", "train/num_input_tokens_seen",
)  # fmt: skip
LOSSES = (
    "train_loss", "train/loss", "loss", "training_loss", "train/train_loss", "train loss", "loss/train", "lossf",
    "train_lossf", "value", AT_EVALUATION,
)  # fmt: skip
VALIDATIONS = ("val_loss", "val/loss", "eval/loss", "eval_loss", "validation_loss", "valid_loss", "loss/val")
RATES = ("lr", "learning_rate", "train/lr", "train/learning_rate")
SHARE = 0.5  # a column of the same meaning that holds so few of the numbers of another is a summary of it
RARER = 3.0  # than the log's rows
SHOWN = 12  # names in a message
_MEAN_OF = re.compile(r"_?mean_of_(\d+)_steps$")
_AGAIN = re.compile(r" \((\d+)\)$")


def read_log(
    path: Path, *, column: str | None = None, batch_tokens: float | None = None, progress: Progress = silent
) -> Log:
    """The log at a path. `column` names the loss; `batch_tokens` gives the tokens of a step where none are logged.

    UserError for what cannot be read or holds no loss; odd numbers are not an error but end up in the notes.
    """
    path = Path(path)
    if path.is_dir():
        if found := [] if RunDir(path).exists() else event_files(path):
            return _log(path, _scalars(path, found, progress), column, batch_tokens)
        return read_run(path, progress)
    if path.name.startswith(PREFIX):
        return _log(path, _scalars(path, [path], progress), column, batch_tokens)
    return _log(path, read_table(path, progress), column, batch_tokens)


def _scalars(path: Path, files: list[Path], progress: Progress) -> Table:
    """The table of event files; a step with other scalars and no loss is not a fault."""
    found = read_event_files(files, lambda done, total: progress(f"read {path.name}", done, total, "B"))
    everywhere = np.ones(len(found.step), bool)
    return Table({"step": found.step, **found.values}, {"step": everywhere, **found.logged}, found.notes)


def _log(path: Path, table: Table, column: str | None, batch_tokens: float | None) -> Log:
    """The log of a table, in which loss, steps, tokens, rate and validation are found by their names."""
    counts = {name: int(np.isfinite(values).sum()) for name, values in table.columns.items()}
    counts = {name: count for name, count in counts.items() if count}
    chosen = column if column is not None else _find(counts, LOSSES)
    if chosen is None or chosen not in counts:
        raise UserError(_no_loss(path, table, column))
    own = {name: count for name, count in counts.items() if _run_of(name) in ("", _run_of(chosen))}
    step, tokens, rate, validation = (_find(own, names) for names in (STEPS, TOKENS, RATES, VALIDATIONS))
    validation = None if validation == chosen else validation
    loss, notes = table.columns[chosen], [*table.notes, *_others(counts, chosen, column)]
    if step is None:
        notes.append("it has no step column: rows are counted instead")
    present = table.logged[chosen]
    if validation is not None:  # rows of validation alone are no faults of the training loss
        present = present & (np.isfinite(loss) | ~np.isfinite(table.columns[validation]))
    steps = np.cumsum(present) - 1.0 if step is None else table.columns[step]
    if step is not None:  # a row without any step says nothing at all
        present = present & (table.logged[step] | np.isfinite(steps))
    values = (steps + 1) * batch_tokens if batch_tokens is not None else table.columns[tokens] if tokens else None
    curve = None if validation is None else make_curve(steps, table.columns[validation])
    mean = _MEAN_OF.search(chosen)
    return make_log(
        path.name,
        steps[present],
        loss[present],
        tokens=None if values is None else values[present],
        rate=None if rate is None else table.columns[rate][present],
        validation=curve,
        averaged=int(mean[1]) if mean else 1,
        layout=Layout(
            eval_interval=_interval(table, "eval_steps") or _evaluations(curve, steps[present]),
            save_interval=_interval(table, "save_steps"),
        ),
        notes=tuple(notes),
    )


def _no_loss(path: Path, table: Table, column: str | None) -> str:
    wanted = f"column {column!r}" if column is not None else "loss"
    return (
        f"{path} has no {wanted} with numbers; its columns: {listed(table.columns, SHOWN)}; name the loss with --column"
    )


def _interval(table: Table, key: str) -> int | None:
    """A whole number of steps that stands beside the records, as in the Trainer's state."""
    value = (table.found or {}).get(key)
    return int(value) if isinstance(value, int | float) and 1 < value < 1e9 else None


def _evaluations(curve: Curve | None, step: Floats) -> int | None:
    """The steps between evaluations, where these are rarer than what is logged."""
    found = spacing(curve)
    return found if found and len(step) > 1 and found >= RARER * abs(np.median(np.diff(step))) else None


def _others(counts: dict[str, int], chosen: str, column: str | None) -> list[str]:
    """A note on columns that mean the same as the one that was taken, as an export of several runs has them."""
    plain = _plain(chosen)
    others = [name for name in counts if name != chosen and _plain(name) == plain and not _extreme(name)]
    if not others or column is not None:
        return []
    found = listed(map(repr, others), SHOWN)
    return [f"{chosen!r} was analysed; other columns hold a loss as well: {found}; --column names another"]


def _plain(name: str) -> str:
    """What a column is, without its run: Weights & Biases writes `run - name`."""
    return _MEAN_OF.sub("", _AGAIN.sub("", name).rsplit(" - ", 1)[-1].strip()).lower()


def _run_of(name: str) -> str:
    """The run that a column is of, and which of several of one name; empty for what belongs to all."""
    head, dash, _ = name.rpartition(" - ")
    again = _AGAIN.search(name)
    return f"{head}{again[0] if again else ''}" if dash else ""


def _extreme(name: str) -> bool:
    """`name__MIN` and `name__MAX` of Weights & Biases are not the value."""
    return _AGAIN.sub("", name).endswith(("__MIN", "__MAX"))


def _find(counts: dict[str, int], wanted: Sequence[str]) -> str | None:
    """The first column that goes by one of the wanted names, in their order of preference; one with less than half of
    the numbers that another of them holds does not count: a row that sums up a run bears the same name.
    """
    plain: dict[str, str] = {}
    for name in counts:
        if not _extreme(name):
            plain.setdefault(_plain(name), name)
    known = [plain[name] for name in wanted if name in plain]
    most = max((counts[name] for name in known), default=0)
    return next((name for name in known if counts[name] >= SHARE * most), None)
