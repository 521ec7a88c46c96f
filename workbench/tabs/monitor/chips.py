"""Chips of the head: alerts, a rank that is gone, a request to stop. Each opens what there is to say of it.

What they open lies over the page, so that nothing moves when one comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mygpt2.experiments.standing import Standing
from mygpt2.experiments.stopped import Stopped
from mygpt2.run_dir import RunState
from mygpt2.run_dir.background_stop import BackgroundStop
from workbench import html
from workbench.jobs import Alert
from workbench.tabs.monitor import panes

SHOWN, EACH = 3, 5  # chips of alerts; alerts that one of them opens
NAMED = 18  # characters of another run's name
TONES: dict[str, html.Tone] = {"error": "bad", "warning": "warn"}
ORDER = {"error": 0, "warning": 1}
HOW = {"save": "Stop and save", "now": "Stop now", "kill": "Kill"}


def opened(
    chip: html.Markup, body: html.Markup, key: str, keys: Sequence[str] = (), *, live: bool = False
) -> html.Markup:
    """A chip that opens `body`. `keys`: of the alerts in it, which a person may dismiss. `live`: read aloud."""
    alerts = f' data-alerts="{html.escape(" ".join(keys))}"' if keys else ""
    dismiss = '<button type="button" class="wb-small" data-dismiss>Dismiss</button>' if keys else ""
    chip = html.Markup(f'<span role="status">{chip}</span>') if live else chip
    return html.Markup(
        f'<details class="wb-pop" data-key="{html.escape(key)}"{alerts}><summary>{chip}</summary>'
        f'<div class="wb-pop-body">{body}{dismiss}</div></details>'
    )


def alert_chips(found: Sequence[Alert], focus: str, told: Sequence[str] = ()) -> list[html.Markup]:
    """Alerts of the chosen run and the folder by kind, the worst first; then that others have errors.

    told: kinds of which the page says more than a chip could.
    """
    own = [alert for alert in found if alert.run in (focus, "") and alert.kind not in told]
    others = [alert for alert in found if alert.run not in (focus, "") and alert.level == "error"]
    kinds: dict[tuple[str, str], list[Alert]] = {}
    for alert in own:
        kinds.setdefault((alert.level, alert.kind), []).append(alert)
    groups = sorted(kinds.items(), key=lambda group: ORDER.get(group[0][0], 2))
    chips = [_chip(alerts, kind, level) for (level, kind), alerts in groups[:SHOWN]]
    if rest := [alert for _, alerts in groups[SHOWN:] for alert in alerts]:
        chips.append(_chip(rest, f"{len(rest)} more", rest[0].level, counted=False))
    if others:
        body = panes.others(others)
        chips.append(
            opened(html.chip(f"errors in {_named(others)}"), body, "alerts-others", [_key(alert) for alert in others])
        )
    return chips


def _named(alerts: Sequence[Alert]) -> str:
    """The run of the newest, and how many others there are."""
    first, *rest = dict.fromkeys(alert.run for alert in alerts)
    short = first if len(first) <= NAMED else f"{first[: NAMED - 1]}…"
    return short + (f" and {len(rest)} more" if rest else "")


def _chip(alerts: Sequence[Alert], kind: str, level: str, *, counted: bool = True) -> html.Markup:
    label = f"{kind} ×{len(alerts)}" if counted and len(alerts) > 1 else kind
    older = html.note(f"… and {len(alerts) - EACH} older ones in Events") if len(alerts) > EACH else ""
    body = html.join([panes.listed(alerts[:EACH]), older])
    key = f"alerts-{level}-{kind}"
    return opened(html.chip(label, TONES.get(level, "neutral")), body, key, [_key(alert) for alert in alerts])


def _key(alert: Alert) -> str:
    """As one word: what a browser keeps of what was dismissed."""
    return f"{alert.folder}/{alert.key}".replace(" ", "_")


def band_chips(found: Standing | str) -> list[html.Markup]:
    """Where the run stands beside the band of its preset; nothing where no band is good for it."""
    if isinstance(found, str):
        return []
    tones: dict[str, html.Tone] = {"inside": "good", "above": "warn"}
    said = [found.figures, *found.causes, found.differs]
    chip = html.chip(found.words, tones.get(found.where, "neutral"))
    return [opened(chip, html.join(html.note(text) for text in said), "band")]


def halted_chips(found: Stopped | None) -> list[html.Markup]:
    """That an experiment stopped the run, and why."""
    if found is None:
        return []
    return [opened(html.chip(found.brief), html.note(found.words), "halted")]


def rank_chips(state: RunState) -> list[html.Markup]:
    """A rank that is gone while the run goes on."""
    gone = [rank.rank for rank in state.ranks if rank.alive is False] if state.alive else []
    if not gone or len(gone) == len(state.ranks):  # all of them: of an attempt that another follows just now
        return []
    names = ", ".join(str(rank) for rank in gone[:8]) + (f" and {len(gone) - 8} more" if len(gone) > 8 else "")
    label = f"rank {names} gone" if len(gone) == 1 else f"{len(gone)} ranks gone"
    text = f"No process of rank {names} is left, while the run says it is {state.state}. Details lists all ranks."
    return [opened(html.chip(label, "bad"), html.note(text), "ranks-gone")]


def stop_chips(stop: BackgroundStop | None, *, alive: bool) -> list[html.Markup]:
    """What became of a request to stop, rank by rank; nothing when nobody asked, or the run is at work again."""
    if stop is None or (stop.done and stop.stopped and alive):
        return []
    title = HOW.get(stop.how, stop.how)
    if not stop.done:
        chip = html.chip("stopping", "warn", f"{title}: under way")
    elif stop.stopped:
        chip = html.chip("every process is gone", "good", title)
    else:
        chip = html.chip("not everything ended", "bad", title)
    said = f"<p><strong>{html.escape(title)}</strong></p>"
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in stop.lines)
    body = html.Markup(f"{said}<ol>{lines}</ol>" if lines else f"{said}<p>Nothing has answered yet.</p>")
    return [opened(chip, body, "stop", live=True)]
