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

LARGE = ("parameters.total", "batch.tokens", "length.tokens", "length.passes", "flops.total", "memory.process",
         "disk.peak", "time.speed", "time.total")  # fmt: skip
REASONED = ("length.passes", "time.total")  # these say at once where they come from, or why they are unknown
WIDTH, HEIGHT = 320, 84  # of the preview, in its own units


@dataclass(frozen=True)
class Takes:
    """The time of a run in s, None where nothing tells; how it is known in a word or two, and where it comes from."""

    seconds: float | None
    known: str
    basis: str

    @property
    def text(self) -> str:
        return "time not known" if self.seconds is None else f"about {about(self.seconds)}"


def takes(plan: Plan) -> Takes:
    """The time that a run will take here: measured, as an earlier run, or estimated, the best there is."""
    total, speed = _figure_of(plan, "time.total"), _figure_of(plan, "time.speed")
    if total and speed and total.value is not None:
        if speed.basis.startswith("measured"):
            return Takes(total.value, "measured", speed.basis)
        alike = "10th to 90th percentile" in speed.basis
        return Takes(total.value, "as an earlier run" if alike else "estimated", speed.basis)
    here = next((f for f in plan.figures if f.section == "time" and f.label.endswith("as here")), None)
    if here and here.value is not None:
        return Takes(here.value, "rough estimate", here.basis)
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
    time, memory = takes(plan), plan["memory.process"].value
    parts = [f"{_three(plan['parameters.total'].value)} parameters", f"{_three(plan['length.tokens'].value)} tokens",
             "n/a" if memory is None else file_size(memory)]  # fmt: skip
    told = chip(time.known, "good" if time.known == "measured" else "neutral", time.basis) if time.known else ""
    return Markup(
        f'<p class="wb-takes">{escape(" · ".join(parts))} · <b title="{escape(time.basis)}">{escape(time.text)}</b> '
        f"{told}</p>"
    )


def length(plan: Plan | str, passes_told: bool = False) -> Markup:
    """Beside steps and batch: tokens in all, and how often the text is read unless the look into it tells."""
    if isinstance(plan, str):
        return Markup("")
    tokens, passes = plan["length.tokens"], plan["length.passes"]
    if passes_told:
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
    notices = [n for n in plan.notices if not (passes_told and n.key == "length.passes")]
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
