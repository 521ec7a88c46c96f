"""The head of the page: how the chosen run is doing, who works on it, and what became of a request to stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt2.records import whole
from mygpt2.run_dir import RunDir, RunState, last_record
from mygpt2.run_dir.background_stop import BackgroundStop
from workbench import html, words
from workbench.jobs.reading import TAIL_BYTES, came_to_nothing, current, reached
from workbench.tabs.monitor.devices import Device, resident_bytes
from workbench.tabs.monitor.index import eta_seconds

DOCUMENTS = ("empty", "not_text", "too_long")
LEFT_OUT = {
    "empty": "empty", "not_text": "not text", "too_long": "too long", "blocks": "blocks that cannot be read",
    "cache_entries": "cached blocks, damaged and made anew", "log_lines": "lines of the logs, without room on the disk",
}  # fmt: skip
DIVERGED = html.Markup('<span class="wb-badge wb-failed">diverged</span>')
MANY_RANKS = 64  # rows of the table


@dataclass(frozen=True)
class Glance:
    """Everything the head is made of, read once per poll."""

    run: RunDir
    state: RunState
    last: dict[str, Any]  # the last line of metrics.jsonl, of the present attempt
    step: int | None
    validation: dict[str, Any]  # the last eval event
    left_out: dict[str, Any]  # the last event that counts it
    checkpoints: Sequence[int]


def glance(run: RunDir, state: RunState, events: Iterable[dict[str, Any]]) -> Glance:
    from mygpt2.checkpoint.store import steps

    last = last_record(run.metrics_file, TAIL_BYTES)
    newest = {event.get("kind"): event for event in events if isinstance(event.get("kind"), str)}
    return Glance(
        run, state, current(state.status, last), reached(run, state.status, last), newest.get("eval", {}),
        newest.get("left_out", {}), steps(run.checkpoints_dir),
    )  # fmt: skip


def head(seen: Glance) -> html.Markup:
    """Name, state and why, progress, and the numbers a person looks for first."""
    state, status = seen.state, seen.state.status
    phase = status.get("phase")
    doing = f" {html.escape(phase)}" if state.alive and phase not in (None, state.state) else ""
    reason = reason_of(state)
    problem = "" if state.alive or state.state in ("queued", "failed") else came_to_nothing(seen.run)
    left_out = left_out_words(seen.left_out)
    said = str(status.get("message") or "") if state.alive else ""
    return html.Markup(
        f'<div class="wb-run-head"><h2>{html.escape(seen.run.name)}</h2>{html.badge(state.state)}'
        f'{DIVERGED if problem else ""}<span class="wb-muted">{doing}</span></div>'
        + (f'<p class="wb-run-reason">{html.escape(reason)}</p>' if reason and reason != state.state else "")
        + (f'<p class="wb-bad">{html.escape(problem)}</p>' if problem else "")
        + (f'<p class="wb-warn">{html.escape(left_out)}</p>' if left_out else "")
        + (f'<p class="wb-muted">{html.escape(said)}</p>' if said else "")
        + progress(seen)
        + f'<dl class="wb-mon-numbers">{_numbers(figures_of(seen))}</dl>'
    )


def reason_of(state: RunState) -> str:
    """Why a run is as it is, in a sentence; of one that failed on another rank than the first, which that was."""
    reason = state.reason or ("" if state.alive else str(state.status.get("message") or ""))
    rank = whole((state.exit or {}).get("rank")) if state.state == "failed" else None
    return f"rank {rank}: {reason}" if rank and not reason.startswith(f"rank {rank}") else reason


def left_out_words(event: Mapping[str, Any]) -> str:
    """What the run has left out of its data so far, by kind; "" for nothing."""
    counts, of = (found if isinstance(found := event.get(key), dict) else {} for key in ("counts", "of"))
    known = {str(kind): count for kind, value in counts.items() if (count := whole(value))}
    documents = {kind: known.pop(kind) for kind in DOCUMENTS if kind in known}
    parts = []
    if documents:
        kinds = ", ".join(f"{count:,} {LEFT_OUT[kind]}" for kind, count in documents.items())
        parts.append(f"{sum(documents.values()):,}{_of(of.get('documents'))} documents ({kinds})")
    parts += [f"{count:,}{_of(of.get(kind))} {LEFT_OUT.get(kind, kind)}" for kind, count in known.items()]
    return f"Left out so far: {'; '.join(parts)}." if parts else ""


def _of(total: Any) -> str:
    return f" of {total:,}" if whole(total) else ""


def progress(seen: Glance) -> html.Markup:
    """A bar of steps done; without a known number of steps only the words."""
    step, steps = seen.step, words.number(seen.state.status.get("steps"))
    label = f"step {words.count(step)}" + (f" of {words.count(steps)}" if steps else "")
    if not steps:
        return html.Markup(f'<p class="wb-muted">{html.escape(label)}</p>')
    share = min(1.0, max(0.0, (step or 0) / steps))
    text = f"{label}, {100 * share:.0f} %"
    if seen.state.alive:
        text += f", {words.seconds(eta_seconds(seen.state))} left"
    return html.Markup(
        f'<div class="wb-mon-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="{html.escape(text)}"><span style="width:{100 * share:.2f}%">'
        f'</span></div><p class="wb-mon-progress-text">{html.escape(text)}</p>'
    )


def figures_of(seen: Glance) -> list[tuple[str, str]]:
    last, alive = seen.last, seen.state.alive
    wait, step_ms = words.number(last.get("data_wait_ms")), words.number(last.get("step_ms"))
    share = wait / (wait + step_ms) if wait is not None and step_ms and wait + step_ms > 0 else None
    validation = words.fixed(seen.validation.get("loss"))
    at = f" (step {words.count(seen.validation.get('step'))})" if seen.validation else ""
    saved = f"{len(seen.checkpoints)}, newest step {seen.checkpoints[-1]:,}" if seen.checkpoints else "none"
    figures = [
        ("Loss", words.fixed(last.get("loss"))),
        ("Validation", validation + at),
        ("Tokens/s" if alive else "Tokens/s, last", words.count(last.get("tokens_per_second"))),
        ("MFU", words.percent(last.get("mfu"))),
        ("Memory", words.bytes_of(last.get("memory_bytes"))),
        ("Data wait", words.percent(share)),
        ("Tokens", words.brief(last.get("tokens"))),
        ("Learning rate", words.brief(last.get("lr"))),
        ("Checkpoints", saved),
        ("Attempt", words.count(seen.state.status.get("attempt"))),
    ]
    if alive and seen.state.progress_age is not None and seen.state.progress_age > 30:
        figures.append(("Last progress", f"{words.seconds(10 * (seen.state.progress_age // 10))} ago"))
    return figures


def _numbers(figures: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>" for label, value in figures)


def ranks(state: RunState, devices: Sequence[Device]) -> html.Markup:
    """Who works on the run, and on which devices. Empty when nobody is recorded."""
    rows: list[tuple[Any, ...]] = []
    for rank in state.ranks[:MANY_RANKS]:
        alive = {True: html.Markup('<span class="wb-good">runs</span>'), False: "gone", None: "on another machine"}
        pid = str(rank.process.pid) if rank.process else words.NA
        host = "" if rank.process is None or rank.process.local else f" on {rank.process.host}"
        memory = words.bytes_of(_rounded(resident_bytes(rank.process)))
        rows.append((rank.rank, pid + host, rank.device or words.NA, alive[rank.alive], memory))
    if not rows:
        return html.note("No process of this run is recorded.")
    parts = [html.table(("Rank", "Pid", "Device", "Alive", "Host memory"), rows, numeric=(0, 1, 4),
                        caption="Ranks of the last attempt")]  # fmt: skip
    more = len(state.ranks) - MANY_RANKS
    if more > 0:
        parts.append(html.note(f"… and {more} more"))
    used = {rank.device for rank in state.ranks}
    here = [device for device in devices if state.alive and device.name in used]
    if here:
        headers = ("Device", "Model", "Load", "Memory", "Temperature", "Power")
        parts.append(html.table(headers, [_device(device) for device in here], numeric=range(2, 6), caption="Devices"))
    return html.join(parts)


def _rounded(value: float | None) -> float | None:
    """To 10 MB: a number that flickers says nothing more."""
    return None if value is None else round(value / 1e7) * 1e7


def _device(device: Device) -> tuple[str, ...]:
    memory = f"{words.bytes_of(device.memory_used)} of {words.bytes_of(device.memory_total)}"
    celsius = words.NA if device.celsius is None else f"{device.celsius:.0f} °C"
    watts = words.NA if device.watts is None else f"{device.watts:.0f} W"
    return device.name, device.model, words.percent(device.load, 0), memory, celsius, watts


HOW = {"save": "Stop and save", "now": "Stop now", "kill": "Kill"}


def stop_report(stop: BackgroundStop | None) -> html.Markup:
    """What happened to every rank so far; empty when nobody asked."""
    if stop is None:
        return html.Markup("")
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in stop.lines)
    ended = "" if stop.done else ' <span class="wb-muted">under way</span>'
    kind = "wb-bad" if stop.done and not stop.stopped else "wb-good" if stop.done else ""
    outcome = ("every process is gone" if stop.stopped else "not everything ended") if stop.done else ""
    title = html.escape(HOW.get(stop.how, stop.how))
    if stop.done:  # folded: what follows it matters more by now
        opened = "" if stop.stopped else " open"
        return html.Markup(
            f'<details class="wb-stop-report"{opened}><summary>{title}: <span class="{kind}">{html.escape(outcome)}'
            f"</span></summary><ol>{lines}</ol></details>"
        )
    return html.Markup(
        f'<section class="wb-stop-report" aria-live="polite"><h3>{title}{ended}</h3><ol>{lines}</ol></section>'
    )
