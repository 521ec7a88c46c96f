"""The pane of details: every figure of a run, what it left out, and who works on it on which devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.experiments.standing import standing
from mygpt2.records import number, whole
from mygpt2.run_dir import RunState
from workbench import html, words
from workbench.jobs.gpus import Device, resident_bytes
from workbench.jobs.reading import muon_times
from workbench.tabs.monitor.glance import Glance

DOCUMENTS = ("empty", "not_text", "too_long")
LEFT_OUT = {
    "empty": "empty", "not_text": "not text", "too_long": "too long", "blocks": "blocks that cannot be read",
    "cache_entries": "cached blocks, damaged and made anew", "log_lines": "lines of the logs, without room on the disk",
}  # fmt: skip
MANY_RANKS = 64  # rows of the table


def details(seen: Glance, devices: Sequence[Device]) -> html.Markup:
    """All there is to say of a run in figures, then its ranks and devices."""
    beside = standing(seen.run)
    started = ("Started", html.when(number(seen.state.status.get("started")), exact=True))
    figures = [*figures_of(seen), started]
    rows = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in figures)
    left_out = left_out_words(seen.left_out)
    return html.join([
        html.Markup(f'<dl class="wb-mon-numbers">{rows}</dl>'),
        html.Markup(f'<p class="wb-warn">{html.escape(left_out)}</p>') if left_out else "",
        html.note(f"{beside[0].upper()}{beside[1:]}.") if isinstance(beside, str) and beside else "",
        ranks(seen.state, devices if seen.state.alive else []),
    ])  # fmt: skip


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
        ("Learning rate", _rates(seen)),
        ("Checkpoints", saved),
        ("Attempt", words.count(seen.state.status.get("attempt"))),
    ]
    if alive and seen.state.progress_age is not None and seen.state.progress_age > 30:
        figures.append(("Last progress", f"{words.seconds(10 * (seen.state.progress_age // 10))} ago"))
    return figures


def _rates(seen: Glance) -> str:
    """What is logged; of a run with Muon that is the rate of AdamW's part, and Muon's goes with it."""
    lr, times = number(seen.last.get("lr")), muon_times(seen.run)
    told = words.brief(lr)
    return told if lr is None or times is None else f"AdamW part {told} · Muon {words.brief(lr * times)}"


def left_out_words(event: Mapping[str, Any]) -> str:
    """What the run has left out of its data so far, by kind; "" for nothing."""
    counts, of = (found if isinstance(found := event.get(key), dict) else {} for key in ("counts", "of"))
    known = {str(kind): count for kind, value in counts.items() if (count := whole(value))}
    filtered = sorted(kind for kind in known if kind not in LEFT_OUT)  # by their reasons, which are words
    documents = {kind: known.pop(kind) for kind in (*DOCUMENTS, *filtered) if kind in known}
    parts = []
    if documents:
        kinds = ", ".join(f"{count:,} {LEFT_OUT.get(kind, kind)}" for kind, count in documents.items())
        parts.append(f"{sum(documents.values()):,}{_of(of.get('documents'))} documents ({kinds})")
    parts += [f"{count:,}{_of(of.get(kind))} {LEFT_OUT.get(kind, kind)}" for kind, count in known.items()]
    return f"Left out so far: {'; '.join(parts)}." if parts else ""


def _of(total: Any) -> str:
    return f" of {total:,}" if whole(total) else ""


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
