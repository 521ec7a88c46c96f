"""The head of the page: one line on how the chosen run is doing and what can be done, and four figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mygpt2.errors import EXIT_USAGE
from mygpt2.experiments.arms import parts_of
from mygpt2.experiments.folder import FOLDER, ExperimentDir
from mygpt2.experiments.stopped import Stopped
from mygpt2.records import number, whole
from mygpt2.run_dir.ghost import Ghost
from mygpt2.run_dir.marks import is_archived
from workbench import html, words
from workbench.jobs.reading import launching
from workbench.tabs.monitor import chips
from workbench.tabs.monitor.glance import Glance
from workbench.tabs.monitor.index import eta_seconds

STOPPING = "Stopping …"
ASKED = (  # kinds of experiments that begin from a run
    ("sweep", "Would another rate be better?"), ("judge", "Is something better than it?"),
    ("ladder", "What would the next size give?"),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What the head has to know besides the run itself.

    may: which buttons make sense now, see `view.buttons`. waiting: its place in the queue from 1, of `queue` jobs.
    stopping: a stop is under way. chips: markup of what calls for attention. pair: at least two runs are in the chart.
    ghost: what is known of an imported log.
    elsewhere: it was handed to a cluster, and may begin there.
    halted: what its experiment stopped it for, if that did.
    """

    may: Mapping[str, bool]
    waiting: int = 0
    queue: int = 0
    stopping: bool = False
    chips: Sequence[html.Markup] = ()
    star: bool = False
    pair: bool = False
    ghost: Ghost | None = None
    elsewhere: bool = False
    halted: Stopped | None = None


def head(seen: Glance, place: Place) -> html.Markup:
    """The line, then the figures."""
    buttons = [_star(place), _primary(seen, place),
               html.menu("More", _more(seen, place), name="More that can be done with this run")]  # fmt: skip
    name, pair = html.escape(seen.run.name), " wb-run-pair" if place.pair else ""
    return html.join([
        html.Markup(f'<div class="wb-run-head{pair}"><div class="wb-head-title">'),
        html.Markup(f'<h2 title="{name}" data-run="{name}">{name}</h2>'),
        *_state(seen, place),
        html.Markup('</div><div class="wb-run-status">'), *place.chips, _doing(seen), _progress(seen),
        _time(seen, place), html.Markup('</div><div class="wb-run-buttons">'), *buttons, html.Markup("</div></div>"),
        "" if seen.untouched else html.figures(figures(seen, place)),
    ])  # fmt: skip


def _star(place: Place) -> html.Markup:
    sign, label = ("★", "Remove the star") if place.star else ("☆", "Mark with a star")
    off = "" if place.may["edit"] else " disabled"
    return html.Markup(
        f'<button type="button" class="wb-mon-star" data-press="wb-do-star" aria-pressed="{str(place.star).lower()}" '
        f'aria-label="{label}" title="{label}"{off}>{sign}</button>'
    )


def _state(seen: Glance, place: Place) -> list[html.Markup]:
    """The state in a word; while a stop is under way its chip is that word."""
    if place.stopping:
        return []
    if place.ghost:
        whose = f"The log of another program, {place.ghost.log or 'without a name'}: no weights and no settings."
        told = html.join([html.note(text) for text in (whose, *place.ghost.notes[:5])])
        return [html.chip("imported"), chips.opened(html.chip(place.ghost.told), told, "ghost")]
    diverged = [html.chip("diverged", "bad", seen.nothing)] if seen.nothing else []
    return [html.badge(seen.state.state), *diverged]


def _doing(seen: Glance) -> html.Markup:
    """What it is doing where that is another word than its state."""
    if launching(seen.state):
        return html.Markup("")
    state, phase = seen.state, str(seen.state.status.get("phase") or "")
    doing = phase if state.alive and phase not in ("", state.state, "training") else ""
    said = str(state.status.get("message") or "") if state.alive else ""
    text = html.escape(": ".join(part for part in (doing, said) if part))
    return html.Markup(f'<span class="wb-muted wb-run-doing" title="{text}">{text}</span>' if text else "")


def _progress(seen: Glance) -> html.Markup:
    """A thin bar of steps done and the count; without a known number of steps only the count."""
    step, steps = seen.step, seen.steps
    if seen.state.state == "finished" and step is not None and step == steps:
        return html.Markup(f'<span class="wb-mon-steps">{words.count(step)} steps</span>')
    label = f"step {words.count(step)}" + (f" of {words.count(steps)}" if steps else "")
    if not steps:
        return html.Markup(f'<span class="wb-mon-steps">{html.escape(label)}</span>')
    share = min(1.0, max(0.0, (step or 0) / steps))
    text = f"{label}, {100 * share:.0f} %"
    return html.Markup(
        f'<span class="wb-mon-steps">{html.escape(label)}</span>'
        f'<span class="wb-mon-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="{html.escape(text)}"><i style="width:{100 * share:.2f}%">'
        f"</i></span>"
    )


def _time(seen: Glance, place: Place) -> html.Markup:
    """How long it will take, or when it ended."""
    if place.waiting:
        return html.Markup(f'<span class="wb-muted">{place.waiting} of {place.queue} in the queue</span>')
    if seen.state.alive:
        age, here = seen.state.progress_age, any(rank.alive is not False for rank in seen.state.ranks)
        if here and age is not None and age > 30:
            return html.Markup(f'<span class="wb-warn">no progress for {words.seconds(10 * (age // 10))}</span>')
        return html.Markup("")
    if seen.ended is None:
        return html.Markup("")
    return html.Markup(f'<span class="wb-muted">{html.when(seen.ended)}</span>')


def _primary(seen: Glance, place: Place) -> html.Markup:
    """The one thing that a person most probably wants to do with the run as it is; nothing where nothing fits."""
    may, state = place.may, seen.state.state
    label, press, on = "", "", True
    if place.stopping:
        label, press, on = STOPPING, "wb-do-save", False
    elif (place.waiting or place.elsewhere) and may["stop"]:
        label, press = "Cancel", "wb-do-save"
    elif may["stop"]:
        label, press = "Stop and save", "wb-do-save"
    elif seen.untouched and whole((seen.state.exit or {}).get("code")) == EXIT_USAGE:
        label, press = "Open in Train", "wb-do-train"  # as it is, it would end so again
    elif may["resume"] and not place.halted:
        label, press = ("Resume" if seen.checkpoints else "Start again"), "wb-do-resume"
    elif place.ghost:
        label, press = "Find its ripples", "wb-do-ripples"
    elif state == "finished" and seen.nothing:
        label, press = "Open in Train", "wb-do-train"
    elif state == "finished" or (place.halted and state == "stopped" and seen.checkpoints and may["weights"]):
        label, press = "Sample it", "wb-do-sample"
    if not label:
        return html.Markup("")
    off = "" if on else " disabled"
    return html.Markup(
        f'<button type="button" class="wb-mon-primary" data-press="{press}"{off}>{html.escape(label)}</button>'
    )


def _more(seen: Glance, place: Place) -> list[html.Markup]:
    """Everything else, in the order of how often it is wanted."""
    may, primary = place.may, _primary(seen, place)
    items = []
    if may["ask"]:
        items += [html.item("Save a checkpoint now", press="wb-do-save_now"),
                  html.item("Take samples now", press="wb-do-sample_now")]  # fmt: skip
    if may["resume"] and place.halted:
        items.append(html.item("Resume", press="wb-do-resume", note="alone, to its own last step"))
    links = [
        *([("Sample it", "wb-do-sample"), ("Compare it", "wb-do-compare")] if may["weights"] else []),
        ("Find its ripples", "wb-do-ripples"),
    ]
    if place.pair:
        links.append(("Compare the first two step by step", "wb-do-pair"))
    links += [("Open in Train", "wb-do-train")] if may["weights"] else []
    if seen.checkpoints:
        links.append(("Branch from here", "wb-do-branch"))
    items += [html.item(text, press=press) for text, press in links if f'data-press="{press}"' not in primary]
    items += _experiments(seen, place)
    for what, text in (("csv", "Save all points as CSV"), ("config", "Save its settings as TOML"),
                       ("report", "Save a report as one HTML file")):  # fmt: skip
        if place.ghost and what == "config":
            continue
        items.append(html.item(text, act="export", target=what, key=f"export-{what}"))
    if may["stop"] and not place.waiting and not place.elsewhere:
        items.append(html.item("Stop now", press="wb-do-now", note="without a checkpoint"))
    if may["edit"] and not seen.state.alive and not place.waiting:
        hide = ("unarchive", "Show in lists again") if is_archived(seen.run) else ("archive", "Archive")
        acts = [("rename", "Rename …", "neutral"), (*hide, "neutral"), ("delete", "Delete …", "bad")]
        items += [html.item(text, "run", act, key=act, tone=tone) for act, text, tone in acts]  # type: ignore[arg-type]
    if may["kill"]:
        items.append(html.item("Kill …", press="wb-do-kill", tone="bad"))
    return items


def _experiments(seen: Glance, place: Place) -> list[html.Markup]:
    """What several runs could tell of this one, and the experiment that it is an arm of. ui_assets/tab-experiments.js
    opens them."""
    found = []
    parts = parts_of(seen.run.name)
    if parts and ExperimentDir(seen.run.path.parent / FOLDER / parts[0]).settings_file.is_file():
        found.append(html.item(f"Open experiment {parts[0]}", "experiment", f"name {parts[0]}", key="experiment"))
    if place.may["weights"] and not seen.state.alive and not place.waiting:
        found += [html.item(text, "experiment", f"{kind} {seen.run.name}", key=f"ask-{kind}") for kind, text in ASKED]
    return found


def figures(seen: Glance, place: Place) -> list[tuple[Any, Any, Any]]:
    """Four figures that a person wants of a run in this state: label, value, a small line below."""
    last = seen.last
    mean = f"mean of {seen.averaged} steps {words.fixed(seen.mean)}" if seen.mean is not None else ""
    found: list[tuple[Any, Any, Any]] = [
        ("Training loss", words.fixed(last.get("loss")), mean),
        ("Validation loss", words.fixed(seen.validation.get("loss")), _bits(seen.validation)),
    ]
    if place.ghost:
        return [*found, ("Tokens", words.brief(last.get("tokens")), "")]
    step_ms = number(last.get("step_ms"))
    pace = f"{words.seconds(step_ms / 1000)} a step" if step_ms and step_ms >= 10_000 else ""
    pace = pace or (f"{step_ms:,.0f} ms a step" if step_ms else "")
    mfu = number(last.get("mfu"))
    speed = f"{words.percent(mfu)} of peak" if mfu is not None else pace
    found.append(("Tokens/s", words.count(last.get("tokens_per_second")), speed))
    tokens = f"{words.brief(last.get('tokens'))} tokens" if last else ""
    if seen.state.alive and seen.state.state != "starting":
        found.append(("Time left", words.seconds(eta_seconds(seen.state)), f"{tokens} so far" if tokens else ""))
    elif seen.state.state not in ("queued", "starting"):
        attempt = whole(seen.state.status.get("attempt")) or 1
        label = "Duration" if attempt == 1 else f"Attempt {attempt} took"
        found.append((label, words.seconds(seen.took), tokens))
    else:
        found.append(("Steps to do", words.count(seen.steps), ""))
    return found


def _bits(event: Mapping[str, Any]) -> str:
    """What a validation loss is in bits per byte, and what it is to be held against."""
    if not event:
        return "not measured yet"
    yardstick = event.get("yardstick")
    known = yardstick if isinstance(yardstick, dict) and number(yardstick.get("loss")) is not None else None
    beside = f"{known.get('of') or 'yardstick'} {words.fixed(known['loss'])}" if known else ""
    bits = number(event.get("bits_per_byte"))
    parts = [f"{words.fixed(bits)} bits per byte" if bits is not None else "", beside]
    return " · ".join(part for part in parts if part) or f"step {words.count(event.get('step'))}"
