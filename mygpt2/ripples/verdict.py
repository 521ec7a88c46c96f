"""The verdict: what was found, where it comes from, how sure that is, and what would remove it."""

from __future__ import annotations

from typing import Any

from mygpt2.ripples.report import Report
from mygpt2.ripples.words import chance, megabytes, size


def verdict(report: Report) -> str:
    """The sentences of a report whose statistics are done."""
    if not report.significant:
        return " ".join(filter(None, [_nothing(report), _again(report)]))
    recurs = report.pulses
    parts = (
        [pulses(report), _origin(report), _validation(report), _again(report), remedy_of_pulses(recurs)]
        if recurs and recurs["main"]
        else [_line(report), _origin(report), _drift(report), _validation(report), _again(report), _remedy(report),
              pulses(report), remedy_of_pulses(recurs)]
    )  # fmt: skip
    return " ".join(filter(None, parts))


def pulses(report: Report) -> str:
    """What recurs without being a wave, in a sentence or two."""
    found = report.pulses
    if not found:
        return ""
    steps, (low, high) = found["period_steps"], report.period_ci_steps
    between = f" [{low:.6g}, {high:.6g}]" if found["main"] else ""
    tokens = f" ({size(found['period_tokens'])})" if found["period_tokens"] else ""
    every = f"every {steps:.6g} steps{between}{tokens}"
    p = chance(found["p_value"])
    if found["kind"] == "pulse":
        least, most = found["height_ci"]
        long = f"{found['width_steps']:.3g} step{'s' if found['width_steps'] >= 2 else ''} long"
        text = (
            f"Pulses of {found['height']:+.3f} nats [{least:+.3f}, {most:+.3f}], {long}, {every}, the first at step "
            f"{found['first_step']:.0f}; {p}."
        )
    else:
        word = "the same rough stretch of loss" if found["kind"] == "again" else "a curve of many harmonics"
        text = f"The same comes again {every}: {word}; {p}."
    if not found["main"] and found["cause"]:
        text += f" That is {found['cause']}."
    return text


def remedy_of_pulses(found: dict[str, Any] | None) -> str:
    """What to do about pulses; no order of the data takes them away."""
    if not found or found["kind"] != "pulse":
        return ""
    if found["cause"]:
        what = "saves" if "saving" in found["cause"] else "evaluates"
        return (
            f"No order of the data removes them: they come with what the program does when it {what}. See that the "
            "model goes back to training mode, that random numbers and the position in the data are as before, and "
            "that no step is trained, logged or averaged differently just after it."
        )
    return (
        "Look for what the program does so often (evaluating, saving, logging, opening a file): a shuffle of the data "
        "does not remove what comes with the step's number."
    )


def _nothing(report: Report) -> str:
    limit = report.detection_limit
    text = f"No significant ripple ({chance(report.p_value)})."
    if limit:
        text += (
            f" One of more than {limit['amplitude']:.2g} nats at a period of {limit['period_steps']:.4g} steps would "
            "have been called significant."
        )
    return text


def _line(report: Report) -> str:
    steps = report.period_steps
    low, high = report.period_ci_steps
    where = f"{size(report.period_tokens)} ({steps:.5g} steps)" if report.period_tokens else f"{steps:.5g} steps"
    unit = report.period_ci_unit
    a, b = report.period_ci
    between = f"[{size(a)}, {size(b)}]" if unit == "tokens" else f"[{low:.5g}, {high:.5g}]"
    amplitude, (least, most) = report.amplitude, report.amplitude_ci
    text = (
        f"A ripple with a period of {where} {between}; semi-amplitude {amplitude:.4f} nats [{least:.4f}, {most:.4f}]; "
        f"{chance(report.p_value)}."
    )
    share = report.share_of_slow_variance
    if share is not None:
        text += f" It explains {100 * share:.0f} % of the slow variance."
    if report.between_steps:
        first, last = report.between_steps
        text += f" These numbers are for the steps {first:.0f} to {last:.0f}, where it is strongest."
    return text


def _origin(report: Report) -> str:
    fits = [c for c in report.candidates if c["fits"]]
    share, layout = report.share_of_file, report.layout
    prefix = f"{layout['assumed']}: " if layout["assumed"] else ""
    if fits:
        names = " and ".join(c["name"] for c in fits)
        return f"{prefix}Its period is that of {names} ({chance(fits[0]['p_value'])})."
    if share is not None:
        turn = f" Were they read in turn, {share * layout['streams']:.3g} files." if layout["assumed"] else ""
        if share >= 0.98:
            return f"{prefix}{share:.3f} files: no period of the layout fits.{turn}"
        part = report.part_of_file
        exact = f", 1/{part} of one" if part else ""
        inside = "structure inside the file; no period of the layout itself fits."
        return f"{prefix}{share:.3f} of a file{exact}: {inside}{turn}"
    recurs = report.pulses
    if any(c["p_value"] is not None for c in report.candidates) or (recurs and recurs["main"]):
        return "None of the known periods fits it."
    return "The layout of the data is not known; --dataset or --file-tokens would tell where it comes from."


def _drift(report: Report) -> str:
    segments = report.drift
    if len(segments) < 2:
        return ""
    parts = [
        f"{s['period_steps']:.3g} steps ({s['amplitude']:.3f} nats) in {s['from_step']:.0f}-{s['to_step']:.0f}"
        for s in segments
    ]
    return f"It drifts: {'; '.join(parts[:6])}."


def _validation(report: Report) -> str:
    found = report.validation
    if found is None:
        return ""
    if found["p_value"] < 0.05:
        return f"Validation shows it too ({found['amplitude']:.4f} nats, {chance(found['p_value'])})."
    return f"Validation does not show it ({chance(found['p_value'])})."


def _again(report: Report) -> str:
    found = report.repetition
    if not found or not found["found"]:
        return ""
    lag = size(found["lag_tokens"]) if found["lag_tokens"] else f"{found['lag_steps']:.5g} steps"
    text = (
        f"The same data was most likely read again: without the ripple the loss correlates {found['correlation']:.2f} "
        f"with itself at {lag}, against {found['near_by']:.2f} near by; that is {found['passes']:.1f} passes."
    )
    if found["files"]:
        text += f" One pass is {found['files']} files."
    return text


def _remedy(report: Report) -> str:
    rows = {row["order"]: row for row in report.forecast}
    lanes = next((row for row in report.forecast if not row["periodic"]), None)
    if not lanes:
        return ""
    larger = report.forecast_larger
    text = ""
    if larger in rows:
        row = rows[larger]
        text = f"A {row['order']} would leave {row['amplitude']:.4f} nats ({megabytes(row['memory_bytes'])} MB); "
    return f"{text}{lanes['order']} (data.order = lanes) would leave no line ({megabytes(lanes['memory_bytes'])} MB)."
