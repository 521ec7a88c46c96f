"""`analyse`: from a log to a report that holds everything a page, a text or another program needs. A pure function."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mygpt2.ripples.attribution import attribute
from mygpt2.ripples.candidates import Candidate, compare, measure, measure_events, place_in_file, regression
from mygpt2.ripples.detrend import detrend_curve
from mygpt2.ripples.figures import figures, thinned
from mygpt2.ripples.forecast import Profile, buffer_sizes, curve, forecast
from mygpt2.ripples.grid import make_grid
from mygpt2.ripples.layout import EVENTS, FINEWEB_DOCUMENT_TOKENS, FINEWEB_DOCUMENTS, Layout
from mygpt2.ripples.log import Floats, Log
from mygpt2.ripples.null import fit_nulls
from mygpt2.ripples.repetition import Repetition, recurring, repetition
from mygpt2.ripples.runs import DAMAGED, block_size, open_trace, read_config
from mygpt2.ripples.spectrum import Transform, fit_line
from mygpt2.ripples.study import ALPHA, NORMAL, Study, study
from mygpt2.ripples.told import Told, silent
from mygpt2.ripples.tracing import Traced, gather
from mygpt2.ripples.verdict import words
from mygpt2.run_dir.paths import RunDir

SCHEMA = 1
FEWEST_VALIDATIONS = 32
MOST_FILES, NEAR_WHOLE = 16, 0.05  # the length of a file is known to a hundredth: beyond, any pass is a whole number
Report = dict[str, Any]


def analyse(
    log: Log,
    *,
    reference: Log | None = None,
    first: float | None = None,
    last: float | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    attribution: bool = True,
    told: Told = silent,
) -> Report:
    """The report on a log, JSON-ready: no NaN, no arrays.

    `reference`: a run in whose difference the ripple is sought. `first`, `last`: steps. `layout` replaces the log's.
    With a run folder that has a trace, candidates are tested on the place of every row, and `attribution` regresses
    the rows' losses on their documents' properties. `told` hears how far it is. UserError for a range without steps;
    bad numbers never raise.

    Keys: significant, period_steps, period_tokens, period_ci (in `period_ci_unit`: tokens where they are known),
    period_ci_steps, amplitude, amplitude_ci, p_value, share_of_file, part_of_file, share_of_slow_variance, candidates,
    repetition, attribution, forecast, validation, drift, between_steps, detection_limit, pulses, verdict, notes,
    can_say, layout, signal, figures (thinned for display). None stands for what cannot be said. `pulses`, where what
    recurs is no wave: kind (pulse; again, as data that is read again and again; wave, of a shape with many harmonics),
    main (whether it is the period above), period_steps, height, height_ci, width_steps, first_step, p_value, cause.
    """
    log = log.between(first, last)
    if layout is not None:
        log = replace(log, layout=layout)
    done = study(log, reference, seed, told)
    if isinstance(done, str):
        return _empty(log) | {"verdict": done}
    traced, damage = _traced(done, told)
    report = _statistics(log, done)
    report["notes"] += damage
    line = done.fitted.line
    cells = np.arange(len(done.y))
    rest = done.y - (line.at(cells - done.main[0]) if done.significant and done.whole else 0.0)
    rest = np.where(done.grid.weight > 0, rest, 0.0)
    waves = {} if traced is None else {name: _waves(done, wave) for name, wave in traced.waves.items()}
    candidates = measure(done.kept, done.grid, done.y, done.transform, done.found.null, waves)
    events = measure_events(done.kept, done.grid, done.raw, done.transform, done.found.null)
    candidates = [events.get(c.name, c) for c in candidates]
    if done.significant:
        low, high = report["period_ci_steps"]
        candidates = compare(candidates, report["period_steps"], (low, high))
    again = _repetition(done, rest)
    report["pulses"] = _pulses(done, candidates)
    kept_layout = _assumed(done.kept.layout, report, again)
    share, part = place_in_file(kept_layout, report["period_tokens"] if done.significant else None)
    report |= {
        "candidates": [c.to_json() for c in candidates], "repetition": _repetition_json(done, again, kept_layout),
        "share_of_file": share, "part_of_file": part, "layout": asdict(kept_layout),
        "validation": _validation(done) if done.significant else None,
        "figures": figures(done, rest, traced) | {"validation": _validation_figure(done)},
    }  # fmt: skip
    if done.significant and report["period_tokens"] and done.recurs is None:
        _forecast(report, done, kept_layout)
    if attribution and done.kept.run is not None and not damage:
        trace = _trace(done)
        period = report["period_steps"] if done.significant and done.recurs is None else None
        report["attribution"] = attribute(trace, done.kept, done.trend, period, told) if trace else None
    report["verdict"] = words(report)
    finite: Report = _plain(report)
    return finite


def _empty(log: Log) -> Report:
    """The report of a log of which nothing can be said."""
    nothing = dict.fromkeys((
        "period_steps", "period_tokens", "period_ci", "period_ci_steps", "period_ci_unit", "amplitude", "amplitude_ci",
        "p_value", "share_of_file", "part_of_file", "share_of_slow_variance", "repetition", "attribution", "validation",
        "between_steps", "detection_limit", "forecast_larger", "signal", "pulses",
    ))  # fmt: skip
    return {
        "schema": SCHEMA, "name": log.name, "significant": False, "can_say": False, **nothing, "candidates": [],
        "forecast": [], "drift": [], "figures": {}, "notes": list(log.notes), "layout": asdict(log.layout),
        "verdict": "",
    }  # fmt: skip


def _statistics(log: Log, done: Study) -> Report:
    """The numbers of the search and of its line."""
    per_step, unit = done.kept.tokens_per_step, done.grid.steps_per_cell
    fitted, line = done.fitted, done.fitted.line
    low, high = (float(x * unit) for x in fitted.period_interval)
    factor = per_step or 1.0
    notes = list(done.kept.notes)
    if done.skipped:
        notes.append(f"the first {done.skipped:,} points, up to step {done.kept.step[0]:.0f}, are left out as warm-up")
    if done.spikes:
        notes.append(f"{done.spikes:,} spikes of more than six deviations were held back to that")
    if (missing := len(done.grid) - done.grid.points) > 0:
        notes.append(f"{100 * missing / len(done.grid):.0f} % of the steps between the first and the last are missing")
    if log.averaged > 1:
        damped = 1 - float(np.sinc(log.averaged / (line.period * unit)))
        notes.append(
            f"each value is the mean of {log.averaged} steps: that alone takes {100 * damped:.0f} % off such a ripple"
        )
    order = len(done.found.null.coefficients)
    segments = [
        {"from_step": float(done.grid.steps(s.start)), "to_step": float(done.grid.steps(s.stop)),
         "period_steps": s.period * unit, "period_tokens": s.period * unit * per_step if per_step else None,
         "amplitude": s.amplitude, "p_value": s.p_value}
        for s in done.segments
    ]  # fmt: skip
    return _empty(log) | {
        "can_say": True, "significant": done.significant, "p_value": done.p_value, "notes": notes,
        "period_steps": line.period * unit, "period_tokens": line.period * unit * per_step if per_step else None,
        "period_ci": [low * factor, high * factor], "period_ci_steps": [low, high],
        "period_ci_unit": "tokens" if per_step else "steps",
        "amplitude": line.amplitude, "amplitude_ci": list(fitted.amplitude_interval),
        "share_of_slow_variance": _slow_share(done) if done.significant and done.recurs is None else None,
        "between_steps": None if done.whole else [float(done.grid.steps(x)) for x in done.main],
        "drift": segments, "detection_limit": _limit(done),
        "signal": {
            "points": len(done.kept), "first_step": float(done.kept.step[0]), "last_step": float(done.kept.step[-1]),
            "tokens_per_step": per_step, "steps_per_cell": unit, "residual_sd": float(done.residual.std()),
            "noise_sd": done.found.null.deviation, "null_order": order,
            "null_coefficients": done.found.null.coefficients.tolist(), "score": done.found.score,
            "whole_run_p": done.whole_p,
        },
    }  # fmt: skip


def _slow_share(done: Study) -> float:
    """How much of the variance of periods down to a quarter of the found one the line and its harmonics explain."""
    start, stop = done.main
    y, weight = done.y[start:stop], done.grid.weight[start:stop]
    found = done.fit_power
    line = fit_line(y, weight, done.fitted.line.frequency)
    wave = line.at(np.arange(len(y)))
    explained = float(weight @ (wave - weight @ wave / weight.sum()) ** 2)
    size = 2 * (len(found.power) - 1)
    per_cycle = size / len(y)
    cycles = np.arange(1, max(2, int(4.5 * line.frequency * len(y))))
    at = np.minimum(np.rint(cycles * per_cycle).astype(int), len(found.power) - 1)
    return min(1.0, explained / max(2 * float(found.power[at].sum()), explained, 1e-300))


def _limit(done: Study) -> dict[str, float]:
    """The semi-amplitude that would just be significant at a period of a twentieth of the run."""
    cycles = 20.0 if done.transform.n >= 160 else done.transform.n / 8
    index = min(round(cycles * done.transform.size / done.transform.n), len(done.found.power) - 1)
    need = done.law.level(ALPHA / (2 if done.windows else 1)) + math.log(cycles)
    amplitude = math.sqrt(4 * float(done.found.null.power[index]) * max(need, 0.0) / done.transform.total)
    return {"amplitude": amplitude, "period_steps": len(done.grid) / cycles * done.grid.steps_per_cell}


def _trace(done: Study) -> Any:
    run = done.kept.run
    return None if run is None else open_trace(run, block_size(read_config(RunDir(run))))


def _traced(done: Study, told: Told) -> tuple[Traced | None, list[str]]:
    """What the trace adds, and in words why it adds nothing where it is damaged."""
    trace = _trace(done)
    try:
        return (None if trace is None else gather(trace, done.kept, done.trend, told)), []
    except DAMAGED as error:
        return None, [f"its trace cannot be read and is left out ({type(error).__name__})"]


def _waves(done: Study, wave: np.ndarray) -> np.ndarray:
    return done.grid.average(wave.real) + 1j * done.grid.average(wave.imag)


def _pulses(done: Study, candidates: list[Candidate]) -> Report | None:
    """What recurs in step and is no wave, beside the ripple or as it. `cause`: what is known to be done so often."""
    comb = done.comb
    if comb is None or not done.significant:
        return None
    unit, per_step = done.grid.steps_per_cell, done.kept.tokens_per_step
    period = comb.line.period * unit
    whole = done.grid.average(done.kept.loss - done.trend)  # with what was held back of spikes
    height, slack = comb.height_of(whole, done.grid.weight), NORMAL * comb.height_error
    causes = [
        c.name for c in candidates if c.name in EVENTS and c.period_steps and abs(c.period_steps / period - 1) < 1e-3
    ]
    return {
        "kind": comb.kind, "main": done.recurs is not None, "period_steps": period,
        "period_tokens": period * per_step if per_step else None, "height": height,
        "height_ci": [height - slack, height + slack], "width_steps": comb.width * unit,
        "first_step": float(done.grid.steps(comb.start)), "p_value": comb.p_value,
        "cause": " and ".join(causes) or None,
    }  # fmt: skip


def _repetition(done: Study, rest: Floats) -> Repetition | None:
    per_step, unit = done.kept.tokens_per_step, done.grid.steps_per_cell
    comb = done.comb
    if comb is not None and comb.kind == "again" and done.significant:
        return recurring(done.raw, done.transform.weight, comb.line.period, comb.p_value)
    whole = done.kept.layout.pass_tokens
    lag = whole / per_step / unit if whole and per_step else None
    period = done.fitted.line.period if done.significant and done.whole and done.recurs is None else None
    drifting = () if done.whole else [segment.period for segment in done.segments]
    null = done.found.null
    return repetition(rest, done.transform, null, pass_cells=lag, period_cells=period, drifting=drifting)


def _repetition_json(done: Study, again: Repetition | None, layout: Layout) -> Report | None:
    if again is None:
        return None
    per_step, unit = done.kept.tokens_per_step, done.grid.steps_per_cell
    steps = again.lag * unit
    tokens = steps * per_step if per_step else None
    total = float(done.kept.step[-1]) / steps if steps else again.passes
    files = round(tokens / layout.file_tokens) if tokens and layout.file_tokens else None
    exact = files and abs(tokens / layout.file_tokens / files - 1) < 0.02 if tokens and layout.file_tokens else False
    found = again.to_json() | {"lag_steps": steps, "lag_tokens": tokens, "passes": total}
    first, last = (float(x * unit) for x in again.lags)
    return found | {"files": files if exact else None, "lags_steps": [first, last]}


def _assumed(layout: Layout, report: Report, again: Repetition | None) -> Layout:
    """For a log of unknown data that reads a whole number of FineWeb-Edu's files again and again: that layout.

    Whether its ranks read a file each or all of them one file after another, a log does not say.
    """
    if layout.file_tokens or again is None or not again.found or not report["period_tokens"]:
        return layout
    tokens = again.lag * report["period_tokens"] / report["period_steps"] * _unit(report)
    file = FINEWEB_DOCUMENTS * FINEWEB_DOCUMENT_TOKENS
    files = round(tokens / file)
    if not 2 <= files <= MOST_FILES or abs(tokens / file - files) > NEAR_WHOLE:
        return layout
    said = f"If this is FineWeb-Edu, one pass is {files} of its files; were they all read at once, a file each"
    return replace(
        layout, file_tokens=file, files=files, streams=files, document_tokens=FINEWEB_DOCUMENT_TOKENS, assumed=said
    )


def _unit(report: Report) -> float:
    return float(report["signal"]["steps_per_cell"])


def _validation(done: Study) -> Report | None:
    """Whether the validation curve has the line; None where it is not dense enough to say."""
    found = done.kept.validation
    if found is None:
        return None
    inside = (found.step >= done.kept.step[0]) & (found.step <= done.kept.step[-1])
    period = done.fitted.line.period * done.grid.steps_per_cell
    if inside.sum() < FEWEST_VALIDATIONS or np.median(np.diff(found.step[inside])) > period / 3:
        return None
    part = type(found)(found.step[inside], found.loss[inside])
    log = Log("", part.step, detrend_curve(part))
    grid = make_grid(log)
    y = grid.average(log.loss)
    transform = Transform(grid.weight)
    frequency = grid.steps_per_cell / period
    line = fit_line(y, grid.weight, frequency)
    power = transform.reduction(y) / 2
    rest = y - line.at(np.arange(len(y)))
    null = fit_nulls(transform, rest[None], power[None], np.array([frequency])).one(0)
    p, amplitude = regression(y, transform, null, np.exp(2j * np.pi * frequency * np.arange(len(y))))
    return {"p_value": p, "amplitude": amplitude, "points": int(inside.sum())}


def _validation_figure(done: Study) -> Report | None:
    found = done.kept.validation
    if found is None or len(found.step) < 2:
        return None
    step, loss = thinned(found.step, found.loss)
    return {"step": step, "loss": loss}


def _forecast(report: Report, done: Study, layout: Layout) -> None:
    low, high = done.fitted.amplitude_interval
    profile = Profile(report["period_tokens"], done.fitted.line.coefficients, (low, high))
    report["forecast"] = forecast(profile, layout)
    if report["forecast"]:
        held = layout.buffer_documents
        sizes = buffer_sizes(profile, layout)
        size = 10 * held if held else sizes[-1] if sizes else 0
        report["forecast_larger"] = f"buffer of {size:,} documents"
        report["figures"]["forecast"] = curve(profile, layout)


def _plain(value: Any) -> Any:
    """The same with Python's own types, and None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
