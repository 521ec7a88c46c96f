"""What training programs write to their consoles: lines with a step and a loss among other words.

nanoGPT, llm.c (console and main.log), modded-nanogpt, nanochat, Megatron-LM, GPT-NeoX, torchtitan, litgpt and this
engine write the step in each line, OLMo in a line above; the Transformers Trainer prints a dict without one, beside a
bar that counts steps. Everything else in the file (progress bars, warnings, the program's own source) is passed over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from mygpt2.ripples.textfile import LONGEST_LINE

_NUMBER = r"([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b)"
_STEP = re.compile(
    r"(?:^|[^\w.])(?:(?:global[ _]?)?step|iteration|iter|update)s?\]?\s*[:=#]?\s*(\d+)(?!\d*\.\d)|^s:(\d+)\b", re.I
)
_VALIDATION = re.compile(
    rf"\b(?:(?:val|valid|validation|eval|test)[ _/]?loss|loss[ _/](?:val|eval)|tel)\s*[:=|]?\s*{_NUMBER}", re.I
)
_LOSS = re.compile(
    rf"(?<![\w/])(?:train(?:ing)?[ _/](?:loss|ce[ _]?loss|crossentropyloss)|loss[ _/]train|lm[ _]loss|trl|loss)\s*"
    rf"[:=|]?\s*{_NUMBER}",
    re.I,
)
_RATE = re.compile(rf"\b(?:lr|learning[ _]rate)\s*[:=|]?\s*{_NUMBER}", re.I)
_BAR = re.compile(r"\| *(\d+)/\d+ \[")  # tqdm's count
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
AT_EVALUATION = "train loss at evaluations"

Record = dict[str, Any]


def console_records(lines: Iterable[str]) -> list[Record]:
    """A record for each line that has a loss: step, loss, val_loss, lr, as far as the line says them.

    A line with both losses, as nanoGPT's evaluations have, tells an average of the training loss: another column.
    """
    found: list[Record] = []
    dicts: list[Record] = []
    step = bar = None
    above = False  # OLMo's `[step=3/40]` was the last step seen: what is indented below belongs to it
    for line in lines:
        line = line[:LONGEST_LINE]
        if "loss" not in line and "Loss" not in line and "trl:" not in line and "tel:" not in line:
            if "/" in line and (count := _BAR.search(line)):
                bar = int(count[1])
            elif (at := _STEP.search(line[:200])) is not None:
                step, above = float(at[1] or at[2]), line.rstrip().endswith("]")
            continue
        if "\x1b" in line:
            line = _COLOUR.sub("", line)
        if "{" in line and (record := _dict(line)) is not None:
            count = _BAR.search(line[: line.index("{")])
            bar = int(count[1]) if count else bar
            dicts.append(record | {"bar": bar})
            continue
        if (record := _line(line)) is None:
            continue
        if "step" not in record:
            if step is None or ("loss" in record and not (above and line[:1].isspace())):
                continue  # a word about a loss, not a step's
            record["step"] = step
            above = above and "loss" not in record
        step = record["step"]
        found.append(record)
    return found if len(found) >= len(dicts) else _numbered(dicts)


def _line(line: str) -> Record | None:
    record: Record = {}
    if (at := _STEP.search(line)) is not None:
        record["step"] = float(at[1] or at[2])
    if (value := _VALIDATION.search(line)) is not None:
        record["val_loss"] = _plain(value[1])
        line = line[: value.start()] + " " + line[value.end() :]
    if (value := _LOSS.search(line)) is not None:
        record[AT_EVALUATION if "val_loss" in record else "loss"] = _plain(value[1])
    if (value := _RATE.search(line)) is not None:
        record["lr"] = _plain(value[1])
    return record if record.keys() - {"step", "lr"} else None


def _dict(line: str) -> Record | None:
    """The dict that a line holds, as Python prints it or as JSON; with its numbers alone."""
    text = line[line.index("{") : line.rfind("}") + 1]
    if len(text) > 4096 or text.count("{") > 1:
        return None
    text = re.sub(r"\bnan\b|\binf\b|\bNaN\b|\bInfinity\b", "None", text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, dict) or not any(isinstance(key, str) and "loss" in key for key in value):
        return None
    return {str(key): item for key, item in value.items() if isinstance(item, int | float | str) or item is None}


def _numbered(dicts: list[Record]) -> list[Record]:
    """The Trainer's records with the steps that its bar counted; without them where the bar was not written."""
    if any(key in record for record in dicts for key in ("step", "global_step")):
        return [{k: v for k, v in record.items() if k != "bar"} for record in dicts]
    bars = [record["bar"] for record in dicts if "loss" in record]
    counted = bool(bars) and None not in bars and len(set(bars)) == len(bars)
    renamed = [{k: v for k, v in record.items() if k != "bar"} for record in dicts]
    if not counted:
        return renamed
    return [record | {"step": known["bar"]} for record, known in zip(renamed, dicts, strict=True)]


def _plain(text: str) -> str:
    return text.replace(",", "")
