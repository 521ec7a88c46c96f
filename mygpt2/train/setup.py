"""From a configuration to a trainer that is ready for its next step, fresh or from a checkpoint."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mygpt2.checkpoint import Checkpoint, Checkpointer, Follower, read_model
from mygpt2.checkpoint.format import MODEL, OPTIMIZER, tensor_files
from mygpt2.checkpoint.rounding import rounding
from mygpt2.config.batch import plan_batch
from mygpt2.config.schema import RunConfig
from mygpt2.data.loader import Loader
from mygpt2.data.sources.local.watch import MixtureWatch, SourceWatch, watch_over
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.resolve import open_reader
from mygpt2.data.trace import TraceWriter
from mygpt2.data.validation import ValidationSet, validation_set
from mygpt2.device import Precision, choose, keep_memory_warm
from mygpt2.distributed import World
from mygpt2.errors import UserError
from mygpt2.machine import available_cores, cache_folder
from mygpt2.model import GPT, GPTConfig, LossModule, load_state
from mygpt2.planning.compute import compile_choice, fast_micro_batch, flops_per_token
from mygpt2.planning.machine import published
from mygpt2.planning.parallel import Parallel, in_parts, parallel_choice
from mygpt2.progress import progress_bar
from mygpt2.schedule import Schedule
from mygpt2.tokenizer import Tokenizer, load_tokenizer
from mygpt2.train.branching import notes
from mygpt2.train.evaluate import evaluations
from mygpt2.train.manifest import manifest_for_all
from mygpt2.train.optim import Optimizer
from mygpt2.train.parallel import SharedWeights, Weights
from mygpt2.train.passes import check_passes, few_lanes, read_again
from mygpt2.train.profiling import profiler_for
from mygpt2.train.record import Recorder
from mygpt2.train.resuming import Resumed, find
from mygpt2.train.saving import Saver
from mygpt2.train.signals import Requests
from mygpt2.train.sinks import open_sinks
from mygpt2.train.step import Guard, TrainStep
from mygpt2.train.tracing import Tracing
from mygpt2.train.trainer import Trainer, TrainState

if TYPE_CHECKING:
    from mygpt2.train.attempt import Attempt

SHARED_OUT = ("fsdp2", "hsdp")
RESIDUAL = {"fp32": None, "bf16": torch.bfloat16}


def build(config: RunConfig, world: World, attempt: Attempt, requests: Requests) -> Trainer:
    """Puts every part of a run together. What is slow and shared (harvest, footers, held-out set) rank 0 does first."""
    precision, tokenizer = _numerics(config, world), load_tokenizer(config.data.tokenizer)
    parallel = _parallel(config, world, tokenizer, precision)
    resumed = find(attempt.run, attempt.writer, config, world)
    checkpoint = resumed.checkpoint if resumed else None
    say = print if world.lead else _nothing
    if tokenizer.note:
        say(tokenizer.note)
    limit = micro_batch_limit(config, world.device, parallel.shards)
    plan = plan_batch(config.train.batch_tokens, config.model.block_size, config.train.micro_batch, world.size,
                      config.data.lanes, limit)  # fmt: skip
    loader, held_out = _data(config, world, attempt, tokenizer, plan.sequences, resumed)
    compiled, why = _compile(config, world, tokenizer, precision)
    weights, module = _weights(config, world, tokenizer, checkpoint, parallel, compiled)
    model, optimizer = weights.view, Optimizer(weights.model, config.optimizer, world.device, world, compiled)
    schedule = Schedule(config.schedule, config.train.steps)
    guard = Guard(config.train.nonfinite, config.train.max_skips, precision.scaled)
    step = TrainStep(
        module, optimizer, world, precision, guard,
        micro_batch=plan.micro_batch, grad_clip=config.optimizer.grad_clip, seed=config.model.seed,
        dropout=config.model.dropout > 0,
    )  # fmt: skip
    state = TrainState()
    if resumed:
        state = _restore(resumed, config, weights, optimizer, schedule, step, precision)
        _tell(resumed, attempt, say)
    state.rounding = rounding(
        checkpoint.state if checkpoint else {}, state.step, ranks=world.size, threads=torch.get_num_threads(),
        precision=precision.name, micro_batch=plan.micro_batch, compiled=compiled,
    )  # fmt: skip
    say(
        f"{model.num_parameters():,} parameters on {world.size} x {world.device}, {precision.name} "
        f"({precision.reason}); {plan.sequences} sequences per step = {world.size} ranks x {plan.accumulation} x "
        f"{plan.micro_batch}; data {config.data.text}, {loader.lanes} lanes, "
        f"{torch.get_num_threads()} threads per rank"
    )
    if world.size > 1:
        say(f"train.parallel={config.train.parallel}: {parallel.kind}, {parallel.why}")
    say(f"train.compile={config.train.compile}: {'on' if compiled else 'off'}, {why}"
        + ("; compiling now, which can take a minute or two before the first step" if compiled else ""))  # fmt: skip
    recorder = _recorder(config, world, attempt, model, precision, resumed)
    if resumed and attempt.writer:  # whoever stops it before its next step has this one
        attempt.writer.status(step=state.step, steps=config.train.steps, tokens=recorder.tokens(state.step))
    return Trainer(
        config=config, world=world, run=attempt.run, attempt=attempt.number, weights=weights, tokenizer=tokenizer,
        optimizer=optimizer, schedule=schedule, precision=precision, train_step=step, loader=loader,
        evaluations=evaluations(config, world, weights, tokenizer, held_out, precision),
        saver=_saver(config, world, attempt, weights, optimizer, say),
        tracing=Tracing(world, recorder, _trace(config, attempt, world, loader)),
        recorder=recorder, requests=requests, state=state,
        profile=profiler_for(config.log.profile, attempt.run.path / "profile", world.device),
    )  # fmt: skip


def _numerics(config: RunConfig, world: World) -> Precision:
    """How this process calculates from here on: precision, determinism, memory."""
    precision = choose(config.train.precision, world.device)
    precision.apply()
    torch.use_deterministic_algorithms(config.train.deterministic)
    if world.device.type == "cpu":
        keep_memory_warm()
    return precision


def micro_batch_limit(config: RunConfig, device: torch.device, shards: int = 1) -> int:
    """Sequences per forward pass when nobody said: what is known to be fast and to fit."""
    return fast_micro_batch(config.model, _gpu_bytes(device), shards)


def _gpu_bytes(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _parallel(config: RunConfig, world: World, tokenizer: Tokenizer, precision: Precision) -> Parallel:
    """What `train.parallel` means here. The first rank decides for all, whose GPUs may differ."""

    def choice() -> str:
        return json.dumps(parallel_choice(
            config, tokenizer.vocab_size, ranks=world.size, local_ranks=world.info.local_size,
            device=world.device.type, precision=precision.name, gpu_bytes=_gpu_bytes(world.device),
        ))  # fmt: skip

    return Parallel(*json.loads(world.text_from_lead(choice)))


def _compile(config: RunConfig, world: World, tokenizer: Tokenizer, precision: Precision) -> tuple[bool, str]:
    """What `train.compile` means here. The first rank decides for all, whose machines may differ."""
    cores = available_cores() * world.size // world.info.local_size
    on, why = compile_choice(
        config, tokenizer.vocab_size, device=world.device.type, precision=precision.name, cores=cores
    )
    return bool(world.from_lead(lambda: int(on))), why


def _nothing(*_: Any) -> None:
    """What ranks other than 0 say."""


def _tell(resumed: Resumed, attempt: Attempt, say: Any) -> None:
    """Says from where the run goes on and what was changed, there, in events.jsonl and in config.toml."""
    checkpoint = resumed.checkpoint
    ranks = checkpoint.state.get("ranks", "?")
    origin, notices = resumed.origin, resumed.notices
    if origin:
        notices = [*notices, *notes(origin)]
        say(f"a branch of {origin.parent} at step {origin.step} (written on {ranks} ranks)")
    else:
        say(f"going on from step {checkpoint.step} ({checkpoint.path.name}, written on {ranks} ranks)")
    for line in [*(f"changed: {line}" for line in resumed.lines()), *notices]:
        say(line)
    if attempt.writer:
        attempt.writer.changed(checkpoint.step, resumed.lines())
        changes = {name: list(pair) for name, pair in resumed.changes.items()}
        more = {"message": "; ".join(notices)} if notices else {}
        if origin:
            attempt.writer.event("branch", step=origin.step, parent=origin.parent, changes=changes, **more)
            return
        attempt.writer.event("resume", step=checkpoint.step, checkpoint=checkpoint.path.name, changes=changes, **more)


def _data(
    config: RunConfig,
    world: World,
    attempt: Attempt,
    tokenizer: Tokenizer,
    sequences: int,
    resumed: Resumed | None,
) -> tuple[Loader, ValidationSet | None]:
    """Batches and held-out documents. What is slow and shared, and whether the data changed, rank 0 finds out first."""
    caches, data = cache_folder(config.data.cache_dir), config.data
    state = resumed.checkpoint.state["data"] if resumed else None
    fork = data.fork or (resumed is not None and resumed.forks)

    manifest = manifest_for_all(data, tokenizer, world)
    step = resumed.checkpoint.step if resumed else 0
    found = world.text_from_lead(lambda: "\n".join(check_passes(config, manifest, tokenizer, caches, state, step)))
    for warning in found.splitlines():
        attempt.warn(warning)
    watch = world.lead_first(lambda: _watch(manifest, caches, attempt, state, fork) if world.lead else None)
    changed = bool(world.from_lead(lambda: int(watch is not None and bool(watch.changed))))
    if state and changed:  # a fork: the order begins anew, as with any other data
        state = {**state, "fingerprint": {**state["fingerprint"], "data": "changed"}}

    def opened() -> tuple[Loader, ValidationSet | None]:
        reader = open_reader(manifest, cache_dir=caches, eot_id=tokenizer.eot_id, outage_minutes=data.outage_minutes)
        held_out = None
        try:
            if data.validation_fraction > 0:
                with progress_bar("validation set", "tokens") as advance:
                    anew = changed and world.lead
                    held_out = validation_set(manifest, reader, tokenizer, data, caches, advance, anew=anew)
                if watch:
                    watch.held_out(held_out.sha256, f"of {data.validation_tokens} tokens, {data.validation_fraction:g}")
            loader = Loader(
                data, tokenizer=tokenizer, block_size=config.model.block_size, batch_sequences=sequences,
                seed=config.data.seed, rank=world.rank, world_size=world.size, cache_dir=caches, state=state,
                fork=fork, manifest=manifest, reader=reader, watch=watch,
                checks_file=attempt.run.path / "blocks.checks",
            )  # fmt: skip
        except BaseException:
            reader.close()  # threads that wait for a hub would keep the process
            raise
        if told := read_again(loader, state) if state else few_lanes(loader):
            attempt.warn(told)
        return loader, held_out

    return world.lead_first(opened)


def _watch(
    manifest: Manifest, caches: Path, attempt: Attempt, state: dict[str, Any] | None, fork: bool
) -> SourceWatch | MixtureWatch:
    """UserError when the run would go on with other text than it began with."""
    quarantine = tuple(int(block) for block in state["quarantine"]) if state else ()
    return watch_over(
        manifest, caches, attempt.run.path / "data.checksums", attempt.warn, resumed=state is not None, fork=fork,
        quarantine=quarantine,
    )  # fmt: skip


def _weights(
    config: RunConfig, world: World, tokenizer: Tokenizer, checkpoint: Checkpoint | None, parallel: Parallel,
    compiled: bool,
) -> tuple[Weights, nn.Module]:  # fmt: skip
    """The weights, new or of a checkpoint, and the module whose backward pass exchanges their gradients."""
    m, residual = config.model, RESIDUAL[config.train.residual]
    shape = GPTConfig(m.n_layer, m.n_head, m.n_embd, m.block_size, tokenizer.vocab_size, m.bias, m.dropout)

    def initial() -> GPT:
        model = GPT(shape, seed=config.model.seed)
        if checkpoint and world.lead:  # whose weights the others are given when the module is wrapped
            load_state(model, read_model(checkpoint.path))
        return model

    if parallel.kind in SHARED_OUT:
        given = tensor_files(checkpoint.path, MODEL) if checkpoint else initial
        shared = SharedWeights(shape, world, parallel.nodes, compiled, residual, given)
        return shared, shared.module
    model = initial().to(world.device)
    return Weights(model, world), world.wrap(LossModule(model, compiled, residual))


def _restore(
    resumed: Resumed, config: RunConfig, weights: Weights, optimizer: Optimizer, schedule: Schedule,
    step: TrainStep, precision: Precision,
) -> TrainState:  # fmt: skip
    """Everything but the weights and the data position, which are in place already."""
    checkpoint, state = resumed.checkpoint, resumed.checkpoint.state
    if config.train.precision == "auto" and state["precision"] != precision.name:
        raise UserError(
            f"the checkpoint was trained in {state['precision']} and this machine chooses {precision.name}; "
            f"say which with --train.precision {state['precision']} or --train.precision {precision.name}"
        )
    if not resumed.anew:
        weights.load_optimizer(optimizer, tensor_files(checkpoint.path, OPTIMIZER))
    schedule.load_state_dict(state["schedule"])
    if state["scaler"] and step.scaler.is_enabled():
        step.scaler.load_state_dict(state["scaler"])
    step.guard.skips = int(state["skips"])
    data = state["data"]
    cursor = np.array(data["cursor"], dtype=np.int64)
    best, epochs = state["best"], tuple(data.get("epochs", ()))
    return TrainState(checkpoint.step, best["step"], best["loss"], cursor, tuple(data["quarantine"]), epochs)


def _recorder(
    config: RunConfig, world: World, attempt: Attempt, model: GPT, precision: Precision, resumed: Resumed | None
) -> Recorder:
    """What becomes of each step's figures."""
    m = config.model
    return Recorder(
        attempt.writer,
        open_sinks(config.log, attempt.run.path, config.model_dump(mode="json")) if world.lead else [],
        config,
        world.device,
        world.size,
        flops_per_token(model.num_parameters() - m.block_size * m.n_embd, m.n_layer, m.n_embd, m.block_size),
        peak_flops(world.device, precision.name),
        resumed.token_offset(config) if resumed else 0,
    )


def _trace(config: RunConfig, attempt: Attempt, world: World, loader: Loader) -> TraceWriter | None:
    if not config.log.trace:
        return None
    manifest = loader.manifest if world.lead else None  # one rank says which file and row group each block is
    return TraceWriter(attempt.run.trace_dir, attempt.number, world.rank, manifest, world.info.node)


def _saver(
    config: RunConfig, world: World, attempt: Attempt, weights: Weights, optimizer: Optimizer, say: Any
) -> Saver:
    folder, checkpointer = attempt.run.checkpoints_dir, _checkpointer(config, attempt, say)
    follower = None if world.lead else Follower(folder, world.rank)
    return Saver(world, weights, optimizer, checkpointer, follower, partial(in_parts, config))


def _checkpointer(config: RunConfig, attempt: Attempt, say: Any) -> Checkpointer | None:
    if attempt.writer is None:
        return None
    writer = attempt.writer

    def record(event: dict[str, Any]) -> None:
        fields = dict(event)
        writer.event(fields.pop("kind"), **fields)
        if event["kind"] == "save_failed":
            say(f"checkpoint of step {event['step']} was not saved: {event['reason']}; training goes on")

    return Checkpointer(attempt.run.checkpoints_dir, config.checkpoint, record)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak at bf16/fp16, or None where it is unknown: a wrong peak is worse than no figure."""
    if device.type != "cuda" or precision not in ("bf16", "fp16"):
        return None
    known = published(torch.cuda.get_device_name(device))
    return known.peak if known else None
