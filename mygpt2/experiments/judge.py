"""Is the variant better than the base? Runs what is missing, scores it, and writes the verdict into the base's ledger.

An experiment is one baseline: a recipe and the seeds it begins with. All its challengers share the base's runs, its
ledger and its error budget. Killed at any moment, the same question goes on where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig
from mygpt2.errors import UserError
from mygpt2.experiments.arms import (
    Arm,
    Replicate,
    Spec,
    changes,
    other_batches,
    read_arm,
    recipe,
    recipe_hash,
    replicates,
    run_name,
    seeds_of,
)
from mygpt2.experiments.cost import Cost, cost, spent
from mygpt2.experiments.folder import ExperimentDir
from mygpt2.experiments.ledger import Ledger
from mygpt2.experiments.mixtures import by_sources, check_sources, sentences, text_of
from mygpt2.experiments.paired import training
from mygpt2.experiments.pieces import Outcome, Piece
from mygpt2.experiments.running import missing, run_missing
from mygpt2.experiments.scores import NoLoss, check_held_out, check_protocol, scores
from mygpt2.experiments.spending import BUDGET
from mygpt2.experiments.verdict import WORTH, Case, Pair, again, decide, without_test
from mygpt2.progress import Progress, silent
from mygpt2.run_dir.liveness import rank_states
from mygpt2.run_dir.paths import RunDir

KIND = "judge"
SAME_MODELS = "both came to the same weights to the bit: what was changed has no effect here, and nothing is to decide"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Question:
    """What is asked. `budget` is the chance of any false verdict on this base, `worth` a difference worth finding in
    nats, `nproc` the processes that train together. `source`: the verdict is on the held-out documents of this source
    of a mixture alone."""

    base: Spec
    variant: Spec
    runs: Path
    replicates: int = 3
    protocol: str = "run"
    budget: float = BUDGET
    worth: float = WORTH
    nproc: int = 1
    device: str = "auto"
    source: str = ""


@dataclass(frozen=True)
class Prepared:
    """What a question takes. `pieces` are runs of base and variant for each pair of seeds."""

    question: Question
    experiment: str
    base: Arm
    variant: Arm
    pieces: list[tuple[Replicate, Piece, Piece]]
    notices: tuple[str, ...]

    @property
    def all_pieces(self) -> list[Piece]:
        return [piece for _, *pair in self.pieces for piece in pair]

    @property
    def nothing_changed(self) -> bool:
        """Whether base and variant would be the same runs: then there is nothing to compare, whatever is trained."""
        return all(base.run == variant.run for _, base, variant in self.pieces)

    def cost(self) -> Cost:
        """Of what is still to be trained. UserError where a run has the name and other settings."""
        left = [] if self.nothing_changed else missing(_unique(self.all_pieces), self.question.runs)
        return cost(left, self.question.runs, self.question.nproc)


def prepare(question: Question) -> Prepared:
    """What can be said before anything starts. Reads, and writes nothing. UserError for what does not compare."""
    base = read_arm(question.base, question.runs)
    variant = read_arm(question.variant, question.runs, "v")
    _check(question, base.config, variant.config)
    variant = replace(variant, name=f"v{recipe_hash(variant.config)[:8]}")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", base.told.partition(" ")[0]).strip("-_")[:20] or "base"
    experiment = f"judge-{stem}-{_baseline(base.config)[:8]}"
    same = not changes(base.config, variant.config) and variant.run in (None, base.run)
    pairs = []
    for pair in replicates(base.config, question.replicates):
        mine = _piece(experiment, base, pair, base.run if pair.number == 1 else None)
        named = (
            variant.run
            if question.replicates == 1 or seeds_of(variant.config) == seeds_of(pair.of(base.config))
            else None
        )
        pairs.append((pair, mine, mine if same else _piece(experiment, variant, pair, named)))
    return Prepared(question, experiment, base, variant, pairs, _notices(base, variant, question))


def _baseline(config: RunConfig) -> str:
    import hashlib

    return hashlib.sha256(f"{recipe_hash(config)} {seeds_of(config)}".encode()).hexdigest()


def _piece(experiment: str, arm: Arm, pair: Replicate, run: str | None) -> Piece:
    """The run of an arm under a pair of seeds: the one that was named, or one of the experiment's own."""
    if run is not None:
        return Piece(run, arm.config, arm.preset)
    return Piece(run_name(experiment, arm.name, pair.number), pair.of(arm.config), arm.preset)


def _check(question: Question, base: RunConfig, variant: RunConfig) -> None:
    if base.data.tokenizer != variant.data.tokenizer:
        raise UserError(
            f"data.tokenizer is {base.data.tokenizer} in the base and {variant.data.tokenizer} in the variant; losses "
            "per token of different tokenizers do not compare; give both the same, or compare bits per byte with eval"
        )
    check_protocol(question.protocol, base, question.runs)
    if by_sources(question.protocol, question.source, base, variant):
        check_sources(question.source, base, variant)
    elif question.protocol == "run":
        check_held_out(base, variant, "the base")
    else:
        check_protocol(question.protocol, variant, question.runs)
    if not 0 < question.budget < 1:
        raise UserError(
            f"--budget {question.budget:g} is not a chance; give a number between 0 and 1, for example 0.05"
        )
    if not 0 < question.worth < 100:
        raise UserError(f"--worth {question.worth:g} is no difference in nats; give a positive one, for example 0.003")


def _notices(base: Arm, variant: Arm, question: Question) -> tuple[str, ...]:
    """What of the two does not compare as it is, a sentence each."""
    one, two, count, protocol = base.config, variant.config, question.replicates, question.protocol
    found = []
    if not changes(one, two) and variant.run is not None and count == 1:
        found.append("Both have the same recipe: what differs between them is chance alone.")
    as_it_is = count == 1 and variant.run is not None
    shared = two if as_it_is else replicates(one, 1)[0].of(two)
    if as_it_is and seeds_of(one) != seeds_of(two):
        found.append("The two runs have different seeds, so that part of the difference is theirs.")
    elif seeds_of(one) != seeds_of(two):
        found.append(
            "The variant's own seeds are not used: a recipe has none, and both arms are trained under the base's. Two "
            "runs that differ in their seeds are compared by their names, with --replicates 1."
        )
    if other := other_batches(one, shared):
        found.append(
            f"The arms saw different batches ({'; '.join(other[:3])}): their training losses are paired over "
            "documents, not over steps."
        )
    if (a := _tokens(one)) != (b := _tokens(two)):
        found.append(f"The base was trained on {a:,} tokens and the variant on {b:,}: part of the difference is that.")
    if one.model.block_size != two.model.block_size:
        found.append(
            f"The base reads {one.model.block_size} tokens at once and the variant {two.model.block_size}, also where "
            "they are scored: a longer context is part of the difference."
        )
    if by_sources(question.protocol, question.source, one, two):
        found += sentences(one, two)
    elif one.data.text != two.data.text:
        text = "the base's held-out text" if protocol == "run" else f"the protocol {protocol}"
        found.append(
            f"The arms were trained on different data; both are scored on {text}. One that was trained on that text "
            "looks better on it than it is."
        )
    return tuple(found)


def _tokens(config: RunConfig) -> int:
    return config.train.steps * config.train.batch_tokens


def _unique(pieces: list[Piece]) -> list[Piece]:
    return list({piece.run: piece for piece in pieces}.values())


def judge(prepared: Prepared, *, say: Say = print, progress: Progress = silent) -> dict[str, Any]:
    """The verdict, after running and scoring what is missing; it is in the ledger when this returns.

    UserError where a run cannot be made, Interrupted after Ctrl-C: the same question goes on from there.
    """
    question = prepared.question
    folder = ExperimentDir.begin(
        question.runs, prepared.experiment, _settings(prepared), fixed=("kind", "budget", "seeds")
    )
    folder.note_arms(_arms(prepared, folder.arms()))
    if prepared.nothing_changed:
        reason = "nothing was changed that the weights follow from: the variant is the base, and nothing to decide"
        return _enter(folder, prepared, (), "undecided", reason, say)
    ended = run_missing(_unique(prepared.all_pieces), question.runs, nproc=question.nproc, say=say, progress=progress)
    if reason := _diverged(ended, [base.run for _, base, _ in prepared.pieces], "base"):
        return _enter(folder, prepared, (), "undecided", reason, say)
    if reason := _diverged(ended, [variant.run for _, _, variant in prepared.pieces], "variant"):
        return _enter(folder, prepared, (), "drop", reason, say)
    try:
        pairs = tuple(_measured(prepared, pair, arms, say, progress) for pair, *arms in prepared.pieces)
    except NoLoss as problem:
        base = problem.run in [base.run for _, base, _ in prepared.pieces]
        reason = f"the {'base' if base else 'variant'} {problem}"
        return _enter(folder, prepared, (), "undecided" if base else "drop", reason, say)
    if all(pair.base.weights == pair.variant.weights for pair in pairs):
        return _enter(folder, prepared, (), "undecided", SAME_MODELS, say)
    return _enter(folder, prepared, pairs, "", "", say)


def _arms(prepared: Prepared, known: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What arms.json says: each arm in words, its changes, its runs by replicate, those of earlier questions too."""
    found = {}
    runs: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for pair, *pieces in prepared.pieces:
        for names, piece in zip(runs, pieces, strict=True):
            names[str(pair.number)] = piece.run
    for names, arm in zip(runs, (prepared.base, prepared.variant), strict=True):
        differs = changes(prepared.base.config, arm.config)
        earlier = known.get(arm.name, {}).get("runs")
        names = {**(earlier if isinstance(earlier, dict) else {}), **names}
        found[arm.name] = {
            "told": arm.told, "changes": {name: list(values) for name, values in differs.items()},
            "runs": names,
        }  # fmt: skip
    return found


def _settings(prepared: Prepared) -> bytes:
    """experiment.toml: what makes a baseline, whoever asks and however it was named."""
    from mygpt2.config.fields import toml_value

    config = prepared.base.config
    lines = [
        f'kind = "{KIND}"',
        f"budget = {prepared.question.budget}",
        f"seeds = {list(seeds_of(config))}",
        "[recipe]",
    ]
    lines += [f"{json.dumps(k)} = {toml_value(v)}" for k, v in recipe(config).items() if v is not None]
    return "\n".join(lines).encode() + b"\n"


def _diverged(ended: dict[str, Outcome], names: list[str], who: str) -> str:
    """Why the runs of an arm cannot be compared; empty where all came to their end."""
    found = [ended[name] for name in dict.fromkeys(names) if ended[name].diverged]
    if not found:
        return ""
    first = found[0]
    return (
        f"the {who} diverged under {len(found)} of {len(set(names))} pairs of seeds, in {first.run} after step "
        f"{first.step:,}: {first.reason.splitlines()[0]}"
    )


def _measured(prepared: Prepared, pair: Replicate, arms: Sequence[Piece], say: Say, progress: Progress) -> Pair:
    question, (base, variant) = prepared.question, arms
    protocols = [question.protocol] * 2
    if question.protocol == "run" and text_of(base.config) != text_of(variant.config):
        union = by_sources("run", question.source, base.config, variant.config)
        protocols = [f"runs:{base.run},{variant.run}"] * 2 if union else ["run", f"run:{base.run}"]
    found = [
        scores(question.runs, piece.run, piece.config.train.steps, protocol, say=say, device=question.device,
               progress=progress)
        for piece, protocol in zip((base, variant), protocols, strict=True)
    ]  # fmt: skip
    late = training(question.runs / base.run, question.runs / variant.run, other_batches(base.config, variant.config))
    return Pair(pair, found[0], found[1], late, (base.tokens, variant.tokens))


def _hardware(prepared: Prepared) -> list[str]:
    """A sentence where the arms were trained on different kinds of devices, whose arithmetic differs."""
    runs = prepared.question.runs
    kinds = [
        {rank.device.partition(":")[0] for piece in pieces for rank in rank_states(RunDir(runs / piece.run))} - {""}
        for pieces in zip(*(pair for _, *pair in prepared.pieces), strict=True)
    ]
    if kinds[0] == kinds[1]:
        return []
    one, two = (" and ".join(sorted(kind)) or "a device that is not recorded" for kind in kinds)
    return [f"The base was trained on {one} and the variant on {two}, whose arithmetic differs."]


def _enter(
    folder: ExperimentDir, prepared: Prepared, pairs: tuple[Pair, ...], verdict: str, reason: str, say: Say
) -> dict[str, Any]:
    """Makes the verdict at its turn in the ledger, and writes it there, all under one lock."""
    question = prepared.question
    taken = spent([piece.run for piece in prepared.all_pieces], question.runs)
    case = Case(
        prepared.experiment, prepared.base, prepared.variant, question.protocol, pairs, taken, question.worth,
        (*prepared.notices, *(_hardware(prepared) if pairs else ())), question.source,
        by_sources(question.protocol, question.source, prepared.base.config, prepared.variant.config),
    )  # fmt: skip
    with folder.held():
        if lost := folder.lost():
            say(
                f"{folder.ledger_file} has lost {len(lost)} of its questions; they are put back from "
                f"{folder.verdict_file.name} and count as before"
            )
            for look in lost:
                folder.append(look)
        ledger = Ledger(folder.ledger(), question.budget)
        known = ledger.asked(case.question) if pairs else None
        if known is None:
            found = known = decide(case, ledger) if pairs else without_test(case, ledger, verdict, reason)
            folder.append(known)
        else:
            found = again(known, case, ledger)
        if not any(look.get("time") == known["time"] for look in folder.looks()):  # a kill may lie between the two
            folder.add_look(known, kind=KIND)
        challengers = Ledger(folder.ledger(), question.budget).challengers
    return {**found, "ledger": {**found["ledger"], "challengers": challengers}}
