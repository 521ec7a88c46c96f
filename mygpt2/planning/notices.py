"""What to look out for in a plan: more than there is, more than one pass, too little text for the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mygpt2.config.schema import RunConfig
from mygpt2.format import readable
from mygpt2.planning.figures import Figure, Notice

CHINCHILLA = 20.0  # tokens per parameter, Hoffmann et al. 2022, arXiv 2203.15556
ONE_PASS = 1.05  # sizes are known to a few percent at best
GPU_RESERVE = 700_000_000  # context and libraries on a CUDA device, beside tensors
LONG_S = 30 * 86400.0  # a run on a processor for which somebody may want to know of GPUs
MUCH_REPETITION = 4.0  # up to about four epochs repeated text is worth nearly as much as new (arXiv 2305.16264)


def notices(
    config: RunConfig, device: str, figures: Sequence[Figure], precision: str, compiled: tuple[bool, str]
) -> Iterator[Notice]:
    """Notices in the order of their importance."""
    value = {figure.key: figure.value for figure in figures}
    yield from _memory(value)
    yield from _disk(value)
    yield from _sources(config, value)
    yield from _data(config, value, next((f.basis for f in figures if f.key == "length.source"), ""))
    seconds = value.get("time.total") or value.get(f"time.{precision}")
    if seconds and device == "cpu" and seconds > LONG_S:
        text = f"{readable(seconds, 's')} on this processor; `plan --on h100 --nproc 8` says how long GPUs would take"
        yield Notice("note", "time.total", text)
    if compiled[0]:
        text = (
            f"train.compile={config.train.compile} is on ({compiled[1]}): the first step waits a minute or two for it"
        )
        yield Notice("note", "time.speed", text)


def _memory(value: dict[str, float | None]) -> Iterator[Notice]:
    peak, device, host = value["memory.peak"], value.get("memory.device"), value["memory.host"]
    lower = "lower train.micro_batch or model.block_size, or take a smaller model"
    if peak and device and peak + GPU_RESERVE > device:
        text = f"a rank needs {readable(peak, 'B')} and a GPU has {readable(device, 'B')}: {lower}"
        yield Notice("warning", "memory.peak", text)
    needed, one = value["memory.processes"] or 0, value["memory.process"] or 0
    if host is not None and needed > host:
        who = "its process needs" if needed == one else "its processes need"
        text = f"{who} {readable(needed, 'B')} and {readable(host, 'B')} are free on this machine: {lower}"
        yield Notice("warning", "memory.process", text)


def _disk(value: dict[str, float | None]) -> Iterator[Notice]:
    needed, free = value["disk.peak"], value["disk.free"]
    if needed and free is not None and needed > free:
        text = (
            f"the run writes {readable(needed, 'B')} and {readable(free, 'B')} are free: choose another --runs, or "
            "keep fewer checkpoints (checkpoint.keep_last, checkpoint.keep_every)"
        )
        yield Notice("warning", "disk.peak", text)


def _sources(config: RunConfig, value: dict[str, float | None]) -> Iterator[Notice]:
    """Sources of a mixture that are read more often than is allowed, or than they are worth."""
    for source in config.data.mix:
        key = f"length.passes.{source.name}"
        passes, most = value.get(key), source.max_epochs
        if passes is None or passes <= (most or MUCH_REPETITION):
            continue
        text = f"source {source.name} is read about {passes:.3g} times"
        text += (
            f", and its max_epochs allows {most:g}: the start counts its tokens and refuses that"
            if most
            else "; beyond about four times repeating adds little (Muennighoff et al. 2023, arXiv 2305.16264)"
        )
        yield Notice("warning", key, text)


def _data(config: RunConfig, value: dict[str, float | None], basis: str) -> Iterator[Notice]:
    passes, per_parameter = value["length.passes"], value["length.tokens_per_parameter"] or 0.0
    if passes is not None and passes > ONE_PASS and not config.data.mix:
        much = passes > MUCH_REPETITION
        # A text of one's own is sized by its bytes, and of few documents the held-out one may be a large part.
        before = ", before held-out documents" if " bytes" in basis else ""
        text = f"the data is read {passes:.3g} times{before}" + (
            "; beyond about four times repeating adds little (Muennighoff et al. 2023, arXiv 2305.16264)"
            if much
            else ""
        )
        yield Notice("warning" if much else "note", "length.passes", text)
    if per_parameter < CHINCHILLA:
        text = (
            f"{per_parameter:.3g} tokens per parameter: for its arithmetic a smaller model on more text would come out "
            f"better; about {CHINCHILLA:.0f} is best by Hoffmann et al. 2022 (arXiv 2203.15556)"
        )
        yield Notice("note", "length.tokens_per_parameter", text)
