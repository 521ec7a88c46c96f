"""What stands above the chart of a run that failed: why, in a sentence, what to do, and the end of its log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mygpt2.errors import EXIT_TRY_AGAIN, EXIT_USAGE, UserError
from mygpt2.failures import NONFINITE
from mygpt2.records import number, whole
from mygpt2.run_dir import RunDir, RunState
from mygpt2.run_dir.settings import settings_of
from workbench import html
from workbench.jobs import Alert
from workbench.tabs.monitor import logs
from workbench.tabs.monitor.glance import Glance

LINES = 10  # of the log
ENDS = ("failed", "lost")
TOLD = ("crash", "failed", "outage")  # kinds of alerts that say the same


def trouble(
    seen: Glance, alerts: Sequence[Alert], launcher: Path | None, *, may_resume: bool, waits: bool = False
) -> html.Markup:
    """Nothing for a run that is well. `launcher`: the log of the one that started it, if it is known. `waits`: the
    queue starts it again by itself."""
    if seen.nothing:
        rate = number(settings_of(seen.run).get("optimizer.lr"))
        had = f" than its {rate:g}" if rate is not None else ""
        then = f"The curve shows where it turned; open it in Train and take a lower learning rate{had}."
        return _section(f"Diverged: {seen.nothing}.", then, [])
    if seen.state.state not in ENDS:
        return html.Markup("")
    at = f" at step {seen.step:,}" if seen.step else " before its first step"
    word = "Lost" if seen.state.state == "lost" else "Failed"
    why = reason_of(seen.state).removeprefix(NONFINITE).strip().rstrip(".")
    sentence = f"{word}{at}: {why}." if why else f"{word}{at}, and did not say why."
    lines = last_lines(seen.run, alerts, launcher)
    return _section(sentence, advice(seen, may_resume=may_resume, waits=waits), lines, bare=seen.untouched)


def waiting(state: RunState) -> html.Markup:
    """Why a run that was handed to a cluster does not train yet, in the engine's words."""
    why = html.escape(f"{state.reason[:1].upper()}{state.reason[1:]}.")
    return html.Markup(f'<section class="wb-waits" role="status" aria-label="Why it waits"><p>{why}</p></section>')


def reason_of(state: RunState) -> str:
    """Why a run is as it is, in a sentence; of one that failed on another rank than the first, which that was."""
    reason = state.reason or ("" if state.alive else str(state.status.get("message") or ""))
    rank = whole((state.exit or {}).get("rank")) if state.state == "failed" else None
    return f"rank {rank}: {reason}" if rank and not reason.startswith(f"rank {rank}") else reason


def advice(seen: Glance, *, may_resume: bool, waits: bool = False) -> str:
    """What to do about it, in a sentence or two."""
    code, reason = whole((seen.state.exit or {}).get("code")), reason_of(seen.state)
    go_on = f"Resume goes on from the checkpoint of step {seen.checkpoints[-1]:,}" if seen.checkpoints else ""
    go_on = go_on or "It has no checkpoint, so starting it again begins at step 0"
    if waits:
        at = f"from the checkpoint of step {seen.checkpoints[-1]:,}" if seen.checkpoints else "from step 0"
        go_on = f"The queue starts it again by itself, {at}; Cancel leaves it as it is"
    if NONFINITE.strip() in reason:
        return f"Open it in Train with a lower learning rate or a stronger clipping of the gradient. {go_on}."
    if code == EXIT_USAGE:
        return "Open it in Train, correct what the sentence names, and start it under a new name."
    if code == EXIT_TRY_AGAIN:
        return f"Nothing is wrong with the run itself: try again once the source answers. {go_on}."
    if seen.state.state == "lost" and seen.state.status.get("state") == "queued":
        return "It was handed to a cluster and never began. Cancel settles that; Open in Train hands it over anew."
    if seen.state.state == "lost":
        often = "Something outside the run ended it, most often the system for lack of memory (dmesg shows it)"
        return f"{often}; a smaller micro batch needs less. {go_on}." if may_resume or waits else f"{often}."
    return f"The end of its log says where. {go_on}."


def last_lines(run: RunDir, alerts: Sequence[Alert], launcher: Path | None) -> list[str]:
    """The end of the log of whoever failed: as the alert has it, else of the first rank, else of the launcher."""
    told = next((alert.log_tail for alert in alerts if alert.run == run.name and alert.log_tail), ())
    if told:
        return list(told)[-LINES:]
    files = logs.log_files(run, launcher)
    for name, path in files.items():
        root = path.parent if name == logs.LAUNCHER else run.path
        try:
            found = logs.read_log(path, max(0, os.stat(path).st_size - logs.OPEN_LINE_BYTES), root)
        except (OSError, UserError):
            continue
        lines = [line for line in (*found["lines"], found["open"]) if line.strip()]
        if lines:
            return lines[-LINES:]
    return []


def _section(sentence: str, what_to_do: str, lines: Sequence[str], *, bare: bool = False) -> html.Markup:
    """bare: there is no curve to show. The end of the log is folded, since the log itself then stands right below, see
    tab-monitor-head.css."""
    text = html.escape("\n".join(lines))
    tail = f'<div class="wb-log-tail" tabindex="0" role="log" aria-label="end of the log"><pre>{text}</pre></div>'
    count = "Last line" if len(lines) == 1 else f"Last {len(lines)} lines"
    tail = f'<details data-key="trouble-log"><summary>{count} of its log</summary>{tail}</details>'
    more = '<button type="button" class="wb-mon-link" data-pane="log">The whole log</button>' if lines else ""
    kinds = f"wb-trouble{' wb-trouble-bare' if bare else ''}{' wb-trouble-log' if lines else ''}"
    return html.Markup(
        f'<section class="{kinds}" aria-label="What went wrong">'
        f'<p class="wb-trouble-why">{html.escape(sentence)}</p><p>{html.escape(what_to_do)} {more}</p>'
        f"{tail if lines else ''}</section>"
    )
