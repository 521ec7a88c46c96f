"""What a run will take, as markup: one line beside Start, the figures behind it, and the picture of the rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mygpt2.format import estimate as about
from mygpt2.format import file_size, short
from mygpt2.planning import Figure, Plan, Rates
from mygpt2.planning.figures import SECTIONS
from workbench import words
from workbench.html import Markup, chip, escape, table

LARGE = ("parameters.total", "batch.tokens", "length.tokens", "length.left", "length.passes", "flops.total",
         "memory.process", "memory.processes", "disk.peak", "time.speed", "time.total")  # fmt: skip
REASONED = ("length.passes", "time.total")  # these say at once where they come from, or why they are unknown
WIDTH, HEIGHT = 320, 84  # of the preview, in its own units


@dataclass(frozen=True)
class Takes:
    """The time of a run in s, None where nothing tells; how it is known in a word or two, and where it comes from.

    low, high: its range. run: the run of this machine that tells it, "" if none does; `alike`: it is of the same kind.
    """

    seconds: float | None
    known: str
    basis: str
    low: float | None = None
    high: float | None = None
    run: str = ""
    alike: bool = False

    @property
    def text(self) -> str:
        return "time not known" if self.seconds is None else f"about {about(self.seconds)}"

    @property
    def range(self) -> str:
        """`10 min to 2 h 5 min`; "" where there is none, or its ends read like the time itself."""
        if self.seconds is None or self.low is None or self.high is None:
            return ""
        low, high = about(self.low), about(self.high)
        return "" if low == high == about(self.seconds) else f"{low} to {high}"


def takes(plan: Plan) -> Takes:
    """The time that a run will take here: measured, as an earlier run, or estimated, the best there is."""
    total, speed = _figure_of(plan, "time.total"), _figure_of(plan, "time.speed")
    if total and speed and total.value is not None:
        between = total.low, total.high
        if speed.basis.startswith("measured"):
            return Takes(total.value, "measured", speed.basis, *between)
        run = speed.basis.removeprefix("from run ").partition(",")[0] if speed.basis.startswith("from run ") else ""
        alike = "10th to 90th percentile" in speed.basis
        known = f"as run {run}" if alike else f"estimated from run {run}" if run else "estimated"
        return Takes(total.value, known, speed.basis, *between, run, alike)
    here = next((f for f in plan.figures if f.section == "time" and f.label.endswith("as here")), None)
    if here and here.value is not None:
        return Takes(here.value, "rough estimate", here.basis, here.low, here.high)
    return Takes(None, "", total.basis if total else "")


def _figure_of(plan: Plan, key: str) -> Figure | None:
    return next((figure for figure in plan.figures if figure.key == key), None)


def _three(value: float | None) -> str:
    """A count to three digits."""
    return words.NA if value is None else short(float(f"{value:.3g}"))


def line(plan: Plan | str) -> Markup:
    """Parameters · tokens · memory · time, with how the time is known."""
    if isinstance(plan, str):
        return Markup(f'<p class="wb-muted">{escape(plan)}</p>')
    time = takes(plan)
    tokens = _figure_of(plan, "length.left") or plan["length.tokens"]  # of a branch those that it trains itself
    parts = [f"{_three(plan['parameters.total'].value)} parameters", f"{_three(tokens.value)} tokens"]
    told = chip(time.known, "good" if time.known == "measured" else "neutral", time.basis) if time.known else ""
    between = f" ({time.range})" if time.range else ""
    return Markup(
        f'<p class="wb-takes">{escape(" · ".join(parts))} · {_memory(plan)}</p>'
        f'<p class="wb-takes"><b title="{escape(time.basis)}">{escape(time.text)}</b>{escape(between)} {told}</p>'
    )


def line_there(plan: Plan | str, words: str) -> Markup:
    """Parameters and tokens of a run on another machine, and what else is known of it there."""
    if isinstance(plan, str):
        return Markup(f'<p class="wb-muted">{escape(plan)}</p>')
    parts = f"{_three(plan['parameters.total'].value)} parameters · {_three(plan['length.tokens'].value)} tokens"
    return Markup(f'<p class="wb-takes">{escape(parts)}</p><p class="wb-takes">{escape(words)}</p>')


def _memory(plan: Plan) -> Markup:
    """What all processes take together of what this machine has free, and whether it fits: on GPUs, of each GPU."""
    warned = {notice.key: notice.text for notice in plan.notices if notice.level == "warning"}
    device = _figure_of(plan, "memory.device")
    if device and device.value:
        key, which = "memory.peak", "each" if plan.world_size > 1 else "the"
        words = f"{file_size(plan[key].value or 0)} of {file_size(device.value)} on {which} GPU"
    else:
        key, free, together = "memory.process", plan["memory.host"].value, plan["memory.processes"].value or 0
        of = "" if free is None else f" of {file_size(free)} free here"
        ranks = f" in {plan.world_size} processes" if plan.world_size > 1 else ""
        words = f"{file_size(together)} memory{ranks}{of}"
    bad = chip("does not fit", "bad", warned[key]) if key in warned else ""
    return Markup(f'<span title="{escape(plan[key].basis)}">{escape(words)}</span> {bad}')


def length(plan: Plan | str, passes_told: bool = False) -> Markup:
    """Beside steps and batch: tokens in all, and how often the text is read, unless the look into it or into each
    source of a mixture tells."""
    if isinstance(plan, str):
        return Markup("")
    tokens, passes = plan["length.tokens"], plan["length.passes"]
    if passes_told or any(figure.key.startswith("length.passes.") for figure in plan.figures):
        return Markup(f'<p class="wb-length"><b>{escape(tokens.text)}</b> tokens in all</p>')
    read = "size of the text not known" if passes.value is None else f"{passes.text} passes over the text"
    return Markup(
        f'<p class="wb-length"><b>{escape(tokens.text)}</b> tokens in all · '
        f'<span title="{escape(passes.basis)}">{escape(read)}</span></p>'
    )


def estimate(plan: Plan | str, passes_told: bool = False) -> Markup:
    """The figures that matter, what to look out for, and below them all figures with where they come from.

    passes_told: the look into the source says how often it is read, from its documents and not from its size.
    """
    if isinstance(plan, str):
        return Markup("")
    known = {figure.key: figure for figure in plan.figures}
    large = "".join(_figure(known[key]) for key in LARGE if key in known)
    notices = [n for n in plan.notices if not (passes_told and n.key.startswith("length.passes"))]
    warned, noted = ([n.text for n in notices if (n.level == "warning") == bad] for bad in (True, False))
    ranks = f"{plan.world_size} process{'es' if plan.world_size > 1 else ''} on {plan.device}, {plan.precision}"
    return Markup(
        f"{_told(warned, 'wb-warn')}"
        f'<details class="wb-estimate"><summary>Estimate in full '
        f'<span class="wb-muted">{escape(ranks)}</span></summary>'
        f"<dl>{large}</dl>{_told(noted, 'wb-muted')}"
        f"<details><summary>All figures, and where they come from</summary>{_all(plan.figures)}</details></details>"
    )


def _told(lines: Iterable[str], kind: str) -> str:
    rows = "".join(f'<li class="{kind}">{escape(line)}</li>' for line in lines)
    return f'<ul class="wb-notices">{rows}</ul>' if rows else ""


def _figure(figure: Figure) -> Markup:
    told = figure.key in REASONED and (figure.value is None or figure.section == "time")
    said = figure.basis.replace("--measure does", "Measure does")
    basis = f"<small>{escape(said)}</small>" if told else ""
    row = f"<dt>{escape(figure.label)}</dt><dd>{escape(figure.text)}{basis}</dd>"
    return Markup(f'<div title="{escape(figure.basis)}">{row}</div>')


def _all(figures: Iterable[Figure]) -> Markup:
    rows = [(SECTIONS.get(f.section, f.section), f.label, f.text, f.basis) for f in figures]
    return table(("", "figure", "value", "where it comes from"), rows, numeric={2}, caption="all figures")


def schedule(rates: Rates) -> Markup:
    """The learning rate over the run as a small picture, with its peak and its end in words."""
    peak = max(rates.lr) or 1.0
    last = rates.step[-1] or 1
    points = [
        (WIDTH * step / last, HEIGHT * (1 - rate / peak)) for step, rate in zip(rates.step, rates.lr, strict=True)
    ]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    said = f"peak {peak:.3g}, at the end {rates.lr[-1]:.3g}"
    if rates.muon_lr:
        said += f"; Muon's peak {max(rates.muon_lr):.3g}"
    return Markup(
        f'<figure class="wb-rate" title="{escape(rates.basis)}"><figcaption>Learning rate '
        f'<span class="wb-muted">{escape(said)}</span></figcaption>'
        f'<svg viewBox="-4 -6 {WIDTH + 8} {HEIGHT + 12}" role="img" preserveAspectRatio="none" '
        f'aria-label="Learning rate over {last + 1} steps: {escape(said)}">'
        f'<polyline class="wb-rate-area" points="0,{HEIGHT} {drawn} {WIDTH},{HEIGHT}"/>'
        f'<polyline class="wb-rate-line" points="{drawn}"/></svg>'
        f'<div class="wb-rate-axis wb-muted"><span>step 1</span><span>step {last + 1:,}</span></div></figure>'
    )


def command(text: str) -> Markup:
    """The command that Start executes, folded, with a button that copies it."""
    body = f"<pre>{escape(text)}</pre>" if text else '<p class="wb-muted">shown once Start is on</p>'
    copy = '<button type="button" class="wb-small" data-copy>Copy</button>' if text else ""
    return Markup(f'<details class="wb-command"><summary>Command</summary>{body}{copy}</details>')
