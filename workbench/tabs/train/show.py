"""What the Train tab shows beside its fields, as markup: notes at fields, reasons, the estimate, the rate's preview."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mygpt2.planning import Figure, Plan, Rates
from mygpt2.planning.figures import SECTIONS
from workbench.draft import Checked
from workbench.forms import Change
from workbench.html import Markup, button, escape, join, table

LARGE = ("parameters.total", "batch.tokens", "length.tokens", "length.passes", "flops.total", "memory.process",
         "disk.peak", "time.speed", "time.total")  # fmt: skip
REASONED = ("length.passes", "time.total")  # these say at once where they come from, or why they are unknown
WIDTH, HEIGHT = 320, 84  # of the preview, in its own units
# What the first run takes, as it was measured on two cores of either kind of processor.
FIRST_RUN_TAKES = "on two cores about two minutes with bfloat16 units (AVX-512 or AMX), about four without (AVX2)"
LONGEST = 120  # characters of a value in a list


def field_id(name: str) -> str:
    """The elem_id of a field: field-train-steps for train.steps."""
    return f"field-{name.replace('.', '-').replace('_', '-')}"


def note(name: str, lines: Sequence[str], change: Change | None) -> Markup:
    """What stands below a field: what is wrong with it, or how it differs from the preset; nothing otherwise."""
    parts = []
    if lines:
        text = join(Markup(f"<p>{escape(line)}</p>") for line in dict.fromkeys(lines))
        parts.append(Markup(f'<div class="wb-field-note wb-field-problem" role="alert">{text}</div>'))
    if change and change.follows:
        parts.append(
            Markup(
                f'<p class="wb-field-note wb-field-change">becomes {_value(change.text)}, as other settings changed</p>'
            )
        )
    elif change:
        parts.append(
            Markup(f'<p class="wb-field-note wb-field-change">preset: {_value(change.preset)} {_reset(change)}</p>')
        )
    return join(parts)


def status(words: str) -> Markup:
    """One line about what just happened to the form; nothing for no words."""
    return Markup(f'<p class="wb-muted" role="status">{escape(words)}</p>' if words else "")


def _reset(change: Change) -> Markup:
    return button("reset", change.name, "Reset", f"Reset {change.name} to the preset", "wb-link")


def _value(text: str) -> Markup:
    shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return Markup(f"<b>{escape(shown)}</b>" if shown else "<b>unset</b>")


def reasons(checked: Checked) -> Markup:
    """Why Start is off, each reason with a link to its first field; nothing when it is on."""
    if not checked.reasons:
        return Markup("")
    rows = join(Markup(f"<li>{escape(line)}{_link(fields)}</li>") for line, fields in checked.reasons)
    return Markup(f'<div class="wb-problem wb-reasons" role="status"><p><b>Start is off:</b></p><ul>{rows}</ul></div>')


def busy(devices: Sequence[str], runs: Sequence[str]) -> Markup:
    """That Start will wait, and for whom; nothing when the devices are free."""
    if not runs:
        return Markup("")
    words = f"{', '.join(devices)} has work with {', '.join(runs)}: started now, this run comes next."
    return Markup(f'<p class="wb-muted" role="status">{escape(words)}</p>')


def _link(fields: Sequence[str]) -> Markup:
    if not fields:
        return Markup("")
    return Markup(f' <a href="#{escape(field_id(fields[0]))}">Go to {escape(fields[0])}</a>')


def changes(checked: Checked) -> Markup:
    """The list of what differs from the preset, with a reset for each and for all."""
    preset = escape(checked.draft.preset)
    if not checked.changes:
        return Markup(f'<p class="wb-muted">Every setting is as in the preset {preset}.</p>')
    rows = join(
        Markup(
            f"<li><code>{escape(c.name)}</code> {_value(c.preset)} → {_value(c.text)} "
            f"{Markup('(follows)') if c.follows else _reset(c)}</li>"
        )
        for c in checked.changes
    )
    everything = button("reset", "*", "Reset all", "Reset all", "wb-link")
    head = f"<p><b>{len(checked.changes)} differ from {preset}</b> {everything}</p>"
    return Markup(f'<div class="wb-changes" data-live="train.changes">{head}<ul>{rows}</ul></div>')


def estimate(plan: Plan | str) -> Markup:
    """The figures that matter, what to look out for, and below them all figures with where they come from."""
    if isinstance(plan, str):
        return Markup(f'<section class="wb-card"><h3>Estimate</h3><p class="wb-muted">{escape(plan)}</p></section>')
    known = {figure.key: figure for figure in plan.figures}
    large = join(_figure(known[key]) for key in LARGE if key in known)
    told = join(
        Markup(f'<li class="{"wb-warn" if n.level == "warning" else "wb-muted"}">{escape(n.text)}</li>')
        for n in plan.notices
    )
    ranks = f"{plan.world_size} process{'es' if plan.world_size > 1 else ''} on {plan.device}, {plan.precision}"
    return Markup(
        f'<section class="wb-card wb-estimate"><h3>Estimate <span class="wb-muted">{escape(ranks)}</span></h3>'
        f"<dl>{large}</dl>{f'<ul>{told}</ul>' if told else ''}"
        f"<details><summary>All figures, and where they come from</summary>{_all(plan.figures)}</details></section>"
    )


def _figure(figure: Figure) -> Markup:
    told = figure.key in REASONED and (figure.value is None or figure.section == "time")
    said = figure.basis.replace("--measure does", "the button below measures it")
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
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    words = f"peak {peak:.3g}, at the end {rates.lr[-1]:.3g}"
    if rates.muon_lr:
        words += f"; Muon's peak {max(rates.muon_lr):.3g}"
    return Markup(
        f'<figure class="wb-rate"><figcaption><b>Learning rate</b> <span class="wb-muted">{escape(words)}; '
        f"{escape(rates.basis)}</span></figcaption>"
        f'<svg viewBox="-4 -6 {WIDTH + 8} {HEIGHT + 12}" role="img" preserveAspectRatio="none" '
        f'aria-label="Learning rate over {last + 1} steps: {escape(words)}">'
        f'<polyline class="wb-rate-area" points="0,{HEIGHT} {line} {WIDTH},{HEIGHT}"/>'
        f'<polyline class="wb-rate-line" points="{line}"/></svg>'
        f'<div class="wb-rate-axis wb-muted"><span>step 1</span><span>step {last + 1:,}</span></div></figure>'
    )


def welcome(parameters: int) -> Markup:
    """The newcomer's panel, while the folder has no run."""
    size = f"{parameters / 1e6:.0f}-million-parameter"
    return Markup(
        f"<h2>Start here</h2><p>A {escape(size)} model on built-in text: {escape(FIRST_RUN_TAKES)}. "
        "It runs on its own from then on: this page, the browser and the server may all be closed.</p>"
    )
