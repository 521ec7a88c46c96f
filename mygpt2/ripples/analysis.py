"""`analyse`: from a log to a report. A pure function."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mygpt2.progress import Progress, silent
from mygpt2.ripples.attribution import attribute
from mygpt2.ripples.candidates import Candidate, compare, measure, measure_events, place_in_file, regression
from mygpt2.ripples.detrend import detrend_curve
from mygpt2.ripples.figures import figures, thinned
from mygpt2.ripples.forecast import Profile, buffer_sizes, curve, forecast
from mygpt2.ripples.layout import EVENTS, FINEWEB_DOCUMENT_TOKENS, FINEWEB_DOCUMENTS, Layout
from mygpt2.ripples.log import Floats, Log, make_grid
from mygpt2.ripples.null import NORMAL, fit_nulls
from mygpt2.ripples.repetition import Repetition, recurring, repetition
from mygpt2.ripples.report import Report, plain
from mygpt2.ripples.runs import DAMAGED, Trace, Traced, block_size, gather, open_trace, read_config
from mygpt2.ripples.spectrum import Transform, fit_line
from mygpt2.ripples.study import ALPHA, Study, study
from mygpt2.ripples.verdict import verdict
from mygpt2.run_dir.paths import RunDir

FEWEST_VALIDATIONS = 32
MOST_FILES, NEAR_WHOLE = 16, 0.05  # the length of a file is known to a hundredth: beyond, any pass is a whole number


def analyse(
    log: Log,
    *,
    reference: Log | None = None,
    first: float | None = None,
    last: float | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    attribution: bool = True,
    progress: Progress = silent,
) -> Report:
    """The report on a log.

    `reference`: a run in whose difference the ripple is sought. `first`, `last`: steps. `layout` replaces the log's.
    With a run folder that has a trace, candidates are tested on the place of every row, and `attribution` regresses
    the rows' losses on their documents' properties. UserError for a range without steps; bad numbers never raise.
    """
    log = log.between(first, last)
    if layout is not None:
        log = replace(log, layout=layout)
    done = study(log, reference, seed, progress)
    if isinstance(done, str):
        return Report(name=log.name, notes=list(log.notes), layout=asdict(log.layout), verdict=done)
    trace = _trace(done)
    traced, told = _traced(trace, done, progress)
    line, whole = done.fitted.line, done.significant and done.whole
    rest = np.where(done.grid.weight > 0, done.y - (line.at(np.arange(len(done.y))) if whole else 0.0), 0.0)
    candidates, again = _candidates(done, traced), _repetition(done, rest)
    numbers = _statistics(log, done)
    period = numbers["period_steps"] if done.significant and done.recurs is None else None
    known = _assumed(done, again)
    share, part = place_in_file(known, numbers["period_tokens"] if done.significant else None)
    forecasts, larger, left = _forecast(done, known) if period else ([], None, {})
    explained = None
    if attribution and trace is not None and traced is not None:
        explained = attribute(trace, done.kept, done.trend, period, progress)
    found = numbers | {
        "notes": _notes(log, done) + told, "candidates": [vars(c) for c in candidates],
        "repetition": _repetition_json(done, again, known), "pulses": _pulses(done, candidates),
        "share_of_file": share, "part_of_file": part, "layout": asdict(known), "attribution": explained,
        "validation": _validation(done) if done.significant else None,
        "forecast": forecasts, "forecast_larger": larger,
        "figures": figures(done, rest, traced) | {"validation": _validation_figure(done)} | left,
    }  # fmt: skip
    return Report(**plain(found), verdict=verdict(Report(**found)))


def _notes(log: Log, done: Study) -> list[str]:
    """What was left out, held back or averaged."""
    notes = list(done.kept.notes)
    if done.skipped:
        notes.append(f"the first {done.skipped:,} points, up to step {done.kept.step[0]:.0f}, are left out as warm-up")
    if done.spikes:
        notes.append(f"{done.spikes:,} spikes of more than six deviations were held back to that")
    if (missing := len(done.grid) - done.grid.points) > 0:
        notes.append(f"{100 * missing / len(done.grid):.0f} % of the steps between the first and the last are missing")
    if log.averaged > 1:
        damped = 1 - float(np.sinc(log.averaged / (done.fitted.line.period * done.grid.steps_per_cell)))
        notes.append(
            f"each value is the mean of {log.averaged} steps: that alone takes {100 * damped:.0f} % off such a ripple"
        )
    return notes


def _statistics(log: Log, done: Study) -> dict[str, Any]:
    """The numbers of the search and of its line."""
    per_step, unit = done.kept.tokens_per_step, done.grid.steps_per_cell
    fitted, line = done.fitted, done.fitted.line
    low, high = (float(x * unit) for x in fitted.period_interval)
    factor = per_step or 1.0
    segments = [
        {"from_step": float(done.grid.steps(s.start)), "to_step": float(done.grid.steps(s.stop)),
         "period_steps": s.period * unit, "period_tokens": s.period * unit * per_step if per_step else None,
         "amplitude": s.amplitude, "p_value": s.p_value}
        for s in done.segments
    ]  # fmt: skip
    return {
        "name": log.name, "can_say": True, "significant": done.significant, "p_value": done.p_value,
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
            "noise_sd": done.found.null.deviation, "null_order": len(done.found.null.coefficients),
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


def _trace(done: Study) -> Trace | None:
    run = done.kept.run
    return None if run is None else open_trace(run, block_size(read_config(RunDir(run))))


def _traced(trace: Trace | None, done: Study, progress: Progress) -> tuple[Traced | None, list[str]]:
    """What the trace adds, and in words what of it adds nothing: what is damaged, or was read before a fork."""
    if trace is None:
        return None, []
    try:
        before = trace.left_out
        told = (
            [f"where rows lie in the data is told since step {before + 1:,}, when the data changed"] if before else []
        )
        return gather(trace, done.kept, done.trend, progress), told
    except DAMAGED as error:
        return None, [f"its trace cannot be read and is left out ({type(error).__name__})"]


def _candidates(done: Study, traced: Traced | None) -> list[Candidate]:
    """Every known period, tested; beside it how the found one stands to it."""
    grid, null = done.grid, done.found.null
    waves = {
        name: grid.average(wave.real) + 1j * grid.average(wave.imag)
        for name, wave in (traced.waves if traced else {}).items()
    }
    found = measure(done.kept, grid, done.y, done.transform, null, waves)
    events = measure_events(done.kept, grid, done.raw, done.transform, null)
    found = [events.get(c.name, c) for c in found]
    if not done.significant:
        return found
    unit = grid.steps_per_cell
    low, high = (float(x * unit) for x in done.fitted.period_interval)
    return compare(found, done.fitted.line.period * unit, (low, high))


def _pulses(done: Study, candidates: list[Candidate]) -> dict[str, Any] | None:
    """What recurs without being a wave, beside the ripple or as it. `cause`: what is known to be done so often."""
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


def _repetition_json(done: Study, again: Repetition | None, layout: Layout) -> dict[str, Any] | None:
    if again is None:
        return None
    per_step, unit = done.kept.tokens_per_step, done.grid.steps_per_cell
    steps = again.lag * unit
    tokens = steps * per_step if per_step else None
    total = float(done.kept.step[-1]) / steps if steps else again.passes
    files = round(tokens / layout.file_tokens) if tokens and layout.file_tokens else None
    exact = files and abs(tokens / layout.file_tokens / files - 1) < 0.02 if tokens and layout.file_tokens else False
    found = vars(again) | {"lag_steps": steps, "lag_tokens": tokens, "passes": total}
    first, last = (float(x * unit) for x in again.lags)
    return found | {"files": files if exact else None, "lags_steps": [first, last]}


def _assumed(done: Study, again: Repetition | None) -> Layout:
    """The layout; for a log of unknown data that reads a whole number of FineWeb-Edu's files again and again, theirs.

    Whether its ranks read a file each or all of them one file after another, a log does not say.
    """
    layout, per_step = done.kept.layout, done.kept.tokens_per_step
    if layout.file_tokens or again is None or not again.found or not per_step:
        return layout
    tokens = again.lag * done.grid.steps_per_cell * per_step
    file = FINEWEB_DOCUMENTS * FINEWEB_DOCUMENT_TOKENS
    files = round(tokens / file)
    if not 2 <= files <= MOST_FILES or abs(tokens / file - files) > NEAR_WHOLE:
        return layout
    said = f"If this is FineWeb-Edu, one pass is {files} of its files; were they all read at once, a file each"
    return replace(
        layout, file_tokens=file, files=files, streams=files, document_tokens=FINEWEB_DOCUMENT_TOKENS, assumed=said
    )


def _validation(done: Study) -> dict[str, Any] | None:
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


def _validation_figure(done: Study) -> dict[str, Any] | None:
    found = done.kept.validation
    if found is None or len(found.step) < 2:
        return None
    step, loss = thinned(found.step, found.loss)
    return {"step": step, "loss": loss}


def _forecast(done: Study, layout: Layout) -> tuple[list[dict[str, Any]], str | None, dict[str, Any]]:
    """(what each order would leave, the row of a buffer ten times as large, the figure), empty without tokens."""
    per_step, line = done.kept.tokens_per_step, done.fitted.line
    if not per_step:
        return [], None, {}
    profile = Profile(
        line.period * done.grid.steps_per_cell * per_step, line.coefficients, done.fitted.amplitude_interval
    )
    rows = forecast(profile, layout)
    if not rows:
        return [], None, {}
    held, sizes = layout.buffer_documents, buffer_sizes(profile, layout)
    size = 10 * held if held else sizes[-1] if sizes else 0
    return rows, f"buffer of {size:,} documents", {"forecast": curve(profile, layout)}
