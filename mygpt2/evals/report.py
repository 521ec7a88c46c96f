"""Results as lines for a person. What somebody else measured is marked quoted, always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mygpt2.evals.choices import PROTOCOLS
from mygpt2.evals.loss import LossResult
from mygpt2.evals.protocols import Quoted


def text_words(protocol: str, measured: LossResult, quoted: Sequence[Quoted], beside: dict[str, Any] | None) -> str:
    """A loss, the yardstick measured here, and the quoted figures of the same protocol."""
    lines = [f"{protocol}: {measured}", f"  windows of {measured.window} tokens, token stream {measured.token_sha256}"]
    if beside is not None:
        error = "" if beside["stderr"] is None else f" ± {beside['stderr']:.4f}"
        lines.append(
            f"  {beside['of']}, measured on the same tokens ({beside['precision']}): {beside['loss']:.4f}{error}"
        )
    lines += [f"  quoted: {figure.of} {figure.figure} ({figure.source})" for figure in quoted]
    return "\n".join(lines)


def hellaswag_words(found: dict[str, Any]) -> str:
    """Accuracies in percent with their standard errors, and what a baseline makes of them."""
    lines = []
    for protocol in PROTOCOLS:
        own = found[protocol]
        lines.append(
            f"HellaSwag {protocol}: acc {_percent(own['acc'], own['acc_stderr'])}, "
            f"acc_norm {_percent(own['acc_norm'], own['acc_norm_stderr'])} ({own['n']:,} items)"
        )
        for metric, figure in own.get("quoted", {}).items():
            lines.append(f"  quoted: {figure['of']} {metric} {100 * figure['figure']:.2f} % ({figure['source']})")
        for metric, test in found.get("against_baseline", {}).get(protocol, {}).items():
            lines.append(
                f"  {metric} against {found['baseline']['model']}: {100 * test['difference']:+.2f} points, "
                f"paired error {100 * (test['stderr'] or 0.0):.2f}; right alone {test['better']} : {test['worse']}, "
                f"McNemar p = {test['p_value']:.3g}"
            )
    return "\n".join(lines)


def _percent(share: float, error: float | None) -> str:
    return f"{100 * share:.2f} %" if error is None else f"{100 * share:.2f} ± {100 * error:.2f} %"
