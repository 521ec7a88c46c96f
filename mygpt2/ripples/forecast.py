"""What another order would leave of a ripple, against the memory it needs.

The profile of loss along the period is made of harmonics; each order multiplies the harmonic of period P by a factor.
A replace-one buffer of B documents delays each document by an exponential time: 1 / sqrt(1 + (2 pi B / P)^2), both in
documents of all ranks. K files read in turn, each at a place of its own, leave 1 / sqrt(K); in step with each other
they leave all of it at a period K times as long. Lanes whose windows are spread evenly over the set leave no line but
the chance of what is in a window: the profile's deviation / sqrt(lanes x window).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.ripples.layout import FINEWEB_DOCUMENT_TOKENS, FINEWEB_ROW_GROUP, Layout
from mygpt2.ripples.log import Floats

TOKEN_BYTES = 2  # uint16
INTERLEAVED = (4, 16, 64)
SHAPES = ((8, 8), (64, 2), (64, 8))  # lanes x window


@dataclass(frozen=True)
class Profile:
    """One period of loss: (cos, sin) of its harmonics (K, 2), and the interval of the fundamental's semi-amplitude.

    The period is in tokens of the run.
    """

    period: float
    coefficients: Floats
    interval: tuple[float, float]

    @property
    def amplitudes(self) -> Floats:
        """Semi-amplitudes of the harmonics (K,)."""
        return np.hypot(self.coefficients[:, 0], self.coefficients[:, 1])


def buffer_factor(buffer_documents: float | Floats, period_documents: float | Floats) -> Any:
    """What a replace-one buffer leaves of a sine of that period: the gain of an exponential delay."""
    return 1 / np.sqrt(1 + (2 * np.pi * np.asarray(buffer_documents) / np.asarray(period_documents)) ** 2)


def convolved(profile: Floats, buffer_documents: float, period_documents: float) -> Floats:
    """A whole period's profile (n,), evenly spaced, as a buffer would leave it: delayed by an exponential time."""
    waves = np.fft.rfft(profile)
    delay = 1 / (1 + 2j * np.pi * np.arange(len(waves)) * buffer_documents / period_documents)
    return np.fft.irfft(waves * delay, len(profile))


def forecast(profile: Profile, layout: Layout) -> list[dict[str, Any]]:
    """By order: amplitude of the fundamental with its interval, peak to peak, and memory in bytes. JSON-ready.

    `profile` is what the log's own order left; it is divided by that order's factor first. A lanes order has no line
    to go back from: then nothing can be forecast, and the list is empty.
    """
    if layout.order == "lanes":
        return []
    document = layout.document_tokens or FINEWEB_DOCUMENT_TOKENS
    group = layout.row_group_tokens or FINEWEB_ROW_GROUP * document
    periods = profile.period / np.arange(1, len(profile.amplitudes) + 1) / document  # in documents
    now = buffer_factor(layout.buffer_documents or 0, periods)
    source = profile.coefficients / now[:, None]
    rows = [_row("as measured", profile, now, source, None, "the log's own order")]
    rows.append(_row("file order", profile, np.ones(len(source)), source, 0.0, "no shuffling"))
    sizes = buffer_sizes(profile, layout)
    for size in sizes:
        factor = buffer_factor(size, periods)
        memory = size * document * TOKEN_BYTES
        rows.append(_row(f"buffer of {size:,} documents", profile, factor, source, memory, "shuffle buffer"))
    for files in INTERLEAVED:
        factor = np.full(len(source), 1 / math.sqrt(files))
        note = f"if their places differ; in step, all of it at {files} times the period"
        rows.append(_row(f"{files} files in turn", profile, factor, source, files * group * TOKEN_BYTES, note))
    for lanes, window in SHAPES:
        rows.append(_lanes(lanes, window, source, group))
    return rows


def buffer_sizes(profile: Profile, layout: Layout) -> list[int]:
    """Buffers worth a row: powers of ten from a hundredth to ten times the period, and the log's own times ten."""
    documents = profile.period / (layout.document_tokens or FINEWEB_DOCUMENT_TOKENS)
    tens = [10**k for k in range(12) if documents / 100 <= 10**k <= documents * 10]
    return sorted({*tens, *([10 * layout.buffer_documents] if layout.buffer_documents else [])})


def _row(
    order: str, profile: Profile, factor: Floats, source: Floats, memory: float | None, note: str
) -> dict[str, Any]:
    left = source * factor[:, None]
    amplitude = float(np.hypot(*left[0]))
    scale = amplitude / profile.amplitudes[0] if profile.amplitudes[0] > 0 else 0.0
    angle = np.outer(np.arange(1, len(left) + 1), np.linspace(0, 2 * np.pi, 256, endpoint=False))
    shape = left[:, 0] @ np.cos(angle) + left[:, 1] @ np.sin(angle)
    return {
        "order": order, "amplitude": amplitude, "amplitude_ci": [float(x * scale) for x in profile.interval],
        "peak_to_peak": float(np.ptp(shape)), "memory_bytes": memory, "periodic": True, "note": note,
    }  # fmt: skip


def _lanes(lanes: int, window: int, source: Floats, group: float) -> dict[str, Any]:
    chance = float(np.sqrt(np.sum(source**2) / 2) / math.sqrt(lanes * window))
    return {
        "order": f"lanes, {lanes} x {window}", "amplitude": 0.0, "amplitude_ci": [0.0, 0.0], "peak_to_peak": 0.0,
        "memory_bytes": lanes * window * group * TOKEN_BYTES, "periodic": False,
        "note": f"no line; {chance:.2g} nats of chance, without a period",
    }  # fmt: skip


def curve(profile: Profile, layout: Layout, points: int = 60) -> dict[str, list[float]]:
    """Amplitude of the fundamental against the documents of a buffer, for a figure."""
    document = layout.document_tokens or FINEWEB_DOCUMENT_TOKENS
    period = profile.period / document
    now = float(buffer_factor(layout.buffer_documents or 0, period))
    sizes = np.geomspace(max(1.0, period / 1000), period * 10, points)
    left = profile.amplitudes[0] / now * buffer_factor(sizes, period)
    return {
        "buffer_documents": sizes.tolist(), "amplitude": left.tolist(),
        "memory_bytes": (sizes * document * TOKEN_BYTES).tolist(),
    }  # fmt: skip
