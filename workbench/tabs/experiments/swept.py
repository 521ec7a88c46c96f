"""A sweep's look as the card shows it: who leads or won, each arm against the best, loss against the axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mygpt2.experiments.sweep import compared_in_words, look_text
from mygpt2.experiments.swept import result_text
from mygpt2.ripples.plot import Plot, axis_of
from workbench import words
from workbench.html import Markup, Tone
from workbench.tabs.experiments.answer import Answer, Interval

Record = Mapping[str, Any]
SIDES = ("better", "worse than the best")
TITLE = "Loss, arm less the best"
LEGEND = "bars: the interval that decides, which allows for all pairs of arms and all looks"


def swept(look: Record, record: Record) -> Answer:
    """A look of `sweep`; with all of verdict.json also what came of it. Damage raises one of `looks.BROKEN`."""
    result = record.get("result") if record.get("state") == "finished" else None
    labels = record.get("labels") or {}
    drawn: dict[str, Any] = {
        "intervals": _intervals(look, labels),
        "sides": SIDES,
        "legend": LEGEND,
        "why": _why(record.get("looks") or [look], labels),
    }
    if isinstance(result, dict):
        drawn["intervals"] = _last_seen(result, labels)
    else:
        return Answer(
            f"look {int(look['look'])} of {int(look['of'])}", "neutral", _leads(look, labels), figures=_running(look),
            title=f"{TITLE}, at step {int(look['step']):,} ({compared_in_words(look)})", text=look_text(dict(look)),
            **drawn,
        )  # fmt: skip
    lines = result_text(record).splitlines()
    best = next(line for line in lines if line.startswith(("best:", "no arm came")))
    optimum = next(line for line in lines if line.startswith(("optimum:", "the optimum", "no optimum")))
    said = f"{best[:1].upper()}{best[1:]}. {optimum[:1].upper()}{optimum[1:]}."
    found = result.get("optimum") or {}
    tone: Tone = "warn" if result["best"] is None or found.get("outside") else "good"
    return Answer(
        _chip(result), tone, said, figures=_figures(record, result), notices=[lines[-1]],
        title=f"{TITLE} of its look, as each arm was last seen", drawn=Markup(_drawn(record, result)),
        text="\n".join(lines), **drawn,
    )  # fmt: skip


def _leads(look: Record, labels: Mapping[str, str]) -> str:
    """Who is ahead, and how many stop: why each of them does stands at the arm."""
    best = look["best"]
    stop = sum(bool(one["stopped"]) for one in look["arms"].values())
    lead = f"{labels.get(best, best)} leads with {look['arms'][best]['loss']:.4f}" if best else "no arm is left"
    what = f"{stop} of {len(look['arms'])} arms stop here" if stop else "nobody stops"
    return f"At step {int(look['step']):,} ({compared_in_words(look)}) {lead}; {what}."


def _chip(result: Record) -> str:
    return "no arm is left" if result["best"] is None else f"best {', '.join(f'{v:g}' for v in result['values'])}"


def _why(looks: Any, labels: Mapping[str, str]) -> dict[str, str]:
    """Why arms were stopped, by name, with when."""
    return {
        arm: f"Stopped at look {int(look['look'])}: {_reason(one, labels.get(look['best'], look['best']))}"
        for look in looks for arm, one in look["arms"].items() if one["stopped"]
    }  # fmt: skip


def _reason(one: Record, best: Any) -> str:
    if one["difference"] is None:
        return str(one["why"])
    return f"worse than {best} by {one['difference']:.4f} nats ({one['low']:.4f} to {one['high']:.4f})"


def _last_seen(result: Record, labels: Mapping[str, str]) -> list[Interval]:
    """Every arm against the best of the last look that it was part of."""
    lines = []
    for arm, one in result["arms"].items():
        if one["difference"] is None:
            continue
        main = arm == result["best"]
        note = "the best" if main else f"{'stopped at' if one['stopped'] else ''} look {int(one['look'])}".strip()
        ends = (float(one["difference"]), float(one["low"]), float(one["high"]))
        lines.append(Interval(labels.get(arm, arm), *ends, None, note, main))
    return lines


def _intervals(look: Record, labels: Mapping[str, str]) -> list[Interval]:
    lines = []
    for arm, one in look["arms"].items():
        if one["difference"] is None:
            continue
        note = "the best" if arm == look["best"] else "stopped" if one["stopped"] else ""
        low, high = one["low"], one["high"]
        name = labels.get(arm, arm)
        if arm != look["best"]:
            lines.append(Interval(name, float(one["difference"]), float(low), float(high), None, note))
        else:
            lines.append(Interval(name, 0.0, 0.0, 0.0, None, note, True))
    return lines


def _running(look: Record) -> list[tuple[str, str, str]]:
    left = sum(not one["stopped"] for one in look["arms"].values())
    return [
        ("Arms that go on", f"{left}", f"of {len(look['arms'])} at this look"),
        *_compute(look["spent"]),
    ]  # fmt: skip


def _figures(record: Record, result: Record) -> list[tuple[str, str, str]]:
    figures = []
    if result["best"] is not None:
        values = ", ".join(f"{value:g}" for value in result["values"])
        names = ", ".join(str(axis["setting"]) for axis in record["axes"])
        loss = f"loss {words.fixed(result['loss'])} after {words.brief(record['horizon_tokens'])} tokens"
        figures.append((f"Best {names}", values, loss))
    if (found := result.get("optimum")) and found["value"] is not None:
        low, high = (f"{found[key]:.3g}" if found[key] is not None else "the grid's end" for key in ("low", "high"))
        figures.append(("Optimum", f"{found['value']:.3g}", f"95 % over documents: {low} to {high}"))
    return [*figures, *_compute(result["spent"])]


def _compute(spent: Record) -> list[tuple[str, str, str]]:
    took = f"{spent['runs']} runs, {words.brief(spent['tokens'])} tokens"
    return [("Compute", words.percent(spent["share"], 0), "of the full grid's"),
            ("Cost so far", words.seconds(spent["seconds"]), took)]  # fmt: skip


def _drawn(record: Record, result: Record) -> str:
    """Loss against the axis at every look, with the optimum's interval; nothing for two axes."""
    places = {arm: float(one["values"][0]) for arm, one in result["arms"].items() if len(one["values"]) == 1}
    lines: list[tuple[Record, list[tuple[float, float]]]] = []
    for look in record["looks"]:
        seen = [(places[arm], float(one["loss"])) for arm, one in look["arms"].items() if one["loss"] is not None]
        lines.append((look, sorted(seen)))
    points = [point for _, line in lines for point in line]
    if len(places) < 2 or not points:
        return ""
    setting, at = str(record["axes"][0]["setting"]), sorted(places.values())
    plot = Plot(axis_of(at, setting, log=at[0] > 0), axis_of([loss for _, loss in points], "nats per token", pad=0.08))
    found = result.get("optimum") or {}
    if found.get("value") is not None:
        low, high = (found[key] if found[key] is not None else end for key, end in (("low", at[0]), ("high", at[-1])))
        plot.stripes([(float(low), float(high))], "shade")
        plot.vertical(float(found["value"]), "limit", "optimum, shaded its 95 % interval")
    for look, line in lines:
        drawn = f"s{int(look['look'])}"
        told = f"step {int(look['step']):,}, {compared_in_words(look)}"
        plot.line([x for x, _ in line], [y for _, y in line], drawn, told)
        for x, loss in line:
            plot.dot(x, loss, f"{setting} {x:g} at step {int(look['step']):,}: {loss:.4f}", look=drawn)
    desc = "; ".join(f"{x:g}: {loss:.4f} at step {int(look['step']):,}" for look, line in lines for x, loss in line)
    return plot.figure(f"Loss against {setting}, at every look", desc, wide=True)
