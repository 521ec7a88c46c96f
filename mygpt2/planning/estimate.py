"""The plan of a run: every estimate in one place, each with where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mygpt2.config.batch import BatchPlan, plan_batch
from mygpt2.config.schema import RunConfig
from mygpt2.config.summary import count_parameters, vocabulary_size
from mygpt2.errors import UserError
from mygpt2.machine import available_cores, cache_folder
from mygpt2.planning.compute import CPU_SPEED, compile_choice, fast_micro_batch, training_flops
from mygpt2.planning.data import SourceSize, source_size
from mygpt2.planning.figures import Figure, Plan, preview
from mygpt2.planning.host import DiskUse, all_ranks, disk_use, host_parts, rank_total
from mygpt2.planning.kept import recall
from mygpt2.planning.machine import Machine, free_disk, likely_precision, this_machine
from mygpt2.planning.memory import RankMemory, Shape, rank_memory
from mygpt2.planning.notices import notices
from mygpt2.planning.parallel import parallel_choice
from mygpt2.planning.passes import SourcePasses, foretold
from mygpt2.planning.speed import ELSEWISE, Observed, Speed, expected_speed, fastest, observe_runs, runs_alike
from mygpt2.planning.trial import Measured

SHOWN_PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "head",
    "logits",
    "backward",
    "second",
    "update",
    "validation",
)


def plan(
    config: RunConfig,
    *,
    world_size: int,
    runs: Path | None,
    device: str = "cpu",
    measured: Measured | None = None,
    machine: Machine | None = None,
    begun: int = 0,
) -> Plan:
    """What this run will take on `world_size` ranks of `device` (cpu, cuda, mps), without torch and in milliseconds.

    `runs` is looked through for speeds of earlier runs and asked for its free space; None: neither. `measured` wins,
    then what was measured of this shape after the fastest run of it. `machine` stands in for this one. `begun`: steps
    that are done already, as of a branch; arithmetic and time are of the others. UserError for a batch that the ranks
    cannot share, or a tokenizer whose size cannot be told.
    """
    if world_size < 1:
        raise UserError(f"{world_size} ranks cannot train; use 1 or more")
    facts = replace(_Facts.gather(config, world_size, runs, device, measured, machine or this_machine()), begun=begun)
    figures = tuple(f for part in (_size, _batch, _length, _flops, _memory, _disk, _time) for f in part(facts))
    return Plan(
        world_size,
        device,
        facts.precision,
        figures,
        preview(config),
        tuple(notices(config, device, figures, facts.precision, facts.compiled)),
    )


@dataclass(frozen=True)
class _Facts:
    """What several figures are made from."""

    config: RunConfig
    world_size: int
    device: str
    precision: str
    why_precision: str
    vocab_size: int
    parameters: int
    batch: BatchPlan
    source: SourceSize
    sources: list[SourcePasses]  # of a mixture
    memory: RankMemory
    disk: DiskUse
    disk_free: int | None
    speed: Speed
    measured: Measured | None
    machine: Machine
    compiled: tuple[bool, str]  # whether, and why
    shards: int  # ranks that share a model
    begun: int = 0  # steps that are done already

    @classmethod
    def gather(
        cls, config: RunConfig, world_size: int, runs: Path | None, device: str, measured: Measured | None,
        machine: Machine,
    ) -> _Facts:  # fmt: skip
        m, t = config.model, config.train
        vocab_size = vocabulary_size(config.data.tokenizer)
        if vocab_size is None:
            raise UserError(
                f"data.tokenizer={config.data.tokenizer} is not known; give gpt2, gpt2:N with N from 257 to 50257, a "
                "tokenizer.json or its folder"
            )
        gpu = machine.gpus[0].memory_bytes if device == "cuda" and machine.gpus else None
        precision, why = likely_precision(config, device, machine.gpus)
        shards = parallel_choice(
            config, vocab_size, ranks=world_size, local_ranks=None, device=device, precision=precision, gpu_bytes=gpu
        ).shards
        limit = fast_micro_batch(m, gpu, shards)
        batch = plan_batch(t.batch_tokens, m.block_size, t.micro_batch, world_size, config.data.lanes, limit)
        observed = observe_runs(runs)
        parameters = count_parameters(m, vocab_size)
        if measured is None and runs is not None and not machine.elsewhere:
            alike = runs_alike(config, vocab_size, ranks=world_size, device=device, observed=observed)
            after = fastest(alike).when if alike else 0.0
            measured = recall(config, world_size=world_size, device=device, after=after)
        return cls(
            config, world_size, device, precision, why, vocab_size, parameters, batch,
            *_sizes(config, vocab_size, observed),
            rank_memory(config, vocab_size, micro_batch=batch.micro_batch, accumulation=batch.accumulation,
                        ranks=world_size, device=device, precision=precision, shards=shards),
            disk_use(config, parameters, Shape.of(m, vocab_size)),
            free_disk(runs) if runs is not None and not machine.elsewhere else None,
            measured.speed if measured else
            expected_speed(config, vocab_size, ranks=world_size, device=device,
                           observed=() if machine.elsewhere else observed, gpus=machine.gpus),
            measured, machine,
            (config.train.compile != "false", "a GPU elsewhere") if machine.elsewhere else
            compile_choice(config, vocab_size, device=device, precision=precision, cores=available_cores()),
            shards,
        )  # fmt: skip

    @property
    def tokens(self) -> int:
        return self.config.train.steps * self.config.train.batch_tokens

    @property
    def left(self) -> int:
        """Tokens of the steps that are not done yet."""
        return max(0, self.config.train.steps - self.begun) * self.config.train.batch_tokens


def _sizes(config: RunConfig, vocab_size: int, observed: Sequence[Observed]) -> tuple[SourceSize, list[SourcePasses]]:
    """The tokens of one source, or of each of a mixture."""
    cache = cache_folder(config.data.cache_dir)
    each = foretold(config, lambda alone: source_size(alone, vocab_size, observed, cache))
    if each:
        return SourceSize(None, "a mixture: each source has its own"), each
    return source_size(config, vocab_size, observed, cache), []


def _size(f: _Facts) -> Iterator[Figure]:
    m = f.config.model
    embedding = (f.vocab_size + m.block_size) * m.n_embd
    yield Figure("parameters.total", "Parameters", f.parameters, "", "derived: embeddings, and 12 C² weights per block")
    basis = f"derived: ({f.vocab_size:,} ids + {m.block_size:,} positions) x {m.n_embd}; the output layer is the same"
    yield Figure("parameters.embedding", "in embeddings", embedding, "", basis)
    yield Figure("parameters.non_embedding", "in blocks", f.parameters - embedding, "", "derived: the difference")


def _batch(f: _Facts) -> Iterator[Figure]:
    t, b, ranks = f.config.train, f.batch, f.world_size
    chosen = "as asked" if t.micro_batch else f"derived: the largest divisor known to be fast on {f.device}"
    yield Figure("batch.tokens", "Tokens per step", t.batch_tokens, "", "setting: train.batch_tokens")
    yield Figure("batch.sequences", "Sequences per step", b.sequences, "", f"derived: / {f.config.model.block_size:,}")
    yield Figure(
        "batch.rows", "Sequences per rank", b.per_rank, "", f"derived: / {ranks} rank{'s' if ranks > 1 else ''}"
    )
    yield Figure("batch.micro_batch", "Micro-batch", b.micro_batch, "", chosen)
    yield Figure("batch.accumulation", "Forward passes per step", b.accumulation, "", "derived: accumulation per rank")


def _length(f: _Facts) -> Iterator[Figure]:
    tokens, source = f.tokens, f.source
    yield Figure("length.steps", "Steps", f.config.train.steps, "", "setting: train.steps")
    yield Figure("length.tokens", "Tokens", tokens, "", "derived: steps x tokens per step")
    if f.begun:
        yield Figure("length.left", "Tokens to train", f.left, "", f"derived: of the steps after step {f.begun:,}")
    yield Figure("length.source", "Tokens in the source", source.tokens, "", source.basis)
    passes, basis = tokens / source.tokens if source.tokens else None, source.basis
    basis = source.basis if passes is None else "derived: tokens / source"
    known = [one for one in f.sources if one.passes is not None]
    if known:
        most = max(known, key=lambda one: one.passes or 0.0)
        passes, basis = most.passes, f"derived: over {most.name}, which is read most often"
    yield Figure("length.passes", "Passes over the data", passes, "", basis)
    for one in f.sources:
        told = f"{one.share:.3%} of the tokens, {one.wanted:,.0f}; {one.size.basis}"
        yield Figure(f"length.passes.{one.name}", f"over {one.name}", one.passes, "", told)
    basis = "derived; Hoffmann et al. 2022 (arXiv 2203.15556): about 20 is best for a given amount of compute"
    yield Figure("length.tokens_per_parameter", "Tokens per parameter", tokens / f.parameters, "", basis)


def _flops(f: _Facts) -> Iterator[Figure]:
    each = training_flops(f.config, f.vocab_size)
    basis = "derived: 6 N + 12 L H Q T, N without positions (PaLM, arXiv 2204.02311, appendix B)"
    yield Figure("flops.per_token", "Arithmetic per token", each, "FLOP", basis)
    yield Figure("flops.total", "Arithmetic in all", each * f.left, "FLOP", "derived: per token x tokens")
    yield Figure("flops.simple", "by the rule of thumb", 6.0 * f.parameters * f.left, "FLOP",
                 "derived: 6 N D, all N parameters and D tokens, without attention")  # fmt: skip


def _memory(f: _Facts) -> Iterator[Figure]:
    config, memory = f.config, f.memory
    for key in SHOWN_PARTS:
        part = memory.parts[key]
        if part.size:
            yield Figure(f"memory.{key}", part.label, part.size, "B", f"derived: {part.how}")
    compiled = "" if f.device == "cpu" else "; checked against measurements on CPUs only"
    compiled += "; train.compile changes it a little" if f.compiled[0] else ""
    basis = f"derived, {f.precision} ({f.why_precision}): {memory.moment}, {', '.join(memory.at_peak)}{compiled}"
    peak: float = memory.peak
    if f.measured and f.measured.device_bytes:
        peak, basis = f.measured.device_bytes, f.measured.basis
    yield Figure("memory.peak", "Peak of a rank's tensors", peak, "B", basis)
    host = host_parts(config, f.parameters, f.vocab_size, f.world_size, f.source.tokens, f.shards)
    for part in host:
        yield Figure(f"memory.{part.key}", part.label, part.size, "B", part.how)
    one = rank_total(f.device, memory.peak, host, f.measured)
    yield one
    yield all_ranks(one, host, f.world_size)
    if f.device == "cuda":
        gpu = f.machine.gpus[0] if f.machine.gpus else None
        basis = (
            f"{'published' if f.machine.elsewhere else 'measured'}: {gpu.name}"
            if gpu
            else "unknown: no GPU can be asked here"
        )
        yield Figure("memory.device", "Memory of a GPU", gpu.memory_bytes if gpu else None, "B", basis)
    total = f.machine.host_total
    basis = f"measured: of {total / 1e9:.1f} GB" if total else "unknown: planned for another machine"
    yield Figure("memory.host", "Memory free on this machine", f.machine.host_free, "B", basis)


def _disk(f: _Facts) -> Iterator[Figure]:
    use, kept = f.disk, f.config.checkpoint
    rule = f"keep_last {kept.keep_last}" + (", the best" if kept.keep_best else "")
    rule += f", every {kept.keep_every} steps" if kept.keep_every else ""
    yield Figure(
        "disk.checkpoint", "One checkpoint", use.checkpoint, "B", "derived: weights and optimizer state, float32"
    )
    yield Figure("disk.kept", "Checkpoints kept", use.kept, "", f"derived: {rule}")
    if use.alone:
        basis = f"derived: weights of the steps 1, 2, 4 ... and every {kept.keep_log}"
        yield Figure("disk.alone", "Weights kept alone", use.alone, "B", basis)
    yield Figure("disk.logs", "Metrics and trace", use.logs, "B", "derived: bytes per step and row of a measured run")
    yield Figure(
        "disk.peak", "Disk at most", use.peak, "B", f"derived: {use.most} checkpoints, the newest while an old one goes"
    )
    basis = "measured: where the run folder will be" if f.disk_free is not None else "unknown: no runs folder was given"
    basis = "unknown: planned for another machine" if f.machine.elsewhere else basis
    yield Figure("disk.free", "Disk free", f.disk_free, "B", basis)


def _time(f: _Facts) -> Iterator[Figure]:
    s = f.speed
    yield Figure("time.speed", "Speed", s.value, "tokens/s", s.basis, s.low, s.high)
    if s.value is None or not s.low or not s.high:
        yield Figure("time.total", "Time to finish", None, "s", s.basis)
        if f.device == "cpu":  # beside a time that a run of this machine tells, others would only confuse
            yield from _kinds_of_cpu(f)
    else:
        of = f" of the steps after step {f.begun:,}" if f.begun else ""
        basis, low, high = f"derived: tokens{of} / speed; evaluations, samples and saves come on top", s.low, s.high
        yield Figure("time.total", "Time to finish", f.left / s.value, "s", basis, f.left / high, f.left / low)


def _kinds_of_cpu(f: _Facts) -> Iterator[Figure]:
    """The time on as many cores of a processor with bfloat16 units and of one without, whichever this one is."""
    total, cores = training_flops(f.config, f.vocab_size) * f.left, available_cores()
    for precision, label in (("bf16", "with bfloat16 units"), ("fp32", "without them")):
        here = ", as here" if precision == f.precision else ""
        seconds = total / (CPU_SPEED[precision] * cores)
        basis = (
            f"measured elsewhere: {CPU_SPEED[precision] / 1e9:.0f} GFLOP/s per core of a Zen 5 processor, x {cores} "
            f"cores; range: a factor of {ELSEWISE:g}"
        )
        yield Figure(f"time.{precision}", f"{label}{here}", seconds, "s", basis, seconds / ELSEWISE, seconds * ELSEWISE)
