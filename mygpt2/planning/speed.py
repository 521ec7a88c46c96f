"""How fast it will go, from what earlier runs on this machine recorded."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from mygpt2.config.earlier import renewed
from mygpt2.config.schema import RunConfig
from mygpt2.config.summary import vocabulary_size
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.files import read_json
from mygpt2.machine import available_cores
from mygpt2.planning.compute import CPU_SPEED, compile_choice, training_flops
from mygpt2.planning.machine import Gpu, likely_precision, list_gpus, published
from mygpt2.records import checked, tame
from mygpt2.run_dir.lines import parse_lines, tail_lines
from mygpt2.run_dir.paths import RunDir, list_runs

TAIL_BYTES = 1 << 14  # some 50 steps
FEWEST_STEPS = 3
ENOUGH_STEPS = 10  # a run with so many says more than one with fewer, however fast that was
NEARLY = 1.5  # of FLOPs per token: shapes so near use the machine alike
NEWEST = 200  # runs looked at
# Of the peak: build-nanogpt without compilation 0.29, llm.c 0.405, modded-nanogpt about 0.40 (each on H100).
MFU = (0.25, 0.34, 0.43)
ELSEWISE = 2.0  # how far off a speed scaled from another shape or rank count may well be


@dataclass(frozen=True)
class Observed:
    """What a run of this machine recorded: the last steps' speed in tokens/s, and how far into its data it came."""

    run: str
    config: RunConfig
    vocab_size: int
    ranks: int
    device: str
    median: float
    low: float  # 10th percentile of the steps
    high: float  # 90th
    tokens: int
    epochs: float
    when: float
    steps: int  # that its speed is of

    @property
    def flops(self) -> float:
        return training_flops(self.config, self.vocab_size)


@dataclass(frozen=True)
class Speed:
    """Tokens per second of all ranks together, with a range; None where no run tells. `basis` names the run."""

    value: float | None
    low: float | None
    high: float | None
    basis: str


def observe_runs(runs: Path | None) -> list[Observed]:
    """The newest runs of a folder that were made on this machine and took some steps. Others are passed over."""
    if runs is None:
        return []
    found = []
    for run in list_runs(runs):
        try:
            stamps = tuple(p.stat().st_mtime_ns for p in (run.metrics_file, run.config_file, run.rank_file(0)))
        except OSError:
            continue
        found.append((stamps, run.path))
    newest = sorted(found, reverse=True)[:NEWEST]
    return [seen for stamps, path in newest if (seen := _observe(str(path), stamps)) is not None]


def expected_speed(
    config: RunConfig, vocab_size: int, *, ranks: int, device: str, observed: Sequence[Observed],
    gpus: tuple[Gpu, ...] | None = None,
) -> Speed:  # fmt: skip
    """From the fastest run of the same shape, ranks and precision, else of the most similar ones by FLOPs per token.

    The fastest: others shared the machine with something. Without any, from a GPU's published peak. `gpus` stand in
    for this machine's.
    """
    precision, _ = likely_precision(config, device, gpus)
    here = [o for o in observed if o.device == device and likely_precision(o.config, device)[0] == precision]
    if not here and device == "cuda" and (assumed := _by_peak(config, vocab_size, ranks, precision, gpus)):
        return assumed
    if not here:
        return Speed(None, None, None, f"unknown: no earlier run on {device} of this machine tells; --measure does")
    alike = runs_alike(config, vocab_size, ranks=ranks, device=device, observed=here)
    if alike:
        one = fastest(alike)
        of = f", the fastest of {len(alike)} alike" if len(alike) > 1 else ""
        basis = f"from run {one.run}, {one.median:,.0f} tokens/s{of}; range: 10th to 90th percentile of its last steps"
        return Speed(one.median, one.low, one.high, basis)
    flops = training_flops(config, vocab_size)
    one = _most_similar(here, flops, ranks)
    # The ranks of a CPU share its cores; a GPU more is a GPU's speed more.
    factor = one.flops / flops * (ranks / one.ranks if device == "cuda" else 1.0)
    if device == "cpu" and flops > one.flops:
        return _larger(one, config, flops, precision)
    basis = f"from run {one.run}, {one.median:,.0f} tokens/s on {one.ranks} rank{'s' if one.ranks > 1 else ''}"
    if not _same_shape(one, config, vocab_size):
        basis += f", x {factor:.3g} by FLOPs per token"
    basis += f"; range: a factor of {ELSEWISE:g}, as another shape or rank count uses the machine differently"
    value = one.median * factor
    return Speed(value, value / ELSEWISE, value * ELSEWISE, basis)


def runs_alike(
    config: RunConfig, vocab_size: int, *, ranks: int, device: str, observed: Sequence[Observed]
) -> list[Observed]:
    """The runs of the same shape, ranks, device and precision, newest first: their speed is this one's."""
    precision = likely_precision(config, device)[0]
    return [
        o for o in observed
        if o.device == device and o.ranks == ranks and _same_shape(o, config, vocab_size)
        and likely_precision(o.config, device)[0] == precision
    ]  # fmt: skip


def fastest(alike: Sequence[Observed]) -> Observed:
    """The run that says most about the machine: what else it did slows a run down, and nothing speeds one up.

    A run of a few steps speaks only where there is no longer one.
    """
    return max([o for o in alike if o.steps >= ENOUGH_STEPS] or alike, key=lambda o: o.median)


def _most_similar(here: Sequence[Observed], flops: float, ranks: int) -> Observed:
    """Of the runs about as near in FLOPs per token as the nearest one, that with the most arithmetic per second."""
    apart = {id(o): max(o.flops / flops, flops / o.flops) for o in here}
    near = [o for o in here if apart[id(o)] <= NEARLY * min(apart.values())]
    near = [o for o in near if o.ranks == ranks] or near
    long = [o for o in near if o.steps >= ENOUGH_STEPS] or near
    return max(long, key=lambda o: o.flops * o.median)


def _larger(one: Observed, config: RunConfig, flops: float, precision: str) -> Speed:
    """From a smaller model's run, which was slow for its FLOPs: between two extremes.

    Either all that it lost against a usual processor was work that every step has, whatever the model (reading,
    Python, small matrices), or this processor is that much slower at everything.
    """
    usual = max(CPU_SPEED.get(precision, CPU_SPEED["fp32"]) * available_cores(), one.flops * one.median)  # FLOP/s
    own, batch = one.config.train.batch_tokens, config.train.batch_tokens
    each_step = own / one.median - own * one.flops / usual  # s
    high = batch / (batch * flops / usual + each_step)
    low = one.median * one.flops / flops
    basis = (
        f"from run {one.run}, {one.median:,.0f} tokens/s: between x {one.flops / flops:.3g} by FLOPs per token and "
        f"{each_step:.2g} s per step beside arithmetic at {usual / 1e9:.0f} GFLOP/s, as a larger model wastes less"
    )
    return Speed((low * high) ** 0.5, min(low, high) / ELSEWISE**0.5, max(low, high) * ELSEWISE**0.5, basis)


def _by_peak(
    config: RunConfig, vocab_size: int, ranks: int, precision: str, gpus: tuple[Gpu, ...] | None
) -> Speed | None:
    """From the share of its published peak that a GPU reaches with models of this kind."""
    gpus = list_gpus() if gpus is None else gpus
    known = published(gpus[0].name) if gpus else None
    if known is None or precision not in ("bf16", "fp16"):
        return None
    one = ranks * known.peak / training_flops(config, vocab_size)
    low, usual, high = MFU
    basis = (
        f"assumed: {usual:.0%} ({low:.0%} to {high:.0%}) of the published {known.peak / 1e12:.0f} TFLOP/s of "
        f"{ranks} x {gpus[0].name}, as public bf16 runs of GPT-2 124M reach; not measured; small models reach less"
    )
    return Speed(usual * one, low * one, high * one, basis)


def _same_shape(one: Observed, config: RunConfig, vocab_size: int) -> bool:
    shape = one.config.model.model_copy(update={"seed": config.model.seed})
    return (shape, one.vocab_size) == (config.model, vocab_size) and (
        _compiled(one.config, vocab_size, one.device) == _compiled(config, vocab_size, one.device)
    )


def _compiled(config: RunConfig, vocab_size: int, device: str) -> bool:
    precision = likely_precision(config, device)[0]
    return compile_choice(config, vocab_size, device=device, precision=precision, cores=available_cores())[0]


@lru_cache(maxsize=1024)
def _observe(path: str, stamps: tuple[int, ...]) -> Observed | None:
    """One run, read once per state of its files (`stamps`); None where it says too little."""
    run = RunDir(Path(path))
    rank = read_json(run.rank_file(0), run.path) or {}
    ranks, device = rank.get("world_size"), str(rank.get("device", "")).partition(":")[0]
    if rank.get("host") != socket.gethostname() or not isinstance(ranks, int) or ranks < 1:
        return None
    try:
        config = RunConfig.model_validate(renewed(from_toml(run.read(run.config_file, MAX_BYTES))))
        vocab_size = vocabulary_size(config.data.tokenizer)
    except (OSError, ValueError, ValidationError):
        return None
    rows = _last_rows(run.metrics_file)
    speeds = [float(row["tokens_per_second"]) for row in rows]
    if vocab_size is None or len(speeds) < FEWEST_STEPS:
        return None
    tenths = statistics.quantiles(speeds, n=10, method="inclusive")
    last = rows[-1]
    epochs = last.get("epoch")
    return Observed(
        run.name, config, vocab_size, ranks, device, statistics.median(speeds), tenths[0], tenths[-1],
        int(last.get("tokens") or 0), float(epochs) if isinstance(epochs, int | float) else 0.0, stamps[0] / 1e9,
        len(speeds),
    )  # fmt: skip


def _last_rows(path: Path) -> list[dict[str, float]]:
    """The last whole rows of the latest attempt with a speed; without an attempt's first step, which warms up."""
    lines, whole = tail_lines(path, TAIL_BYTES)
    rows = [row for row in map(checked, map(tame, parse_lines(lines)[0])) if _positive(row.get("tokens_per_second"))]
    latest = [row for row in rows if row.get("attempt") == rows[-1].get("attempt")]
    return latest[1:] if whole or len(latest) < len(rows) else latest


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
